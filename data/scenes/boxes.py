"""Intersect rays with a room and the boxes in it, and compute how much of a lamp is visible past the boxes.

Lengths are metres, z is up. Points and directions are (3, N) float32 for N rays or points; B is the number of boxes.
Distances are multiples of the length of the ray's direction: for rays of length 1 along the optical axis, z-depths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Floats = NDArray[np.floating[Any]]
"""float32 in all arrays per ray, for speed."""

WALL_COUNT = 6
"""The surfaces of the room itself, numbered 2 * axis + (1 at the high end): the floor is 4 and the ceiling 5."""

_EPSILON = np.float32(1e-7)
_MIN_SHADOW_DISTANCE = np.float32(2e-3)
"""Nearer intersections, as shares of the distance to the lamp, are the surface that the point lies on."""


@dataclass(frozen=True, kw_only=True)
class BoxGroup:
    """A piece of furniture: boxes that are aligned with the axes of a frame, which is rotated about z."""

    position: Floats
    """(3,): origin of the frame in the room."""
    yaw: float
    """Radians, counter-clockwise seen from above."""
    low: Floats
    """(B, 3): lowest corners of the boxes in the frame."""
    high: Floats
    """(B, 3): highest corners of the boxes in the frame."""

    def rotated(self, vectors: Floats, *, inverse: bool = False) -> Floats:
        """Rotate directions (3, N) from the room to this frame, or with `inverse` from this frame to the room."""
        if self.yaw == 0:
            return vectors
        cos, sin = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw) * (-1 if inverse else 1))
        x, y, z = vectors
        return np.stack([cos * x + sin * y, cos * y - sin * x, z])

    def local(self, points: Floats) -> Floats:
        """Convert points (3, N) from the room to this frame."""
        return self.rotated(points - self.position[:, None])


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The first intersection of each of N rays with a room."""

    distance: Floats
    """(N,)"""
    surface: NDArray[np.int16]
    """(N,): number of the surface: the `WALL_COUNT` walls, then the boxes of all groups in order."""
    point: Floats
    """(3, N)"""
    normal: Floats
    """(3, N), of length 1, outwards."""
    uv: Floats
    """(2, N): metres along the surface from its lowest corner; v points up on vertical surfaces."""


def trace_room(extent: Floats, groups: Sequence[BoxGroup], origin: Floats, direction: Floats) -> Hits:
    """Find the first intersections of rays that start inside the room.

    Args:
        extent: (3,), width, length and height of the room.
        groups: the furniture.
        origin: (3, 1), the start of all rays.
        direction: (3, N).
    """
    distance, surface = _wall_hits(extent, origin, direction)
    first = WALL_COUNT
    for group in groups:
        local_origin, local_direction = group.local(origin), group.rotated(direction)
        for box, rays, near in _box_entries(group, local_origin, local_direction):
            closer = (near > 0) & (near < distance[rays])
            distance[rays[closer]] = near[closer]
            surface[rays[closer]] = first + box
        first += len(group.low)
    point = origin + distance * direction
    normal, uv = _frame_of_surface(groups, surface, point)
    return Hits(distance=distance, surface=surface, point=point, normal=normal, uv=uv)


def lamp_visibility_past_boxes(
    groups: Sequence[BoxGroup], points: Floats, lamp: Floats, lamp_radius: float, spots: Floats
) -> Floats:
    """(N,): the share of a spherical lamp that is visible from each point past the boxes, 0 to 1.

    Args:
        groups: the furniture in the room.
        points: (3, N).
        lamp: (3,), centre of the lamp.
        lamp_radius: in metres; no spot is farther from the centre.
        spots: (K, 3, N), the spots on the lamp that are tested for each point, relative to the centre.
    """
    hidden = np.zeros((len(spots), points.shape[1]), np.bool_)
    margin = np.float32(lamp_radius)
    for group in groups:
        local = group.local(points)
        towards = group.local(lamp[:, None]) - local
        low, high = group.low.min(axis=0) - margin, group.high.max(axis=0) + margin
        near, far = _slab(local, 1 / _not_zero(towards), low, high)
        rays = np.flatnonzero((near < far) & (far > 0) & (near < 1))
        if not rays.size:
            continue
        local, towards = local[:, rays], towards[:, rays]
        for spot, spot_hidden in zip(spots, hidden, strict=True):
            for _, hit, near in _box_entries(group, local, towards + group.rotated(spot[:, rays])):
                spot_hidden[rays[hit[(near > _MIN_SHADOW_DISTANCE) & (near < 1)]]] = True
    return np.asarray(1 - hidden.mean(axis=0, dtype=np.float32), np.float32)


def distance_to_boxes(extent: Floats, groups: Sequence[BoxGroup], points: Floats, limit: float) -> Floats:
    """(N,): metres from the points to the nearest wall or box, at most `limit`; 0 inside a box."""
    end = extent[:, None]
    nearest = np.minimum(np.minimum(points, end - points).min(axis=0), np.float32(limit))
    for group in groups:
        local = group.local(points)
        low, high = group.low.min(axis=0) - limit, group.high.max(axis=0) + limit
        near = np.flatnonzero(((local > low[:, None]) & (local < high[:, None])).all(axis=0))
        if not near.size:
            continue
        local = local[:, near]
        for box_low, box_high in zip(group.low, group.high, strict=True):
            outside = np.maximum(np.maximum(box_low[:, None] - local, local - box_high[:, None]), 0)
            distance = np.sqrt(outside[0] ** 2 + outside[1] ** 2 + outside[2] ** 2)
            nearest[near] = np.minimum(nearest[near], distance)
    return np.asarray(np.maximum(nearest, 0), np.float32)


def _wall_hits(extent: Floats, origin: Floats, direction: Floats) -> tuple[Floats, NDArray[np.int16]]:
    """Distances (N,) to the walls of the room, and the numbers of the walls."""
    safe = _not_zero(direction)
    exits = (np.where(safe > 0, extent[:, None], np.float32(0)) - origin) / safe
    axis = exits.argmin(axis=0)
    rays = np.arange(direction.shape[1])
    surface = (2 * axis + (safe[axis, rays] > 0)).astype(np.int16)
    return exits[axis, rays].astype(np.float32), surface


def _box_entries(group: BoxGroup, origin: Floats, direction: Floats) -> Iterator[tuple[int, NDArray[np.intp], Floats]]:
    """For each box that is hit: its number, the indices (n,) of the rays that hit it, and their distances (n,)."""
    inverse = 1 / _not_zero(direction)
    near, far = _slab(origin, inverse, group.low.min(axis=0), group.high.max(axis=0))
    rays = np.flatnonzero((near < far) & (far > 0))
    if not rays.size:
        return
    origin = origin[:, rays] if origin.shape[1] > 1 else origin
    inverse = inverse[:, rays]
    for box, (low, high) in enumerate(zip(group.low, group.high, strict=True)):
        near, far = _slab(origin, inverse, low, high)
        hit = near < far
        if hit.any():
            yield box, rays[hit], near[hit]


def _not_zero(direction: Floats) -> Floats:
    return np.where(np.abs(direction) < _EPSILON, _EPSILON, direction)


def _slab(origin: Floats, inverse: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Distances (N,) at which rays enter and leave a box; for a ray that misses, the second is not larger."""
    near = far = np.zeros(0, np.float32)
    for axis in range(3):
        one, other = (low[axis] - origin[axis]) * inverse[axis], (high[axis] - origin[axis]) * inverse[axis]
        enter, leave = np.minimum(one, other), np.maximum(one, other)
        near, far = (enter, leave) if axis == 0 else (np.maximum(near, enter), np.minimum(far, leave))
    return near, far


def _frame_of_surface(groups: Sequence[BoxGroup], surface: NDArray[np.int16], point: Floats) -> tuple[Floats, Floats]:
    """Normals (3, N) and coordinates uv (2, N) of points on their surfaces."""
    normal, uv = np.zeros_like(point), np.zeros_like(point[:2])
    for wall in range(WALL_COUNT):
        here = surface == wall
        axis, at_high_end = divmod(wall, 2)
        normal[axis, here] = -1 if at_high_end else 1
        uv[:, here] = np.delete(point, axis, axis=0)[:, here] if here.any() else 0
    first = WALL_COUNT
    for group in groups:
        here = np.flatnonzero((surface >= first) & (surface < first + len(group.low)))
        if here.size:
            box = surface[here] - first
            low, high = group.low[box].T, group.high[box].T
            local = group.local(point[:, here])
            offset = (local - (low + high) / 2) / (high - low)
            axis = np.abs(offset).argmax(axis=0)
            columns = np.arange(here.size)
            local_normal = np.zeros_like(local)
            local_normal[axis, columns] = np.sign(offset[axis, columns])
            normal[:, here] = group.rotated(local_normal, inverse=True)
            from_low = local - low
            uv[0, here] = np.where(axis == 0, from_low[1], from_low[0])
            uv[1, here] = np.where(axis == 2, from_low[1], from_low[2])
        first += len(group.low)
    return normal, uv
