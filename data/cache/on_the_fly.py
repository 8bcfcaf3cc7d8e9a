"""Samples that are decoded whenever they are asked for: what replaces the cache where its entries do not fit.

A sample costs as much in every epoch as it does once with the cache; all cores that the process was given share it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from data.cache.encoded import EncodedPictures
from data.cache.mapped import DecodedPictures, DecodedSplit
from data.dataset.dataset import Dataset
from data.images import Resize, decode_photo, decode_plane, resize_to
from data.schema import Pixels

_AHEAD_BYTES = 256 * 2**20
"""Pictures that were prefetched and not yet asked for; of more, the oldest go."""
_BACKGROUND_BYTES = 256 * 2**20
"""Decoded backgrounds that are kept: several samples share one."""

Planes = tuple[Pixels, Pixels, Pixels, Pixels]
"""A sample's bg and fg_bg (S, S, 3), mask and depth (S, S)."""


class OnTheFlySplit(DecodedSplit):
    """The samples `rows` of a data set, in that order."""

    def __init__(self, dataset: Dataset, rows: NDArray[np.int64], size: int, resize: Resize) -> None:
        super().__init__(size)
        self._rows = rows
        self._ids = dataset.ids
        self._samples = EncodedPictures(dataset, "samples")
        self._resize: Resize = resize
        self._backgrounds = _Backgrounds(dataset, size, resize)
        self._pool = ThreadPoolExecutor(_threads(), thread_name_prefix="decoding")
        self._coming: OrderedDict[int, Future[Planes]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, rows: NDArray[np.int64]) -> DecodedPictures:
        """The pictures of `rows` (B,), in that order, as the cache would have them.

        Raises:
            InputError: if a part is damaged or gone, or a picture cannot be decoded.
        """
        pictures = self._empty(len(rows))
        with self._lock:
            # All are on their way before the first is waited for.
            futures = [
                self._coming.pop(row) if row in self._coming else self._pool.submit(self._decode, row)
                for row in _numbers(rows)
            ]
        try:
            for place, future in enumerate(futures):
                for stack, pixels in zip(pictures, future.result(), strict=True):
                    stack[place] = pixels
        finally:
            for future in futures:
                future.cancel()
        return pictures

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Begin to decode `rows` (B,); what goes wrong is raised when they are gathered."""
        kept = _AHEAD_BYTES // (8 * self.size**2)
        with self._lock:
            for row in _numbers(rows):
                if row not in self._coming:
                    self._coming[row] = self._pool.submit(self._decode, row)
            while len(self._coming) > kept:
                self._coming.popitem(last=False)[1].cancel()

    def _decode(self, row: int) -> Planes:
        stored = int(self._rows[row])
        fg_bg, mask, depth = self._samples.read(stored)
        where = f"of sample {self._ids.sample_id[stored]} in {self._samples.where(stored)}"
        return (
            self._backgrounds.get(self._ids.bg_id[stored]),
            self._sized(decode_photo(fg_bg, f"fg_bg {where}")),
            self._sized(decode_plane(mask, f"mask {where}")),
            self._sized(decode_plane(depth, f"depth {where}")),
        )

    def _sized(self, pixels: Pixels) -> Pixels:
        return resize_to(pixels, self.size, self.size, how=self._resize)


class _Backgrounds:
    """Backgrounds at their final size: those that were used last stay decoded."""

    def __init__(self, dataset: Dataset, size: int, resize: Resize) -> None:
        self._pictures = EncodedPictures(dataset, "backgrounds")
        self._row_of = {bg_id: row for row, bg_id in enumerate(self._pictures.texts("bg_id"))}
        self._size = size
        self._resize: Resize = resize
        self._decoded: OrderedDict[str, Pixels] = OrderedDict()
        self._kept = max(1, _BACKGROUND_BYTES // (3 * size**2))
        self._lock = Lock()

    def get(self, bg_id: str) -> Pixels:
        """Pixels (S, S, 3); not to be written to."""
        with self._lock:
            if bg_id in self._decoded:
                self._decoded.move_to_end(bg_id)
                return self._decoded[bg_id]
        row = self._row_of[bg_id]
        (encoded,) = self._pictures.read(row)
        pixels = decode_photo(encoded, f"background {bg_id} in {self._pictures.where(row)}")
        pixels = resize_to(pixels, self._size, self._size, how=self._resize)
        with self._lock:
            self._decoded[bg_id] = pixels
            while len(self._decoded) > self._kept:
                self._decoded.popitem(last=False)
        return pixels


def _numbers(rows: NDArray[np.int64]) -> list[int]:
    return [int(row) for row in rows]


def _threads() -> int:
    """The cores that this process was given: trials that run beside each other have some each."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0))
    return min(int(given), cores) if given.isdecimal() and int(given) else cores
