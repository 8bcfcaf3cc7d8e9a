"""Reproducible subsets of a part that keep the samples of a background together."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from data.splits.splits import KEYS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.dataset.manifest import SampleIds
    from data.splits.splits import SplitKey


def subset(
    ids: SampleIds, rows: NDArray[np.int64], samples: int, *, split_by: SplitKey, seed: int = 0
) -> NDArray[np.int64]:
    """Choose some of `rows`: whole backgrounds or foregrounds if the split is by them, single samples otherwise.

    The hash of seed and id determines the order. So a larger subset contains each smaller one with the same seed, and
    other samples of the data set have no influence.

    Args:
        ids: `Dataset.ids`.
        rows: ascending row numbers of a part.
        samples: minimum size of the subset; if `rows` has fewer, all are returned.
        split_by: as in `data.splits.splits.rows`.
        seed: of the order.

    Returns:
        Ascending row numbers.
    """
    if samples >= len(rows):
        return rows
    key_of_row = getattr(ids, KEYS.get(split_by, "sample_id"))
    groups: dict[str, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(key_of_row[row], []).append(row)
    chosen: list[int] = []
    for group in sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest()):
        if len(chosen) >= samples:
            break
        chosen += groups[group]
    return np.array(sorted(chosen), np.int64)
