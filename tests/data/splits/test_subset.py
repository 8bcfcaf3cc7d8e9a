"""Subsets of a part: reproducible, of whole backgrounds, and no larger than needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset.manifest import SampleIds
from data.splits.splits import SplitKey
from data.splits.subset import subset

COUNT, EACH = 120, 6
IDS = SampleIds(
    sample_id=tuple(f"s{number}" for number in range(COUNT)),
    bg_id=tuple(f"b{number // EACH}" for number in range(COUNT)),
    fg_id=tuple(f"f{number % 10}" for number in range(COUNT)),
)
ROWS = np.arange(0, COUNT, dtype=np.int64)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2 * COUNT), st.integers(0, 5))
def test_backgrounds_stay_whole(samples: int, seed: int) -> None:
    """Half a background would be seen with some of its foregrounds only, as in no data set."""
    chosen = subset(IDS, ROWS, samples, split_by="background", seed=seed)
    backgrounds = {IDS.bg_id[row] for row in chosen}

    assert len(chosen) == len(backgrounds) * EACH
    assert min(samples, COUNT) <= len(chosen) < samples + EACH
    assert (np.diff(chosen) > 0).all()


def test_a_larger_subset_holds_the_smaller() -> None:
    """What was found on few samples is looked at on more of the same."""
    small, large = (set(subset(IDS, ROWS, samples, split_by="background").tolist()) for samples in (18, 60))

    assert small < large


@pytest.mark.parametrize(("split_by", "size"), [("sample", 25), ("foreground", 36), ("shuffled", 25)])
def test_subset_keeps_groups_of_the_split_key_together(split_by: SplitKey, size: int) -> None:
    """Where single samples are divided, single samples are taken."""
    assert len(subset(IDS, ROWS, 25, split_by=split_by)) == size


def test_subset_depends_on_the_seed() -> None:
    """Another seed is another sample of the same data; the same one is the same anywhere."""
    first, again, other = (subset(IDS, ROWS, 30, split_by="background", seed=seed) for seed in (1, 1, 2))

    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_adding_samples_keeps_the_subset() -> None:
    """A subset of the training part does not depend on what lies in the other parts."""
    part = ROWS[ROWS < 60]
    chosen = subset(IDS, part, 12, split_by="background")

    assert set(chosen.tolist()) <= set(part.tolist())
    assert chosen.tolist() == subset(IDS, part, 12, split_by="background").tolist()
