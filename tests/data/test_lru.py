"""The in-memory cache: bounded in bytes, and recently used values stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data.lru import LruCache

Values = LruCache[str, NDArray[np.uint8]]


def getter(cache: Values) -> tuple[Callable[[str, int], None], list[str]]:
    """A call that gets a value of so many bytes, and the keys whose values were made."""
    made: list[str] = []

    def get(key: str, count: int) -> None:
        def make() -> NDArray[np.uint8]:
            made.append(key)
            return np.full(count, ord(key), np.uint8)

        value = cache.get(key, make)
        assert value.tolist() == [ord(key)] * count

    return get, made


def test_value_is_computed_once() -> None:
    """Several samples share a background, which takes long to decode."""
    get, made = getter(Values(100))
    for key in "abab":
        get(key, 10)
    assert made == ["a", "b"]


def test_the_least_recently_used_value_is_dropped() -> None:
    """Memory is bounded in bytes, not in values: images differ in size."""
    get, made = getter(Values(100))
    for key, count in (("a", 40), ("b", 40), ("a", 40), ("c", 60), ("a", 40), ("b", 40)):
        get(key, count)
    assert made == ["a", "b", "c", "b"]


def test_oversized_value_is_kept_until_the_next() -> None:
    """A row group that is larger than the bound would otherwise be read for each of its samples."""
    get, made = getter(Values(10))
    for key in "aaba":
        get(key, 20)
    assert made == ["a", "b", "a"]
