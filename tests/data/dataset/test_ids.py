"""Compact storage of ids: they remain a sequence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset.ids import IdColumn

LISTS = st.lists(st.text(max_size=5) | st.sampled_from(["bg0", "bg1"]), max_size=40)


@pytest.mark.slow
@settings(deadline=None)
@given(ids=LISTS, index=st.integers(-50, 50), stop=st.integers(-50, 50))
def test_sample_ids_are_a_sequence(ids: list[str], index: int, stop: int) -> None:
    """Splits index, slice, iterate and compare ids, whether they are stored by letter or by number."""
    column = IdColumn(ids)

    assert column == ids
    assert list(column) == ids
    assert list(column[index:stop]) == ids[index:stop]
    assert len(column) == len(ids)
    if -len(ids) <= index < len(ids):
        assert column[index] == ids[index]
    else:
        with pytest.raises(IndexError):
            column[index]


def test_different_ids_are_not_equal() -> None:
    """A data set's ids are compared after it was sent to another process."""
    assert IdColumn(["a", "b"]) != ["a", "c"]
    assert IdColumn(["a", "b"]) != ["a", "b", "b"]


def test_repeated_id_is_stored_once() -> None:
    """400,000 samples have some hundred backgrounds: each sample takes the four bytes of a number."""
    long_ids = [f"a-background-with-a-long-name-{number % 10}" for number in range(10_000)]

    assert IdColumn(long_ids).nbytes < 5 * len(long_ids)
