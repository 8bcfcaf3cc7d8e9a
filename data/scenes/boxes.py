"""Where rays meet a room and the boxes in it, and how much of a lamp the boxes leave to a point.

Lengths are metres, z is up. Points and directions are (3, N) float32; a distance is counted in lengths of its
ray's direction, so that of a ray with 1 along the camera's axis is a z-depth. N rays or points, B boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Floats = NDArray[np.floating[Any]]
"""float32 where it is one a ray, which the pictures' speed rests on."""

WALLS = 6
"""A room's own surfaces, numbered 2 * axis + (1 at the high end): the floor is 4 and the ceiling 5."""

_TINY = np.float32(1e-7)
_CLEAR = np.float32(2e-3)


@dataclass(frozen=True, kw_only=True)
class BoxGroup:
    """A piece of furniture: boxes along the axes of a frame that is turned about z."""

    position: Floats
    """(3,): the frame's origin in the room."""
    yaw: float
    """Radians, counter-clockwise seen from above."""
    low: Floats
    """(B, 3): the boxes' lowest corners in the frame."""
    high: Floats
    """(B, 3): the boxes' highest corners in the frame."""

    def turned(self, vectors: Floats, *, back: bool = False) -> Floats:
        """Directions (3, N) of the room in this frame, or with `back` the reverse."""
        if self.yaw == 0:
            return vectors
        cos, sin = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw) * (-1 if back else 1))
        x, y, z = vectors
        return np.stack([cos * x + sin * y, cos * y - sin * x, z])

    def local(self, points: Floats) -> Floats:
        """Points (3, N) of the room in this frame."""
        return self.turned(points - self.position[:, None])


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What each ray of N meets first in a room."""

    distance: Floats
    """(N,)"""
    surface: NDArray[np.int16]
    """(N,): one of the `WALLS`, then the boxes of all groups in their order."""
    point: Floats
    """(3, N)"""
    normal: Floats
    """(3, N), of length 1, towards the open side."""
    uv: Floats
    """(2, N): metres along the surface from its lowest corner; v goes up where the surface is upright."""


def trace_room(extent: Floats, groups: Sequence[BoxGroup], origin: Floats, direction: Floats) -> Hits:
    """The first surface that rays from inside the box (0, extent) meet.

    Args:
        extent: (3,), the room's width, length and height.
        groups: the furniture in it.
        origin: (3, 1), where all rays start.
        direction: (3, N).
    """
    distance, surface = _leave_room(extent, origin, direction)
    first = WALLS
    for group in groups:
        own_origin, own_direction = group.local(origin), group.turned(direction)
        for box, rays, near in _box_entries(group, own_origin, own_direction):
            closer = (near > 0) & (near < distance[rays])
            distance[rays[closer]] = near[closer]
            surface[rays[closer]] = first + box
        first += len(group.low)
    point = origin + distance * direction
    normal, uv = _frame_of_surface(groups, surface, point)
    return Hits(distance=distance, surface=surface, point=point, normal=normal, uv=uv)


def lamp_seen_past_boxes(
    groups: Sequence[BoxGroup], points: Floats, lamp: Floats, lamp_radius: float, spots: Floats
) -> Floats:
    """(N,): the part of a round lamp that the boxes leave visible from each point, from 0 to 1.

    Args:
        groups: the furniture in the room.
        points: (3, N).
        lamp: (3,), its middle.
        lamp_radius: in metres; no spot is farther from the middle.
        spots: (K, 3, N), the spots of the lamp that each point looks at, from the middle.
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
        for spot, hidden_from_spot in zip(spots, hidden, strict=True):
            for _, met, near in _box_entries(group, local, towards + group.turned(spot[:, rays])):
                hidden_from_spot[rays[met[(near > _CLEAR) & (near < 1)]]] = True
    return np.asarray(1 - hidden.mean(axis=0, dtype=np.float32), np.float32)


def distance_to_boxes(extent: Floats, groups: Sequence[BoxGroup], points: Floats, reach: float) -> Floats:
    """(N,): metres from the points to the nearest wall or box, at most `reach`; 0 inside a box."""
    end = extent[:, None]
    nearest = np.minimum(np.minimum(points, end - points).min(axis=0), np.float32(reach))
    for group in groups:
        local = group.local(points)
        low, high = group.low.min(axis=0) - reach, group.high.max(axis=0) + reach
        near = np.flatnonzero(((local > low[:, None]) & (local < high[:, None])).all(axis=0))
        if not near.size:
            continue
        local = local[:, near]
        for box_low, box_high in zip(group.low, group.high, strict=True):
            outside = np.maximum(np.maximum(box_low[:, None] - local, local - box_high[:, None]), 0)
            away = np.sqrt(outside[0] ** 2 + outside[1] ** 2 + outside[2] ** 2)
            nearest[near] = np.minimum(nearest[near], away)
    return np.asarray(np.maximum(nearest, 0), np.float32)


def _leave_room(extent: Floats, origin: Floats, direction: Floats) -> tuple[Floats, NDArray[np.int16]]:
    """Distance (N,) to the room's own walls, and which of them."""
    safe = _not_zero(direction)
    exits = (np.where(safe > 0, extent[:, None], np.float32(0)) - origin) / safe
    axis = exits.argmin(axis=0)
    picked = np.arange(direction.shape[1])
    surface = (2 * axis + (safe[axis, picked] > 0)).astype(np.int16)
    return exits[axis, picked].astype(np.float32), surface


def _box_entries(group: BoxGroup, origin: Floats, direction: Floats) -> Iterator[tuple[int, NDArray[np.intp], Floats]]:
    """For each box that is met: its number, the rays (n,) that meet it, and their distances (n,)."""
    inverse = 1 / _not_zero(direction)
    near, far = _slab(origin, inverse, group.low.min(axis=0), group.high.max(axis=0))
    rays = np.flatnonzero((near < far) & (far > 0))
    if not rays.size:
        return
    origin = origin[:, rays] if origin.shape[1] > 1 else origin
    inverse = inverse[:, rays]
    for box, (low, high) in enumerate(zip(group.low, group.high, strict=True)):
        near, far = _slab(origin, inverse, low, high)
        met = near < far
        if met.any():
            yield box, rays[met], near[met]


def _not_zero(direction: Floats) -> Floats:
    return np.where(np.abs(direction) < _TINY, _TINY, direction)


def _slab(origin: Floats, inverse: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Distances (N,) at which rays enter and leave a box; a ray that misses leaves before it enters."""
    near = far = np.zeros(0, np.float32)
    for axis in range(3):
        one, other = (low[axis] - origin[axis]) * inverse[axis], (high[axis] - origin[axis]) * inverse[axis]
        enter, leave = np.minimum(one, other), np.maximum(one, other)
        near, far = (enter, leave) if axis == 0 else (np.maximum(near, enter), np.minimum(far, leave))
    return near, far


def _frame_of_surface(groups: Sequence[BoxGroup], surface: NDArray[np.int16], point: Floats) -> tuple[Floats, Floats]:
    """Normals (3, N) and places (2, N) on the surfaces that the points lie on."""
    normal, uv = np.zeros_like(point), np.zeros_like(point[:2])
    for wall in range(WALLS):
        here = surface == wall
        axis, at_high_end = divmod(wall, 2)
        normal[axis, here] = -1 if at_high_end else 1
        uv[:, here] = np.delete(point, axis, axis=0)[:, here] if here.any() else 0
    first = WALLS
    for group in groups:
        here = np.flatnonzero((surface >= first) & (surface < first + len(group.low)))
        if here.size:
            box = surface[here] - first
            low, high = group.low[box].T, group.high[box].T
            local = group.local(point[:, here])
            offset = (local - (low + high) / 2) / (high - low)
            axis = np.abs(offset).argmax(axis=0)
            columns = np.arange(here.size)
            own = np.zeros_like(local)
            own[axis, columns] = np.sign(offset[axis, columns])
            normal[:, here] = group.turned(own, back=True)
            from_low = local - low
            uv[0, here] = np.where(axis == 0, from_low[1], from_low[0])
            uv[1, here] = np.where(axis == 2, from_low[1], from_low[2])
        first += len(group.low)
    return normal, uv
