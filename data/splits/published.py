"""How five published projects divided their samples: which ones are training, the rest being held out.

Each depends on the data set's storage order or on all of its ids, and most have the same rooms on both sides: they
are there to repeat published numbers, not to measure what a network makes of a room it has not seen.
Shapes: N samples of a data set.
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
"""Of every shuffle; published with 'draws' only."""
DRAWS, DRAWN_FROM = 130_000, 363_833
"""How often 'draws' drew, from how many samples."""


def by_listing(ids: SampleIds, share: float) -> NDArray[np.bool_]:
    """The first ceil(share * N) samples in storage order (raguram: of the order that the folder was listed in)."""
    return np.arange(len(ids)) < math.ceil(_rounded(share * len(ids)))


def by_draws(ids: SampleIds, share: float) -> NDArray[np.bool_]:  # noqa: ARG001 - one signature for all
    """All but the samples that were drawn, with replacement, from the first N - 1 (divyansh).

    There were 130,000 draws for 363,833 samples, with NumPy's legacy generator and seed 1; other data sets get
    as many draws in proportion. The share is not asked: about 70 % were never drawn.
    """
    training = np.ones(len(ids), np.bool_)
    if len(ids) > 1:
        draws = round(len(ids) * DRAWS / DRAWN_FROM)
        training[np.random.RandomState(SEED).randint(0, len(ids) - 1, draws)] = False
    return training


def by_shuffle(ids: SampleIds, share: float) -> NDArray[np.bool_]:
    """The first floor(share * N) samples of a shuffle (birender; its seed was not kept, here there is one)."""
    return _first_of_shuffle(len(ids), share, _generator())


def by_pairs(ids: SampleIds, share: float) -> NDArray[np.bool_]:
    """Of the n samples of each pair of background and foreground, the first floor(share * n) of a shuffle.

    ramana had 40 samples of each pair, 20 of them mirrored, and trained on 32; it had no seed, here there is one.
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
    """The samples of the first floor(share * K) of K batches, at least of one (monimoyd: of 9 of 10).

    A batch is the start of a sample's id, as in 'batch1_9_51_1_2'. Each has foregrounds of its own, so that no
    foreground is on both sides; all have the same backgrounds.

    Raises:
        InputError: if a sample is of no batch.
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
"""From a data set's ids and the share of train to (N,): whether each sample is a training sample."""


def _generator() -> np.random.RandomState:
    """The legacy generator, whose numbers are the same in every version of NumPy."""
    return np.random.RandomState(SEED)


def _first_of_shuffle(count: int, share: float, generator: np.random.RandomState) -> NDArray[np.bool_]:
    """(count,) with floor(share * count) of them, in random places."""
    return generator.permutation(count) < math.floor(_rounded(share * count))


def _rounded(number: float) -> float:
    """Without the sliver by which 0.55 * 100 is more than 55."""
    return round(number, 6)


def _batch(sample_id: str) -> int:
    match = re.match(r"batch(\d+)_", sample_id)
    if match is None:
        raise InputError(
            f"The sample '{sample_id}' is of no batch, but a split by batch needs one in the id of every sample, as in "
            "'batch1_9_51_1_2'; split this data set by 'foreground' instead, with data.split_by in the spec."
        )
    return int(match[1])
