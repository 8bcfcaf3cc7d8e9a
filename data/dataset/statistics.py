"""Pixel means and standard deviations of a data set, computed one image at a time.

The results are exact: pixels are counted by 8-bit level, and the moments follow from the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from data.schema import Pixels

LEVELS = 256
MAX_EXACT = 2**24
"""OpenCV counts levels two to three times as fast as numpy, but as float32, which is exact up to this number."""
FOREGROUND_ABOVE = 127
"""A mask pixel above this level is foreground."""


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """Moments over all pixels of all images, scaled to 0..1."""

    mean: tuple[float, ...]
    """In 0..1, one value per channel."""
    std: tuple[float, ...]
    """In 0..0.5, one value per channel; population standard deviation."""


@dataclass(frozen=True, kw_only=True)
class MaskFraction:
    """Share of the image covered by foreground (mask above 127), in 0..1, over the samples."""

    mean: float
    min: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Pixel statistics of a data set; each background counts once, not once per sample."""

    bg: ChannelStatistics
    fg_bg: ChannelStatistics
    mask: ChannelStatistics
    depth: ChannelStatistics
    mask_fraction: MaskFraction


class ChannelMoments:
    """Counts pixel levels of images with the same number of channels."""

    def __init__(self, channels: int) -> None:
        self._counts = np.zeros((channels, LEVELS), np.int64)

    def add(self, pixels: Pixels) -> None:
        """Add an image (H, W, channels), or (H, W) for a single channel."""
        planes = pixels.reshape(-1, len(self._counts))
        for channel, counts in enumerate(self._counts):
            if pixels.size < MAX_EXACT:
                counts += (
                    cv2.calcHist([planes[:, None]], [channel], None, [LEVELS], [0, LEVELS]).ravel().astype(np.int64)
                )
            else:
                counts += np.bincount(planes[:, channel], minlength=LEVELS)

    def result(self) -> ChannelStatistics:
        """Moments of all added images; needs at least one pixel."""
        levels = np.arange(LEVELS) / (LEVELS - 1)
        weights = self._counts / self._counts.sum(axis=1, keepdims=True)
        mean = weights @ levels
        variance = (weights * (levels - mean[:, None]) ** 2).sum(axis=1)
        return ChannelStatistics(mean=tuple(mean.tolist()), std=tuple(np.sqrt(variance).tolist()))


class StatisticsGatherer:
    """Computes `Statistics` from images added in any order, in constant memory."""

    def __init__(self) -> None:
        self._bg = ChannelMoments(3)
        self._fg_bg = ChannelMoments(3)
        self._mask = ChannelMoments(1)
        self._depth = ChannelMoments(1)
        self._samples = 0
        self._fraction_sum = 0.0
        self._fraction_min = 1.0
        self._fraction_max = 0.0

    def add_background(self, bg: Pixels) -> None:
        """Add a background (H, W, 3); call once per background."""
        self._bg.add(bg)

    def add_sample(self, fg_bg: Pixels, mask: Pixels, depth: Pixels) -> None:
        """Add the other images of a sample: (H, W, 3), (H, W) and (H, W)."""
        self._fg_bg.add(fg_bg)
        self._mask.add(mask)
        self._depth.add(depth)
        fraction = float((mask > FOREGROUND_ABOVE).mean())
        self._samples += 1
        self._fraction_sum += fraction
        self._fraction_min = min(self._fraction_min, fraction)
        self._fraction_max = max(self._fraction_max, fraction)

    def result(self) -> Statistics:
        """Statistics of all added images; needs at least one background and one sample."""
        return Statistics(
            bg=self._bg.result(),
            fg_bg=self._fg_bg.result(),
            mask=self._mask.result(),
            depth=self._depth.result(),
            mask_fraction=MaskFraction(
                mean=self._fraction_sum / self._samples, min=self._fraction_min, max=self._fraction_max
            ),
        )
