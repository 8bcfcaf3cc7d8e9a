"""The image size of a network: the side of a square, or height and width, in pixels."""

from __future__ import annotations

from collections.abc import Sequence

Sides = tuple[int, int]
"""Height and width in pixels."""


def sides_of(size: int | Sequence[int]) -> Sides:
    """Height and width of an image size: the side of a square, or both."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def size_text(size: int | Sequence[int]) -> str:
    """An image size in words: '96', or '64 x 96' for a height of 64 and a width of 96."""
    height, width = sides_of(size)
    return str(height) if height == width else f"{height} x {width}"
