"""Samples with exact mask and depth, ray cast in numpy: rooms with figures, drawn from a seed and an index.

Mask and depth come from the rays of the photograph. Nothing is stored: a sample is rendered whenever it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import cv2
import numpy as np

from data.errors import InputError
from data.scenes.body import Figure, build_figure
from data.scenes.boxes import Floats, distance_to_boxes, trace_room
from data.scenes.figure import Identity, draw_identity, draw_pose
from data.scenes.room import Room, draw_room
from data.scenes.shading import (
    FigureView,
    RoomView,
    add_shadow,
    figure_radiance,
    room_radiance,
    view_figure,
    view_room,
)
from data.schema import Pixels, Sample

_IDENTITIES = 64
"""Number of different figures."""
_RAYS_PER_SIDE = 2
"""A pixel is the mean of the square of this number of rays."""
_COARSE_SIDE = 48
"""Side of the grid of rays on which a figure's position is tried."""
_MAX_ATTEMPTS = 24
_MASK_SHARES = (0.012, 0.38)
"""Smallest and largest share of the image that a figure covers."""
_SHIN_HEIGHT, _MIN_DISTANCE = 0.35, 0.06
"""Joints above this height must be this far from walls and furniture, in metres."""
_LOOKALIKE_SHARE = 0.4
_ROOM, _FIGURE, _SAMPLE, _BG_SHOT, _FG_SHOT = range(5)
"""First keys of the random generators."""


@dataclass(frozen=True, kw_only=True)
class SceneSet:
    """Rendered samples: `per_background` in each of `backgrounds` rooms, each with one of 64 figures.

    Raises:
        InputError: if a value is not an integer or out of its range.
    """

    seed: int
    """0 or more; decides rooms and figures."""
    backgrounds: int
    """Number of rooms, 1 or more."""
    per_background: int
    """Samples per room, 1 or more."""
    size: int
    """Side of the images in pixels, 32 to 1024. A scene is the same at every size."""

    def __post_init__(self) -> None:
        limits = {"seed": (0, None), "backgrounds": (1, None), "per_background": (1, None), "size": (32, 1024)}
        for field in fields(self):
            value: object = getattr(self, field.name)
            low, high = limits[field.name]
            is_integer = isinstance(value, int) and not isinstance(value, bool)
            if not is_integer or value < low or (high is not None and value > high):  # type: ignore[operator]
                allowed = f"from {low} to {high}" if high is not None else f"of at least {low}"
                raise InputError(
                    f"The value of '{field.name}' is {value!r}, but must be an integer {allowed}; "
                    f"change {field.name} of the scene set."
                )

    def __len__(self) -> int:
        return self.backgrounds * self.per_background

    def __getitem__(self, index: int) -> Sample:
        """Render sample `index % per_background` of room `index // per_background`.

        It is faster to read the samples of a room one after the other: the empty room is cached.

        Raises:
            IndexError: if the index is not from 0 to len - 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"The index {index} is outside a scene set of {len(self)} samples.")
        room_number, sample = divmod(int(index), self.per_background)
        return _render(self.seed, room_number, sample, self.size)


def _render(seed: int, room_number: int, sample: int, size: int) -> Sample:
    room, view, bg, exposure = _empty_room(seed, room_number, size)
    rng = _generator(seed, _SAMPLE, room_number, sample)
    identity_number, figure = _place_figure(rng, seed, room_number)
    shot = _generator(seed, _FG_SHOT, room_number, sample, size)
    strength = np.exp(rng.normal(0, 0.05, len(room.lamps))).astype(np.float32)
    seen = view_figure(room, figure, view.direction, view.depth, view.side)
    radiance = room_radiance(room, add_shadow(room, view, figure), strength)
    radiance[:, seen.rays] = figure_radiance(room, figure, view.direction, seen, strength, view.side)
    white = exposure * np.exp(rng.normal(0, 0.06) + rng.normal(0, 0.015, 3)).astype(np.float32)
    bg_id, fg_id = f"room{room_number:04d}", f"figure{identity_number:04d}"
    return Sample(
        sample_id=f"{bg_id}_{fg_id}_{sample:02d}",
        bg_id=bg_id,
        fg_id=fg_id,
        bg=bg.copy(),
        fg_bg=_expose(_pixels(radiance, size), white, shot),
        mask=_mask(seen, size),
        depth=_depth(view, seen, size),
    )


@lru_cache(maxsize=1)
def _empty_room(seed: int, room_number: int, size: int) -> tuple[Room, RoomView, Pixels, Floats]:
    """A room, its view, its photograph, and the exposure (3,) of the photograph."""
    room = _room(seed, room_number)
    view = view_room(room, size * _RAYS_PER_SIDE)
    radiance = room_radiance(room, view, np.ones(len(room.lamps), np.float32))
    rng = _generator(seed, _BG_SHOT, room_number)
    exposure = np.float32(rng.uniform(0.26, 0.42)) / np.median(radiance)
    # The white balance of a camera removes part of the lamps' tint.
    tint = radiance.mean(axis=1) / radiance.mean()
    white = (exposure / np.sqrt(tint)).astype(np.float32)
    shot = _generator(seed, _BG_SHOT, room_number, size)
    return room, view, _expose(_pixels(radiance, size), white, shot), white


@lru_cache(maxsize=3)
def _room(seed: int, room_number: int) -> Room:
    return draw_room(_generator(seed, _ROOM, room_number))


@lru_cache(maxsize=3)
def _coarse_depth(seed: int, room_number: int) -> tuple[Floats, Floats]:
    """Ray directions (3, N) and depth (N,) of a room on a coarse grid, which does not depend on the image size."""
    room = _room(seed, room_number)
    direction = room.camera.directions(_COARSE_SIDE)
    hits = trace_room(room.extent, room.groups, room.camera.position[:, None], direction)
    return direction, hits.distance


@lru_cache(maxsize=2 * _IDENTITIES)
def _identity(seed: int, number: int) -> Identity:
    return draw_identity(_generator(seed, _FIGURE, number))


def _place_figure(rng: np.random.Generator, seed: int, room_number: int) -> tuple[int, Figure]:
    """Draw a figure and its position until it stands clear and covers a share in `_MASK_SHARES`, or use the best."""
    room = _room(seed, room_number)
    direction, depth = _coarse_depth(seed, room_number)
    attempts: list[tuple[float, int, Figure]] = []
    for _ in range(_MAX_ATTEMPTS):
        number = _choose_identity(rng, seed, room)
        spot = room.positions[_choose_position(rng, room)] + rng.uniform(-0.05, 0.05, 2)
        figure = build_figure(_identity(seed, number), draw_pose(rng), float(spot[0]), float(spot[1]))
        share = view_figure(room, figure, direction, depth, _COARSE_SIDE).rays.size / depth.size
        low, high = _MASK_SHARES
        miss = max(low - share, share - high, 0.0) + (0 if _stands_clear(room, figure) else 1)
        attempts.append((miss, number, figure))
        if miss == 0:
            break
    _, number, figure = min(attempts, key=lambda attempt: attempt[0])
    return number, figure


def _stands_clear(room: Room, figure: Figure) -> bool:
    """Whether all joints above the shins are clear of walls and furniture."""
    joints = np.stack([cone.start for cone in figure.cones] + [cone.end for cone in figure.cones], axis=1)
    joints = joints[:, joints[2] > _SHIN_HEIGHT]
    return bool(distance_to_boxes(room.extent, room.groups, joints, _MIN_DISTANCE).min() >= _MIN_DISTANCE)


def _choose_position(rng: np.random.Generator, room: Room) -> int:
    """The nearest of three random positions, which are mostly in full view."""
    in_full_view = room.full_view_count > 0 and rng.random() < 0.65
    drawn = rng.integers(room.full_view_count if in_full_view else len(room.positions), size=3)
    distances = np.linalg.norm(room.positions[drawn] - room.camera.position[:2], axis=1)
    return int(drawn[distances.argmin()])


def _choose_identity(rng: np.random.Generator, seed: int, room: Room) -> int:
    """Any figure, or often one with a shirt close to the colour of a wall, which is difficult to segment."""
    if rng.random() >= _LOOKALIKE_SHARE:
        return int(rng.integers(_IDENTITIES))
    wall = np.sqrt(np.array(room.materials[int(rng.integers(4))].colours[0]))
    differences = [
        float(np.abs(np.sqrt(np.array(_identity(seed, number).shirt.colours[0])) - wall).sum())
        for number in range(_IDENTITIES)
    ]
    return int(np.argsort(differences)[rng.integers(3)])


def _pixels(radiance: Floats, size: int) -> Floats:
    """Mean radiance (size, size, 3) of each pixel's rays, from that of the rays (3, N)."""
    rays = radiance.reshape(3, size, _RAYS_PER_SIDE, size, _RAYS_PER_SIDE)
    return np.asarray(rays.mean(axis=(2, 4)).transpose(1, 2, 0), np.float32)


def _mask(seen: FigureView, size: int) -> Pixels:
    """(size, size): the share of each pixel's rays that hit the figure, as 0 to 255."""
    covered = np.zeros((size * _RAYS_PER_SIDE) ** 2, np.float32)
    covered[seen.rays] = 1
    grid = covered.reshape(size, _RAYS_PER_SIDE, size, _RAYS_PER_SIDE)
    return np.asarray(np.rint(grid.mean(axis=(1, 3)) * 255), np.uint8)


def _depth(view: RoomView, seen: FigureView, size: int) -> Pixels:
    """(size, size): mean depth of each pixel's rays, from 0 at the nearest pixel to 255 at the farthest."""
    metres = view.depth.copy()
    metres[seen.rays] = seen.depth
    mean = metres.reshape(size, _RAYS_PER_SIDE, size, _RAYS_PER_SIDE).mean(axis=(1, 3))
    near, far = mean.min(), mean.max()
    return np.asarray(np.rint((mean - near) / (far - near) * 255), np.uint8)


def _expose(radiance: Floats, exposure: Floats, rng: np.random.Generator) -> Pixels:
    """Simulate a small camera on linear radiance (H, W, 3): vignette, blur, noise, tone curve, 8 bits."""
    side = radiance.shape[0]
    squared = np.linspace(-1, 1, side, dtype=np.float32) ** 2
    light = radiance * exposure * (1 - np.float32(0.12) * (squared[:, None] + squared))[:, :, None]
    sigma = float(rng.uniform(0.3, 0.5)) * max(1.0, side / 224)
    light = cv2.GaussianBlur(light, (0, 0), sigma).astype(np.float32)
    # Photon noise grows with the root of the signal; the electronics add a constant.
    deviation = np.sqrt(np.float32(2.2e-4) * light + np.float32(6e-6)) * np.float32(rng.uniform(0.6, 1.4))
    light += deviation * rng.standard_normal(light.shape, dtype=np.float32)
    light = np.maximum(light, 0)
    displayed = light * (1 + light / 4) / (1 + light)
    return np.asarray(np.rint(np.clip(displayed, 0, 1) ** np.float32(1 / 2.2) * 255), np.uint8)


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
