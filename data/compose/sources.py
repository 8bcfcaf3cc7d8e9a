"""The folders that a data set is composed from: backgrounds, their depth, and foregrounds, paired and checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.compose.depth import PER_METRE, DepthScale, middle_square
from data.errors import InputError
from data.folders import why_dead
from data.images import resize_to
from data.source_images import source_cutout, source_depth, source_photo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from data.compose.composition import Composition
    from data.schema import Pixels
    from data.source_images import StoredDepth

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
SAME_PROPORTIONS = 0.01
"""Width over height of a background and of its depth may differ by this share."""
NAMED = 3
"""A sentence names so many files, and counts the others."""
KEPT_CUTOUTS = 128


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A picture as it was when the sources were checked."""

    name: str
    """Its file's name without the extension."""
    path: Path
    sha256: str

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            InputError: if it is gone, or another file than before.
        """
        encoded = _read(self.path)
        if hashlib.sha256(encoded).hexdigest() != self.sha256:
            raise InputError(f"The picture '{self.path}' was changed while a set was composed of it; start again.")
        return encoded


@dataclass(frozen=True, kw_only=True)
class Background:
    """A photograph and the depth of what it shows."""

    photo: SourceFile
    depth: SourceFile


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a data set is composed from, each kind sorted by name."""

    backgrounds: tuple[Background, ...]
    foregrounds: tuple[SourceFile, ...]
    scale: DepthScale

    def digests(self) -> dict[str, Any]:
        """By name, SHA-256 of every file; depth by its background's name."""
        return {
            "backgrounds": {background.photo.name: background.photo.sha256 for background in self.backgrounds},
            "depths": {background.photo.name: background.depth.sha256 for background in self.backgrounds},
            "foregrounds": {foreground.name: foreground.sha256 for foreground in self.foregrounds},
        }


def open_sources(composition: Composition, on_picture: Callable[[int], None] | None = None) -> Sources:
    """Pair backgrounds with their depth by file name, and decode every picture once.

    Args:
        composition: names the folders, and says what their depth means.
        on_picture: called after each background and each foreground with how many were checked so far.

    Raises:
        InputError: if a folder has no pictures, two that differ in their extension alone, a background without depth
            or with one of other proportions, or a picture that cannot be used; or if two samples would have one id.
    """
    photos, cutouts = _listed(composition.backgrounds, "backgrounds"), _listed(composition.foregrounds, "foregrounds")
    depths = _listed(composition.depths, "depths")
    missing = [name for name in photos if name not in depths]
    if missing:
        raise InputError(
            f"The folder '{composition.depths}' has no depth for the background{'s' if len(missing) > 1 else ''} "
            f"{_some(missing)}; add a picture of the same name, or remove the background."
        )
    _refuse_ambiguous(photos, cutouts)
    largest = checked = 0
    backgrounds, foregrounds = [], []
    for name, path in photos.items():
        background, farthest = _check_background(composition, name, path, depths[name])
        backgrounds.append(background)
        largest, checked = max(largest, farthest), checked + 1
        if on_picture:
            on_picture(checked)
    for name, path in cutouts.items():
        foregrounds.append(_check_foreground(name, path))
        checked += 1
        if on_picture:
            on_picture(checked)
    far = composition.depth_far
    if composition.depth_unit != "relative" and far is None:
        far = largest / PER_METRE[composition.depth_unit]
    scale = DepthScale(unit=composition.depth_unit, far=far, polarity=composition.depth_polarity)
    return Sources(backgrounds=tuple(backgrounds), foregrounds=tuple(foregrounds), scale=scale)


def count_pictures(composition: Composition) -> int:
    """How many backgrounds and foregrounds `open_sources` will check.

    Raises:
        InputError: if a folder has none.
    """
    return len(_listed(composition.backgrounds, "backgrounds")) + len(_listed(composition.foregrounds, "foregrounds"))


@lru_cache(maxsize=KEPT_CUTOUTS)
def read_cutout(foreground: SourceFile, longest: int) -> Pixels:
    """A foreground, cut to what can be seen of it, and no longer than `longest` pixels.

    Returns:
        (H, W, 4) RGBA, each colour multiplied by alpha: what stands in transparent pixels does not bleed into the
        edges when it is resized.

    Raises:
        InputError: if it is not what it was when the sources were checked.
    """
    cutout = source_cutout(foreground.read(), str(foreground.path))
    rows, columns = (np.flatnonzero(cutout[:, :, 3].any(axis=axis)) for axis in (1, 0))
    cutout = cutout[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    alpha = cutout[:, :, 3:].astype(np.float32)
    weighed = np.dstack([np.rint(cutout[:, :, :3] * (alpha / 255)).astype(np.uint8), cutout[:, :, 3]])
    weighed = resize_cutout(weighed, min(longest, max(weighed.shape[:2])))
    weighed.setflags(write=False)
    return weighed


def resize_cutout(cutout: Pixels, longest: int) -> Pixels:
    """(H, W, 4) with the longer side at `longest` pixels."""
    height, width = cutout.shape[:2]
    share = longest / max(height, width)
    return resize_to(cutout, max(1, round(height * share)), max(1, round(width * share)))


def _check_background(composition: Composition, name: str, path: Path, depth_path: Path) -> tuple[Background, int]:
    """The background, and its largest depth as it is stored."""
    encoded, encoded_depth = _read(path), _read(depth_path)
    (photo, _), (depth, _) = source_photo(encoded, str(path)), source_depth(encoded_depth, str(depth_path))
    (height, width), (depth_height, depth_width) = photo.shape[:2], depth.shape
    if abs(depth_width * height / (depth_height * width) - 1) > SAME_PROPORTIONS:
        raise InputError(
            f"The depth '{depth_path}' is {depth_width} x {depth_height} pixels, but must have the proportions of "
            f"'{path}', {width} x {height}; use the depth of that photograph."
        )
    has_holes = composition.depth_unit != "relative" or (
        depth.dtype == np.uint16 and composition.depth_polarity == "far-bright"
    )
    if has_holes and not _has_depth(depth):
        raise InputError(
            f"The depth '{depth_path}' has no measurement in its middle square, where 0 stands for none; replace it, "
            "or remove the background."
        )
    background = Background(
        photo=SourceFile(name=name, path=path, sha256=hashlib.sha256(encoded).hexdigest()),
        depth=SourceFile(name=name, path=depth_path, sha256=hashlib.sha256(encoded_depth).hexdigest()),
    )
    return background, int(middle_square(depth).max())


def _check_foreground(name: str, path: Path) -> SourceFile:
    encoded = _read(path)
    source_cutout(encoded, str(path))
    return SourceFile(name=name, path=path, sha256=hashlib.sha256(encoded).hexdigest())


def _has_depth(depth: StoredDepth) -> bool:
    return bool(middle_square(depth).any())


def _listed(folder: Path, what: str) -> dict[str, Path]:
    """The pictures in a folder by name without the extension, sorted."""
    if reason := why_dead(folder):
        raise InputError(reason)
    if not folder.is_dir():
        raise InputError(f"The folder '{folder}' does not exist; give the folder of the {what} with --{what}.")
    named: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in EXTENSIONS:
            continue
        if reason := why_dead(path):
            raise InputError(reason)
        if not path.is_file():
            continue
        if path.stem in named:
            raise InputError(
                f"The {what} '{named[path.stem]}' and '{path.name}' differ in their extension alone; rename or remove "
                "one of them."
            )
        named[path.stem] = path
    if not named:
        raise InputError(
            f"The folder '{folder}' has no pictures ({', '.join(EXTENSIONS)}); give the folder of the {what} with "
            f"--{what}."
        )
    return dict(sorted(named.items()))


def _refuse_ambiguous(photos: Iterable[str], cutouts: Iterable[str]) -> None:
    """Samples are named by their background and foreground: 'a_b' with 'c' must not meet 'a' with 'b_c'."""
    pairs: dict[str, tuple[str, str]] = {}
    for photo, cutout in product(photos, cutouts):
        other_photo, other_cutout = pairs.setdefault(f"{photo}_{cutout}", (photo, cutout))
        if (other_photo, other_cutout) != (photo, cutout):
            raise InputError(
                f"The samples of background '{photo}' with foreground '{cutout}' have the same name as those of "
                f"'{other_photo}' with '{other_cutout}'; rename one of the files."
            )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"The picture '{path}' cannot be read ({error.strerror}); restore it, or make it readable."
        ) from error


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
