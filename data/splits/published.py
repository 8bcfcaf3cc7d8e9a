"""Splits of five published projects, each into training samples and held-out samples.

They depend on the storage order or on all ids of a data set, and most have the same backgrounds on both sides. Use them
to reproduce published numbers, not to measure generalisation to new backgrounds.

Shapes: N is the number of samples of a data set.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.errors import InputError

if TYPE_CHECKING:
    from data.dataset.manifest import SampleIds

SEED = 1
"""Seed of every shuffle; published only for 'draws'."""
PUBLISHED_DRAWS, PUBLISHED_SAMPLES = 130_000, 363_833
"""Number of draws and of samples of the published 'draws' split."""


def by_listing(ids: SampleIds, share: float) -> NDArray[np.bool_]:
    """The first ceil(share * N) samples in storage order (raguram: in the order of the folder listing)."""
    return np.arange(len(ids)) < math.ceil(_rounded(share * len(ids)))


def by_draws(ids: SampleIds, share: float) -> NDArray[np.bool_]:  # noqa: ARG001 - one signature for all
    """All samples except those drawn, with replacement, from the first N - 1 (divyansh).

    The project made 130,000 draws for 363,833 samples, with NumPy's legacy generator and seed 1. Other data sets get
    proportionally many. `share` is ignored: about 70 % of the samples are never drawn.
    """
    training = np.ones(len(ids), np.bool_)
    if len(ids) > 1:
        draws = round(len(ids) * PUBLISHED_DRAWS / PUBLISHED_SAMPLES)
        training[np.random.RandomState(SEED).randint(0, len(ids) - 1, draws)] = False
    return training


def by_shuffle(ids: SampleIds, share: float) -> NDArray[np.bool_]:
    """The first floor(share * N) samples of a shuffle (birender, whose seed is unknown; here it is fixed)."""
    return _first_of_shuffle(len(ids), share, _generator())


def by_pairs(ids: SampleIds, share: float) -> NDArray[np.bool_]:
    """The first floor(share * n) of the shuffled n samples of each pair of background and foreground.

    ramana trained on 32 of 40 samples of each pair, 20 of them mirrored, without a seed; here it is fixed.
    """
    rows_of_pair: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, pair in enumerate(zip(ids.bg_id, ids.fg_id, strict=True)):
        rows_of_pair[pair].append(row)
    training = np.zeros(len(ids), np.bool_)
    generator = _generator()
    for rows in rows_of_pair.values():
        training[rows] = _first_of_shuffle(len(rows), share, generator)
    return training


def by_batch(ids: SampleIds, share: float) -> NDArray[np.bool_]:
    """The samples of the first floor(share * K) of K batches, at least one batch (monimoyd: 9 of 10).

    The batch is the first part of the sample id, as in 'batch1_9_51_1_2'. Batches have different foregrounds, so no
    foreground is on both sides, but the same backgrounds.

    Raises:
        InputError: if the id of a sample has no batch.
    """
    batches = np.array([_batch(sample_id) for sample_id in ids.sample_id], np.int64)
    distinct = np.unique(batches)
    return np.isin(batches, distinct[: max(1, math.floor(_rounded(share * len(distinct))))])


PUBLISHED: dict[str, Callable[[SampleIds, float], NDArray[np.bool_]]] = {
    "listing": by_listing,
    "draws": by_draws,
    "shuffled": by_shuffle,
    "pairs": by_pairs,
    "batch": by_batch,
}
"""Functions of (ids, share of train) that return (N,): whether each sample is a training sample."""


def _generator() -> np.random.RandomState:
    """NumPy's legacy generator, which is the same in every version."""
    return np.random.RandomState(SEED)


def _first_of_shuffle(count: int, share: float, generator: np.random.RandomState) -> NDArray[np.bool_]:
    """(count,) with floor(share * count) random entries True."""
    return generator.permutation(count) < math.floor(_rounded(share * count))


def _rounded(number: float) -> float:
    """Remove floating-point noise: 0.55 * 100 is slightly more than 55."""
    return round(number, 6)


def _batch(sample_id: str) -> int:
    match = re.match(r"batch(\d+)_", sample_id)
    if match is None:
        raise InputError(
            f"The sample id '{sample_id}' has no batch, but a split by batch needs ids such as 'batch1_9_51_1_2'; "
            "split this data set by 'foreground' instead, with data.split_by."
        )
    return int(match[1])
