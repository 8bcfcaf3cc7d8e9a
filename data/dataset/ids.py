"""Hundreds of thousands of ids in little memory: an Arrow column."""

from __future__ import annotations

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
