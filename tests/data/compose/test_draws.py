"""The draws of all samples at once are those of a NumPy generator for each."""

from __future__ import annotations

import numpy as np
import pytest

from data.compose.draws import MAX_INDICES, first_draws


def generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**63 - 1])
def test_draws_are_those_of_numpy(seed: int) -> None:
    """Numbers of one and two words in the seed and in the key, and shapes that are broadcast."""
    rng = np.random.default_rng(seed)
    names = rng.integers(2**32, 2**64, 3, np.uint64)
    short = np.array([5, 2**32 - 1], np.uint64)
    numbers = np.arange(4, dtype=np.uint64)
    counts = rng.integers(2, 300_000, MAX_INDICES)
    draws = first_draws(seed, [names[:, None, None], short[:, None], numbers])

    keys = [(int(name), int(word), int(number)) for name in names for word in short for number in numbers]
    for row, key in enumerate(keys):
        expected = generator(seed, *key)
        assert draws.fractions[row] == expected.random()
        for call, count in enumerate(counts):
            assert draws.indices(call, np.array([count]), np.array([row])) == expected.integers(count)


def test_a_single_choice_needs_no_draw() -> None:
    """It is always the first one."""
    draws = first_draws(0, [np.arange(100, dtype=np.uint64)])
    rows = np.arange(100)
    assert not draws.indices(0, np.ones(100, np.int64), rows).any()


def test_refused_draws_are_marked() -> None:
    """Of numbers just above 2**31, NumPy refuses almost half of the words, and draws again."""
    rows, count = np.arange(200), 2**31 + 1
    draws = first_draws(3, [rows.astype(np.uint64)])
    found = draws.indices(0, np.full(200, count), rows)
    assert 50 < (found < 0).sum() < 150
    for row in rows[found >= 0].tolist():
        expected = generator(3, row)
        expected.random()
        assert found[row] == expected.integers(count)


def test_keys_of_mixed_length_are_refused() -> None:
    """They would be hashed in another order."""
    with pytest.raises(ValueError, match="32-bit words"):
        first_draws(0, [np.array([1, 2**40], np.uint64)])
