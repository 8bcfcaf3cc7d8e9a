"""Materials of surfaces: two colours, mixed by a pattern such as planks, tiles or stripes.

A pattern is a function of the position on the surface in metres. It fades to its mean where its period is smaller than
the width of a ray, to avoid aliasing.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data.scenes.boxes import Floats

Colour = tuple[float, float, float]
Range = tuple[float, float]
Pattern = Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]

_COMMON_HUES: tuple[Range, ...] = (
    (-0.03, 0.04),
    (0.05, 0.12),
    (0.09, 0.15),
    (0.22, 0.4),
    (0.45, 0.56),
    (0.55, 0.66),
)


@dataclass(frozen=True, kw_only=True)
class Material:
    """The appearance of a surface."""

    pattern: str
    """One of `PATTERNS`."""
    colours: tuple[Colour, Colour]
    """Linear reflectance, 0 to 1, of the ground and of the pattern on it."""
    period: float = 1.0
    """Metres after which the pattern repeats."""
    glow: float = 0.0
    """Emitted light, in the unit of the lamps; above 0 for windows."""


def plain(colour: Colour) -> Material:
    """A material of one colour."""
    return Material(pattern="plain", colours=(colour, colour))


def draw_colour(rng: np.random.Generator, hue: Range, saturation: Range, value: Range) -> Colour:
    """Draw a linear colour, uniform in ranges of displayed hue, saturation and value (0 to 1)."""
    red, green, blue = colorsys.hsv_to_rgb(
        float(rng.uniform(*hue)) % 1, float(rng.uniform(*saturation)), float(rng.uniform(*value))
    )
    return red**2.2, green**2.2, blue**2.2


def draw_paint(rng: np.random.Generator, saturation: Range, value: Range) -> Colour:
    """Draw a colour of painted or dyed surfaces: any hue, but rarely pink, violet or bright green."""
    hue = (0.0, 1.0) if rng.random() < 0.12 else _COMMON_HUES[int(rng.integers(len(_COMMON_HUES)))]
    return draw_colour(rng, hue, saturation, value)


def scale_colour(colour: Colour, factor: float) -> Colour:
    """Scale the brightness of a colour."""
    red, green, blue = (min(channel * factor, 0.95) for channel in colour)
    return red, green, blue


def reflectance(material: Material, uv: Floats, width: Floats) -> Floats:
    """Reflectance (3, N) at the positions uv (2, N) for rays that are `width` (N,) metres wide."""
    period = np.float32(material.period)
    mix, shade = PATTERNS[material.pattern](uv[0] / period, uv[1] / period, width / period)
    ground, drawn = (np.asarray(colour, np.float32)[:, None] for colour in material.colours)
    return np.asarray(np.clip((ground + (drawn - ground) * mix) * shade, 0.01, 0.95), np.float32)


def grain(u: Floats, v: Floats) -> Floats:
    """(N,): smooth noise of mean 0 and standard deviation 1, with a period of 64 units."""
    table = _noise_table()
    side = len(table)
    left, below = np.floor(u), np.floor(v)
    across, up = u - left, v - below
    column, row = left.astype(np.int64) % side, below.astype(np.int64) % side
    next_column, next_row = (column + 1) % side, (row + 1) % side
    lower = table[row, column] * (1 - across) + table[row, next_column] * across
    upper = table[next_row, column] * (1 - across) + table[next_row, next_column] * across
    return np.asarray(lower * (1 - up) + upper * up, np.float32)


@lru_cache(maxsize=1)
def _noise_table() -> Floats:
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(64)))
    return rng.standard_normal((64, 64), dtype=np.float32) * np.float32(1.3)


def _fade(pattern: Floats, mean: float, width: Floats) -> Floats:
    """Fade `pattern` to its mean where rays are wider than a third of a period."""
    contrast = np.clip(np.float32(1.5) - width * np.float32(1.5), 0, 1)
    return np.asarray(mean + (pattern - mean) * contrast, np.float32)


def _fine_noise(u: Floats, v: Floats, width: Floats, strength: float) -> Floats:
    """(N,): a factor around 1 of noise that fades where a ray cannot resolve it."""
    return np.asarray(1 + strength * _fade(grain(u, v), 0.0, width), np.float32)


def _line(position: Floats, share: float, width: Floats) -> Floats:
    """(N,): 1 in the first `share` of every unit, with edges as soft as the rays are wide."""
    soft = np.maximum(width, np.float32(0.01))
    inside = share / 2 - np.abs((position - share / 2 + 0.5) % 1 - 0.5)
    return _fade(np.clip(inside / soft + np.float32(0.5), 0, 1), share, width)


def _plain(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    return np.zeros_like(u), _fine_noise(u * 3, v * 3, width * 3, 0.015)


def _plaster(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    blotches = 1 + np.float32(0.03) * grain(u * np.float32(0.7), v * np.float32(0.7))
    return np.zeros_like(u), blotches * _fine_noise(u * 25, v * 25, width * 25, 0.05)


def _carpet(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    mix = np.clip(np.float32(0.4) + np.float32(0.12) * grain(u * 3, v * 3), 0, 1)
    return mix, _fine_noise(u * 50, v * 50, width * 50, 0.12)


def _planks(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    row = np.floor(v)
    along = u / 6 + grain(row * 7, row)
    board = np.floor(along)
    tone = grain(row * 3 + np.float32(0.5), board * 5 + np.float32(0.5))
    fibres = _fine_noise(u * 2, v * 30, width * 10, 0.07)
    gaps = np.maximum(_line(v, 0.05, width), _line(along, 0.01, width / 6))
    return np.clip(np.float32(0.4) + np.float32(0.35) * tone, 0, 1), fibres * (1 - np.float32(0.6) * gaps)


def _tiles(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    joints = np.maximum(_line(u, 0.05, width), _line(v, 0.05, width))
    tone = _fade(grain(np.floor(u) * 3, np.floor(v) * 5), 0.0, width)
    return joints, 1 + np.float32(0.06) * tone * (1 - joints)


def _checks(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    return _fade(((np.floor(u) + np.floor(v)) % 2).astype(np.float32), 0.5, width), np.ones_like(u)


def _tartan(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    return (_line(u, 0.35, width) + _line(v, 0.35, width)) / 2, np.ones_like(u)


def _stripes(u: Floats, _v: Floats, width: Floats) -> tuple[Floats, Floats]:
    return _line(u, 0.5, width), np.ones_like(u)


def _hoops(_u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    return _line(v, 0.45, width), np.ones_like(v)


def _wood(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    rings = grain(u * np.float32(1.5), v * 12)
    return np.clip(np.float32(0.4) + np.float32(0.25) * rings, 0, 1), _fine_noise(u * 4, v * 60, width * 40, 0.05)


def _painting(u: Floats, v: Floats, _width: Floats) -> tuple[Floats, Floats]:
    shapes = grain(u * 5, v * 5) + grain(u * 11 + 9, v * 11) / 2
    return np.clip(shapes * 2 + np.float32(0.5), 0, 1), 1 + np.float32(0.2) * grain(u * 20, v * 20)


def _books(u: Floats, v: Floats, width: Floats) -> tuple[Floats, Floats]:
    spine = np.floor(u)
    tone = grain(spine * 5 + np.float32(0.5), np.zeros_like(spine))
    top = np.float32(0.82) + np.float32(0.1) * grain(spine * 3, np.ones_like(spine) * 9)
    shade = np.where(v * np.float32(0.13) > top, np.float32(0.25), 1 + np.float32(0.25) * tone)
    gaps = _line(u, 0.12, width)
    return np.clip(np.float32(0.5) + tone, 0, 1), np.asarray(shade * (1 - np.float32(0.5) * gaps), np.float32)


def _sky(_u: Floats, v: Floats, _width: Floats) -> tuple[Floats, Floats]:
    return np.clip(v, 0, 1), np.ones_like(v)


PATTERNS: dict[str, Pattern] = {
    "plain": _plain,
    "plaster": _plaster,
    "carpet": _carpet,
    "planks": _planks,
    "tiles": _tiles,
    "checks": _checks,
    "tartan": _tartan,
    "stripes": _stripes,
    "hoops": _hoops,
    "wood": _wood,
    "painting": _painting,
    "books": _books,
    "sky": _sky,
}
"""By name, functions of u, v and the ray's width (N,) in periods that return the second colour's share and a shade."""
