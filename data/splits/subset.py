"""A smaller part of a part: the same samples for all who ask with the same seed, and no background torn apart."""

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
    """Some of `rows`: whole backgrounds (or foregrounds) where that is what the split is by, single samples otherwise.

    The hash of the seed and the id decides on the order in which they are taken, until there are enough. So a larger
    subset holds each smaller one of the same seed, and what else the data set holds changes nothing.

    Args:
        ids: `Dataset.ids`.
        rows: ascending row numbers of a part.
        samples: how many are wanted at least; all of `rows` are taken where there are no more.
        split_by: as in `data.splits.rows`.
        seed: another one takes others.

    Returns:
        Ascending row numbers.
    """
    if samples >= len(rows):
        return rows
    of_row = getattr(ids, KEYS.get(split_by, "sample_id"))
    groups: dict[str, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(of_row[row], []).append(row)
    chosen: list[int] = []
    for group in sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest()):
        if len(chosen) >= samples:
            break
        chosen += groups[group]
    return np.array(sorted(chosen), np.int64)
