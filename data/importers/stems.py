"""Find samples in four folders, one for each image of a sample, by the stems of their files.

A stem is the name of a file below its folder, with subfolders and without extension. `fg_bg`, `mask` and `depth` of a
sample have the same stem, and so has its background, unless a pattern finds the background's stem in the sample's.
Copies of a background have the id of the first. Each folder may be a zip archive.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from data.depth.files import FLOATS
from data.errors import InputError
from data.folders import refuse_other_encodings
from data.importers.archives import Archive, open_source, top_folder
from data.importers.layouts import ROLES
from data.importers.pairing import BackgroundIds, FoundSamples, Quadruple
from data.importers.problems import ImportProblems
from data.quantities import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from data.importers.archives import ListedFiles

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
"""Extensions of images; other files are ignored."""
DEPTHS = IMAGES | set(FLOATS)
"""Extensions of depth files."""
OPTIONS = {role: f"--{role.replace('_', '-')}" for role in ROLES}
MAX_SHOWN = 3
PATTERNS = ("(.+)_[^_]+", "([^_]+)_", "(.+)-[^-]+", "([^-]+)-", "([^/]+)/", r"(\d+)", r"([A-Za-z]+\d+)")
"""Patterns to propose for the background, the first that fits."""


def find_paired(folders: Mapping[str, Path], bg_pattern: str | None) -> FoundSamples:
    """List the samples of four folders, sorted by stem; missing files are among the problems.

    Args:
        folders: by role; each is a folder or a zip archive.
        bg_pattern: regular expression to search in the stem of a sample. Its group, or all that it matches if it has
            none, is the stem of the background. By default, that is the stem of the sample.

    Raises:
        InputError: if a folder is unusable or has no images, two files of a folder have the same stem, no stem is in
            all folders, or the pattern is not valid or does not match a stem.
    """
    files = {role: _StemFiles(OPTIONS[role], folders[role]) for role in ROLES}
    stems = sorted(files["fg_bg"].names.keys() | files["mask"].names.keys() | files["depth"].names.keys())
    _refuse_disjoint(files)
    bg_of = _backgrounds(stems, files["bg"], bg_pattern)
    source = Path(os.path.commonpath([path.absolute() for path in folders.values()]))
    problems = ImportProblems(str(source))
    bg_ids = BackgroundIds(files["bg"].files)
    quadruples = []
    for stem in stems:
        stem_of = dict.fromkeys(ROLES, stem) | {"bg": bg_of[stem]}
        sample_id = _id_of(stem)
        for role in ROLES:
            if stem_of[role] not in files[role].names:
                problems.add("missing", role, *files[role].missing(stem_of[role]), sample_id)
        names = {role: files[role].names.get(stem_of[role], "") for role in ROLES}
        quadruples.append(
            Quadruple(
                sample_id=sample_id,
                bg_id=bg_ids.find(names["bg"], _id_of(bg_of[stem])),
                fg_id=sample_id,
                row=None,
                **{role: f"{role}/{name}" if name else "" for role, name in names.items()},
            )
        )
    used = len(set(bg_of.values()) & files["bg"].names.keys())
    return FoundSamples(
        source=source,
        details={"folders": {role: str(path) for role, path in folders.items()}, "bg_pattern": bg_pattern},
        files=_Folders({role: found.files for role, found in files.items()}),
        quadruples=quadruples,
        problems=problems,
        layout="folders",
        reason=f"{counted(len(stems), 'file stem')}; {used:,} of {counted(len(files['bg'].names), 'background')} used",
        depth_size="own",
    )


def find_pattern(stems: Sequence[str], backgrounds: Collection[str]) -> str:
    """A pattern that finds one of the background stems in every sample stem; '' if there is none."""
    for pattern in PATTERNS:
        compiled = re.compile(pattern)
        if all(_matched(compiled, stem) in backgrounds for stem in stems):
            return pattern
    return ""


class _Folders:
    """The files of four folders; a name is the role, '/', and the name in the folder."""

    def __init__(self, folders: Mapping[str, ListedFiles]) -> None:
        self._folders = folders
        self.archives = tuple(
            archive if isinstance(files, Archive) else f"{files.root}/{archive}"
            for files in folders.values()
            for archive in files.archives
        )

    def read(self, name: str) -> bytes:
        """Read a file."""
        role, _, inner = name.partition("/")
        return self._folders[role].read(inner)

    def where(self, name: str) -> str:
        """Path of the file."""
        role, _, inner = name.partition("/")
        return self._folders[role].where(inner)


class _StemFiles:
    """The images of a folder by stem."""

    def __init__(self, option: str, path: Path) -> None:
        self.option = option
        extensions = DEPTHS if option == OPTIONS["depth"] else IMAGES
        self.files = open_source(path)
        # Archives often contain their folder.
        self._top = top_folder(self.files.names) if isinstance(self.files, Archive) else ""
        self.names: dict[str, str] = {}
        """Name of the file by stem."""
        images = [name for name in self.files.names if posixpath.splitext(name)[1].lower() in extensions]
        refuse_other_encodings(images)
        for name in images:
            first = self.names.setdefault(self._stem(name), name)
            if first != name:
                raise InputError(
                    f"The files '{self.files.where(first)}' and '{self.files.where(name)}' differ only in their "
                    "extension; remove one of them."
                )
        self._gaps = {self._stem(name): name for name in self.files.gaps}
        if not self.names:
            found = f"; it has {_shown(self.files.names)}" if self.files.names else ""
            known = ", ".join(sorted(extensions))
            raise InputError(f"The folder '{path}' of {option} has no images{found}; give one with {known} files.")

    def missing(self, stem: str) -> tuple[str, str]:
        """Name of a missing file, and the error message."""
        if gap := self._gaps.get(stem):
            return self.files.where(gap), self.files.gaps[gap]
        name = f"{self.files.where(self._top + stem)}.*"
        return (
            name,
            f"The file '{name}' of {self.option} is missing; restore it, or remove the other files of the stem.",
        )

    def _stem(self, name: str) -> str:
        return posixpath.splitext(name.removeprefix(self._top))[0]


def _refuse_disjoint(files: Mapping[str, _StemFiles]) -> None:
    """Refuse folders of which no sample is whole."""
    targets = [files[role] for role in ROLES if role != "bg"]
    if not set.intersection(*(set(found.names) for found in targets)):
        raise InputError(
            "No file stem is in all of --fg-bg, --mask and --depth: "
            f"{'; '.join(f'{found.option} has {_shown(sorted(found.names))}' for found in targets)}; rename the files, "
            "or list them in a table."
        )


def _backgrounds(stems: Sequence[str], files: _StemFiles, pattern: str | None) -> dict[str, str]:
    """Stem of the background by stem of the sample."""
    if pattern is None:
        if not files.names.keys() & set(stems):
            raise InputError(
                f"No file of --bg '{files.files.root}' has the stem of a sample: it has {_shown(sorted(files.names))}, "
                f"samples are {_shown(stems)}; {_proposal(stems, files)}."
            )
        return {stem: stem for stem in stems}
    found = {stem: _matched(_compiled(pattern), stem) for stem in stems}
    unmatched = [stem for stem, bg in found.items() if bg is None]
    if unmatched:
        raise InputError(
            f"The pattern '{pattern}' of --bg-pattern does not match {len(unmatched)} of {len(stems)} stems "
            f"({_shown(unmatched)}); give one that does, such as '(.+)_[^_]+' for all up to the last '_'."
        )
    bg_of = {stem: bg for stem, bg in found.items() if bg is not None}
    if not files.names.keys() & set(bg_of.values()):
        raise InputError(
            f"The pattern '{pattern}' of --bg-pattern finds {_shown(sorted(set(bg_of.values())))}, but --bg "
            f"'{files.files.root}' has {_shown(sorted(files.names))}; {_proposal(stems, files)}."
        )
    return bg_of


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"The pattern '{pattern}' of --bg-pattern is not a regular expression ({error}); correct it."
        ) from None
    if compiled.groups > 1:
        raise InputError(
            f"The pattern '{pattern}' of --bg-pattern has {compiled.groups} groups, but must have at most one, the "
            "stem of the background; write the others as (?:...)."
        )
    return compiled


def _matched(pattern: re.Pattern[str], stem: str) -> str | None:
    match = pattern.search(stem)
    return match[pattern.groups] if match else None


def _proposal(stems: Sequence[str], files: _StemFiles) -> str:
    """Advice: a pattern that finds a background for every sample, if there is one."""
    if pattern := find_pattern(stems, files.names):
        return f"give --bg-pattern '{pattern}'"
    return "give --bg-pattern, a regular expression whose group is the background's stem, or list the files in a table"


def _shown(names: Sequence[str]) -> str:
    """The first few names."""
    more = f", … ({len(names):,} in all)" if len(names) > MAX_SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:MAX_SHOWN]) + more


def _id_of(stem: str) -> str:
    return stem.replace("/", "_")
