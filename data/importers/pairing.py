"""Which published layout a source has, and which of its files make a sample: by name, never by order."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import InputError
from data.importers.layouts import EXTENSION, LAYOUTS, ROLES, Layout, describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.importers.archives import Files

FEWEST_ROLES = 2
"""A layout is recognised if so many of the four roles have files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quadruple:
    """The ids of a sample and the names of its four files."""

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
    """How many of the source's pictures have the layout's names."""


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
        raise InputError(f"The source '{files.root}' has no samples of the layout '{layout}'; give one that has.")
    if not found:
        looked_for = "; ".join(
            f"{name}: {describe(getattr(form, role)[0] for role in ROLES)}" for name, form in LAYOUTS.items()
        )
        raise InputError(
            f"The layout of '{files.root}' is not recognised: found none of these ({looked_for}); give the "
            "folder or the archives that hold them."
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


def find_quadruples(files: Files, arrangement: Arrangement) -> list[Quadruple]:
    """List a data set's samples by folder, background, foreground and take.

    A background that a folder lacks is taken from another one: its number means the same in all.

    Raises:
        InputError: if a sample lacks a file, naming the first one and how many do, or there are no samples.
    """
    form = LAYOUTS[arrangement.layout]
    found = {role: arrangement.roles[role].names for role in ROLES}
    anywhere = {number: name for (_, number), name in reversed(found["bg"].items())}
    keys = {key for role in ("fg_bg", "mask", "depth") for key in found[role]}
    key_pattern = re.compile(form.key, re.IGNORECASE)
    matches = [(folder, match) for folder, key in keys if (match := key_pattern.fullmatch(key))]
    quadruples, missing = [], []
    for folder, match in sorted(matches, key=_order):
        members = {role: found[role].get((folder, match[0]), "") for role in ROLES if role != "bg"}
        number = _unpadded(match["bg"])
        members["bg"] = found["bg"].get((folder, number)) or anywhere.get(number, "")
        gone = [role for role in ROLES if not members[role]]
        if gone:
            missing.append(arrangement.root + _expected(arrangement.roles[gone[0]].template, folder, match))
            continue
        quadruples.append(
            Quadruple(
                sample_id=f"{folder}_{match[0]}" if folder else match[0],
                bg_id=form.bg_id(members["bg"]),
                fg_id=form.fg_id(match["fg"]),
                **members,
            )
        )
    if missing:
        raise InputError(
            f"The file '{missing[0]}.*' is missing in '{files.root}' ({len(missing)} of {len(keys)} samples "
            "lack a file); restore what is missing, or remove the other files of these samples."
        )
    if not quadruples:
        raise InputError(
            f"The source '{files.root}' has no samples of the layout '{arrangement.layout}'; give one that has."
        )
    return quadruples


def _arrangements(names: Sequence[str], layouts: Mapping[str, Layout]) -> list[Arrangement]:
    """All that some of the files fit, wherever in the source."""
    directories: dict[str, list[str]] = defaultdict(list)
    for name in names:
        directory, _, file = name.rpartition("/")
        directories[directory].append(file)
    pictures = sum(re.search(f"{EXTENSION}$", name, re.IGNORECASE) is not None for name in names)
    found = []
    for layout, form in layouts.items():
        of_role = {role: _role_files(directories, getattr(form, role), form) for role in ROLES}
        for root in sorted({root for files in of_role.values() for root in files}):
            none = {role: RoleFiles(template=getattr(form, role)[0], names={}) for role in ROLES}
            roles = {role: of_role[role].get(root, none[role]) for role in ROLES}
            fitting = sum(len(files.names) for files in roles.values())
            shown = describe(files.template for files in roles.values())
            reason = f"{fitting:,} of {pictures:,} pictures are named as in '{layout}' ({shown})"
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
                raise InputError(
                    f"The files '{here[key]}' and '{name}' stand for the same picture; remove one of them."
                )
    return {root: here for root, here in found.items() if here}


def _count_roles(arrangement: Arrangement) -> int:
    return sum(bool(files.names) for files in arrangement.roles.values())


def _order(sample: tuple[str, re.Match[str]]) -> tuple[tuple[str, int], ...]:
    """By folder, background, foreground, mirrored or not, and take; names count by their text, then their number."""
    folder, match = sample
    flip = match.groupdict().get("flip") or ""
    numbers = (_natural(text) for text in (folder, match["bg"], match["fg"], flip, match["take"]))
    return (*numbers, (match[0], 0), (folder, 0))


def _expected(template: str, folder: str, match: re.Match[str]) -> str:
    folder = f"{folder}/" if folder else ""
    return template.replace("{folder}", folder).replace("{key}", match[0]).replace("{bg}", match["bg"])


def _natural(text: str) -> tuple[str, int]:
    """The text before a number at its end, and the number; 0 where there is none."""
    digits = re.search(r"\d*$", text)
    number = digits[0] if digits else ""
    return text.removesuffix(number), int(number or 0)


def _unpadded(text: str) -> str:
    """The text without zeros before its number."""
    name, number = _natural(text)
    return f"{name}{number}"
