"""Which published layout a source has, and which of its files make a sample: by name, never by order."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import InputError
from data.importers.layouts import EXTENSION, LAYOUTS, ROLES, Layout, describe
from data.importers.report import unfitting_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.importers.archives import Files
    from data.importers.problems import ImportProblems

FEWEST_ROLES = 2
"""A layout is recognised if so many of the four roles have files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quadruple:
    """The ids of a sample and the names of its four files, '' for one that is missing."""

    sample_id: str
    bg_id: str
    fg_id: str
    bg: str
    fg_bg: str
    mask: str
    depth: str


@dataclass(frozen=True, kw_only=True)
class RoleFiles:
    """The files of a role: their names by folder and key, a background's key being its number."""

    template: str
    """The one that most of them follow."""
    names: dict[tuple[str, str], str]


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """A data set in the names of a layout, somewhere in a source."""

    layout: str
    """A key of `LAYOUTS`."""
    root: str
    """The folder of the source that it lies in: '', or a name with '/' at its end."""
    roles: Mapping[str, RoleFiles]
    reason: str
    """How many of the source's images have the layout's names."""


def find_layout(files: Files, layout: str | None = None) -> Arrangement:
    """Find the data set in a source: as near to its top as there is one, in the layout that most roles have files of.

    Args:
        files: the source's.
        layout: a key of `LAYOUTS`, to find that one only, be it of a single role.

    Raises:
        InputError: if there are no files, those of no layout, or those of several that fit equally well.
    """
    if not files.names:
        raise InputError(
            f"The source '{files.root}' is empty; give a folder or a zip archive that holds a published data set."
        )
    found = _arrangements(files.names, LAYOUTS if layout is None else {layout: LAYOUTS[layout]})
    if layout is None:
        found = [arrangement for arrangement in found if _count_roles(arrangement) >= FEWEST_ROLES]
    if not found and layout is not None:
        raise InputError(
            f"The source '{files.root}' has no samples of the layout '{layout}'; give one that has, or name its files "
            f"as shown here.{unfitting_lines(files, layout)}"
        )
    if not found:
        raise InputError(
            f"The layout of '{files.root}' is not recognised: its files are named as in none of {', '.join(LAYOUTS)}; "
            f"give the folder or the archives of one of these, or rename the files.{unfitting_lines(files)}"
        )
    ranks = [(arrangement.root.count("/"), -_count_roles(arrangement)) for arrangement in found]
    best = [arrangement for arrangement, rank in zip(found, ranks, strict=True) if rank == min(ranks)]
    if len({arrangement.layout for arrangement in best}) > 1:
        reasons = "; ".join(arrangement.reason for arrangement in best)
        raise InputError(f"The layout of '{files.root}' is ambiguous ({reasons}); say which it is with --layout.")
    if len(best) > 1:
        roots = ", ".join(f"'{arrangement.root}'" for arrangement in best)
        raise InputError(
            f"The source '{files.root}' holds {len(best)} data sets of the layout '{best[0].layout}' ({roots}); "
            "give one of them."
        )
    return best[0]


def find_quadruples(files: Files, arrangement: Arrangement, problems: ImportProblems) -> list[Quadruple]:
    """List a data set's samples by folder, background, foreground and take.

    A background that a folder lacks is taken from another one: its number means the same in all.

    Args:
        files: the source's.
        arrangement: as `find_layout` gave it.
        problems: gathers the files that samples lack; their names are '' in the list.

    Raises:
        InputError: if there are no samples, or none has a file of some role.
    """
    form = LAYOUTS[arrangement.layout]
    found = {role: arrangement.roles[role].names for role in ROLES}
    if not (found["fg_bg"] or found["mask"] or found["depth"]):
        raise InputError(
            f"The source '{files.root}' has no samples of the layout '{arrangement.layout}'; give one that has."
            f"{unfitting_lines(files, arrangement.layout)}"
        )
    anywhere = {number: name for (_, number), name in reversed(found["bg"].items())}
    keys = {key for role in ("fg_bg", "mask", "depth") for key in found[role]}
    key_pattern = re.compile(form.key, re.IGNORECASE)
    matches = [(folder, match) for folder, key in keys if (match := key_pattern.fullmatch(key))]
    missing = _Missing(files, arrangement)
    missing.refuse_empty_roles(*matches[0])
    quadruples = []
    for folder, match in sorted(matches, key=_order):
        members = {role: found[role].get((folder, match[0]), "") for role in ROLES if role != "bg"}
        number = _unpadded(match["bg"])
        members["bg"] = found["bg"].get((folder, number)) or anywhere.get(number, "")
        sample_id = f"{folder}_{match[0]}" if folder else match[0]
        for role in ROLES:
            if not members[role]:
                problems.add("missing", role, *missing.describe(role, folder, match), sample_id)
        quadruples.append(
            Quadruple(sample_id=sample_id, bg_id=form.bg_id(members["bg"]), fg_id=form.fg_id(match["fg"]), **members)
        )
    return quadruples


class _Missing:
    """Says which file a sample lacks, and why where that is known: a link on the way to it may lead nowhere."""

    def __init__(self, files: Files, arrangement: Arrangement) -> None:
        self._files = files
        self._arrangement = arrangement
        self._gaps = {name: gap for gap in files.gaps for name in (gap, gap.rpartition(".")[0] or gap)}

    def refuse_empty_roles(self, folder: str, match: re.Match[str]) -> None:
        """Refuse a source without any file of a role, unless a gap explains it."""
        roles, layout = self._arrangement.roles, self._arrangement.layout
        empty = [role for role in ROLES if not roles[role].names and not self._gap(role, folder, match)]
        if empty:
            raise InputError(
                f"The source '{self._files.root}' is of the layout '{layout}', but has no {' and no '.join(empty)} "
                f"files; give a source that has, or name them as shown here.{unfitting_lines(self._files, layout)}"
            )

    def describe(self, role: str, folder: str, match: re.Match[str]) -> tuple[str, str]:
        """What is missing, and a sentence about it."""
        if gap := self._gap(role, folder, match):
            return self._files.where(gap), self._files.gaps[gap]
        name = self._expected(self._arrangement.roles[role].template, folder, match)
        return (
            f"{name}.*",
            f"The file '{name}.*' is missing in '{self._files.root}'; restore what is missing, or remove the other "
            "files of these samples.",
        )

    def _gap(self, role: str, folder: str, match: re.Match[str]) -> str | None:
        """What cannot be looked into that the file would be, or lie in."""
        for template in getattr(LAYOUTS[self._arrangement.layout], role):
            name = self._expected(template, folder, match)
            while name:
                if name in self._gaps:
                    return self._gaps[name]
                name = name.rpartition("/")[0]
        return None

    def _expected(self, template: str, folder: str, match: re.Match[str]) -> str:
        """A file's name, without its extension."""
        folder = f"{folder}/" if folder else ""
        named = template.replace("{folder}", folder).replace("{key}", match[0]).replace("{bg}", match["bg"])
        return self._arrangement.root + named


def _arrangements(names: Sequence[str], layouts: Mapping[str, Layout]) -> list[Arrangement]:
    """All that some of the files fit, wherever in the source."""
    directories: dict[str, list[str]] = defaultdict(list)
    for name in names:
        directory, _, file = name.rpartition("/")
        directories[directory].append(file)
    images = sum(re.search(f"{EXTENSION}$", name, re.IGNORECASE) is not None for name in names)
    found = []
    for layout, form in layouts.items():
        of_role = {role: _role_files(directories, getattr(form, role), form) for role in ROLES}
        for root in sorted({root for files in of_role.values() for root in files}):
            none = {role: RoleFiles(template=getattr(form, role)[0], names={}) for role in ROLES}
            roles = {role: of_role[role].get(root, none[role]) for role in ROLES}
            fitting = sum(len(files.names) for files in roles.values())
            shown = describe(files.template for files in roles.values())
            reason = f"{fitting:,} of {images:,} images are named as in '{layout}' ({shown})"
            if root:
                reason += f" in '{root}'"
            found.append(Arrangement(layout=layout, root=root, roles=roles, reason=reason))
    return found


def _role_files(
    directories: Mapping[str, Sequence[str]], templates: Sequence[str], form: Layout
) -> dict[str, RoleFiles]:
    """By root, the files that follow one of the templates."""
    matches = {template: _matches(directories, template, form) for template in templates}
    found = {}
    for root in {root for here in matches.values() for root in here}:
        of_root = {template: here.get(root, {}) for template, here in matches.items()}
        names: dict[tuple[str, str], str] = {}
        for here in reversed(of_root.values()):
            names.update(here)
        found[root] = RoleFiles(template=max(of_root, key=lambda template: len(of_root[template])), names=names)
    return found


def _matches(
    directories: Mapping[str, Sequence[str]], template: str, form: Layout
) -> dict[str, dict[tuple[str, str], str]]:
    """By root, then by folder and key, the files that follow the template."""
    directory_pattern, file_pattern = form.patterns(template)
    found: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for directory, files in directories.items():
        place = directory_pattern.fullmatch(directory)
        if place is None:
            continue
        groups = place.groupdict()
        here, folder = found[groups["root"]], (groups.get("folder") or "").lower()
        for file in files:
            match = file_pattern.fullmatch(file)
            if match is None or groups.get("bg", match["bg"]) != match["bg"]:
                continue
            key = folder, match.groupdict().get("key") or _unpadded(match["bg"])
            name = f"{directory}/{file}"
            if here.setdefault(key, name) != name:
                raise InputError(f"The files '{here[key]}' and '{name}' stand for the same image; remove one of them.")
    return {root: here for root, here in found.items() if here}


def _count_roles(arrangement: Arrangement) -> int:
    return sum(bool(files.names) for files in arrangement.roles.values())


def _order(sample: tuple[str, re.Match[str]]) -> tuple[tuple[str, int], ...]:
    """By folder, background, foreground, mirrored or not, and take; names count by their text, then their number."""
    folder, match = sample
    flip = match.groupdict().get("flip") or ""
    numbers = (_natural(text) for text in (folder, match["bg"], match["fg"], flip, match["take"]))
    return (*numbers, (match[0], 0), (folder, 0))


def _natural(text: str) -> tuple[str, int]:
    """The text before a number at its end, and the number; 0 where there is none."""
    digits = re.search(r"\d*$", text)
    number = digits[0] if digits else ""
    return text.removesuffix(number), int(number or 0)


def _unpadded(text: str) -> str:
    """The text without zeros before its number."""
    name, number = _natural(text)
    return f"{name}{number}"
