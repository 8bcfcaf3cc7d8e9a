"""Rendered scenes with exact mask and depth: rooms and figures in them, each drawn from a seed and an index.

They are ray cast in numpy; mask and depth come from the rays of the picture. A set stores and reads nothing.
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
    figure_radiance,
    room_radiance,
    shaded_view,
    view_figure,
    view_room,
)
from data.schema import Pixels, Sample

IDENTITIES = 64
"""How many different figures there are, however many rooms."""

SIZES = (32, 1024)
"""The smallest and the largest side of a picture in pixels."""

_RAYS_PER_SIDE = 2
_TRIAL_SIDE = 48
_TRIALS = 24
_MASK_SHARE = (0.012, 0.38)
_ABOVE_SHINS, _APART = 0.35, 0.06
_LOOKALIKE_SHARE = 0.4
_ROOM, _FIGURE, _SAMPLE, _BG_SHOT, _FG_SHOT = range(5)


@dataclass(frozen=True, kw_only=True)
class SceneSet:
    """`backgrounds` rooms, each with `per_background` pictures of something standing in it.

    Raises:
        InputError: if a value is not an integer or out of its range.
    """

    seed: int
    """0 or more; another seed gives other rooms and other figures."""
    backgrounds: int
    """How many rooms, 1 or more."""
    per_background: int
    """How many pictures of each room, 1 or more."""
    size: int
    """The pictures' side in pixels, 32 to 1024. A scene is the same at each size."""

    def __post_init__(self) -> None:
        limits = {"seed": (0, None), "backgrounds": (1, None), "per_background": (1, None), "size": SIZES}
        for field in fields(self):
            value: object = getattr(self, field.name)
            low, high = limits[field.name]
            is_integer = isinstance(value, int) and not isinstance(value, bool)
            if not is_integer or value < low or (high is not None and value > high):  # type: ignore[operator]
                wanted = f"from {low} to {high}" if high is not None else f"of at least {low}"
                raise InputError(
                    f"The value of '{field.name}' is {value!r}, but must be an integer {wanted}; "
                    f"change {field.name} of the scene set."
                )

    def __len__(self) -> int:
        return self.backgrounds * self.per_background

    def __getitem__(self, index: int) -> Sample:
        """The picture numbered `index % per_background` of room `index // per_background`.

        Pictures of one room should be read one after the other: the empty room is kept for the next of them.

        Raises:
            IndexError: if the index is not from 0 to len - 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"The index {index} is outside a scene set of {len(self)} samples.")
        room_number, picture = divmod(int(index), self.per_background)
        return _render(self.seed, room_number, picture, self.size)


def _render(seed: int, room_number: int, picture: int, size: int) -> Sample:
    room, view, bg, exposure = _empty_room(seed, room_number, size)
    rng = _generator(seed, _SAMPLE, room_number, picture)
    identity_number, figure = _place_figure(rng, seed, room_number)
    shot = _generator(seed, _FG_SHOT, room_number, picture, size)
    strength = np.exp(rng.normal(0, 0.05, len(room.lamps))).astype(np.float32)
    seen = view_figure(room, figure, view.direction, view.depth, view.side)
    radiance = room_radiance(room, shaded_view(room, view, figure), strength)
    radiance[:, seen.rays] = figure_radiance(room, figure, view.direction, seen, strength, view.side)
    white = exposure * np.exp(rng.normal(0, 0.06) + rng.normal(0, 0.015, 3)).astype(np.float32)
    bg_id, fg_id = f"room{room_number:04d}", f"figure{identity_number:04d}"
    return Sample(
        sample_id=f"{bg_id}_{fg_id}_{picture:02d}",
        bg_id=bg_id,
        fg_id=fg_id,
        bg=bg.copy(),
        fg_bg=_photograph(_pixels(radiance, size), white, shot),
        mask=_mask(seen, size),
        depth=_depth(view, seen, size),
    )


@lru_cache(maxsize=1)
def _empty_room(seed: int, room_number: int, size: int) -> tuple[Room, RoomView, Pixels, Floats]:
    """A room, its view, its photograph, and the exposure (3,) that the photograph was taken with."""
    room = _room(seed, room_number)
    view = view_room(room, size * _RAYS_PER_SIDE)
    radiance = room_radiance(room, view, np.ones(len(room.lamps), np.float32))
    rng = _generator(seed, _BG_SHOT, room_number)
    exposure = np.float32(rng.uniform(0.26, 0.42)) / np.median(radiance)
    # A camera takes part of the lamps' tint out, not all of it.
    tint = radiance.mean(axis=1) / radiance.mean()
    white = (exposure / np.sqrt(tint)).astype(np.float32)
    shot = _generator(seed, _BG_SHOT, room_number, size)
    return room, view, _photograph(_pixels(radiance, size), white, shot), white


@lru_cache(maxsize=3)
def _room(seed: int, room_number: int) -> Room:
    return draw_room(_generator(seed, _ROOM, room_number))


@lru_cache(maxsize=3)
def _trial_depth(seed: int, room_number: int) -> tuple[Floats, Floats]:
    """Directions (3, N) and depth (N,) of a room over a coarse grid, the same for each picture size."""
    room = _room(seed, room_number)
    direction = room.camera.directions(_TRIAL_SIDE)
    hits = trace_room(room.extent, room.groups, room.camera.position[:, None], direction)
    return direction, hits.distance


@lru_cache(maxsize=2 * IDENTITIES)
def _identity(seed: int, number: int) -> Identity:
    return draw_identity(_generator(seed, _FIGURE, number))


def _place_figure(rng: np.random.Generator, seed: int, room_number: int) -> tuple[int, Figure]:
    """Who stands where: the first try that shows enough of a figure, but not too much, or else the best."""
    room = _room(seed, room_number)
    direction, depth = _trial_depth(seed, room_number)
    tries: list[tuple[float, int, Figure]] = []
    for _ in range(_TRIALS):
        number = _choose_identity(rng, seed, room)
        spot = room.places[_choose_place(rng, room)] + rng.uniform(-0.05, 0.05, 2)
        figure = build_figure(_identity(seed, number), draw_pose(rng), float(spot[0]), float(spot[1]))
        share = view_figure(room, figure, direction, depth, _TRIAL_SIDE).rays.size / depth.size
        low, high = _MASK_SHARE
        miss = max(low - share, share - high, 0.0) + (0 if _stands_clear(room, figure) else 1)
        tries.append((miss, number, figure))
        if miss == 0:
            break
    _, number, figure = min(tries, key=lambda tried: tried[0])
    return number, figure


def _stands_clear(room: Room, figure: Figure) -> bool:
    """Whether no joint of the figure above the shins is in a wall or in furniture."""
    joints = np.stack([cone.start for cone in figure.cones] + [cone.end for cone in figure.cones], axis=1)
    joints = joints[:, joints[2] > _ABOVE_SHINS]
    return bool(distance_to_boxes(room.extent, room.groups, joints, _APART).min() >= _APART)


def _choose_place(rng: np.random.Generator, room: Room) -> int:
    """The nearest of three free places, mostly of those where the feet are in the picture."""
    wholly = room.places_in_full > 0 and rng.random() < 0.65
    drawn = rng.integers(room.places_in_full if wholly else len(room.places), size=3)
    away = np.linalg.norm(room.places[drawn] - room.camera.position[:2], axis=1)
    return int(drawn[away.argmin()])


def _choose_identity(rng: np.random.Generator, seed: int, room: Room) -> int:
    """Anybody, or often one whose shirt is close to a wall's colour, so that pictures hardly differ."""
    if rng.random() >= _LOOKALIKE_SHARE:
        return int(rng.integers(IDENTITIES))
    wall = np.sqrt(np.array(room.materials[int(rng.integers(4))].colours[0]))
    apart = [
        float(np.abs(np.sqrt(np.array(_identity(seed, number).shirt.colours[0])) - wall).sum())
        for number in range(IDENTITIES)
    ]
    return int(np.argsort(apart)[rng.integers(3)])


def _pixels(radiance: Floats, size: int) -> Floats:
    """(size, size, 3): the mean of each pixel's rays, of radiance (3, N)."""
    rays = radiance.reshape(3, size, _RAYS_PER_SIDE, size, _RAYS_PER_SIDE)
    return np.asarray(rays.mean(axis=(2, 4)).transpose(1, 2, 0), np.float32)


def _mask(seen: FigureView, size: int) -> Pixels:
    """(size, size): the share of each pixel's rays that meet the figure, as 0 to 255."""
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


def _photograph(radiance: Floats, exposure: Floats, rng: np.random.Generator) -> Pixels:
    """What a small camera makes of linear radiance (H, W, 3): vignette, blur, noise, a tone curve, 8 bits."""
    side = radiance.shape[0]
    place = np.linspace(-1, 1, side, dtype=np.float32) ** 2
    light = radiance * exposure * (1 - np.float32(0.12) * (place[:, None] + place))[:, :, None]
    sigma = float(rng.uniform(0.3, 0.5)) * max(1.0, side / 224)
    light = cv2.GaussianBlur(light, (0, 0), sigma).astype(np.float32)
    # Photons of a signal vary with its root; the electronics add a floor.
    spread = np.sqrt(np.float32(2.2e-4) * light + np.float32(6e-6)) * np.float32(rng.uniform(0.6, 1.4))
    light += spread * rng.standard_normal(light.shape, dtype=np.float32)
    light = np.maximum(light, 0)
    shown = light * (1 + light / 4) / (1 + light)
    return np.asarray(np.rint(np.clip(shown, 0, 1) ** np.float32(1 / 2.2) * 255), np.uint8)


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
