"""A pinhole camera in a room. Its rays have length 1 along the optical axis, so that distances along them are z-depths.

Lengths are metres, z is up. N is the number of rays or points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from data.scenes.boxes import Floats


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera with a square image."""

    position: Floats
    """(3,)"""
    axes: Floats
    """(3, 3): unit vectors to the right, downwards and along the optical axis, one per row."""
    half_width: float
    """Half the width of the image at distance 1: the tangent of half the angle of view."""

    def directions(self, side: int) -> Floats:
        """Rays (3, side * side) through the cell centres of a grid, row by row; their component along the axis is 1."""
        steps = ((np.arange(side, dtype=np.float32) + np.float32(0.5)) * 2 / side - 1) * self.half_width
        right, down = np.meshgrid(steps.astype(np.float32), steps.astype(np.float32))
        ahead = np.ones(side * side, np.float32)
        return np.asarray(self.axes.T @ np.stack([right.ravel(), down.ravel(), ahead]), np.float32)

    def project(self, points: Floats) -> Floats:
        """Project points (3, N) to (3, N): x from the left and y from the top, in image sides, and z-depth."""
        right, down, depth = self.axes @ (points - self.position[:, None])
        width = 2 * self.half_width * np.maximum(depth, np.float32(0.05))
        return np.stack([right / width + np.float32(0.5), down / width + np.float32(0.5), depth])


def draw_camera(rng: np.random.Generator, extent: Floats) -> Camera:
    """Draw a camera in the near part of the room that looks at the far part."""
    position = np.array(
        [
            extent[0] * rng.uniform(0.12, 0.88),
            extent[1] * rng.uniform(0.03, 0.2) + 0.15,
            rng.uniform(0.9, min(2.3, float(extent[2]) - 0.25)),
        ],
        np.float32,
    )
    aim = np.array([extent[0] * rng.uniform(0.2, 0.8), extent[1] * rng.uniform(0.6, 1), rng.uniform(0.5, 1.2)])
    ahead = (aim - position) / np.linalg.norm(aim - position)
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    down = np.cross(ahead, right)
    roll = rng.normal(0, 0.015)
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    return Camera(
        position=position,
        axes=np.stack([right, down, ahead]).astype(np.float32),
        half_width=float(np.tan(np.radians(rng.uniform(46, 76)) / 2)),
    )
