"""For a source in no published layout: the command that imports what is in it, if there is one."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections import defaultdict
from itertools import permutations
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from data.errors import InputError
from data.importers.archives import SUFFIX
from data.importers.hugging_face import is_saved_dataset
from data.importers.stems import DEPTHS, OPTIONS, find_pattern
from data.importers.tables import is_table, lists_samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from data.importers.archives import ListedFiles

MAX_TABLES = 5
"""Limit for the tables that are read."""
MAX_FOLDERS = 8
"""Limit for the folders of images that are compared: more are no four folders."""
NAMES = {
    "mask": re.compile("mask|matte|alpha|seg|label", re.IGNORECASE),
    "depth": re.compile("depth|disp|dist", re.IGNORECASE),
    "fg_bg": re.compile("fg.?bg|compos|overlay|merged|image|photo|rgb", re.IGNORECASE),
    "bg": re.compile("^bg|back|room|scene", re.IGNORECASE),
}
"""Usual names of the folders, by role."""


def suggested_command(files: ListedFiles) -> str:
    """The command that imports a table, a saved data set or four folders within a source; '' if there are none."""
    with contextlib.suppress(InputError, OSError):  # a path that cannot be examined
        return _found_command(files)
    return ""


def _found_command(files: ListedFiles) -> str:
    paths = [files.root / name for name in files.names]
    tables = [path for path in paths if is_table(path) and path.is_file()][:MAX_TABLES]
    saved = [parent for parent in {path.parent for path in paths if path.suffix == ".json"} if is_saved_dataset(parent)]
    for path in tables:
        try:
            if lists_samples(path):
                return _command([str(path)])
        except InputError:
            continue
    if saved:
        return _command([str(min(saved, key=lambda path: (len(path.parts), path)))])
    return _four_folders(files)


def _four_folders(files: ListedFiles) -> str:
    stems: dict[str, set[str]] = defaultdict(set)
    for name in files.names:
        if PurePosixPath(name).suffix.lower() in DEPTHS:
            stems[str(PurePosixPath(name).parent)].add(PurePosixPath(name).stem)
    places = {folder: place for folder in stems if (place := _place(files, folder)) is not None}
    if not len(OPTIONS) <= len(places) <= MAX_FOLDERS:
        return ""
    best, best_rank = "", (0, 0)
    for order in permutations(sorted(places), len(OPTIONS)):
        folders = dict(zip(OPTIONS, order, strict=True))
        if not NAMES["mask"].search(folders["mask"]) or not NAMES["depth"].search(folders["depth"]):
            continue
        shared = stems[folders["fg_bg"]] & stems[folders["mask"]] & stems[folders["depth"]]
        named = sum(bool(NAMES[role].search(PurePosixPath(folder).name)) for role, folder in folders.items())
        if (named, len(shared)) <= best_rank or not shared:
            continue
        pattern = None if shared <= stems[folders["bg"]] else find_pattern(sorted(shared), stems[folders["bg"]])
        if pattern != "":
            best, best_rank = _command(_options(folders, places, pattern)), (named, len(shared))
    return best


def _options(folders: Mapping[str, str], places: Mapping[str, Path], pattern: str | None) -> list[str]:
    words = [word for role, folder in folders.items() for word in (OPTIONS[role], str(places[folder]))]
    return words + (["--bg-pattern", pattern] if pattern else [])


def _place(files: ListedFiles, folder: str) -> Path | None:
    """The folder, or the archive that appears as it; None if it is within an archive."""
    path = files.root / folder
    if path.is_dir():
        return path
    archive = path.with_name(path.name + SUFFIX)
    return archive if archive.is_file() else None


def _command(words: list[str]) -> str:
    return shlex.join(["twinhead", "import", *words, "DESTINATION"])
