"""Published splits: the training part is the published one, and the rest becomes val and test."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset.manifest import SampleIds
from data.errors import InputError
from data.splits.published import PUBLISHED, by_batch, by_draws, by_listing, by_pairs, by_shuffle
from data.splits.splits import KEYS, PARTS, SPLITS, SplitKey, rows

NAMES: tuple[SplitKey, ...] = ("listing", "draws", "shuffled", "pairs", "batch")
HALVED = (0.7, 0.15, 0.15)
grids = st.tuples(st.integers(1, 5), st.integers(2, 12), st.integers(4, 20))
percents = st.integers(30, 90)


def grid(backgrounds: int, foregrounds: int, takes: int, per_batch: int = 1) -> SampleIds:
    """So many samples of each pair, in batches of so many foregrounds."""
    samples = [(bg, fg, take) for fg in range(foregrounds) for bg in range(backgrounds) for take in range(takes)]
    return SampleIds(
        sample_id=tuple(f"batch{1 + fg // per_batch}_{fg}_{bg}_{take}" for bg, fg, take in samples),
        bg_id=tuple(f"bg{bg}" for bg, _, _ in samples),
        fg_id=tuple(f"fg{fg}" for _, fg, _ in samples),
    )


def numbered(count: int) -> SampleIds:
    return SampleIds(sample_id=tuple(f"s{row}" for row in range(count)), bg_id=("bg",) * count, fg_id=("fg",) * count)


def parts(ids: SampleIds, split_by: SplitKey, shares: tuple[float, float, float]) -> dict[str, list[int]]:
    """Rows of each part; none where it has no samples."""
    found = {}
    for part in PARTS:
        try:
            found[part] = rows(ids, part, split_by, shares).tolist()
        except InputError:
            found[part] = []
    return found


def test_all_splits_are_named() -> None:
    """What the configuration offers is what there is."""
    assert (*KEYS, *PUBLISHED, "stored") == SPLITS
    assert tuple(PUBLISHED) == NAMES


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), grids, percents, st.integers(0, 4))
def test_every_sample_stays_in_one_part(
    split_by: SplitKey, size: tuple[int, int, int], percent: int, quarters: int
) -> None:
    """A search computes the parts of a split repeatedly, in several processes."""
    ids = grid(*size)
    left = 1 - percent / 100
    shares = (percent / 100, left * quarters / 4, left * (4 - quarters) / 4)

    first = parts(ids, split_by, shares)

    assert sorted(first["train"] + first["val"] + first["test"]) == list(range(len(ids)))
    assert parts(ids, split_by, shares) == first
    assert not (quarters == 0 and first["val"])
    assert not (quarters == 4 and first["test"])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), grids, percents)
def test_training_part_does_not_depend_on_the_validation_share(
    split_by: SplitKey, size: tuple[int, int, int], percent: int
) -> None:
    """The published training part is kept, whether or not a validation part is taken from the rest."""
    ids, share = grid(*size), percent / 100

    with_val = parts(ids, split_by, (share, (1 - share) / 2, (1 - share) / 2))
    without = parts(ids, split_by, (share, 0.0, 1 - share))

    assert with_val["train"] == without["train"]
    assert sorted(with_val["val"] + with_val["test"]) == without["test"]


@pytest.mark.parametrize("split_by", NAMES)
def test_remainder_is_halved_by_hash(split_by: SplitKey) -> None:
    """Published splits have no validation part, and choosing by the test part would be choosing by the answer."""
    found = parts(grid(10, 10, 20), split_by, HALVED)

    rest = len(found["val"]) + len(found["test"])
    assert abs(len(found["val"]) - rest / 2) <= 2 * math.sqrt(rest)  # 4 standard deviations


@pytest.mark.parametrize(("count", "train"), [(20_000, 14_000), (457_600, 320_320), (11, 8)])
def test_listing_split_takes_the_first_samples(count: int, train: int) -> None:
    """14,000 of the tiny set and 320,320 of the full one were published; a part of a sample is a sample."""
    training = by_listing(numbered(count), 0.70)

    assert training[:train].all()
    assert not training[train:].any()


@pytest.mark.parametrize(("share", "count", "train"), [(0.55, 100, 55), (0.57, 100, 57), (0.29, 100, 29)])
def test_share_is_robust_to_rounding(share: float, count: int, train: int) -> None:
    """0.55 * 100 is a little more than 55 in floating point, and 0.29 * 100 a little less than 29."""
    assert by_listing(numbered(count), share).sum() == train
    assert by_shuffle(numbered(count), share).sum() == train


def test_random_splits_equal_the_published_ones() -> None:
    """Of 363,833 samples, 109,074 were drawn and 254,759 left; the last one could not be drawn."""
    training = by_draws(numbered(363_833), 0.5)

    assert training.sum() == 254_759
    assert training[-1]


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_random_splits_of_smaller_sets_are_proportional(count: int) -> None:
    """n draws from m leave m exp(-n / m): 70 % here."""
    left = by_draws(numbered(count), 0.5).mean()

    assert abs(left - math.exp(-130_000 / 363_833)) <= 1 / math.sqrt(count)


def test_shuffled_takes_the_share_from_everywhere() -> None:
    """15,232 of 21,760 were published, in no order of the samples."""
    training = by_shuffle(numbered(21_760), 0.70)

    assert training.sum() == 15_232
    thirds = [third.mean() for third in np.array_split(training, 3)]
    assert all(0.65 < third < 0.75 for third in thirds)


def test_pairs_has_the_share_of_each_pair() -> None:
    """Of 40 samples of a background and a foreground 32 were trained on, not the same ones of each."""
    ids = grid(3, 4, 40)
    training = by_pairs(ids, 0.8)

    count = Counter(pair for pair, is_in in zip(zip(ids.bg_id, ids.fg_id, strict=True), training, strict=True) if is_in)
    assert list(count.values()) == [32] * 12
    assert len({tuple(chosen) for chosen in training.reshape(12, 40)}) > 1


def test_batch_keeps_the_last_batches_and_their_foregrounds_for_testing() -> None:
    """Of ten batches, nine were trained on; by number, in which the tenth is the last and not the second."""
    ids = grid(3, 100, 2, per_batch=10)
    training = by_batch(ids, 0.9)

    held_out = {ids.fg_id[row] for row in np.flatnonzero(~training)}
    assert held_out == {f"fg{fg}" for fg in range(90, 100)}
    assert not held_out & {ids.fg_id[row] for row in np.flatnonzero(training)}


@pytest.mark.parametrize(("batches", "share", "train"), [(10, 0.7, 7), (2, 0.9, 1), (3, 0.3, 1), (5, 1.0, 5)])
def test_batch_takes_whole_batches_within_the_share(batches: int, share: float, train: int) -> None:
    """Something is left for testing wherever there are two batches, and the first always trains."""
    ids = grid(2, batches, 5)

    assert by_batch(ids, share).sum() == train * 10


def test_batch_needs_batches() -> None:
    """Another layout's samples are of none."""
    with pytest.raises(InputError, match=r"The sample id 's0' has no batch.*data\.split_by\."):
        rows(numbered(5), "train", "batch")


@pytest.mark.parametrize(("split_by", "needed"), [("pairs", "samples of each pair"), ("listing", "samples")])
def test_error_for_an_empty_part_names_what_is_missing(split_by: SplitKey, needed: str) -> None:
    """With one sample of each pair, none of a pair is within a share of 0.7."""
    part = "train" if split_by == "pairs" else "val"
    ids = grid(1, 4, 1) if split_by == "pairs" else numbered(1)

    with pytest.raises(InputError, match=rf"'{part}' of the published split '{split_by}' .* with more {needed}"):
        rows(ids, part, split_by)


def test_shares_that_do_not_fit_are_refused() -> None:
    """As with any other split."""
    with pytest.raises(InputError, match="shares of train, val and test"):
        rows(numbered(5), "train", "listing", (0.7, 0.7, 0.7))
