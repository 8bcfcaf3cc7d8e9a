"""Dotted keys and nested values are two forms of the same configuration."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainable.config import TrialConfig
from trainable.config.settings import at, flatten, nest

names = st.text("abc", min_size=1, max_size=2)
values = st.one_of(st.none(), st.booleans(), st.integers(), st.lists(st.integers()))
sections = st.recursive(values, lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=8)


@given(st.dictionaries(names, sections, max_size=3))
def test_nested_values_survive(nested: dict[str, object]) -> None:
    """What a study holds is nested, what the searcher works on is not; the order of keys is that of a file."""
    assert str(nest(flatten(nested))) == str(nested)  # type: ignore[arg-type]


def test_a_mapping_can_be_a_value() -> None:
    """The plateau rule of a cyclic policy is present or absent as a whole."""
    nested = {"policy": {"name": "cyclic", "cyclic": {"plateau": {"patience": 0.1}}}}

    assert flatten(nested, leaves={"policy.cyclic.plateau"}) == {
        "policy.name": "cyclic",
        "policy.cyclic.plateau": {"patience": 0.1},
    }


def test_a_key_that_is_not_there_has_no_value() -> None:
    """Users filter trials by keys that they write by hand."""
    config = TrialConfig().model_dump()

    assert at(config, "optimizer.lr") == TrialConfig().optimizer.lr
    assert at(config, "optimizer.lr.low") is None
    assert at(config, "optimiser.lr") is None
