"""Ids by the hundred thousand: held as Arrow holds them, or, where it only matters whether one came before, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa

AT_ONCE = 4096
"""Ids that are Python objects at a time."""


class IdColumn(Sequence[str]):
    """A sequence of ids that never changes; equal to any sequence of the same ids."""

    def __init__(self, ids: Sequence[str] | pa.Array | pa.ChunkedArray) -> None:
        if not isinstance(ids, pa.Array | pa.ChunkedArray):
            ids = pa.array(ids, pa.string())
        # As one: a dictionary for each chunk would be many.
        plain = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        first = plain.slice(0, AT_ONCE)
        # To count ids that all differ would take more memory than they do.
        self._ids: pa.Array = plain.dictionary_encode() if 2 * len(first.unique()) < len(first) else plain

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return int(self._ids.nbytes)

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> IdColumn: ...
    def __getitem__(self, index: int | slice) -> str | IdColumn:
        if isinstance(index, slice):
            return IdColumn(self._ids.take(np.arange(len(self))[index]))
        return str(self._ids[int(index)].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            yield from self._ids.slice(start, AT_ONCE).to_pylist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"IdColumn({len(self)} ids, {self.nbytes} bytes)"


class SeenIds:
    """Which ids came before, in 16 bytes each: of SHA-256, as two numbers, the rows sorted by the first.

    Two ids of 400,000 are taken for one with a probability of 2e-28.
    """

    def __init__(self) -> None:
        self._sorted = np.zeros((0, 2), np.uint64)
        self._recent: set[tuple[int, int]] = set()

    def __contains__(self, id_: str) -> bool:
        hashed = _hashed(id_)
        if hashed in self._recent:
            return True
        first = self._sorted[:, 0]
        place = int(np.searchsorted(first, np.uint64(hashed[0])))
        while place < len(first) and first[place] == hashed[0]:
            if self._sorted[place, 1] == hashed[1]:
                return True
            place += 1
        return False

    def add(self, id_: str) -> None:
        """Remember an id."""
        self._recent.add(_hashed(id_))
        # Merged less often as there are more: every sample costs the same on average.
        if len(self._recent) >= max(AT_ONCE, len(self._sorted) // 8):
            merged = np.concatenate([self._sorted, np.array(list(self._recent), np.uint64)])
            self._sorted = merged[np.argsort(merged[:, 0])]
            self._recent.clear()


def _hashed(id_: str) -> tuple[int, int]:
    digest = hashlib.sha256(id_.encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")
