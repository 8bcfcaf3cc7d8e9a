"""The published layouts: which files make a sample. They are paired by name, never by order."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

ROLES = ("bg", "fg_bg", "mask", "depth")
EXTENSION = r"\.(?:png|jpg|jpeg)"

PLACES = {"batch": r"(?P<batch>(?:batch\d+/)?)", "bg": r"(?P<bg>\d+)"}
"""What a place in a layout's names stands for; `{key}` is the layout's own."""


class Files(Protocol):
    """A source's files by name, wherever they are kept."""

    root: Path
    """The source, as the user gave it."""

    @property
    def names(self) -> tuple[str, ...]:
        """All files' names, sorted, relative to the source, with '/' between folders."""

    def read(self, name: str) -> bytes:
        """Bytes of a file; InputError if they cannot be read."""

    def where(self, name: str) -> str:
        """How to name the file to a user."""


@dataclass
class Folder:
    """The files below a folder, hidden ones left out."""

    root: Path

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All files' names."""
        names: list[str] = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            place = Path(folder).relative_to(self.root)
            names += [(place / name).as_posix() for name in files if not name.startswith(".")]
        return tuple(sorted(names))

    def read(self, name: str) -> bytes:
        """Bytes of a file."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise InputError(
                f"The file '{self.where(name)}' cannot be read ({error.strerror}); restore it, or make it readable."
            ) from error

    def where(self, name: str) -> str:
        """Path of the file."""
        return str(self.root / name)


@dataclass(frozen=True, kw_only=True)
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
class Layout:
    """How the files of a layout are named, without their extensions (PNG or JPEG, each as it likes).

    A name has places: `{key}` tells a sample from another, `{bg}` is the background's number that the key
    holds too, `{batch}` an optional folder. Of several names for a role, the first that exists counts.
    """

    bg: tuple[str, ...]
    fg_bg: tuple[str, ...]
    mask: tuple[str, ...]
    depth: tuple[str, ...]
    key: str
    """Regular expression with the groups `fg`, `bg` and `take`, and optionally `flip`."""
    half_depth: bool = False
    """Whether depth may be stored at half of the mask's height and width."""


LAYOUTS: dict[str, Layout] = {
    "birender": Layout(
        bg=("bg_images/img_{bg}",),
        fg_bg=("fg_bg_images/{key}",),
        mask=("fg_bg_mask_images_c1/{key}", "fg_bg_mask_images/{key}"),
        depth=("fg_bg_depth_images/{key}",),
        key=r"fg(?P<fg>\d+)(?P<flip>flip)?_bg(?P<bg>\d+)_(?P<take>\d+)",
    ),
    "monimoyd": Layout(
        bg=("{batch}bg_jpg/bg_img_{bg}",),
        fg_bg=("{batch}fg_bg_jpg/fg_bg_{key}",),
        mask=("{batch}mask_black_jpg/bg_mask_{key}",),
        depth=("{batch}depth_fg_bg_jpg/depth_fg_bg_{key}",),
        key=r"(?P<fg>\d+)_(?P<bg>\d+)_(?P<flip>[01])_(?P<take>\d+)",
        half_depth=True,
    ),
}
"""A foreground mirrored left to right has the id of the one it comes from: a split keeps them together."""


def find_layout(files: Files) -> str:
    """Name of the layout that most of the four roles have files of; at least two must.

    Raises:
        InputError: if there are no files, or those of no layout.
    """
    names = files.names
    if not names:
        raise InputError(f"The source '{files.root}' is empty; give a folder that holds a published data set.")
    roles = {
        name: sum(bool(_matches(names, getattr(layout, role), layout)) for role in ROLES)
        for name, layout in LAYOUTS.items()
    }
    best = max(roles, key=lambda name: roles[name])
    if roles[best] < 2:
        looked_for = "; ".join(f"{name}: {_describe(layout)}" for name, layout in LAYOUTS.items())
        raise InputError(
            f"The layout of '{files.root}' is not recognised: found none of these ({looked_for}); give the "
            "folder that directly holds them."
        )
    return best


def find_quadruples(files: Files, layout: str) -> list[Quadruple]:
    """List a layout's samples by batch, background, foreground and take.

    Raises:
        InputError: if a sample lacks a file, naming the first one and how many do, or there are no samples.
    """
    form = LAYOUTS[layout]
    names = files.names
    found = {role: _matches(names, getattr(form, role), form) for role in ROLES}
    keys = {key for role in ("fg_bg", "mask", "depth") for key in found[role]}
    quadruples, missing = [], []
    for batch, key in sorted(keys, key=_natural):
        match = re.fullmatch(form.key, key)
        assert match is not None  # noqa: S101 - it was found with this expression
        of_role = {role: found[role].get((batch, str(int(match["bg"])) if role == "bg" else key)) for role in ROLES}
        gone = [role for role, name in of_role.items() if name is None]
        if gone:
            missing.append(_expected(getattr(form, gone[0])[-1], batch, key, match["bg"]))
            continue
        prefix = batch.replace("/", "_")
        members = {role: name for role, name in of_role.items() if name is not None}
        quadruples.append(
            Quadruple(
                sample_id=prefix + key,
                bg_id=Path(members["bg"]).stem,
                fg_id=f"{prefix}fg{match['fg']}",
                **members,
            )
        )
    if missing:
        raise InputError(
            f"The file '{missing[0]}.*' is missing in '{files.root}' ({len(missing)} of {len(keys)} samples "
            "lack a file); restore what is missing, or remove the other files of these samples."
        )
    if not quadruples:
        raise InputError(f"The source '{files.root}' has no samples of the layout '{layout}'; give one that has.")
    return quadruples


def _matches(names: Iterable[str], templates: tuple[str, ...], layout: Layout) -> dict[tuple[str, str], str]:
    """File names by (batch, key), where a background's key is its number without leading zeros."""
    found: dict[tuple[str, str], str] = {}
    for template in reversed(templates):
        pattern = _pattern(template, layout)
        here: dict[tuple[str, str], str] = {}
        for name in names:
            match = pattern.fullmatch(name)
            if match is None:
                continue
            groups = match.groupdict()
            key = groups.get("batch") or "", groups.get("key") or str(int(groups["bg"]))
            if here.setdefault(key, name) != name:
                raise InputError(
                    f"The files '{here[key]}' and '{name}' stand for the same picture; remove one of them."
                )
        found.update(here)
    return found


def _pattern(template: str, layout: Layout) -> re.Pattern[str]:
    pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for place, expression in {**PLACES, "key": f"(?P<key>{layout.key})"}.items():
        pattern = pattern.replace(f"{{{place}}}", expression)
    return re.compile(pattern + EXTENSION, re.IGNORECASE)


def _expected(template: str, batch: str, key: str, bg: str) -> str:
    return template.replace("{batch}", batch).replace("{key}", key).replace("{bg}", bg)


def _describe(layout: Layout) -> str:
    names = [getattr(layout, role)[-1] for role in ROLES]
    return ", ".join(_expected(name, "", "*", "*") for name in names)


def _natural(key: tuple[str, str]) -> tuple[int, int, int, str]:
    """By batch number, then background, then foreground as numbers; the text decides the rest."""
    numbers = [int(text) for text in re.findall(r"\d+", key[1])]
    batch = re.search(r"\d+", key[0])
    return int(batch[0]) if batch else 0, numbers[1], numbers[0], key[1]
