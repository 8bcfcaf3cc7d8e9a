"""Draw the identity of a figure, which is its proportions and clothes, and its pose.

Lengths are metres, angles are radians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.scenes.materials import Material, draw_colour, draw_paint, plain, scale_colour

if TYPE_CHECKING:
    from data.scenes.boxes import Floats

_HAIR = (
    ((0.04, 0.09), (0.2, 0.5), (0.06, 0.2)),
    ((0.04, 0.08), (0.4, 0.65), (0.2, 0.36)),
    ((0.04, 0.08), (0.4, 0.65), (0.2, 0.36)),
    ((0.09, 0.12), (0.35, 0.5), (0.5, 0.72)),
    ((0.03, 0.06), (0.55, 0.7), (0.3, 0.45)),
    ((0.08, 0.12), (0.0, 0.08), (0.4, 0.8)),
)
"""Ranges of hue, saturation and value: black, brown (twice), blond, red, grey."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Proportions and clothes of a figure, the same in all images."""

    height: float
    """1.1 to 1.95 metres."""
    build: float
    """Factor of all widths, around 1."""
    shoulders: float
    """Half the width of the shoulders, as a share of the height."""
    legs: float
    """From the hip to the sole, as a share of the height."""
    shirt: Material
    trousers: Material
    skin: Material
    hair: Material
    shoes: Material
    long_sleeves: bool
    shorts: bool
    skirt: bool
    long_hair: bool


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Angles of the joints; in pairs, the left side is first."""

    heading: float
    lean: tuple[float, float]
    """Lean of the back to the right and forwards."""
    look: float
    """Rotation of the head to its left."""
    hips: tuple[float, float]
    """Swing of the thighs forwards."""
    spread: tuple[float, float]
    """Spread of the legs to the sides."""
    knees: tuple[float, float]
    """Bend of the knees."""
    shoulders: tuple[float, float]
    """Swing of the upper arms forwards."""
    lift: tuple[float, float]
    """Lift of the upper arms to the sides."""
    elbows: tuple[float, float]
    """Bend of the elbows."""


def draw_identity(rng: np.random.Generator) -> Identity:
    """Draw proportions and clothes."""
    child = rng.random() < 0.15
    skin = draw_colour(rng, (0.045, 0.085), (0.3, 0.55), (0.38, 0.95))
    hair = draw_colour(rng, *_HAIR[int(rng.integers(len(_HAIR)))])
    skirt = bool(rng.random() < 0.22)
    return Identity(
        height=float(rng.uniform(1.1, 1.45) if child else np.clip(rng.normal(1.71, 0.09), 1.5, 1.95)),
        build=float(rng.uniform(0.88, 1.22)),
        shoulders=float(rng.uniform(0.098, 0.118)),
        legs=float(rng.uniform(0.49, 0.53)),
        shirt=_draw_cloth(rng, ("plain", "plain", "hoops", "tartan", "checks", "stripes"), (0.25, 0.95)),
        trousers=_draw_cloth(rng, ("plain", "plain", "plain", "tartan"), (0.12, 0.75)),
        skin=plain(skin),
        hair=plain(hair),
        shoes=_draw_cloth(rng, ("plain",), (0.1, 0.8)),
        long_sleeves=bool(rng.random() < 0.55),
        shorts=not skirt and bool(rng.random() < 0.15),
        skirt=skirt,
        long_hair=bool(rng.random() < 0.4),
    )


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: standing, walking, greeting, pointing, bowing or hands on the hips, in any direction."""
    kind = str(rng.choice(["stand", "walk", "greet", "point", "bow", "hips"], p=[0.25, 0.3, 0.15, 0.1, 0.1, 0.1]))
    stride = float(rng.uniform(0.25, 0.5)) if kind == "walk" else float(rng.uniform(0.0, 0.1))
    side = 1 if rng.random() < 0.5 else -1
    knees = rng.uniform(0.02, 0.14, 2)
    elbows = rng.uniform(0.1, 0.5, 2)
    swing = -side * stride * np.array([1.0, -1.0]) * 0.9 + rng.normal(0.03, 0.08, 2)
    lift = rng.uniform(0.1, 0.28, 2)
    lean = np.array([rng.normal(0, 0.03), rng.normal(0.04, 0.03)])
    chosen = int(rng.integers(2))
    if kind == "walk":
        knees[0 if side < 0 else 1] += stride * 0.8
        elbows += 0.3
    elif kind == "greet":
        both = rng.random() < 0.3
        arms = [0, 1] if both else [chosen]
        swing[arms] = rng.uniform(0.0, 0.5, len(arms))
        lift[arms] = rng.uniform(1.3, 2.7, len(arms))
        elbows[arms] = rng.uniform(0.0, 0.9, len(arms))
    elif kind == "point":
        swing[chosen], elbows[chosen] = rng.uniform(1.0, 1.9), rng.uniform(0.0, 0.4)
    elif kind == "bow":
        lean[1] = rng.uniform(0.3, 0.9)
        swing = swing + rng.uniform(0.2, 1.2)
        knees += rng.uniform(0, 0.5)
    elif kind == "hips":
        lift[:], elbows[:], swing[:] = 0.75, 1.9, -0.45
    hips = side * stride * np.array([1.0, -1.0]) + knees * 0.5
    return Pose(
        heading=float(rng.uniform(-np.pi, np.pi)),
        lean=_pair(lean),
        look=float(rng.normal(0, 0.35)),
        hips=_pair(hips),
        spread=_pair(rng.uniform(0.03, 0.12, 2)),
        knees=_pair(knees),
        shoulders=_pair(swing),
        lift=_pair(lift),
        elbows=_pair(elbows),
    )


def _pair(values: Floats) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _draw_cloth(rng: np.random.Generator, patterns: tuple[str, ...], value: tuple[float, float]) -> Material:
    """Half of the clothes have muted colours like those of rooms."""
    muted = rng.random() < 0.5
    ground = draw_paint(rng, (0.02, 0.35) if muted else (0.3, 0.85), value)
    other = scale_colour(ground, 0.45) if rng.random() < 0.5 else draw_paint(rng, (0.0, 0.6), (0.2, 0.95))
    pattern = str(rng.choice(patterns))
    return Material(pattern=pattern, colours=(ground, other), period=float(rng.uniform(0.05, 0.12)))
