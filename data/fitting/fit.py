"""Bring images of any size and aspect ratio to the size of a network, and planes of a network back.

Shapes: H and W are height and width of the network's images, h and w those of an image, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from data.fitting.sizes import Sides, size_text
from data.images import Resize, resize_depth, resize_to
from data.schema import PADDING, VALID, Pixels

Fit = Literal["stretch", "crop", "pad"]
Value = TypeVar("Value", np.uint8, np.float32)

GREY = 128
"""Level of the border of a padded photograph. It is the same in both, so that the border shows no object."""


class Box(NamedTuple):
    """A rectangle in an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, pixels: NDArray[Value]) -> NDArray[Value]:
        """View the rectangle in an image (h, w) or (h, w, 3)."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Fitting:
    """The way from an image of any size to one of a network."""

    sides: Sides
    """H and W."""
    how: Resize = "area"
    """As in `data.images.resize`."""
    fit: Fit = "stretch"
    """'stretch' changes the aspect ratio; 'crop' takes the largest centred rectangle with that of the network; 'pad'
    keeps the whole image and adds a border on two sides, `GREY` in photographs, 0 in mask and depth."""

    @property
    def key(self) -> tuple[str, str]:
        """What names the images in the cache."""
        return f"{size_text(self.sides).replace(' ', '')}px", self.how + (
            "" if self.fit == "stretch" else f"-{self.fit}"
        )

    @property
    def pads(self) -> bool:
        """Whether images may get a border, which is `PADDING` in a validity mask."""
        return self.fit == "pad"

    def image(self, pixels: Pixels) -> Pixels:
        """Fit a photograph (h, w, 3) or a mask (h, w)."""
        if not self.pads:
            return resize_to(self._cropped(pixels), *self.sides, how=self.how)
        inner = self.inner(pixels.shape[:2])
        if inner[2:] == self.sides:
            return resize_to(pixels, *self.sides, how=self.how)
        fitted = np.full((*self.sides, *pixels.shape[2:]), GREY if pixels.ndim == 3 else 0, np.uint8)
        inner.of(fitted)[:] = resize_to(pixels, inner.height, inner.width, how=self.how)
        return fitted

    def depth(self, depth: Pixels, valid: Pixels | None) -> tuple[Pixels, Pixels | None]:
        """Fit a depth and its validity mask (h, w); None is valid everywhere, but not in a border.

        Returns:
            The depth (H, W), and the mask (H, W) with the levels `VALID`, 0 and `PADDING`; None if it was None and
            there can be no border.
        """
        if not self.pads:
            return resize_depth(
                self._cropped(depth), None if valid is None else self._cropped(valid), *self.sides, how=self.how
            )
        inner = self.inner(depth.shape)
        fitted, mask = np.zeros(self.sides, np.uint8), np.full(self.sides, PADDING, np.uint8)
        small, known = resize_depth(depth, valid, inner.height, inner.width, how=self.how)
        inner.of(fitted)[:], inner.of(mask)[:] = small, VALID if known is None else known
        return fitted, mask

    def inner(self, sides: tuple[int, ...]) -> Box:
        """Where a whole image of height and width `sides` lies in a padded one of the network."""
        (height, width), (rows, columns) = sides, self.sides
        scale = min(rows / height, columns / width)
        inner = min(rows, max(1, round(height * scale))), min(columns, max(1, round(width * scale)))
        return Box((rows - inner[0]) // 2, (columns - inner[1]) // 2, *inner)

    def borders(self, sides: Sequence[tuple[int, ...]]) -> Pixels | None:
        """Masks of whole images of the given heights and widths, (B, H, W): `PADDING` in borders, else `VALID`.

        None if there can be no border.
        """
        if not self.pads:
            return None
        masks = np.full((len(sides), *self.sides), PADDING, np.uint8)
        for mask, own in zip(masks, sides, strict=True):
            self.inner(own).of(mask)[:] = VALID
        return masks

    @classmethod
    def of_whole_images(cls, sides: Sides, how: Resize, fit: Fit) -> Fitting:
        """The fitting for predictions, which are of whole images: 'pad' in place of 'crop'."""
        return cls(sides, how, "pad" if fit == "crop" else fit)

    def restore(self, plane: NDArray[Value], sides: tuple[int, ...]) -> NDArray[Value]:
        """Bring a plane (H, W) of a network back to an image of height and width `sides`, without the border."""
        height, width = sides
        inner = self.inner(sides).of(plane) if self.pads else plane
        return np.asarray(cv2.resize(inner, (width, height), interpolation=cv2.INTER_LINEAR), plane.dtype)

    def _cropped(self, pixels: Pixels) -> Pixels:
        if self.fit != "crop":
            return pixels
        (height, width), (rows, columns) = pixels.shape[:2], self.sides
        scale = min(height / rows, width / columns)
        kept = min(height, max(1, round(rows * scale))), min(width, max(1, round(columns * scale)))
        return np.ascontiguousarray(Box((height - kept[0]) // 2, (width - kept[1]) // 2, *kept).of(pixels))
