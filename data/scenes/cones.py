"""Rounded cones, the parts of figures: intersections with rays, shadows, and ambient occlusion.

Lengths are metres. Points and directions are (3, N). Distances are multiples of the length of the ray's direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from data.scenes.boxes import Floats

_EPSILON = np.float32(1e-7)


@dataclass(frozen=True, kw_only=True)
class RoundedCone:
    """The convex hull of two balls, possibly flattened: a limb, a trunk, a head."""

    start: Floats
    """(3,): centre of the first ball in the room."""
    to_local: Floats
    """(3, 3): from the room to a frame where the cone is round, and z (the last row) is its axis."""
    length: float
    """Distance of the balls' centres."""
    radii: tuple[float, float]
    """Radii of the balls; they differ by less than the length."""
    open_end: bool = False
    """Whether the second ball is left out, as for a skirt."""

    def local(self, points: Floats) -> Floats:
        """Convert points (3, N) from the room to the cone's frame."""
        return np.asarray(self.to_local @ (points - self.start[:, None]), np.float32)

    @property
    def end(self) -> Floats:
        """(3,): centre of the second ball in the room."""
        return np.asarray(self.start + self.to_local[2] * np.float32(self.length), np.float32)

    def slope(self) -> tuple[float, float]:
        """Sine and cosine of the angle between the lateral surface and the axis."""
        sine = (self.radii[0] - self.radii[1]) / self.length
        return sine, float(np.sqrt(1 - sine * sine))


def cone_between(
    start: Floats, end: Floats, radii: tuple[float, float], front: Floats, *, flatness: float, open_end: bool
) -> RoundedCone:
    """Build the cone between balls at two points (3,), scaled by `flatness` along `front` (3,)."""
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


def intersect_cone(cone: RoundedCone, origin: Floats, direction: Floats) -> Floats:
    """(N,): distance at which each ray enters the cone, infinite for rays that miss it.

    In the cone's frame, its lateral surface is cos * rho + sin * z = r, where rho is the distance from the axis. It is
    tangent to the balls where cos * z - sin * rho is 0 and cos * length. The squared equations are quadratic in the
    distance.

    Args:
        cone: the cone.
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
        for centre, radius in ((0.0, first), (cone.length, second)):
            if centre and cone.open_end:
                continue
            oz = z - centre
            a, b = flat_dd + dz * dz, flat_od + oz * dz
            ball = (-b - np.sqrt(b * b - a * (flat_oo + oz * oz - radius * radius))) / a
            nearest = np.where((ball > 0) & (ball < nearest), ball, nearest)
    return nearest.astype(np.float32, copy=False)


def cone_surface(cone: RoundedCone, points: Floats) -> tuple[Floats, Floats]:
    """Normals (3, N) of length 1, and uv (2, N) in metres around and along the axis, of points on the cone."""
    x, y, z = local = cone.local(points)
    sine, cosine = cone.slope()
    rho = np.sqrt(x * x + y * y)
    centre = np.clip(z - sine / cosine * rho, 0, np.float32(cone.length))
    local = np.stack([x, y, z - centre])
    normal = np.asarray(cone.to_local.T @ local, np.float32)
    normal /= np.sqrt(_dot(normal, normal)) + _EPSILON
    around = np.arctan2(x, y) * np.float32(max(cone.radii))
    return normal, np.stack([around, z])


def lamp_visibility_past_cone(cone: RoundedCone, points: Floats, lamp: Floats, lamp_radius: float) -> Floats:
    """(N,): the share of a spherical lamp that is visible from each point past the cone, 0 to 1.

    A smooth approximation: where the line to the lamp is closest to the axis, the width of the penumbra is the lamp's
    radius times the share of the distance. The visible share depends on the clearance relative to that width.
    """
    start, end = cone.local(points), cone.local(lamp[:, None])
    step = end - start
    flat = start[0] * step[0] + start[1] * step[1]
    fraction = np.clip(-flat / (step[0] * step[0] + step[1] * step[1] + _EPSILON), 0, 1)
    height = np.clip(start[2] + fraction * step[2], 0, np.float32(cone.length))
    along = _dot(start, step) - height * step[2]
    fraction = np.clip(-along / (_dot(step, step) + _EPSILON), 0, 1)
    x, y, z = start + fraction * step
    z -= height
    radius = cone.radii[0] + (cone.radii[1] - cone.radii[0]) * height / np.float32(cone.length)
    clearance = np.sqrt(x * x + y * y + z * z) - radius
    share = np.clip(clearance / (2 * lamp_radius * fraction + np.float32(0.015)) + np.float32(0.5), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def ambient_occlusion(cone: RoundedCone, points: Floats, normals: Floats) -> Floats:
    """(N,): the share of the ambient light that the cone hides from points with these normals.

    That of a ball at the nearest point of the axis: cos(angle) * (radius / distance) ** 2.
    """
    axis = cone.to_local[2]
    offset = points - cone.start[:, None]
    length = np.float32(cone.length)
    height = np.clip(axis @ offset, 0, length)
    towards = axis[:, None] * height - offset
    squared = _dot(towards, towards) + _EPSILON
    radius = cone.radii[0] + (cone.radii[1] - cone.radii[0]) * height / length
    facing = np.clip(_dot(towards, normals) / np.sqrt(squared), 0, 1)
    return np.asarray(np.clip(facing * radius * radius / squared, 0, 1), np.float32)


def _dot(first: Floats, second: Floats) -> Floats:
    """Dot products (N,) of vectors (3, N); `sum` is slow over such a short axis."""
    return np.asarray(first[0] * second[0] + first[1] * second[1] + first[2] * second[2], np.float32)
