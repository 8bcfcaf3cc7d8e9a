"""Recognise the layout of a source, and group its files into samples by name, never by order."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data.errors import InputError
from data.importers.layouts import EXTENSION, LAYOUTS, ROLES, Layout, describe
from data.importers.report import mismatch_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from data.dataset.manifest import StoredSplit
    from data.importers.archives import Files, ListedFiles
    from data.importers.layouts import DepthSize
    from data.importers.problems import ImportProblems

MIN_ROLES = 2
"""A layout is recognised if at least this many of the four roles have files."""


class UnknownLayoutError(InputError):
    """The files of a source have the names of no published layout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quadruple:
    """The ids of a sample and the names of its four files; '' for a missing file."""

    sample_id: str
    bg_id: str
    fg_id: str
    bg: str
    fg_bg: str
    mask: str
    depth: str
    row: int | None = None
    """Row of the table that lists the sample, from 1; None without a table."""
    split: str = ""
    """The sample's part in a split that came with the data: 'train', 'val' or 'test'; '' without one."""


@dataclass(frozen=True, kw_only=True)
class FoundSamples:
    """The samples of a source, before any image is read."""

    source: Path
    """As the user gave it, or the directory that contains all of it."""
    files: Files
    quadruples: Sequence[Quadruple]
    problems: ImportProblems
    """Missing files."""
    layout: str
    """A key of `LAYOUTS`, 'table', 'folders' or 'datasets'."""
    reason: str
    """Why this layout, for the user."""
    depth_size: DepthSize
    split: StoredSplit | None = None
    """The split that came with the data; the samples are then in the order train, val, test."""
    details: Mapping[str, object] = field(default_factory=dict)
    """More about the source for `dataset.json`, as JSON values."""


@dataclass(frozen=True, kw_only=True)
class RoleFiles:
    """The files of a role: names by (folder, key); the key of a background is its number."""

    template: str
    """The template that most of them match."""
    names: dict[tuple[str, str], str]


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """A data set with the names of a layout, in a folder of a source."""

    layout: str
    """A key of `LAYOUTS`."""
    root: str
    """The folder in the source: '', or a name with a trailing '/'."""
    roles: Mapping[str, RoleFiles]
    reason: str
    """How many images of the source match the names of the layout."""


def find_layout(files: ListedFiles, layout: str | None = None) -> Arrangement:
    """Find the data set in a source: the one nearest to the top, in the layout with files for the most roles.

    Args:
        files: of the source.
        layout: a key of `LAYOUTS` to accept only that one, even with files for a single role.

    Raises:
        UnknownLayoutError: if the files match no layout.
        InputError: if there are no files, or they match several layouts equally well.
    """
    if not files.names:
        raise InputError(
            f"The source '{files.root}' is empty; give a folder or a zip archive with a published data set."
        )
    found = _arrangements(files.names, LAYOUTS if layout is None else {layout: LAYOUTS[layout]})
    if layout is None:
        found = [arrangement for arrangement in found if _count_roles(arrangement) >= MIN_ROLES]
    if not found and layout is not None:
        raise InputError(
            f"The source '{files.root}' has no samples of the layout '{layout}'; give another source, or rename its "
            f"files as shown here.{mismatch_report(files, layout)}"
        )
    if not found:
        raise UnknownLayoutError(
            f"The layout of '{files.root}' is not recognised: its file names match none of {', '.join(LAYOUTS)}; "
            f"list the images in a table, keep them in four folders, or rename the files.{mismatch_report(files)}"
        )
    ranks = [(arrangement.root.count("/"), -_count_roles(arrangement)) for arrangement in found]
    best = [arrangement for arrangement, rank in zip(found, ranks, strict=True) if rank == min(ranks)]
    if len({arrangement.layout for arrangement in best}) > 1:
        reasons = "; ".join(arrangement.reason for arrangement in best)
        raise InputError(f"The layout of '{files.root}' is ambiguous ({reasons}); choose one with --layout.")
    if len(best) > 1:
        roots = ", ".join(f"'{arrangement.root}'" for arrangement in best)
        raise InputError(
            f"The source '{files.root}' contains {len(best)} data sets of the layout '{best[0].layout}' ({roots}); "
            "give one of them."
        )
    return best[0]


def find_quadruples(files: ListedFiles, arrangement: Arrangement, problems: ImportProblems) -> list[Quadruple]:
    """List the samples of a data set, sorted by folder, background, foreground and take.

    If a folder lacks a background, it is taken from another folder: numbers mean the same in all of them.

    Args:
        files: of the source.
        arrangement: from `find_layout`.
        problems: collects missing files; their names are '' in the list.

    Raises:
        InputError: if there are no samples, or a role has no files at all.
    """
    form = LAYOUTS[arrangement.layout]
    found = {role: arrangement.roles[role].names for role in ROLES}
    if not (found["fg_bg"] or found["mask"] or found["depth"]):
        raise InputError(
            f"The source '{files.root}' has no samples of the layout '{arrangement.layout}'; give another source."
            f"{mismatch_report(files, arrangement.layout)}"
        )
    any_folder = {number: name for (_, number), name in reversed(found["bg"].items())}
    keys = {key for role in ("fg_bg", "mask", "depth") for key in found[role]}
    key_pattern = re.compile(form.key, re.IGNORECASE)
    matches = [(folder, match) for folder, key in keys if (match := key_pattern.fullmatch(key))]
    missing = _MissingFiles(files, arrangement)
    missing.refuse_empty_roles(*matches[0])
    quadruples = []
    for folder, match in sorted(matches, key=_order):
        members = {role: found[role].get((folder, match[0]), "") for role in ROLES if role != "bg"}
        number = _unpadded(match["bg"])
        members["bg"] = found["bg"].get((folder, number)) or any_folder.get(number, "")
        sample_id = f"{folder}_{match[0]}" if folder else match[0]
        for role in ROLES:
            if not members[role]:
                problems.add("missing", role, *missing.describe(role, folder, match), sample_id)
        quadruples.append(
            Quadruple(
                sample_id=sample_id, bg_id=form.bg_id(members["bg"]), fg_id=form.fg_id(match["fg"]), row=None, **members
            )
        )
    return quadruples


class BackgroundIds:
    """Ids of background files by content: copies under other names, such as one for each sample, are one background.

    Otherwise, they would be in several parts of a split by background. Each file is read once.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._by_name: dict[str, str] = {}
        self._by_digest: dict[bytes, str] = {}
        """By the SHA-256 of the content."""

    def find(self, name: str, own: str) -> str:
        """The id of the first file with the same bytes as `name`.

        Args:
            name: a file, or '' for a missing one.
            own: the id that its name gives; that of a missing or unreadable file, and of the first of its content.
        """
        if not name:
            return own
        if name not in self._by_name:
            try:
                digest = hashlib.sha256(self._files.read(name)).digest()
                self._by_name[name] = self._by_digest.setdefault(digest, own)
            except InputError:  # a problem of its samples, when they are read
                self._by_name[name] = own
        return self._by_name[name]


class _MissingFiles:
    """Describes missing files, with the reason if it is known, such as a broken link in the path."""

    def __init__(self, files: ListedFiles, arrangement: Arrangement) -> None:
        self._files = files
        self._arrangement = arrangement
        self._gaps = {name: gap for gap in files.gaps for name in (gap, gap.rpartition(".")[0] or gap)}

    def refuse_empty_roles(self, folder: str, match: re.Match[str]) -> None:
        """Refuse a source in which a role has no files at all, unless a gap explains it."""
        roles, layout = self._arrangement.roles, self._arrangement.layout
        empty = [role for role in ROLES if not roles[role].names and not self._gap(role, folder, match)]
        if empty:
            raise InputError(
                f"The source '{self._files.root}' has the layout '{layout}', but no {' and no '.join(empty)} files; "
                f"add them, or rename them as shown here.{mismatch_report(self._files, layout)}"
            )

    def describe(self, role: str, folder: str, match: re.Match[str]) -> tuple[str, str]:
        """The name of the missing file, and the error message."""
        if gap := self._gap(role, folder, match):
            return self._files.where(gap), self._files.gaps[gap]
        name = self._expected(self._arrangement.roles[role].template, folder, match)
        return (
            f"{name}.*",
            f"The file '{name}.*' is missing in '{self._files.root}'; restore it, or remove the other files of these "
            "samples.",
        )

    def _gap(self, role: str, folder: str, match: re.Match[str]) -> str | None:
        """The gap at the path of the file or of one of its parents."""
        for template in getattr(LAYOUTS[self._arrangement.layout], role):
            name = self._expected(template, folder, match)
            while name:
                if name in self._gaps:
                    return self._gaps[name]
                name = name.rpartition("/")[0]
        return None

    def _expected(self, template: str, folder: str, match: re.Match[str]) -> str:
        """Expected name of a file, without its extension."""
        folder = f"{folder}/" if folder else ""
        name = template.replace("{folder}", folder).replace("{key}", match[0]).replace("{bg}", match["bg"])
        return self._arrangement.root + name


def _arrangements(names: Sequence[str], layouts: Mapping[str, Layout]) -> list[Arrangement]:
    """All layouts and folders that at least one file matches."""
    directories: dict[str, list[str]] = defaultdict(list)
    for name in names:
        directory, _, file = name.rpartition("/")
        directories[directory].append(file)
    images = sum(re.search(f"{EXTENSION}$", name, re.IGNORECASE) is not None for name in names)
    found = []
    for layout, form in layouts.items():
        of_role = {role: _role_files(directories, getattr(form, role), form) for role in ROLES}
        empty = {role: RoleFiles(template=getattr(form, role)[0], names={}) for role in ROLES}
        for root in sorted({root for files in of_role.values() for root in files}):
            roles = {role: of_role[role].get(root, empty[role]) for role in ROLES}
            matching = sum(len(files.names) for files in roles.values())
            templates = describe(files.template for files in roles.values())
            reason = f"{matching:,} of {images:,} images are named as in '{layout}' ({templates})"
            if root:
                reason += f" in '{root}'"
            if matching < images:
                reason += f"; not imported: {images - matching:,}"
            found.append(Arrangement(layout=layout, root=root, roles=roles, reason=reason))
    return found


def _role_files(
    directories: Mapping[str, Sequence[str]], templates: Sequence[str], form: Layout
) -> dict[str, RoleFiles]:
    """The files that match one of the templates, by root."""
    matches = {template: _matches(directories, template, form) for template in templates}
    found = {}
    for root in {root for by_root in matches.values() for root in by_root}:
        of_root = {template: by_root.get(root, {}) for template, by_root in matches.items()}
        names: dict[tuple[str, str], str] = {}
        for of_template in reversed(of_root.values()):
            names.update(of_template)
        found[root] = RoleFiles(template=max(of_root, key=lambda template: len(of_root[template])), names=names)
    return found


def _matches(
    directories: Mapping[str, Sequence[str]], template: str, form: Layout
) -> dict[str, dict[tuple[str, str], str]]:
    """The files that match the template, by root, then by (folder, key)."""
    directory_pattern, file_pattern = form.patterns(template)
    found: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for directory, files in directories.items():
        directory_match = directory_pattern.fullmatch(directory)
        if directory_match is None:
            continue
        groups = directory_match.groupdict()
        of_root, folder = found[groups["root"]], (groups.get("folder") or "").lower()
        for file in files:
            match = file_pattern.fullmatch(file)
            if match is None or groups.get("bg", match["bg"]) != match["bg"]:
                continue
            key = folder, match.groupdict().get("key") or _unpadded(match["bg"])
            name = f"{directory}/{file}"
            if of_root.setdefault(key, name) != name:
                raise InputError(f"The files '{of_root[key]}' and '{name}' are the same image; remove one of them.")
    return {root: of_root for root, of_root in found.items() if of_root}


def _count_roles(arrangement: Arrangement) -> int:
    return sum(bool(files.names) for files in arrangement.roles.values())


def _order(sample: tuple[str, re.Match[str]]) -> tuple[tuple[str, int], ...]:
    """Sort key: folder, background, foreground, flip, take; each by its text, then by its number."""
    folder, match = sample
    flip = match.groupdict().get("flip") or ""
    numbers = (_natural(text) for text in (folder, match["bg"], match["fg"], flip, match["take"]))
    return (*numbers, (match[0], 0), (folder, 0))


def _natural(text: str) -> tuple[str, int]:
    """Split off the number at the end of a text; 0 if there is none."""
    digits = re.search(r"\d*$", text)
    number = digits[0] if digits else ""
    return text.removesuffix(number), int(number or 0)


def _unpadded(text: str) -> str:
    """Remove leading zeros from the number at the end of a text."""
    name, number = _natural(text)
    return f"{name}{number}"
