"""Draw furniture, windows, doors and paintings, which are built from boxes.

In the frame of a piece, x is along its width, y points to its back (0 is the wall behind it) and z up, in metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data.scenes.materials import Material, draw_colour, draw_paint, plain, scale_colour

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

Corner = tuple[float, float, float]

_DARK = plain((0.03, 0.03, 0.03))


@dataclass
class Piece:
    """A piece of furniture: boxes with a material each."""

    lows: list[Corner] = field(default_factory=list)
    highs: list[Corner] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)

    def add(self, low: Corner, high: Corner, material: Material) -> None:
        """Add a box between two corners."""
        self.lows.append(low)
        self.highs.append(high)
        self.materials.append(material)

    def add_legs(self, width: float, back: float, front: float, height: float, material: Material) -> None:
        """Add four legs under a board of `width` between y = front and y = back."""
        thick = 0.05
        for x in (-width / 2 + 0.03, width / 2 - 0.03 - thick):
            for y in (front + 0.03, back - 0.03 - thick):
                self.add((x, y, 0), (x + thick, y + thick, height), material)


@dataclass(frozen=True, kw_only=True)
class Style:
    """The materials that the furniture of a room shares."""

    wood: Material
    fabric: Material
    paint: Material
    trim: Material
    """Doors and skirting boards."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        """Draw wood, fabric and paint."""
        timber = draw_colour(rng, (0.05, 0.11), (0.25, 0.6), (0.35, 0.85))
        cloth = draw_paint(rng, (0.08, 0.55), (0.3, 0.85))
        paint = draw_paint(rng, (0.0, 0.35), (0.45, 0.95))
        weave = str(rng.choice(["plain", "plain", "stripes", "tartan"]))
        return cls(
            wood=Material(pattern="wood", colours=(timber, scale_colour(timber, 0.6))),
            fabric=Material(pattern=weave, colours=(cloth, scale_colour(cloth, 0.65)), period=0.16),
            paint=plain(paint),
            trim=plain(scale_colour(paint, 0.85)),
        )


def _cupboard(rng: np.random.Generator, style: Style) -> Piece:
    piece = Piece()
    width, depth, height = rng.uniform(0.8, 1.8), rng.uniform(0.4, 0.6), rng.uniform(0.8, 2.1)
    body = style.wood if rng.random() < 0.6 else style.paint
    piece.add((-width / 2, -depth, 0.06), (width / 2, 0, height), body)
    piece.add((-width / 2 + 0.04, -depth + 0.05, 0), (width / 2 - 0.04, 0, 0.06), _DARK)
    doors = max(2, round(width / 0.5))
    for door in range(doors):
        left = -width / 2 + door * width / doors
        front = Material(
            pattern=body.pattern, colours=(scale_colour(body.colours[0], 1.08), scale_colour(body.colours[1], 1.08))
        )
        piece.add((left + 0.015, -depth - 0.02, 0.09), (left + width / doors - 0.015, -depth, height - 0.03), front)
        handle = left + (width / doors - 0.07 if door % 2 == 0 else 0.05)
        piece.add(
            (handle, -depth - 0.05, height / 2 - 0.07),
            (handle + 0.02, -depth - 0.02, height / 2 + 0.07),
            _DARK,
        )
    return piece


def _shelf(rng: np.random.Generator, style: Style) -> Piece:
    piece = Piece()
    width, depth, height = rng.uniform(0.7, 1.6), 0.3, rng.uniform(1.1, 2.1)
    piece.add((-width / 2, -depth, 0), (-width / 2 + 0.03, 0, height), style.wood)
    piece.add((width / 2 - 0.03, -depth, 0), (width / 2, 0, height), style.wood)
    piece.add((-width / 2, -0.02, 0), (width / 2, 0, height), style.wood)
    boards = round(height / 0.38)
    for board in range(boards + 1):
        z = board * (height - 0.03) / boards
        piece.add((-width / 2, -depth, z), (width / 2, 0, z + 0.03), style.wood)
        if board < boards and rng.random() < 0.8:
            left = -width / 2 + 0.04 + rng.uniform(0, 0.3) * width
            right = min(left + rng.uniform(0.3, 0.8) * width, width / 2 - 0.04)
            piece.add((left, -0.25, z + 0.03), (right, -0.04, z + 0.03 + rng.uniform(0.18, 0.28)), _book_row(rng))
    return piece


def _bed(rng: np.random.Generator, style: Style) -> Piece:
    piece = Piece()
    width, depth = rng.uniform(0.9, 1.7), 2.0
    sheet = draw_paint(rng, (0.0, 0.12), (0.8, 0.95))
    linen = plain(sheet)
    piece.add((-width / 2, -depth, 0.08), (width / 2, 0, 0.28), style.wood)
    piece.add((-width / 2, -0.06, 0), (width / 2, 0, rng.uniform(0.7, 1.1)), style.wood)
    piece.add((-width / 2 + 0.03, -depth + 0.03, 0.28), (width / 2 - 0.03, -0.06, 0.46), linen)
    piece.add((-width / 2 - 0.01, -depth - 0.01, 0.3), (width / 2 + 0.01, -0.65, 0.5), style.fabric)
    for side in (-1, 1) if width > 1.3 else (0,):
        centre = side * width / 4
        piece.add((centre - 0.28, -0.5, 0.46), (centre + 0.28, -0.12, 0.58), linen)
    return piece


def _sofa(rng: np.random.Generator, style: Style) -> Piece:
    piece = Piece()
    width, depth, arm = rng.uniform(0.9, 2.2), rng.uniform(0.75, 0.95), 0.17
    back = rng.uniform(0.7, 0.9)
    piece.add_legs(width, 0, -depth, 0.1, _DARK)
    piece.add((-width / 2, -depth, 0.1), (width / 2, 0, 0.3), style.fabric)
    piece.add((-width / 2, -0.22, 0.3), (width / 2, 0, back), style.fabric)
    for left in (-width / 2, width / 2 - arm):
        piece.add((left, -depth, 0.3), (left + arm, -0.2, 0.58), style.fabric)
    seats = max(1, round((width - 2 * arm) / 0.7))
    seat = (width - 2 * arm) / seats
    for number in range(seats):
        left = -width / 2 + arm + number * seat
        piece.add((left + 0.01, -depth - 0.02, 0.3), (left + seat - 0.01, -0.22, 0.44), style.fabric)
    if rng.random() < 0.7:
        cushion = _cloth(rng)
        left = rng.uniform(-width / 2 + arm, width / 2 - arm - 0.42)
        piece.add((left, -0.34, 0.44), (left + 0.4, -0.2, 0.8), cushion)
    return piece


def _desk(rng: np.random.Generator, style: Style) -> Piece:
    piece = Piece()
    width, depth, height = rng.uniform(1.0, 1.6), rng.uniform(0.55, 0.75), 0.74
    piece.add((-width / 2, -depth, height - 0.04), (width / 2, 0, height), style.wood)
    piece.add_legs(width, 0, -depth, height - 0.04, style.wood)
    drawer = width / 2 - 0.06
    piece.add((drawer - 0.4, -depth + 0.04, 0.1), (drawer, -0.06, height - 0.04), style.paint)
    screen = rng.uniform(-width / 3, 0)
    piece.add((screen, -0.28, height + 0.1), (screen + 0.52, -0.25, height + 0.42), _DARK)
    piece.add((screen + 0.2, -0.3, height), (screen + 0.32, -0.2, height + 0.1), _DARK)
    return piece


def _table(rng: np.random.Generator, style: Style) -> Piece:
    piece = Piece()
    low = rng.random() < 0.4
    width, depth = rng.uniform(0.8, 1.7), rng.uniform(0.5, 0.9)
    height = rng.uniform(0.38, 0.48) if low else rng.uniform(0.7, 0.78)
    piece.add((-width / 2, -depth, height - 0.04), (width / 2, 0, height), style.wood)
    piece.add_legs(width, 0, -depth, height - 0.04, style.wood)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(-width / 2, width / 2 - 0.25), rng.uniform(-depth, -0.2)
        size = rng.uniform(0.08, 0.25), rng.uniform(0.08, 0.2), rng.uniform(0.02, 0.26)
        piece.add((x, y, height), (x + size[0], y + size[1], height + size[2]), _cloth(rng))
    return piece


def _chair(rng: np.random.Generator, style: Style) -> Piece:
    piece = Piece()
    width, depth = rng.uniform(0.4, 0.48), 0.45
    piece.add_legs(width, 0, -depth, 0.44, style.wood)
    piece.add((-width / 2, -depth, 0.43), (width / 2, 0, 0.47), style.wood)
    piece.add((-width / 2 + 0.02, -depth + 0.02, 0.47), (width / 2 - 0.02, -0.05, 0.51), style.fabric)
    for left in (-width / 2, width / 2 - 0.05):
        piece.add((left, -0.05, 0.47), (left + 0.05, 0, 0.95), style.wood)
    piece.add((-width / 2, -0.045, 0.75), (width / 2, -0.005, 0.95), style.wood)
    return piece


def _chest(rng: np.random.Generator, style: Style) -> Piece:
    piece = Piece()
    width, depth, rows = rng.uniform(0.5, 1.2), rng.uniform(0.4, 0.5), int(rng.integers(2, 5))
    height = 0.1 + 0.22 * rows
    piece.add((-width / 2, -depth, 0), (width / 2, 0, height), style.wood)
    for row in range(rows):
        z = 0.08 + 0.22 * row
        piece.add((-width / 2 + 0.03, -depth - 0.02, z), (width / 2 - 0.03, -depth, z + 0.19), style.paint)
        piece.add((-0.08, -depth - 0.04, z + 0.08), (0.08, -depth - 0.02, z + 0.11), _DARK)
    pot = plain(draw_paint(rng, (0.2, 0.7), (0.4, 0.9)))
    x = rng.uniform(-width / 2, width / 2 - 0.2)
    piece.add((x, -0.3, height), (x + 0.16, -0.14, height + rng.uniform(0.1, 0.35)), pot)
    return piece


def window(rng: np.random.Generator, width: float, height: float) -> Piece:
    """A bright window with its frame; its lower edge is at z = 0."""
    piece = Piece()
    frame = plain((0.8, 0.8, 0.78))
    ground = draw_colour(rng, (0.2, 0.4), (0.1, 0.4), (0.4, 0.7))
    sky = draw_colour(rng, (0.52, 0.62), (0.05, 0.35), (0.85, 1.0))
    glow = float(rng.uniform(0.35, 0.9))
    glass = Material(pattern="sky", colours=(ground, sky), period=height * 0.6, glow=glow)
    piece.add((-width / 2, -0.02, 0), (width / 2, 0.05, height), glass)
    for x in (-width / 2 - 0.05, -0.025, width / 2):
        piece.add((x, -0.05, 0), (x + 0.05, 0.05, height), frame)
    for z in (-0.05, height * 0.62, height):
        piece.add((-width / 2 - 0.05, -0.05, z), (width / 2 + 0.05, 0.05, z + 0.05), frame)
    piece.add((-width / 2 - 0.1, -0.14, -0.08), (width / 2 + 0.1, 0.05, -0.05), frame)
    return piece


def door(rng: np.random.Generator, style: Style) -> Piece:
    """A closed door with its frame and handle."""
    piece = Piece()
    leaf = style.paint if rng.random() < 0.6 else style.wood
    piece.add((-0.42, -0.02, 0), (0.42, 0.05, 2.02), leaf)
    for x in (-0.5, 0.42):
        piece.add((x, -0.05, 0), (x + 0.08, 0.05, 2.1), style.trim)
    piece.add((-0.5, -0.05, 2.02), (0.5, 0.05, 2.1), style.trim)
    for z, top in ((0.15, 0.85), (1.05, 1.9)):
        piece.add((-0.3, -0.03, z), (0.3, 0.0, top), style.trim)
    piece.add((0.28, -0.08, 1.0), (0.38, -0.02, 1.03), _DARK)
    return piece


def painting(rng: np.random.Generator, width: float, height: float) -> Piece:
    """A framed painting; its lower edge is at z = 0."""
    piece = Piece()
    first = draw_paint(rng, (0.1, 0.7), (0.2, 0.95))
    second = draw_paint(rng, (0.1, 0.7), (0.2, 0.95))
    tone = draw_colour(rng, (0.05, 0.12), (0, 0.5), (0.1, 0.9))
    piece.add((-width / 2, -0.03, 0), (width / 2, 0.05, height), plain(tone))
    canvas = Material(pattern="painting", colours=(first, second))
    piece.add((-width / 2 + 0.04, -0.035, 0.04), (width / 2 - 0.04, 0.0, height - 0.04), canvas)
    return piece


def skirting(style: Style, length: float) -> Piece:
    """The board at the foot of a wall, centred at the origin."""
    return Piece([(-length / 2, -0.015, 0)], [(length / 2, 0.05, 0.09)], [style.trim])


def rug(rng: np.random.Generator) -> Piece:
    """A flat rug, centred at the origin."""
    width, depth = rng.uniform(1.0, 2.2), rng.uniform(0.8, 1.6)
    tone = draw_paint(rng, (0.1, 0.6), (0.3, 0.85))
    kind = str(rng.choice(["carpet", "stripes", "checks", "tartan"]))
    woven = Material(pattern=kind, colours=(tone, scale_colour(tone, 0.6)), period=float(rng.uniform(0.2, 0.5)))
    return Piece([(-width / 2, -depth / 2, 0)], [(width / 2, depth / 2, 0.008)], [woven])


def _cloth(rng: np.random.Generator) -> Material:
    tone = draw_paint(rng, (0.1, 0.7), (0.3, 0.9))
    return Material(pattern=str(rng.choice(["plain", "stripes"])), colours=(tone, scale_colour(tone, 0.6)), period=0.1)


def _book_row(rng: np.random.Generator) -> Material:
    first = draw_paint(rng, (0.1, 0.6), (0.3, 0.8))
    second = draw_paint(rng, (0.1, 0.6), (0.3, 0.8))
    return Material(pattern="books", colours=(first, second), period=0.045)


WALL_FURNITURE: dict[str, Callable[[np.random.Generator, Style], Piece]] = {
    "cupboard": _cupboard,
    "shelf": _shelf,
    "bed": _bed,
    "sofa": _sofa,
    "desk": _desk,
    "chest": _chest,
}
"""Furniture with its back to a wall."""

FREE_FURNITURE: dict[str, Callable[[np.random.Generator, Style], Piece]] = {"table": _table, "chair": _chair}
"""Furniture at any position, in any direction."""
