"""Rounded cones, of which figures are made: where rays meet them, and what light they take from elsewhere.

Lengths are metres. Points and directions are (3, N); a distance is counted in lengths of its ray's direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from data.scenes.boxes import Floats

_TINY = np.float32(1e-7)


@dataclass(frozen=True, kw_only=True)
class RoundedCone:
    """The hull of two balls, perhaps pressed flat: a limb, a torso, a head."""

    start: Floats
    """(3,): centre of the first ball in the room."""
    to_local: Floats
    """(3, 3): from the room to a frame where the part is round and z, the last row, runs along its axis."""
    length: float
    """Between the two balls' centres."""
    radii: tuple[float, float]
    """Of the two balls; their difference is less than the length."""
    open_end: bool = False
    """Without the second ball, as a skirt is."""

    def local(self, points: Floats) -> Floats:
        """Points (3, N) of the room in the part's frame."""
        return np.asarray(self.to_local @ (points - self.start[:, None]), np.float32)

    @property
    def end(self) -> Floats:
        """(3,): centre of the second ball in the room."""
        return np.asarray(self.start + self.to_local[2] * np.float32(self.length), np.float32)

    def slope(self) -> tuple[float, float]:
        """Sine and cosine of the angle between the side and the axis."""
        sine = (self.radii[0] - self.radii[1]) / self.length
        return sine, float(np.sqrt(1 - sine * sine))


def cone_between(
    start: Floats, end: Floats, radii: tuple[float, float], front: Floats, *, flatness: float, open_end: bool
) -> RoundedCone:
    """The cone between balls at two points (3,), pressed along `front` (3,) by the factor `flatness`."""
    first, second = float(radii[0]), float(radii[1])
    axis = np.asarray(end, np.float64) - start
    length = float(np.linalg.norm(axis))
    axis = axis / length if length > 0 else np.array([0.0, 0.0, 1.0])
    depth = front - (front @ axis) * axis
    if np.linalg.norm(depth) < 0.1:
        depth = np.array([0.0, 0.0, 1.0]) - axis[2] * axis
    depth = depth / np.linalg.norm(depth)
    across = np.cross(depth, axis)
    return RoundedCone(
        start=np.asarray(start, np.float32),
        to_local=np.stack([across, depth / flatness, axis]).astype(np.float32),
        length=max(length, 1.05 * abs(first - second) + 1e-4),
        radii=(first, second),
        open_end=open_end,
    )


def meet_cone(cone: RoundedCone, origin: Floats, direction: Floats) -> Floats:
    """(N,): distance along each ray to where it enters the cone, infinite where it misses.

    In the cone's frame its side is cos * rho + sin * z = r, with rho the distance from the axis; it touches
    the balls where cos * z - sin * rho is 0 and cos * length. Squared, both are quadratic in the distance.

    Args:
        cone: what to meet.
        origin: (3, 1) or (3, N).
        direction: (3, N), of any length.
    """
    x, y, z = cone.local(origin)
    dx, dy, dz = cone.to_local @ direction
    first, second = cone.radii
    sine, cosine = cone.slope()
    flat_dd, flat_od, flat_oo = dx * dx + dy * dy, x * dx + y * dy, x * x + y * y
    rise = first - sine * z
    a = cosine**2 * flat_dd - (sine * dz) ** 2
    b = cosine**2 * flat_od + sine * dz * rise
    root = b * b - a * (cosine**2 * flat_oo - rise * rise)
    with np.errstate(invalid="ignore", divide="ignore"):
        side = (-b - np.sqrt(root)) / a
        height = z + side * dz
        along = cosine * height - sine * (first - sine * height) / cosine
        nearest = np.where((side > 0) & (along >= 0) & (along <= cosine * cone.length), side, np.inf)
        for middle, radius in ((0.0, first), (cone.length, second)):
            if middle and cone.open_end:
                continue
            oz = z - middle
            a, b = flat_dd + dz * dz, flat_od + oz * dz
            ball = (-b - np.sqrt(b * b - a * (flat_oo + oz * oz - radius * radius))) / a
            nearest = np.where((ball > 0) & (ball < nearest), ball, nearest)
    return nearest.astype(np.float32, copy=False)


def cone_surface(cone: RoundedCone, points: Floats) -> tuple[Floats, Floats]:
    """Normals (3, N) of length 1 and (2, N) metres around and along the axis, for points on the cone."""
    x, y, z = local = cone.local(points)
    sine, cosine = cone.slope()
    rho = np.sqrt(x * x + y * y)
    centre = np.clip(z - sine / cosine * rho, 0, np.float32(cone.length))
    local = np.stack([x, y, z - centre])
    normal = np.asarray(cone.to_local.T @ local, np.float32)
    normal /= np.sqrt(_dot(normal, normal)) + _TINY
    around = np.arctan2(x, y) * np.float32(max(cone.radii))
    return normal, np.stack([around, z])


def lamp_seen_past_cone(cone: RoundedCone, points: Floats, lamp: Floats, lamp_radius: float) -> Floats:
    """(N,): the part of a round lamp that the cone leaves visible from each point, from 0 to 1.

    Where the line to the lamp passes the axis closest, the lamp's cone of light is as wide as its radius
    times the part of the way; the clearance in that width gives the half shade: smooth, not exact.
    """
    start, end = cone.local(points), cone.local(lamp[:, None])
    step = end - start
    flat = start[0] * step[0] + start[1] * step[1]
    way = np.clip(-flat / (step[0] * step[0] + step[1] * step[1] + _TINY), 0, 1)
    height = np.clip(start[2] + way * step[2], 0, np.float32(cone.length))
    along = _dot(start, step) - height * step[2]
    way = np.clip(-along / (_dot(step, step) + _TINY), 0, 1)
    x, y, z = start + way * step
    z -= height
    radius = cone.radii[0] + (cone.radii[1] - cone.radii[0]) * height / np.float32(cone.length)
    clearance = np.sqrt(x * x + y * y + z * z) - radius
    share = np.clip(clearance / (2 * lamp_radius * way + np.float32(0.015)) + np.float32(0.5), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def sky_hidden_by_cone(cone: RoundedCone, points: Floats, normals: Floats) -> Floats:
    """(N,): share of the light from all around that the cone takes from points with such normals.

    As a ball at the nearest place of its axis does: cos(angle) * (radius / distance) ** 2.
    """
    axis = cone.to_local[2]
    away = points - cone.start[:, None]
    length = np.float32(cone.length)
    height = np.clip(axis @ away, 0, length)
    towards = axis[:, None] * height - away
    squared = _dot(towards, towards) + _TINY
    radius = cone.radii[0] + (cone.radii[1] - cone.radii[0]) * height / length
    facing = np.clip(_dot(towards, normals) / np.sqrt(squared), 0, 1)
    return np.asarray(np.clip(facing * radius * radius / squared, 0, 1), np.float32)


def _dot(first: Floats, second: Floats) -> Floats:
    """(N,), of (3, N) each; a sum over so short an axis is slow."""
    return np.asarray(first[0] * second[0] + first[1] * second[1] + first[2] * second[2], np.float32)
