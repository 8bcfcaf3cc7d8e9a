"""The interface of a split whose images are decoded: batches are gathered from it by index.

Shapes: B samples of a batch, H and W height and width in pixels.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.fitting.sizes import Sides, sides_of
from data.schema import Pixels

_MAX_BLOCKS = 4
"""Memory blocks of batches that are kept for the next batches."""


IMAGES = ("bg", "fg_bg", "mask", "depth")
"""The images of every sample."""


class DecodedImages(NamedTuple):
    """Images of a batch, uint8, in the requested order."""

    bg: Pixels
    """(B, H, W, 3)"""
    fg_bg: Pixels
    """(B, H, W, 3)"""
    mask: Pixels
    """(B, H, W)"""
    depth: Pixels
    """(B, H, W)"""
    valid: Pixels | None = None
    """(B, H, W), as in a `Batch`; None if no sample of the data set has a validity mask, and there is no border."""

    def arrays(self) -> tuple[Pixels, ...]:
        """The arrays without None, in the order of `image_names`."""
        return tuple(array for array in self if array is not None)


def image_names(has_validity: bool) -> tuple[str, ...]:
    """The images of a sample: `IMAGES`, and 'valid' if any sample has a validity mask or a border."""
    return DecodedImages._fields if has_validity else IMAGES


class DecodedSplit(ABC):
    """The samples of a split at one size; safe to use from several threads."""

    def __init__(self, size: int | Sides, *, has_validity: bool = False) -> None:
        self.sides = sides_of(size)
        self.has_validity = has_validity
        """Whether batches have validity masks."""
        self._blocks = _Blocks()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, rows: NDArray[np.int64]) -> DecodedImages:
        """Copy the images of `rows` (B,), in that order. Their memory is reused once no array refers to it.

        Raises:
            InputError: if an image is decoded on the fly and cannot be.
        """

    @abstractmethod
    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Start to load `rows` (B,), which will be gathered next, and return at once."""

    def _checked(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the split (B,).

        Raises:
            IndexError: if one is outside of it.
        """
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"Rows must be in 0..{len(self) - 1}, not {rows.min()}..{rows.max()}.")
        return rows

    def _empty(self, count: int) -> DecodedImages:
        """Uninitialised images of `count` samples."""
        height, width = self.sides
        area = count * height * width
        block = self._blocks.take((9 if self.has_validity else 8) * area)
        bg, fg_bg, *planes = np.split(block, (3 * area, 6 * area, 7 * area, 8 * area)[: 3 + self.has_validity])
        photos = (count, height, width, 3)
        return DecodedImages(
            bg.reshape(photos), fg_bg.reshape(photos), *(plane.reshape(count, height, width) for plane in planes)
        )


class _Blocks:
    """Memory blocks that are reused once no array refers to them.

    The allocator would return the memory of a batch to the system, which zeroes it page by page for the next batch:
    that takes longer than the copying.
    """

    def __init__(self) -> None:
        # Single operations of a deque need no lock, which a finalizer could wait for in the thread that holds it.
        self._free: deque[Pixels] = deque(maxlen=_MAX_BLOCKS)

    def take(self, count: int) -> Pixels:
        """Uninitialised bytes (count,)."""
        block = self._fitting(count)
        # numpy makes the owner of a buffer the base of all its views: `lent` lives as long as the last of them.
        lent = np.frombuffer(block.data, np.uint8, count)
        weakref.finalize(lent, _give_back, weakref.ref(self._free), block).atexit = False
        return lent

    def _fitting(self, count: int) -> Pixels:
        for _ in range(len(self._free)):
            try:
                block = self._free.pop()
            except IndexError:  # another thread took the last one
                break
            if count <= block.nbytes <= 2 * count:
                return block
            self._free.appendleft(block)
        return np.empty(count, np.uint8)


def _give_back(free: weakref.ref[deque[Pixels]], block: Pixels) -> None:
    """Keep a block for reuse; of more than `_MAX_BLOCKS`, the oldest is dropped."""
    blocks = free()
    if blocks is not None:
        blocks.append(block)
