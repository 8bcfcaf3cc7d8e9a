"""Light on a room and on a figure in it: lamps with soft shadows, and light from all around with dim corners.

Radiance is linear, in the unit of the lamps. S rays a side of the picture, N = S * S rays or points, L lamps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.scenes.boxes import Floats, distance_to_boxes, lamp_seen_past_boxes, trace_room
from data.scenes.cones import cone_surface, lamp_seen_past_cone, meet_cone, sky_hidden_by_cone
from data.scenes.materials import Material, reflectance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.scenes.body import Figure
    from data.scenes.room import Lamp, Room

_CHUNK = 16384
_LAMP_SPOTS = 2
_CORNER_REACHES = (0.1, 0.35)


@dataclass(frozen=True, kw_only=True)
class RoomView:
    """An empty room as the camera sees it, with what light on it depends on."""

    side: int
    """S"""
    direction: Floats
    """(3, N)"""
    depth: Floats
    """(N,): z-depth in metres."""
    point: Floats
    """(3, N)"""
    normal: Floats
    """(3, N)"""
    albedo: Floats
    """(3, N)"""
    glow: Floats
    """(N,): light of its own, as a share of the albedo."""
    open_sky: Floats
    """(N,): share of the light from all around that comes into corners."""
    lamps: Floats
    """(L, N): light of each lamp of strength 1."""


@dataclass(frozen=True, kw_only=True)
class FigureView:
    """A figure as the camera sees it, in the same grid."""

    rays: NDArray[np.intp]
    """(n,): the rays that meet the figure before the room."""
    cone: NDArray[np.int16]
    """(n,): which part of it."""
    depth: Floats
    """(n,): z-depth in metres."""


def view_room(room: Room, side: int) -> RoomView:
    """The empty room over a grid of side * side rays."""
    direction = room.camera.directions(side)
    chunks = [
        _view_chunk(room, direction[:, start : start + _CHUNK], side, start) for start in range(0, side * side, _CHUNK)
    ]
    parts = [np.concatenate(columns, axis=-1) for columns in zip(*chunks, strict=True)]
    depth, point, normal, albedo, glow, open_sky, lamps = parts
    return RoomView(
        side=side,
        direction=direction,
        depth=depth,
        point=point,
        normal=normal,
        albedo=albedo,
        glow=glow,
        open_sky=open_sky,
        lamps=lamps,
    )


def view_figure(room: Room, figure: Figure, direction: Floats, room_depth: Floats, side: int) -> FigureView:
    """Where the figure is in front of the room.

    Args:
        room: for its camera.
        figure: what stands in it.
        direction: (3, N), the rays.
        room_depth: (N,), the depth of the empty room.
        side: S.
    """
    depth = room_depth.copy().reshape(side, side)
    nearest = np.full((side, side), -1, np.int16)
    grid = direction.reshape(3, side, side)
    origin = room.camera.position[:, None]
    windows = _windows_of(room, figure, side)
    for number, (cone, (rows, columns)) in enumerate(zip(figure.cones, windows, strict=True)):
        through = grid[:, rows, columns]
        if not through.size:
            continue
        distance = meet_cone(cone, origin, through.reshape(3, -1)).reshape(through.shape[1:])
        closer = distance < depth[rows, columns]
        depth[rows, columns][closer] = distance[closer]
        nearest[rows, columns][closer] = number
    rays = np.flatnonzero(nearest.ravel() >= 0)
    return FigureView(rays=rays, cone=nearest.ravel()[rays], depth=depth.ravel()[rays])


def room_radiance(room: Room, view: RoomView, lamp_strength: Floats) -> Floats:
    """(3, N): light from the empty room to the camera, with each of the L lamps at a strength around 1."""
    light = room.ambient[:, None] * view.open_sky
    for lamp, strength, falling in zip(room.lamps, lamp_strength, view.lamps, strict=True):
        light += (lamp.colour * strength)[:, None] * falling
    return np.asarray(view.albedo * (light + view.glow * np.float32(5)), np.float32)


def shaded_view(room: Room, view: RoomView, figure: Figure) -> RoomView:
    """The room with the shadow that the figure throws on it, and the dim place at its feet."""
    open_sky, lamps = view.open_sky.copy(), view.lamps.copy()
    foot, reach = figure.hull.start, figure.hull.radii[0] + 0.4
    near = np.flatnonzero((view.point[0] - foot[0]) ** 2 + (view.point[1] - foot[1]) ** 2 < reach * reach)
    points, normals = view.point[:, near], view.normal[:, near]
    for cone in figure.cones:
        open_sky[near] *= 1 - np.float32(0.85) * sky_hidden_by_cone(cone, points, normals)
    for lamp, falling in zip(room.lamps, lamps, strict=True):
        lit = np.flatnonzero(falling > 0)
        behind = lit[lamp_seen_past_cone(figure.hull, view.point[:, lit], lamp.position, lamp.radius) < 1]
        points = view.point[:, behind]
        share = np.ones(behind.size, np.float32)
        for cone in figure.cones:
            np.minimum(share, lamp_seen_past_cone(cone, points, lamp.position, lamp.radius), out=share)
        falling[behind] *= share
    return _with_light(view, open_sky, lamps)


def figure_radiance(
    room: Room, figure: Figure, direction: Floats, seen: FigureView, lamp_strength: Floats, side: int
) -> Floats:
    """(3, n): light from the figure to the camera."""
    point = room.camera.position[:, None] + seen.depth * direction[:, seen.rays]
    normal, albedo = np.zeros_like(point), np.zeros_like(point)
    width = _ray_width(room, seen.depth, side)
    for number, (cone, material) in enumerate(zip(figure.cones, figure.materials, strict=True)):
        here = np.flatnonzero(seen.cone == number)
        if here.size:
            normal[:, here], uv = cone_surface(cone, point[:, here])
            albedo[:, here] = reflectance(material, uv, width[here])
    open_sky = np.float32(0.8) + np.float32(0.2) * normal[2]
    open_sky *= np.float32(0.55) + np.float32(0.45) * np.clip(point[2] / np.float32(0.6), 0, 1)
    for cone in figure.cones:
        open_sky *= 1 - np.float32(0.7) * sky_hidden_by_cone(cone, point, normal)
    light = room.ambient[:, None] * open_sky
    outside = point + normal * np.float32(0.004)
    for lamp, strength in zip(room.lamps, lamp_strength, strict=True):
        falling = _lamp_light(lamp, point, normal, wrap=0.12)
        lit = np.flatnonzero(falling > 0)
        ray_from, ray_to = outside[:, lit], lamp.position[:, None] - outside[:, lit]
        spots = _lamp_spots(lamp, seen.rays[lit], side)
        share = lamp_seen_past_boxes(room.groups, ray_from, lamp.position, lamp.radius, spots)
        for cone in figure.cones:
            met = meet_cone(cone, ray_from, ray_to)
            share[(met > 0) & (met < 1)] = 0
        falling[lit] *= share
        light += (lamp.colour * strength)[:, None] * falling
    return np.asarray(albedo * light, np.float32)


def _view_chunk(room: Room, direction: Floats, side: int, start: int) -> tuple[Floats, ...]:
    hits = trace_room(room.extent, room.groups, room.camera.position[:, None], direction)
    slant = np.abs((direction * hits.normal).sum(axis=0)) / np.sqrt((direction * direction).sum(axis=0))
    width = _ray_width(room, hits.distance, side) / np.maximum(slant, np.float32(0.15))
    albedo, glow = np.zeros_like(direction), np.zeros_like(hits.distance)
    for surface in np.unique(hits.surface):
        material: Material = room.materials[int(surface)]
        here = np.flatnonzero(hits.surface == surface)
        albedo[:, here] = reflectance(material, hits.uv[:, here], width[here])
        glow[here] = material.glow
    open_sky = np.float32(0.85) + np.float32(0.15) * hits.normal[2]
    for reach in _CORNER_REACHES:
        away = hits.point + hits.normal * np.float32(reach)
        free = distance_to_boxes(room.extent, room.groups, away, reach) / np.float32(reach)
        open_sky *= np.float32(0.55) + np.float32(0.45) * np.minimum(free, 1)
    lamps = np.stack([_room_lamp(room, lamp, hits.point, hits.normal, start, side) for lamp in room.lamps])
    return hits.distance, hits.point, hits.normal, albedo, glow, open_sky, lamps


def _room_lamp(room: Room, lamp: Lamp, point: Floats, normal: Floats, start: int, side: int) -> Floats:
    """(N,): light of a lamp of strength 1 on the empty room."""
    falling = _lamp_light(lamp, point, normal, wrap=0.0)
    lit = np.flatnonzero(falling > 0)
    lifted = point[:, lit] + normal[:, lit] * np.float32(0.002)
    spots = _lamp_spots(lamp, start + lit, side)
    falling[lit] *= lamp_seen_past_boxes(room.groups, lifted, lamp.position, lamp.radius, spots)
    return falling


def _lamp_spots(lamp: Lamp, rays: NDArray[np.intp], side: int) -> Floats:
    """(K, 3, n): spots of the lamp's ball, from its middle, for each ray; a pixel's four rays differ."""
    cell = (rays % side) % 2 + 2 * ((rays // side) % 2)
    step = np.arange(4 * _LAMP_SPOTS, dtype=np.float32)
    angle, height = step * np.float32(2.399963), 1 - (2 * step + 1) / np.float32(4 * _LAMP_SPOTS)
    flat = np.sqrt(1 - height * height)
    ball = lamp.radius * np.stack([flat * np.cos(angle), flat * np.sin(angle), height])
    return np.stack([ball[:, 4 * sample + cell] for sample in range(_LAMP_SPOTS)]).astype(np.float32)


def _lamp_light(lamp: Lamp, point: Floats, normal: Floats, wrap: float) -> Floats:
    """(N,): light of an unhidden lamp of strength 1: cos(angle) / distance ** 2, softened by `wrap`."""
    towards = lamp.position[:, None] - point
    squared = towards[0] ** 2 + towards[1] ** 2 + towards[2] ** 2
    distance = np.sqrt(squared)
    cosine = (towards * normal).sum(axis=0) / distance
    falling = np.clip((cosine + wrap) / (1 + wrap), 0, 1) / (squared + np.float32(0.45))
    if lamp.facing is not None:
        falling = falling * np.clip(-(towards * lamp.facing[:, None]).sum(axis=0) / distance, 0, 1)
    return np.asarray(falling, np.float32)


def _ray_width(room: Room, depth: Floats, side: int) -> Floats:
    """(N,): metres across that one ray stands for."""
    return np.asarray(depth * np.float32(2 * room.camera.half_width / side), np.float32)


def _windows_of(room: Room, figure: Figure, side: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the grid that each cone can cover."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    starts = np.stack([cone.start for cone in figure.cones])
    ends = np.stack([cone.end for cone in figure.cones])
    reach = np.array([max(cone.radii) for cone in figure.cones], np.float32)[:, None, None] * corners
    around = np.concatenate([starts[:, None] + reach, ends[:, None] + reach], axis=1)
    left, top, depth = room.camera.project(around.reshape(-1, 3).T).reshape(3, len(starts), -1)
    windows = []
    for place in (top, left):
        first, last = np.floor(place.min(axis=1) * side), np.ceil(place.max(axis=1) * side) + 1
        # What reaches behind the camera has no such window.
        first, last = (np.where(depth.min(axis=1) < 0.1, edge, value) for edge, value in ((0, first), (side, last)))
        limits = np.clip([first, last], 0, side).astype(int).T
        windows.append([slice(int(low), int(high)) for low, high in limits])
    return list(zip(*windows, strict=True))


def _with_light(view: RoomView, open_sky: Floats, lamps: Floats) -> RoomView:
    return RoomView(
        side=view.side,
        direction=view.direction,
        depth=view.depth,
        point=view.point,
        normal=view.normal,
        albedo=view.albedo,
        glow=view.glow,
        open_sky=open_sky,
        lamps=lamps,
    )
