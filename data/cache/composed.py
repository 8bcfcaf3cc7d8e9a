"""Splits of recipes: every batch is composed from source images.

Shapes: B samples of a batch. S is the side of the composed images in pixels, H and W are height and width of the
split's; h and w are height and width of a cutout.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.cache.decoded import DecodedImages, DecodedSplit
from data.cache.sources import CachedSources, Sources
from data.composed.recipe import Recipe
from data.composed.regions import Axis, resize_region
from data.composed.rendering import Cutout, paste
from data.fitting.fit import Fitting
from data.schema import VALID, Pixels


class ComposedSplit(DecodedSplit):
    """The samples `rows` of a recipe, in that order, composed when they are gathered.

    A sample is composed at the size S of the recipe, and resized to H and W. Only the area of its cutout is: elsewhere,
    its images are the resized background and depth. Compared with resizing the whole images, pixels differ by at most
    one grey level where the size is not S, and not at all where it is. Images that are cropped or padded are fitted as
    a whole. The photograph is that before a data set of images rounds it as JPEG.
    """

    def __init__(self, recipe: Recipe, rows: NDArray[np.int64], sources: Sources, fitting: Fitting) -> None:
        super().__init__(fitting.sides, has_validity=fitting.pads)
        self._placements = recipe.placements.take(rows)
        self.sources = sources
        self.fitting = fitting
        height, width = fitting.sides
        self.is_resized = (height, width) != (recipe.size, recipe.size)
        """Whether the split has another size than the recipe."""
        self.is_whole = fitting.fit == "stretch" or height == width
        """Whether a sample's images are whole ones of the recipe, without a border."""
        grows = max(height, width) > recipe.size
        self._axes = tuple(Axis(recipe.size, target, fitting.how, grows) for target in (height, width))

    def __len__(self) -> int:
        return len(self._placements)

    def gather(self, rows: NDArray[np.int64]) -> DecodedImages:
        """Compose the images of `rows` (B,), in that order.

        Raises:
            InputError: if the sources are read from the data set, and cannot be.
        """
        rows = self._checked(rows)
        images = self._empty(len(rows))
        images.mask[:] = 0
        if images.valid is not None:
            images.valid[:] = VALID
        chosen = self._placements.take(rows)
        columns = (chosen.background, chosen.foreground, chosen.mirrored, chosen.top, chosen.left)
        shapes = chosen.height, chosen.width, chosen.level
        for index, placement in enumerate(zip(*(column.tolist() for column in (*columns, *shapes)), strict=True)):
            background, foreground, mirrored, top, left, height, width, level = placement
            cutout = self.sources.cutout(foreground, height, width)
            if mirrored:
                cutout = Cutout(np.asarray(cv2.flip(cutout.rgb, 1)), np.asarray(cv2.flip(cutout.alpha, 1)))
            placed = _Placed(cutout, top, left, level)
            resized = self.sources.resized(background)
            images.bg[index] = images.fg_bg[index] = resized.bg
            images.depth[index] = resized.depth
            if not self.is_whole:
                self._write_fitted(background, placed, images, index)
                continue
            out = images.fg_bg[index], images.mask[index], images.depth[index]
            if self.is_resized:
                self._write_resized(background, placed, out)
            else:
                placed.draw(*out)
        return images

    def device_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """What a device needs to compose `rows` (B,) from cached sources.

        Returns:
            (B, 8): row of the background; start of the cutout, its height, width, whether it is mirrored, its top, left
            and level.

        Raises:
            TypeError: if the sources are not in the cache.
        """
        if not isinstance(self.sources, CachedSources):
            raise TypeError("Only sources in the cache can be copied to a device.")
        chosen = self._placements.take(self._checked(rows))
        starts = self.sources.starts(chosen.foreground, chosen.height, chosen.width)
        columns = (chosen.background, starts, chosen.height, chosen.width, chosen.mirrored, chosen.top, chosen.left)
        return np.stack([*columns, chosen.level], axis=1).astype(np.int64)

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Do nothing: the sources are few, and stay in memory."""

    def _write_resized(self, background: int, placed: _Placed, out: tuple[Pixels, Pixels, Pixels]) -> None:
        """Compose the area of a cutout (S, S), and resize it into the photograph, mask and depth (H, W) of a sample."""
        height, width = placed.cutout.alpha.shape
        rows = self._axes[0].changed_by(placed.top, placed.top + height)
        columns = self._axes[1].changed_by(placed.left, placed.left + width)
        fg_bg = self.sources.background(background)[rows.source, columns.source].copy()
        depth = self.sources.depth(background)[rows.source, columns.source].copy()
        mask = np.zeros_like(depth)
        top, left = placed.top - rows.source.start, placed.left - columns.source.start
        placed._replace(top=top, left=left).draw(fg_bg, mask, depth)
        for pixels, target in zip((fg_bg, mask, depth), out, strict=True):
            target[rows.target, columns.target] = resize_region(pixels, rows, columns, self.fitting.how)

    def _write_fitted(self, background: int, placed: _Placed, images: DecodedImages, index: int) -> None:
        """Compose the whole images (S, S) of a sample, and crop or pad them."""
        fg_bg, depth = self.sources.background(background).copy(), self.sources.depth(background).copy()
        mask = np.zeros_like(depth)
        placed.draw(fg_bg, mask, depth)
        fitted, valid = self.fitting.depth(depth, None)
        images.fg_bg[index], images.mask[index] = self.fitting.image(fg_bg), self.fitting.image(mask)
        images.depth[index] = fitted
        if images.valid is not None and valid is not None:
            images.valid[index] = valid


class _Placed(NamedTuple):
    """A cutout at its position in a photograph of a sample."""

    cutout: Cutout
    top: int
    left: int
    level: int
    """Its depth."""

    def draw(self, fg_bg: Pixels, mask: Pixels, depth: Pixels) -> None:
        """Draw it over the images of a sample, which are changed in place."""
        height, width = self.cutout.alpha.shape
        area = np.s_[self.top : self.top + height, self.left : self.left + width]
        paste(self.cutout, self.level, fg_bg[area], mask[area], depth[area])
