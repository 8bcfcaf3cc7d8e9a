"""Report for a source that matches no published layout: its files, the closest layout, and the differences."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data.importers.layouts import LAYOUTS, ROLES
from data.quantities import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.importers.archives import ListedFiles
    from data.importers.layouts import Layout

MAX_FOLDERS, MAX_FILES = 8, 3
"""Limits for the folders shown, and the files shown of each."""
MIN_CLOSENESS = 4
"""Least closeness of the closest layout: a folder or name must match for two roles."""


@dataclass
class _Found:
    """Files of a source that match a template of a role, fully or partly."""

    template: str
    matching: int = 0
    """Number of files with the right name in the right folder."""
    folders: set[str] = field(default_factory=set)
    """The folders of the matching files."""
    wrong_folder: dict[str, str] = field(default_factory=dict)
    """Other folder -> a file in it with the right name."""
    wrong_name: dict[str, str] = field(default_factory=dict)
    """Right folder -> a file in it with another name."""

    @property
    def closeness(self) -> int:
        return 3 * bool(self.matching) + 2 * bool(self.wrong_folder or self.wrong_name)


def mismatch_report(files: ListedFiles, layout: str | None = None) -> str:
    """List the content of a source and its differences from a layout; each line starts with a line break.

    Args:
        files: of the source.
        layout: a key of `LAYOUTS`; by default the closest one.
    """
    directories: dict[str, list[str]] = defaultdict(list)
    for name in files.names:
        directory, _, file = name.rpartition("/")
        directories[directory].append(file)
    found = {name: _by_role(directories, form) for name, form in LAYOUTS.items() if layout in (None, name)}
    rows = [("found", line) for line in _listing(directories)]
    rows += [("unreadable", reason) for reason in files.gaps.values()][:MAX_FILES]
    closeness = {name: sum(role.closeness for role in roles.values()) for name, roles in found.items()}
    closest = max(closeness, key=lambda name: closeness[name])
    if layout or closeness[closest] >= MIN_CLOSENESS:
        title = closest if layout else f"closest: {closest}"
        rows += [(title, line) for line in _differences(closest, found[closest])]
    else:
        rows += [(name, _summary(form)) for name, form in LAYOUTS.items()]
    width = max(len(title) for title, _ in rows) + 2
    lines, last = [], ""
    for title, line in rows:
        lines.append(f"\n  {'' if title == last else title:<{width}}{line}")
        last = title
    return "".join(lines)


def _by_role(directories: Mapping[str, Sequence[str]], form: Layout) -> dict[str, _Found]:
    """Matches of the closest template per role. A folder with files of one role does not count for another role."""
    matches = {role: [_match(directories, form, template) for template in getattr(form, role)] for role in ROLES}
    taken = {folder for of_role in matches.values() for found in of_role for folder in found.folders}
    for found in (found for of_role in matches.values() for found in of_role):
        found.wrong_folder = {folder: file for folder, file in found.wrong_folder.items() if folder not in taken}
    return {role: max(of_role, key=lambda found: found.closeness) for role, of_role in matches.items()}


def _match(directories: Mapping[str, Sequence[str]], form: Layout, template: str) -> _Found:
    found = _Found(template)
    directory_pattern, file_pattern = form.patterns(template)
    for directory, names in directories.items():
        matching = [name for name in names if file_pattern.fullmatch(name)]
        if not directory_pattern.fullmatch(directory):
            if matching:
                found.wrong_folder.setdefault(directory, matching[0])
        elif matching:
            found.matching += len(matching)
            found.folders.add(directory)
        else:
            found.wrong_name.setdefault(directory, names[0])
    return found


def _summary(form: Layout) -> str:
    """The file names of a layout in one line."""
    bg, fg_bg, *planes = (form.readable(getattr(form, role)[0]) for role in ROLES)
    return ", ".join([bg, fg_bg, *(f"{plane.rpartition('/')[0]}/…" for plane in planes)])


def _listing(directories: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for directory in sorted(directories)[:MAX_FOLDERS]:
        names = sorted(directories[directory])
        more = f", … ({len(names):,} files)" if len(names) > MAX_FILES else ""
        lines.append(f"{directory or '.'}/: {', '.join(names[:MAX_FILES])}{more}")
    if len(directories) > MAX_FOLDERS:
        lines.append(f"and {len(directories) - MAX_FOLDERS:,} more folders")
    return lines


def _differences(layout: str, found: Mapping[str, _Found]) -> list[str]:
    """One line per role."""
    form = LAYOUTS[layout]
    lines = []
    for role in ROLES:
        of_role = found[role]
        expected = form.readable(of_role.template)
        folder, _, name = expected.rpartition("/")
        others = {form.readable(template).rpartition("/")[0] for template in getattr(form, role)} - {folder}
        expected += f" (or in {' or '.join(sorted(others))})" if others and not of_role.matching else ""
        if of_role.matching:
            state = counted(of_role.matching, "file")
        elif of_role.wrong_name:
            actual, file = next(iter(of_role.wrong_name.items()))
            state = f"the folder '{actual}' exists, but '{file}' is not named '{name}'"
        elif of_role.wrong_folder:
            actual, file = next(iter(of_role.wrong_folder.items()))
            state = f"a file with such a name, '{file}', is in '{actual or '.'}', not in '{folder}'"
        else:
            state = "no files"
        lines.append(f"{role:<6} {expected}: {state}")
    return lines
