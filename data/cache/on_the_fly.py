"""Splits that are decoded on the fly, where decoded images do not fit into the cache.

A sample costs as much in every epoch as it costs once with the cache. All cores that the process may use share it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import prod
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from data.cache.decoded import DecodedImages, DecodedSplit
from data.cache.encoded import EncodedImages
from data.dataset.dataset import Dataset
from data.fitting.fit import Fitting
from data.images import decode_photo, decode_plane, decode_valid
from data.lru import LruCache
from data.schema import VALID, Pixels

_MAX_PREFETCHED_BYTES = 256 * 2**20
"""Images that were prefetched and not gathered yet; of more, the oldest are dropped."""
_MAX_BACKGROUND_BYTES = 256 * 2**20
"""Decoded backgrounds that stay in memory: several samples share one."""

_SampleImages = tuple[Pixels, ...]
"""The bg and fg_bg (H, W, 3), mask and depth (H, W) of a sample, and with validity masks or borders valid (H, W)."""


class OnTheFlySplit(DecodedSplit):
    """The samples `rows` of a data set, in that order; `images` are those of the whole data set."""

    def __init__(self, dataset: Dataset, images: EncodedImages, rows: NDArray[np.int64], fitting: Fitting) -> None:
        super().__init__(fitting.sides, has_validity=dataset.info.has_validity or fitting.pads)
        self._has_masks = dataset.info.has_validity
        self._rows = rows
        self._ids = dataset.ids
        self._where = str(dataset.path)
        self._images = images
        self._fitting = fitting
        self._backgrounds = LruCache[str, Pixels](_MAX_BACKGROUND_BYTES)
        self._lock = Lock()
        self._start()

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, rows: NDArray[np.int64]) -> DecodedImages:
        """Decode the images of `rows` (B,), in that order, to the same pixels as the cache has.

        Raises:
            InputError: if a part is damaged or gone, or an image cannot be decoded.
        """
        images = self._empty(len(rows))
        with self._lock:
            self._restart_if_forked()
            # All are submitted before the first is waited for.
            futures = [
                self._pending.pop(row) if row in self._pending else self._pool.submit(self._decode, row)
                for row in rows.tolist()
            ]
        try:
            for index, future in enumerate(futures):
                for stack, pixels in zip(images.arrays(), future.result(), strict=True):
                    stack[index] = pixels
        finally:
            for future in futures:
                future.cancel()
        return images

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Start to decode `rows` (B,); errors are raised when they are gathered."""
        kept = _MAX_PREFETCHED_BYTES // ((9 if self.has_validity else 8) * prod(self.sides))
        with self._lock:
            self._restart_if_forked()
            for row in rows.tolist():
                if row not in self._pending:
                    self._pending[row] = self._pool.submit(self._decode, row)
            while len(self._pending) > kept:
                self._pending.popitem(last=False)[1].cancel()

    def _start(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(_threads(), thread_name_prefix="decoding")
        self._pending: OrderedDict[int, Future[_SampleImages]] = OrderedDict()

    def _restart_if_forked(self) -> None:
        """A forked process, such as a worker of torch's `DataLoader`, has none of the threads, and would wait."""
        if self._process != os.getpid():
            self._start()

    def _decode(self, row: int) -> _SampleImages:
        stored = int(self._rows[row])
        bg = self._backgrounds.get(self._ids.bg_id[stored], partial(self._photo, stored, "bg"))
        mask = decode_plane(*self._encoded(stored, "mask"))
        depth, valid = decode_plane(*self._encoded(stored, "depth")), None
        if self._has_masks:
            encoded, where = self._encoded(stored, "valid")
            valid = decode_valid(encoded, where) if encoded else np.full(depth.shape, VALID, np.uint8)
        depth, valid = self._fitting.depth(depth, valid)
        images = bg, self._photo(stored, "fg_bg"), self._fitting.image(mask), depth
        return images if valid is None else (*images, valid)

    def _photo(self, stored: int, name: str) -> Pixels:
        """A photograph of the data set's row `stored`, at its final size."""
        return self._fitting.image(decode_photo(*self._encoded(stored, name)))

    def _encoded(self, stored: int, name: str) -> tuple[bytes, str]:
        """An image of the data set's row `stored`, and where it is, for error messages."""
        where = f"{name} of sample {self._ids.sample_id[stored]} in {self._where}"
        return self._images.read(stored, name), where


def _threads() -> int:
    """The cores that this process may use: trials that run at the same time share the machine's."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0))
    return min(int(limit), cores) if limit.isdecimal() and int(limit) else cores
