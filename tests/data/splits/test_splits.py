"""Splits: an id always stays in its part, and no room or person is in two parts."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset.manifest import SampleIds, StoredSplit
from data.errors import InputError
from data.splits.splits import PARTS, SplitKey, assign, nearest_shares, rows

texts = st.lists(st.text(min_size=1), min_size=1, max_size=40, unique=True)
shares = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20)).map(
    lambda weights: (weights[0] / sum(weights), weights[1] / sum(weights), weights[2] / sum(weights))
)


def ids_of(samples: int, backgrounds: int, foregrounds: int) -> SampleIds:
    return SampleIds(
        sample_id=tuple(f"s{number}" for number in range(samples)),
        bg_id=tuple(f"bg{number % backgrounds}" for number in range(samples)),
        fg_id=tuple(f"fg{number % foregrounds}" for number in range(samples)),
    )


@settings(max_examples=50, deadline=None)
@given(texts, texts, shares, st.randoms(use_true_random=False))
def test_id_stays_in_its_part(
    ids: list[str], others: list[str], wanted: tuple[float, float, float], random: object
) -> None:
    """A data set that grows, or is listed in another order, must not move a tested image into training."""
    before = dict(zip(ids, assign(ids, wanted), strict=True))
    mixed = [*ids, *others]
    random.shuffle(mixed)  # type: ignore[attr-defined]

    after = dict(zip(mixed, assign(mixed, wanted), strict=True))

    assert {id_: after[id_] for id_ in ids} == before


def test_parts_of_known_ids() -> None:
    """The rule is part of a data set's meaning: another release must give the parts that this one gave."""
    # `printf bg1 | sha256sum` starts with 7777, of 10000 in hexadecimal 0.467; bg2 b436, 0.704; bg6 dbd3, 0.859.
    assert assign(["bg1", "bg2", "bg6"], (0.70, 0.15, 0.15)).tolist() == ["train", "val", "test"]


@pytest.mark.parametrize("wanted", [(0.70, 0.15, 0.15), (0.5, 0.25, 0.25), (0.9, 0.1, 0.0)])
def test_shares_are_approached(wanted: tuple[float, float, float]) -> None:
    """With many ids each part has its share, up to 4 standard deviations of a binomial draw."""
    parts = assign([f"background {number}" for number in range(5000)], wanted)

    for part, share in zip(PARTS, wanted, strict=True):
        spread = 4 * np.sqrt(share * (1 - share) / 5000)
        assert abs((parts == part).mean() - share) <= spread


@settings(max_examples=50, deadline=None)
@given(texts)
def test_a_part_without_a_share_stays_empty(ids: list[str]) -> None:
    """0.1 + 0.2 + 0.7 is a little more than 1 in floating point; a share of 0 is none all the same."""
    assert "test" not in assign(ids, (0.8, 0.2, 0.0))
    assert "test" not in assign(ids, (0.1 + 0.2, 0.7, 0.0))
    assert set(assign(ids, (1.0, 0.0, 0.0))) == {"train"}


@pytest.mark.parametrize("split_by", ["background", "foreground", "sample"])
def test_parts_are_disjoint_and_complete(split_by: SplitKey) -> None:
    """Every sample is in exactly one part, and no id that the split is made by is in two."""
    ids = ids_of(600, 60, 45)
    key = {"background": ids.bg_id, "foreground": ids.fg_id, "sample": ids.sample_id}[split_by]

    parts = [rows(ids, part, split_by) for part in PARTS]

    assert np.sort(np.concatenate(parts)).tolist() == list(range(600))
    sets = [{key[row] for row in part} for part in parts]
    assert not sets[0] & sets[1] | sets[0] & sets[2] | sets[1] & sets[2]


def test_train_and_val_can_be_combined() -> None:
    """The best configuration is trained once more on both, and on nothing of the test part."""
    ids = ids_of(300, 50, 20)

    both = rows(ids, "train+val", "background")

    expected = np.union1d(rows(ids, "train", "background"), rows(ids, "val", "background"))
    np.testing.assert_array_equal(both, expected)


def test_part_all_is_every_row() -> None:
    """A tool that only shows a data set takes every sample."""
    assert rows(ids_of(7, 3, 2), "all", "background").tolist() == list(range(7))


def test_empty_part_says_how_many_ids_there_are() -> None:
    """With few backgrounds a part can be empty; the error names it, the reason, and what to do."""
    with pytest.raises(InputError, match=r"'test' of a split by background .* has 1 background, .*data\.split"):
        rows(ids_of(5, 1, 5), "test", "background")


@pytest.mark.parametrize("wanted", [(0.7, 0.15, 0.15), (0.3, 0.4, 0.3), (0.05, 0.05, 0.9)])
def test_two_backgrounds_cannot_be_split(wanted: tuple[float, float, float]) -> None:
    """To try other shares would be in vain: it is said how many there must be, and what else could be done."""
    ids = ids_of(40, 2, 8)
    empty = next(part for part in PARTS if part not in assign(["bg0", "bg1"], wanted))

    with pytest.raises(InputError) as caught:
        rows(ids, empty, "background", wanted)

    said = str(caught.value)
    assert "the data set has 2 backgrounds, but train, val and test need one each, so at least 3; " in said
    assert "use a data set with more backgrounds, or set data.split_by: foreground" in said
    assert "(there are 8, but a background is then in several parts)" in said
    assert "other shares" not in said


def test_single_sample_cannot_be_split() -> None:
    """No advice that does not help."""
    with pytest.raises(
        InputError, match=r"has 1 background, but .* so at least 3; use a data set with more backgrounds\.$"
    ):
        rows(ids_of(2, 1, 1), "test", "background")


def test_working_shares_are_proposed() -> None:
    """With three backgrounds there are such; those that are proposed are near to what was wanted."""
    ids = ids_of(12, 3, 3)  # their hashes lie at 0.72, 0.47 and 0.70
    with pytest.raises(InputError) as caught:
        rows(ids, "test", "background")

    found = re.search(
        r"give each part one with data\.split: {train: ([\d.]+), val: ([\d.]+), test: ([\d.]+)}", str(caught.value)
    )
    assert found is not None
    proposed = tuple(float(share) for share in found.groups())
    assert [len(rows(ids, part, "background", proposed)) for part in PARTS] == [4, 4, 4]  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=12, unique=True), shares)
def test_proposed_shares_give_every_part_an_id(ids: list[str], wanted: tuple[float, float, float]) -> None:
    """Or none are proposed: of fewer than three ids, and of such as lie too near to each other."""
    found = nearest_shares(ids, wanted)

    if found is None:
        fractions = np.sort([int(hashlib.sha256(id_.encode()).hexdigest()[:13], 16) / 2**52 for id_ in ids])
        assert len(ids) < len(PARTS) or np.diff(fractions).min() < 0.002
    else:
        assert set(assign(ids, found)) == set(PARTS)


def test_error_names_a_part_with_share_zero() -> None:
    """More backgrounds would not help."""
    with pytest.raises(
        InputError,
        match=r"'test' of a split by background has no samples: its share is 0; give it a share above 0 in data\.split",
    ):
        rows(ids_of(40, 20, 8), "test", "background", (0.5, 0.5, 0.0))


@pytest.mark.parametrize("wanted", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (0.0, 0.0, 0.0)])
def test_shares_that_do_not_fit_are_refused(wanted: tuple[float, float, float]) -> None:
    """Shares that do not add up are a typing error, not a wish to drop samples."""
    with pytest.raises(InputError, match="shares of train, val and test"):
        assign(["a"], wanted)


def test_unknown_part_is_refused() -> None:
    """A misspelt part must not be an empty one."""
    with pytest.raises(InputError, match="The part 'valid' is not known"):
        rows(ids_of(5, 5, 5), "valid", "background")


def test_unknown_key_is_refused() -> None:
    """A misspelt key must name those that exist."""
    with pytest.raises(
        InputError, match="'split_by' is 'room', but must be one of background, foreground, sample, listing, "
    ):
        rows(ids_of(5, 5, 5), "train", "room")  # type: ignore[arg-type]


def test_stored_split_is_the_storage_order() -> None:
    """It came with the data: neither hashes nor shares have a say."""
    ids = replace(ids_of(10, 3, 2), split=StoredSplit(train=5, val=2, test=3))

    assert {part: rows(ids, part, "stored", (0.1, 0.1, 0.8)).tolist() for part in (*PARTS, "train+val", "all")} == {
        "train": [0, 1, 2, 3, 4],
        "val": [5, 6],
        "test": [7, 8, 9],
        "train+val": [0, 1, 2, 3, 4, 5, 6],
        "all": list(range(10)),
    }


def test_a_data_set_without_a_stored_split_is_refused() -> None:
    """Unless all samples are asked for, as in predictions."""
    with pytest.raises(InputError, match=r"'stored', but the data set has no split of its own; import it from a table"):
        rows(ids_of(10, 3, 2), "train", "stored")
    assert len(rows(ids_of(10, 3, 2), "all", "stored")) == 10


def test_an_empty_part_of_a_stored_split_is_named() -> None:
    """A table may have no test samples."""
    ids = replace(ids_of(10, 3, 2), split=StoredSplit(train=7, val=3, test=0))

    with pytest.raises(InputError, match="The part 'test' of the data set's own split has no samples"):
        rows(ids, "test", "stored")
