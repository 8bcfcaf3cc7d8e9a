"""Memory-efficient collections of hundreds of thousands of ids: an Arrow column, and a set of hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa

CHUNK_IDS = 4096
"""Ids that exist as Python objects at the same time."""


class IdColumn(Sequence[str]):
    """An immutable sequence of ids; equal to any sequence of the same ids."""

    def __init__(self, ids: Sequence[str] | pa.Array | pa.ChunkedArray) -> None:
        if not isinstance(ids, pa.Array | pa.ChunkedArray):
            ids = pa.array(ids, pa.string())
        # Combined, because a chunked array has a dictionary per chunk.
        plain = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        # Only the first ids are counted: counting unique ids takes more memory than the ids.
        first = plain.slice(0, CHUNK_IDS)
        self._ids: pa.Array = plain.dictionary_encode() if 2 * len(first.unique()) < len(first) else plain

    @property
    def nbytes(self) -> int:
        """Memory of the ids in bytes."""
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
        for start in range(0, len(self), CHUNK_IDS):
            yield from self._ids.slice(start, CHUNK_IDS).to_pylist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"IdColumn({len(self)} ids, {self.nbytes} bytes)"


class SeenIds:
    """A set of ids with 16 bytes per id: the first half of the SHA-256.

    The probability that two of 400,000 ids collide is 2e-28.
    """

    def __init__(self) -> None:
        self._sorted = np.zeros((0, 2), np.uint64)
        """Hashes as two numbers, sorted by the first."""
        self._recent: set[tuple[int, int]] = set()

    def __contains__(self, id_: str) -> bool:
        hashed = _hashed(id_)
        if hashed in self._recent:
            return True
        first = self._sorted[:, 0]
        index = int(np.searchsorted(first, np.uint64(hashed[0])))
        while index < len(first) and first[index] == hashed[0]:
            if self._sorted[index, 1] == hashed[1]:
                return True
            index += 1
        return False

    def add(self, id_: str) -> None:
        """Add an id."""
        self._recent.add(_hashed(id_))
        # The threshold grows with the array, so the average cost per id is constant.
        if len(self._recent) >= max(CHUNK_IDS, len(self._sorted) // 8):
            merged = np.concatenate([self._sorted, np.array(list(self._recent), np.uint64)])
            self._sorted = merged[np.argsort(merged[:, 0])]
            self._recent.clear()


def _hashed(id_: str) -> tuple[int, int]:
    digest = hashlib.sha256(id_.encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")
