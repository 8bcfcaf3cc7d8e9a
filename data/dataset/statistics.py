"""Pixel means and standard deviations of a data set, computed one image at a time.

The results are exact: pixels are counted by 8-bit level, and the moments follow from the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
class ValidFraction:
    """Share of the image where the depth was measured, in 0..1, over all samples of a data set with validity masks."""

    mean: float
    min: float
    max: float
    masks: int
    """Number of samples with a mask; in the others, the depth was measured everywhere."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Pixel statistics of a data set; each background counts once, not once per sample."""

    bg: ChannelStatistics
    fg_bg: ChannelStatistics
    mask: ChannelStatistics
    depth: ChannelStatistics
    """Of the pixels where the depth was measured."""
    mask_fraction: MaskFraction
    valid_fraction: ValidFraction | None = None
    """None if no sample has a validity mask."""


@dataclass(frozen=True, kw_only=True)
class MeasuredSamples:
    """What `Statistics` need of N samples without validity masks, so that another process can add them."""

    levels: NDArray[np.int64]
    """(5, `LEVELS`): number of pixels at each level, of the three channels of fg_bg, of mask and of depth."""
    covered: NDArray[np.float64]
    """(N,): share of each mask above 127, in 0..1."""


def count_levels(pixels: Pixels) -> NDArray[np.int64]:
    """Number of pixels at each level: (C, `LEVELS`) of (H, W, C), or (1, `LEVELS`) of (H, W)."""
    moments = ChannelMoments(pixels.shape[2] if pixels.ndim == 3 else 1)
    moments.add(pixels)
    return moments.counts


class ChannelMoments:
    """Counts pixel levels of images with the same number of channels."""

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, LEVELS), np.int64)
        """Number of pixels of each channel at each level."""

    @property
    def is_empty(self) -> bool:
        """Whether no pixel was added."""
        return not self.counts.any()

    def add(self, pixels: Pixels) -> None:
        """Add an image (H, W, channels), or (H, W) or some pixels (N,) for a single channel."""
        if pixels.size >= MAX_EXACT:
            for counts, plane in zip(self.counts, pixels.reshape(-1, len(self.counts)).T, strict=True):
                counts += np.bincount(plane, minlength=LEVELS)
            return
        for channel, counts in enumerate(self.counts):
            found = cv2.calcHist([pixels], [channel], None, [LEVELS], [0, LEVELS])
            counts += found.ravel().astype(np.int64)

    def result(self) -> ChannelStatistics:
        """Moments of all added images; needs at least one pixel."""
        levels = np.arange(LEVELS) / (LEVELS - 1)
        weights = self.counts / self.counts.sum(axis=1, keepdims=True)
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
        self._covered = _Fractions()
        self._valid = _Fractions()
        self._valid_masks = 0

    def add_background(self, bg: Pixels) -> None:
        """Add a background (H, W, 3); call once per background."""
        self._bg.add(bg)

    def add_sample(self, fg_bg: Pixels, mask: Pixels, depth: Pixels, valid: Pixels | None = None) -> None:
        """Add the other images of a sample: (H, W, 3), and (H, W) each."""
        self._fg_bg.add(fg_bg)
        self._mask.add(mask)
        self._depth.add(depth if valid is None else depth[valid > 0])
        self._covered.add(float((mask > FOREGROUND_ABOVE).mean()))
        self._valid.add(1.0 if valid is None else float((valid > 0).mean()))
        self._valid_masks += valid is not None

    def add_measured(self, measured: MeasuredSamples) -> None:
        """Add samples that were measured elsewhere, with the same result as `add_sample` of each in their order."""
        self._fg_bg.counts += measured.levels[:3]
        self._mask.counts += measured.levels[3:4]
        self._depth.counts += measured.levels[4:]
        for share in measured.covered.tolist():
            self._covered.add(share)
            self._valid.add(1.0)

    @property
    def has_depth(self) -> bool:
        """Whether the depth of any pixel was measured."""
        return not self._depth.is_empty

    def result(self) -> Statistics:
        """Statistics of all added images; needs a background, and a sample with depth."""
        return Statistics(
            bg=self._bg.result(),
            fg_bg=self._fg_bg.result(),
            mask=self._mask.result(),
            depth=self._depth.result(),
            mask_fraction=MaskFraction(mean=self._covered.mean, min=self._covered.min, max=self._covered.max),
            valid_fraction=self._valid_fraction(),
        )

    def _valid_fraction(self) -> ValidFraction | None:
        if not self._valid_masks:
            return None
        return ValidFraction(mean=self._valid.mean, min=self._valid.min, max=self._valid.max, masks=self._valid_masks)


class _Fractions:
    """Mean and range of shares in 0..1."""

    def __init__(self) -> None:
        self.min, self.max = 1.0, 0.0
        self._count, self._sum = 0, 0.0

    def add(self, share: float) -> None:
        self._count += 1
        self._sum += share
        self.min, self.max = min(self.min, share), max(self.max, share)

    @property
    def mean(self) -> float:
        return self._sum / self._count
