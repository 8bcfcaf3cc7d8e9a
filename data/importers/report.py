"""What is said of a source that no published layout fits: what was found, which layout is closest, what differs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data.importers.layouts import LAYOUTS, ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.importers.archives import Files
    from data.importers.layouts import Layout

MAX_FOLDERS, MAX_FILES = 8, 3
"""So many folders are shown, and so many files of each."""
MIN_CLOSENESS = 4
"""A layout that is less close is not called close: its folders or its names have to be there for two roles."""


@dataclass
class _Found:
    """What a source has of a role's files, by one of its templates."""

    template: str
    fitting: int = 0
    """Files of the right name in the right folder."""
    folders: set[str] = field(default_factory=set)
    """That these lie in."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """By other folders, a file that has the right name."""
    in_place: dict[str, str] = field(default_factory=dict)
    """By folders of the right name, a file that has another name."""

    @property
    def closeness(self) -> int:
        return 3 * bool(self.fitting) + 2 * bool(self.elsewhere or self.in_place)


def unfitting_lines(files: Files, layout: str | None = None) -> str:
    """Lines, each begun by a line break, that show what a source holds and how it differs from a layout.

    Args:
        files: the source's.
        layout: a key of `LAYOUTS`; the closest if not given.
    """
    directories: dict[str, list[str]] = defaultdict(list)
    for name in files.names:
        directory, _, file = name.rpartition("/")
        directories[directory].append(file)
    found = {name: _look(directories, form) for name, form in LAYOUTS.items() if layout in (None, name)}
    rows = [("found", line) for line in _listed(directories)]
    rows += [("unread", reason) for reason in files.gaps.values()][:MAX_FILES]
    closeness = {name: sum(role.closeness for role in roles.values()) for name, roles in found.items()}
    closest = max(closeness, key=lambda name: closeness[name])
    if layout or closeness[closest] >= MIN_CLOSENESS:
        title = closest if layout else f"closest: {closest}"
        rows += [(title, line) for line in _differences(closest, found[closest])]
    else:
        rows += [(name, _in_short(form)) for name, form in LAYOUTS.items()]
    width = max(len(title) for title, _ in rows) + 2
    lines, last = [], ""
    for title, line in rows:
        lines.append(f"\n  {'' if title == last else title:<{width}}{line}")
        last = title
    return "".join(lines)


def _look(directories: Mapping[str, Sequence[str]], form: Layout) -> dict[str, _Found]:
    """By role, according to the template that is closest. A folder that has files of one role has none of another."""
    looked = {role: [_by_template(directories, form, template) for template in getattr(form, role)] for role in ROLES}
    taken = {folder for of_role in looked.values() for found in of_role for folder in found.folders}
    for found in (found for of_role in looked.values() for found in of_role):
        found.elsewhere = {folder: file for folder, file in found.elsewhere.items() if folder not in taken}
    return {role: max(of_role, key=lambda found: found.closeness) for role, of_role in looked.items()}


def _by_template(directories: Mapping[str, Sequence[str]], form: Layout, template: str) -> _Found:
    found = _Found(template)
    directory_pattern, file_pattern = form.patterns(template)
    for directory, names in directories.items():
        fitting = [name for name in names if file_pattern.fullmatch(name)]
        if not directory_pattern.fullmatch(directory):
            if fitting:
                found.elsewhere.setdefault(directory, fitting[0])
        elif fitting:
            found.fitting += len(fitting)
            found.folders.add(directory)
        else:
            found.in_place.setdefault(directory, names[0])
    return found


def _in_short(form: Layout) -> str:
    bg, fg_bg, *planes = (form.readable(getattr(form, role)[0]) for role in ROLES)
    return ", ".join([bg, fg_bg, *(f"{plane.rpartition('/')[0]}/…" for plane in planes)])


def _listed(directories: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for directory in sorted(directories)[:MAX_FOLDERS]:
        names = sorted(directories[directory])
        more = f", … ({len(names):,} files)" if len(names) > MAX_FILES else ""
        lines.append(f"{directory or '.'}/: {', '.join(names[:MAX_FILES])}{more}")
    if len(directories) > MAX_FOLDERS:
        lines.append(f"and {len(directories) - MAX_FOLDERS:,} more folders")
    return lines


def _differences(layout: str, found: Mapping[str, _Found]) -> list[str]:
    """A line for each role."""
    form = LAYOUTS[layout]
    lines = []
    for role in ROLES:
        wanted = form.readable(found[role].template)
        folder, _, name = wanted.rpartition("/")
        others = {form.readable(template).rpartition("/")[0] for template in getattr(form, role)} - {folder}
        wanted += f" (or in {' or '.join(sorted(others))})" if others and not found[role].fitting else ""
        if found[role].fitting:
            lines.append(f"{role:<6} {wanted}: {found[role].fitting:,} files")
        elif found[role].in_place:
            there, file = next(iter(found[role].in_place.items()))
            lines.append(f"{role:<6} {wanted}: the folder '{there}' is there, but '{file}' is not named '{name}'")
        elif found[role].elsewhere:
            there, file = next(iter(found[role].elsewhere.items()))
            lines.append(
                f"{role:<6} {wanted}: a file of such a name, '{file}', lies in '{there or '.'}', not '{folder}'"
            )
        else:
            lines.append(f"{role:<6} {wanted}: there is none")
    return lines
