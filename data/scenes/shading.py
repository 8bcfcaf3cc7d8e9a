"""Shade a room and a figure in it: lamps with soft shadows, and ambient light with ambient occlusion.

Radiance is linear, in the unit of the lamps. The image is a grid of N = S * S rays, and there are L lamps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from data.scenes.boxes import Floats, distance_to_boxes, lamp_visibility_past_boxes, trace_room
from data.scenes.cones import ambient_occlusion, cone_surface, intersect_cone, lamp_visibility_past_cone
from data.scenes.materials import reflectance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.scenes.body import Figure
    from data.scenes.room import Lamp, Room

_CHUNK = 16384
"""Rays that are traced at a time."""
_LAMP_SPOTS = 2
"""Shadow rays per ray and lamp."""
_CORNER_DISTANCES = (0.1, 0.35)
"""Metres within which other surfaces occlude the ambient light."""


@dataclass(frozen=True, kw_only=True)
class RoomView:
    """The rays of an empty room, and everything that their radiance depends on."""

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
    """(N,): emitted light, as a multiple of the albedo."""
    ambient_share: Floats
    """(N,): share of the ambient light that is not occluded."""
    lamps: Floats
    """(L, N): irradiance by each lamp at strength 1, without its colour."""


@dataclass(frozen=True, kw_only=True)
class FigureView:
    """The rays of the same grid that hit a figure."""

    rays: NDArray[np.intp]
    """(n,): indices of the rays that hit the figure before the room."""
    cone: NDArray[np.int16]
    """(n,): number of the cone that they hit."""
    depth: Floats
    """(n,): z-depth in metres."""


def view_room(room: Room, side: int) -> RoomView:
    """Trace the empty room on a grid of side * side rays."""
    direction = room.camera.directions(side)
    chunks = [
        _view_chunk(room, direction[:, start : start + _CHUNK], side, start) for start in range(0, side * side, _CHUNK)
    ]
    parts = [np.concatenate(columns, axis=-1) for columns in zip(*chunks, strict=True)]
    depth, point, normal, albedo, glow, ambient_share, lamps = parts
    return RoomView(
        side=side,
        direction=direction,
        depth=depth,
        point=point,
        normal=normal,
        albedo=albedo,
        glow=glow,
        ambient_share=ambient_share,
        lamps=lamps,
    )


def view_figure(room: Room, figure: Figure, direction: Floats, room_depth: Floats, side: int) -> FigureView:
    """Find the rays that hit the figure before the room.

    Args:
        room: the room, of which only the camera is used.
        figure: the figure.
        direction: (3, N), directions of the rays.
        room_depth: (N,), depth of the empty room.
        side: S.
    """
    depth = room_depth.copy().reshape(side, side)
    nearest = np.full((side, side), -1, np.int16)
    grid = direction.reshape(3, side, side)
    origin = room.camera.position[:, None]
    windows = _cone_windows(room, figure, side)
    for number, (cone, (rows, columns)) in enumerate(zip(figure.cones, windows, strict=True)):
        through = grid[:, rows, columns]
        if not through.size:
            continue
        distance = intersect_cone(cone, origin, through.reshape(3, -1)).reshape(through.shape[1:])
        closer = distance < depth[rows, columns]
        depth[rows, columns][closer] = distance[closer]
        nearest[rows, columns][closer] = number
    rays = np.flatnonzero(nearest.ravel() >= 0)
    return FigureView(rays=rays, cone=nearest.ravel()[rays], depth=depth.ravel()[rays])


def room_radiance(room: Room, view: RoomView, lamp_strength: Floats) -> Floats:
    """Radiance (3, N) of the empty room, with the L lamps at strengths around 1."""
    light = room.ambient[:, None] * view.ambient_share
    for lamp, strength, irradiance in zip(room.lamps, lamp_strength, view.lamps, strict=True):
        light += (lamp.colour * strength)[:, None] * irradiance
    return np.asarray(view.albedo * (light + view.glow * np.float32(5)), np.float32)


def add_shadow(room: Room, view: RoomView, figure: Figure) -> RoomView:
    """Add the shadows of a figure to the view of a room, and the ambient occlusion at its feet."""
    ambient_share, lamps = view.ambient_share.copy(), view.lamps.copy()
    foot, radius = figure.bounds.start, figure.bounds.radii[0] + 0.4
    near = np.flatnonzero((view.point[0] - foot[0]) ** 2 + (view.point[1] - foot[1]) ** 2 < radius * radius)
    points, normals = view.point[:, near], view.normal[:, near]
    for cone in figure.cones:
        ambient_share[near] *= 1 - np.float32(0.85) * ambient_occlusion(cone, points, normals)
    for lamp, irradiance in zip(room.lamps, lamps, strict=True):
        lit = np.flatnonzero(irradiance > 0)
        behind = lit[lamp_visibility_past_cone(figure.bounds, view.point[:, lit], lamp.position, lamp.radius) < 1]
        points = view.point[:, behind]
        share = np.ones(behind.size, np.float32)
        for cone in figure.cones:
            np.minimum(share, lamp_visibility_past_cone(cone, points, lamp.position, lamp.radius), out=share)
        irradiance[behind] *= share
    return replace(view, ambient_share=ambient_share, lamps=lamps)


def figure_radiance(
    room: Room, figure: Figure, direction: Floats, seen: FigureView, lamp_strength: Floats, side: int
) -> Floats:
    """Radiance (3, n) of the figure."""
    point = room.camera.position[:, None] + seen.depth * direction[:, seen.rays]
    normal, albedo = np.zeros_like(point), np.zeros_like(point)
    width = _ray_width(room, seen.depth, side)
    for number, (cone, material) in enumerate(zip(figure.cones, figure.materials, strict=True)):
        here = np.flatnonzero(seen.cone == number)
        if here.size:
            normal[:, here], uv = cone_surface(cone, point[:, here])
            albedo[:, here] = reflectance(material, uv, width[here])
    ambient_share = np.float32(0.8) + np.float32(0.2) * normal[2]
    ambient_share *= np.float32(0.55) + np.float32(0.45) * np.clip(point[2] / np.float32(0.6), 0, 1)
    for cone in figure.cones:
        ambient_share *= 1 - np.float32(0.7) * ambient_occlusion(cone, point, normal)
    light = room.ambient[:, None] * ambient_share
    outside = point + normal * np.float32(0.004)
    for lamp, strength in zip(room.lamps, lamp_strength, strict=True):
        irradiance = _lamp_irradiance(lamp, point, normal, wrap=0.12)
        lit = np.flatnonzero(irradiance > 0)
        ray_from, ray_to = outside[:, lit], lamp.position[:, None] - outside[:, lit]
        spots = _lamp_spots(lamp, seen.rays[lit], side)
        share = lamp_visibility_past_boxes(room.groups, ray_from, lamp.position, lamp.radius, spots)
        for cone in figure.cones:
            hit = intersect_cone(cone, ray_from, ray_to)
            share[(hit > 0) & (hit < 1)] = 0
        irradiance[lit] *= share
        light += (lamp.colour * strength)[:, None] * irradiance
    return np.asarray(albedo * light, np.float32)


def _view_chunk(room: Room, direction: Floats, side: int, start: int) -> tuple[Floats, ...]:
    hits = trace_room(room.extent, room.groups, room.camera.position[:, None], direction)
    slant = np.abs((direction * hits.normal).sum(axis=0)) / np.sqrt((direction * direction).sum(axis=0))
    width = _ray_width(room, hits.distance, side) / np.maximum(slant, np.float32(0.15))
    albedo, glow = np.zeros_like(direction), np.zeros_like(hits.distance)
    for surface in np.unique(hits.surface):
        material = room.materials[int(surface)]
        here = np.flatnonzero(hits.surface == surface)
        albedo[:, here] = reflectance(material, hits.uv[:, here], width[here])
        glow[here] = material.glow
    ambient_share = np.float32(0.85) + np.float32(0.15) * hits.normal[2]
    for distance in _CORNER_DISTANCES:
        lifted = hits.point + hits.normal * np.float32(distance)
        free = distance_to_boxes(room.extent, room.groups, lifted, distance) / np.float32(distance)
        ambient_share *= np.float32(0.55) + np.float32(0.45) * np.minimum(free, 1)
    lamps = np.stack([_room_irradiance(room, lamp, hits.point, hits.normal, start, side) for lamp in room.lamps])
    return hits.distance, hits.point, hits.normal, albedo, glow, ambient_share, lamps


def _room_irradiance(room: Room, lamp: Lamp, point: Floats, normal: Floats, start: int, side: int) -> Floats:
    """(N,): irradiance of the empty room by a lamp at strength 1."""
    irradiance = _lamp_irradiance(lamp, point, normal, wrap=0.0)
    lit = np.flatnonzero(irradiance > 0)
    lifted = point[:, lit] + normal[:, lit] * np.float32(0.002)
    spots = _lamp_spots(lamp, start + lit, side)
    irradiance[lit] *= lamp_visibility_past_boxes(room.groups, lifted, lamp.position, lamp.radius, spots)
    return irradiance


def _lamp_spots(lamp: Lamp, rays: NDArray[np.intp], side: int) -> Floats:
    """Spots (K, 3, n) on the lamp's sphere, relative to its centre; the four rays of a pixel have different ones."""
    cell = (rays % side) % 2 + 2 * ((rays // side) % 2)
    step = np.arange(4 * _LAMP_SPOTS, dtype=np.float32)
    angle, height = step * np.float32(2.399963), 1 - (2 * step + 1) / np.float32(4 * _LAMP_SPOTS)
    flat = np.sqrt(1 - height * height)
    ball = lamp.radius * np.stack([flat * np.cos(angle), flat * np.sin(angle), height])
    return np.stack([ball[:, 4 * sample + cell] for sample in range(_LAMP_SPOTS)]).astype(np.float32)


def _lamp_irradiance(lamp: Lamp, point: Floats, normal: Floats, wrap: float) -> Floats:
    """(N,): irradiance by a visible lamp at strength 1: cos(angle) / distance ** 2, softened by `wrap`."""
    towards = lamp.position[:, None] - point
    squared = towards[0] ** 2 + towards[1] ** 2 + towards[2] ** 2
    distance = np.sqrt(squared)
    cosine = (towards * normal).sum(axis=0) / distance
    irradiance = np.clip((cosine + wrap) / (1 + wrap), 0, 1) / (squared + np.float32(0.45))
    if lamp.facing is not None:
        irradiance = irradiance * np.clip(-(towards * lamp.facing[:, None]).sum(axis=0) / distance, 0, 1)
    return np.asarray(irradiance, np.float32)


def _ray_width(room: Room, depth: Floats, side: int) -> Floats:
    """(N,): width in metres of the area that a ray represents."""
    return np.asarray(depth * np.float32(2 * room.camera.half_width / side), np.float32)


def _cone_windows(room: Room, figure: Figure, side: int) -> list[tuple[slice, slice]]:
    """For each cone, rows and columns of the grid that contain all rays that can hit it."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    starts = np.stack([cone.start for cone in figure.cones])
    ends = np.stack([cone.end for cone in figure.cones])
    offsets = np.array([max(cone.radii) for cone in figure.cones], np.float32)[:, None, None] * corners
    boxes = np.concatenate([starts[:, None] + offsets, ends[:, None] + offsets], axis=1)
    left, top, depth = room.camera.project(boxes.reshape(-1, 3).T).reshape(3, len(starts), -1)
    windows = []
    for shares in (top, left):
        first, last = np.floor(shares.min(axis=1) * side), np.ceil(shares.max(axis=1) * side) + 1
        # A cone that extends behind the camera is not bounded in the image.
        unbounded = depth.min(axis=1) < 0.1
        first, last = np.where(unbounded, 0, first), np.where(unbounded, side, last)
        limits = np.clip([first, last], 0, side).astype(int).T
        windows.append([slice(int(low), int(high)) for low, high in limits])
    return list(zip(*windows, strict=True))
