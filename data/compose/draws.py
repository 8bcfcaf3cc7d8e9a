"""The random numbers of all samples of a composed data set at once.

Sample i has the generator `np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key_i)))`, so
that it depends neither on the number of samples nor on their order. Creating 400,000 generators takes longer than all
that is drawn from them: here, the first outputs of all are computed with arrays. SeedSequence is M. E. O'Neill's
seed_seq (pcg-random.org, 2015) as NumPy has it; Philox4x64-10 is from Salmon et al., "Parallel Random Numbers: As Easy
as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_INDICES = 6
"""Indices that a generator can draw here after its first float: two from each other word of its first block."""

_POOL = 4
_MASK32, _MASK64 = 2**32 - 1, 2**64 - 1
_INIT_A, _MULT_A, _INIT_B, _MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_ROUNDS = 10
_SHIFT16, _SHIFT32 = np.uint32(16), np.uint64(32)


@dataclass(frozen=True)
class Draws:
    """The first draws of N generators."""

    fractions: NDArray[np.float64]
    """(N,): what `generator.random()` returns first, in [0, 1)."""
    words: NDArray[np.uint64]
    """(N, `MAX_INDICES`): the 32-bit words from which the next integers are drawn."""

    def indices(self, number: int, counts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the call `number` (from 0) of `generator.integers(counts)` after the float returns.

        Args:
            number: below `MAX_INDICES`.
            counts: (K,), each from 1 to 2**32 - 1.
            rows: (K,), the generators.

        Returns:
            (K,), or -1 where NumPy would draw again, which happens in less than `counts` of 2**32 draws.
        """
        wide = counts.astype(np.uint64)
        product = self.words[rows, number] * wide
        refused = (product & np.uint64(_MASK32)) < (np.uint64(2**32) % wide)
        # A single choice takes no word, so that later calls would be shifted; but then all calls return 0.
        return np.where(refused & (counts > 1), -1, (product >> _SHIFT32).astype(np.int64))


def first_draws(seed: int, keys: Sequence[NDArray[np.uint64]]) -> Draws:
    """The first draws of the generators of `SeedSequence(seed, spawn_key=...)`.

    Args:
        seed: 0 or more, below 2**64.
        keys: parts of the spawn key in order, each of a shape that broadcasts with the others.

    Returns:
        Of N generators in C order of the broadcast shape.

    Raises:
        ValueError: if a part of a key has values both below 2**32 and above.
    """
    seed_words = [np.uint32(word) for word in _words_of(seed)]
    seed_words += [np.uint32(0)] * (_POOL - len(seed_words))
    entropy: list[NDArray[np.uint32]] = [np.asarray(word, np.uint32) for word in seed_words]
    for key in keys:
        low, high = (key & np.uint64(_MASK32)).astype(np.uint32), (key >> _SHIFT32).astype(np.uint32)
        if high.any() and not high.all():
            raise ValueError("A part of a key must have as many 32-bit words in every sample.")
        entropy += [low, high] if high.any() else [low]
    key0, key1 = _generated(_mixed(entropy))
    block = [word.ravel() for word in np.broadcast_arrays(*_philox(key0, key1))]
    halves = [half for word in block[1:] for half in (word & np.uint64(_MASK32), word >> _SHIFT32)]
    return Draws((block[0] >> np.uint64(11)).astype(np.float64) * 2.0**-53, np.stack(halves, axis=1))


def _words_of(value: int) -> list[int]:
    """The 32-bit words of an integer, the lowest first; at least one."""
    words = [value & _MASK32]
    while value := value >> 32:
        words.append(value & _MASK32)
    return words


def _mixed(entropy: Sequence[NDArray[np.uint32]]) -> list[NDArray[np.uint32]]:
    """The pool of SeedSequence: `mix_entropy`."""
    constant = _INIT_A

    def hashed(value: NDArray[np.uint32]) -> NDArray[np.uint32]:
        nonlocal constant
        value = value ^ np.uint32(constant)
        constant = constant * _MULT_A & _MASK32
        value = value * np.uint32(constant)
        return np.asarray(value ^ (value >> _SHIFT16), np.uint32)

    def mix(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> NDArray[np.uint32]:
        mixed = _MIX_LEFT * left - _MIX_RIGHT * right
        return np.asarray(mixed ^ (mixed >> _SHIFT16), np.uint32)

    with np.errstate(over="ignore"):  # of scalars; arrays wrap around silently
        pool = [hashed(word) for word in entropy[:_POOL]]
        for source in range(_POOL):
            for target in range(_POOL):
                if source != target:
                    pool[target] = mix(pool[target], hashed(pool[source]))
        for word in entropy[_POOL:]:
            pool = [mix(target, hashed(word)) for target in pool]
    return pool


def _generated(pool: Sequence[NDArray[np.uint32]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Two 64-bit words: `generate_state(2, np.uint64)`."""
    constants = [_INIT_B]
    for _ in range(_POOL):
        constants.append(constants[-1] * _MULT_B & _MASK32)
    words = []
    with np.errstate(over="ignore"):
        for value, (before, after) in zip(pool, pairwise(constants), strict=True):
            word = (value ^ np.uint32(before)) * np.uint32(after)
            words.append((word ^ (word >> _SHIFT16)).astype(np.uint64))
    return words[0] | words[1] << _SHIFT32, words[2] | words[3] << _SHIFT32


def _philox(key0: NDArray[np.uint64], key1: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], ...]:
    """The first block of four words: the counter is 1, since it is increased before each block."""
    zero = np.zeros_like(key0)
    counter = (zero + np.uint64(1), zero, zero, zero)
    with np.errstate(over="ignore"):
        for number in range(_ROUNDS):
            steps = [np.uint64(number * step & _MASK64) for step in _KEY_STEPS]
            (high0, low0), (high1, low1) = (
                _product(multiplier, counter[place]) for multiplier, place in zip(_MULTIPLIERS, (0, 2), strict=True)
            )
            counter = (high1 ^ counter[1] ^ (key0 + steps[0]), low1, high0 ^ counter[3] ^ (key1 + steps[1]), low0)
    return counter


def _product(factor: int, values: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The upper and the lower 64 bits of `factor` times `values`."""
    mask = np.uint64(_MASK32)
    factor_low, factor_high = np.uint64(factor & _MASK32), np.uint64(factor >> 32)
    low, high = values & mask, values >> _SHIFT32
    middle = factor_high * low + (factor_low * low >> _SHIFT32)
    other = factor_low * high + (middle & mask)
    return factor_high * high + (middle >> _SHIFT32) + (other >> _SHIFT32), np.uint64(factor) * values
