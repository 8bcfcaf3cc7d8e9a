"""Pair and check the source images of a composed data set: backgrounds, their depth maps, and foregrounds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.compose.depth import DepthScale, middle_square
from data.composed.rendering import cutout_size
from data.depth.meaning import PER_METRE
from data.errors import InputError
from data.folders import broken_link_reason, is_directory, is_file, refuse_other_encodings
from data.images import resize_to
from data.source_images import source_cutout, source_depth, source_photo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from data.compose.composition import Composition
    from data.schema import Pixels

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MAX_ASPECT_DIFFERENCE = 0.01
"""The aspect ratios of a background and of its depth may differ by this share."""
MAX_NAMED = 3
"""Files that an error message names; it counts the others."""
MAX_CUTOUTS = 128
"""Decoded foregrounds that a process keeps in memory."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """An image file with its checksum from when the sources were checked."""

    name: str
    """File name without the extension."""
    path: Path
    sha256: str

    def read(self) -> bytes:
        """Read the file.

        Raises:
            InputError: if it is missing or has changed.
        """
        encoded = _read(self.path)
        if hashlib.sha256(encoded).hexdigest() != self.sha256:
            raise InputError(
                f"The image '{self.path}' was changed while the data set was composed; run the command again."
            )
        return encoded


@dataclass(frozen=True, kw_only=True)
class Background:
    """A photograph and its depth map."""

    photo: SourceFile
    depth: SourceFile


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The source images of a data set, each kind sorted by name."""

    backgrounds: tuple[Background, ...]
    foregrounds: tuple[SourceFile, ...]
    scale: DepthScale

    def copies(self) -> list[tuple[str, str]]:
        """The names of backgrounds with the content of an earlier one, each after that of the first."""
        first: dict[str, str] = {}
        photos = [background.photo for background in self.backgrounds]
        pairs = [(first.setdefault(photo.sha256, photo.name), photo.name) for photo in photos]
        return [(earlier, name) for earlier, name in pairs if earlier != name]

    def digests(self) -> dict[str, dict[str, str]]:
        """SHA-256 of every file by name; a depth map has the name of its background."""
        return {
            "backgrounds": {background.photo.name: background.photo.sha256 for background in self.backgrounds},
            "depths": {background.photo.name: background.depth.sha256 for background in self.backgrounds},
            "foregrounds": {foreground.name: foreground.sha256 for foreground in self.foregrounds},
        }


def open_sources(composition: Composition, on_image: Callable[[int], None] | None = None) -> Sources:
    """Pair backgrounds with their depth maps by file name, and check every image by decoding it.

    Args:
        composition: the folders, and the meaning of the depth maps.
        on_image: progress callback, called after each background and each foreground with the number checked so far.

    Raises:
        InputError: if a folder has no images, or two whose names differ in the extension only; if a background has no
            depth map, or one of another aspect ratio; if an image is unusable; or if two samples would have the same
            id.
    """
    photos, cutouts = _listed(composition.backgrounds, "backgrounds"), _listed(composition.foregrounds, "foregrounds")
    depths = _listed(composition.depths, "depths")
    missing = [name for name in photos if name not in depths]
    if missing:
        raise InputError(
            f"The folder '{composition.depths}' has no depth for the background{'s' if len(missing) > 1 else ''} "
            f"{_some(missing)}; add a depth map of the same name, or remove the background."
        )
    _refuse_ambiguous(photos, cutouts)
    on_image = on_image or (lambda _: None)
    backgrounds, foregrounds, largest = [], [], 0
    for checked, (name, path) in enumerate(photos.items(), start=1):
        background, farthest = _check_background(composition, name, path, depths[name])
        backgrounds.append(background)
        largest = max(largest, farthest)
        on_image(checked)
    for checked, (name, path) in enumerate(cutouts.items(), start=len(photos) + 1):
        foregrounds.append(_check_foreground(name, path))
        on_image(checked)
    far = composition.depth_far
    if composition.depth_unit != "relative" and far is None:
        far = largest / PER_METRE[composition.depth_unit]
    scale = DepthScale(unit=composition.depth_unit, far=far, polarity=composition.depth_polarity)
    return Sources(backgrounds=tuple(backgrounds), foregrounds=tuple(foregrounds), scale=scale)


def count_images(composition: Composition) -> int:
    """Number of backgrounds and foregrounds that `open_sources` checks.

    Raises:
        InputError: if a folder has no images.
    """
    return len(_listed(composition.backgrounds, "backgrounds")) + len(_listed(composition.foregrounds, "foregrounds"))


@lru_cache(maxsize=MAX_CUTOUTS)
def read_cutout(foreground: SourceFile, longest: int) -> Pixels:
    """Read a foreground, cropped to its visible pixels and reduced to at most `longest` pixels a side.

    Returns:
        (H, W, 4) RGBA with colours multiplied by alpha, so that the colours of transparent pixels do not bleed into the
        edges when it is resized.

    Raises:
        InputError: if the file has changed since the sources were checked.
    """
    cutout = source_cutout(foreground.read(), str(foreground.path))
    rows, columns = (np.flatnonzero(cutout[:, :, 3].any(axis=axis)) for axis in (1, 0))
    cutout = cutout[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    alpha = cutout[:, :, 3:].astype(np.float32)
    premultiplied = np.dstack([np.rint(cutout[:, :, :3] * (alpha / 255)).astype(np.uint8), cutout[:, :, 3]])
    height, width = premultiplied.shape[:2]
    premultiplied = resize_to(premultiplied, *cutout_size(height, width, min(longest, max(height, width))))
    premultiplied.setflags(write=False)
    return premultiplied


def _check_background(composition: Composition, name: str, path: Path, depth_path: Path) -> tuple[Background, int]:
    """The background, and the largest value of its depth map."""
    encoded, encoded_depth = _read(path), _read(depth_path)
    (photo, _), (depth, _) = source_photo(encoded, str(path)), source_depth(encoded_depth, str(depth_path))
    (height, width), (depth_height, depth_width) = photo.shape[:2], depth.shape
    if abs(depth_width * height / (depth_height * width) - 1) > MAX_ASPECT_DIFFERENCE:
        raise InputError(
            f"The depth '{depth_path}' is {depth_width} x {depth_height} pixels, but must have the proportions of "
            f"'{path}', {width} x {height}; use the depth of that photograph."
        )
    has_holes = composition.depth_unit != "relative" or (
        depth.dtype == np.uint16 and composition.depth_polarity == "far-bright"
    )
    if has_holes and not middle_square(depth).any():
        raise InputError(
            f"The depth '{depth_path}' has no measurement in its middle square, where 0 means none; replace it, "
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


def _listed(folder: Path, what: str) -> dict[str, Path]:
    """The image files of a folder, sorted, by name without the extension."""
    if reason := broken_link_reason(folder):
        raise InputError(reason)
    if not is_directory(folder):
        raise InputError(f"The folder '{folder}' does not exist; give the folder of the {what} with --{what}.")
    by_name: dict[str, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"The folder '{folder}' cannot be read ({error.strerror}); make it readable.") from None
    for path in paths:
        if path.name.startswith(".") or path.suffix.lower() not in EXTENSIONS:
            continue
        if reason := broken_link_reason(path):
            raise InputError(reason)
        if not is_file(path):
            continue
        refuse_other_encodings([path.name])
        if path.stem in by_name:
            raise InputError(
                f"The {what} '{by_name[path.stem]}' and '{path.name}' differ in the extension only; rename or remove "
                "one of them."
            )
        by_name[path.stem] = path
    if not by_name:
        raise InputError(
            f"The folder '{folder}' has no images ({', '.join(EXTENSIONS)}); give the folder of the {what} with "
            f"--{what}."
        )
    return dict(sorted(by_name.items()))


def _refuse_ambiguous(photos: Iterable[str], cutouts: Iterable[str]) -> None:
    """Refuse names that give two samples the same id: background 'a_b' with 'c', and 'a' with 'b_c'."""
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
            f"The image '{path}' cannot be read ({error.strerror}); restore it, or make it readable."
        ) from error


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"
