"""A room from a random generator: its walls and furniture, its lamps, and where one can stand in it.

Lengths are metres, z is up, the room is the box from (0, 0, 0) to `extent`. N rays or points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.scenes.boxes import BoxGroup, Floats, trace_room
from data.scenes.camera import Camera, draw_camera
from data.scenes.furniture import (
    BY_THE_WALL,
    STANDING_FREE,
    Piece,
    Style,
    door,
    picture,
    rug,
    skirting,
    window,
)
from data.scenes.materials import Colour, Material, draw_colour, draw_paint, toned

FREE_RADIUS = 0.3
"""Metres around a standing place that are free of furniture."""

_PLACES_WANTED = 12
_ATTEMPTS = 12


@dataclass(frozen=True, kw_only=True)
class Lamp:
    """A round light; a window's shines to one side only."""

    position: Floats
    """(3,)"""
    radius: float
    colour: Floats
    """(3,): light that falls on a surface one metre away, straight on."""
    facing: Floats | None = None
    """(3,): the way a window shines, of length 1; None shines all around."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """Everything of a picture but who stands in it."""

    extent: Floats
    """(3,): width, length and height."""
    groups: tuple[BoxGroup, ...]
    materials: tuple[Material, ...]
    """One a surface, in the order of `Hits.surface`."""
    lamps: tuple[Lamp, ...]
    ambient: Floats
    """(3,): light from all around."""
    camera: Camera
    places: Floats
    """(P, 2): x and y of free places on the floor that the camera sees, those in full view first."""
    places_in_full: int
    """How many of the places show the floor below a figure, too."""


def draw_room(rng: np.random.Generator) -> Room:
    """A furnished room with places to stand, emptier after each draw that left too few of them."""
    extent = np.array([rng.uniform(3.2, 7.5), rng.uniform(3.8, 9.0), rng.uniform(2.4, 3.1)], np.float32)
    style = Style.draw(rng)
    shell = _draw_shell(rng)
    for attempt in range(_ATTEMPTS):
        camera = draw_camera(rng, extent)
        layout = _Layout(extent, camera)
        layout.furnish(rng, style, fullness=1 - attempt / _ATTEMPTS)
        places, in_full = _standing_places(extent, tuple(layout.groups), layout.standing, camera)
        if in_full >= _PLACES_WANTED:
            break
    lamps, ambient = _draw_lights(rng, extent, layout.window)
    return Room(
        extent=extent,
        groups=tuple(layout.groups),
        materials=(*shell, *layout.materials),
        lamps=lamps,
        ambient=ambient,
        camera=camera,
        places=places,
        places_in_full=in_full,
    )


class _Layout:
    """Furniture placed so far."""

    def __init__(self, extent: Floats, camera: Camera) -> None:
        self.extent = extent
        self.camera = camera
        self.groups: list[BoxGroup] = []
        self.materials: list[Material] = []
        self.standing: list[BoxGroup] = []
        self.hung: list[BoxGroup] = []
        self.window: tuple[Floats, Floats] | None = None

    def furnish(self, rng: np.random.Generator, style: Style, fullness: float) -> None:
        """Things on the walls, furniture along them and free in the room."""
        walls = [int(wall) for wall in rng.permutation(3)]
        for wall in walls:
            board = skirting(style, float(self.extent[0] if wall == 0 else self.extent[1]))
            self._add(board, *self._at_wall(wall, 0.5, 0))
        if rng.random() < 0.75:
            self._add_window(rng, walls[0])
        if rng.random() < 0.6:
            self._hang(rng, walls[1], door(rng, style), 0.0)
        for wall in walls[1:] + walls:
            if rng.random() < 0.6:
                piece = picture(rng, rng.uniform(0.35, 1.0), rng.uniform(0.35, 0.8))
                self._hang(rng, wall, piece, float(rng.uniform(1.2, 1.5)))
        for _ in range(int(rng.integers(3, 8) * fullness)):
            build = BY_THE_WALL[str(rng.choice(list(BY_THE_WALL)))]
            self._place(rng, build(rng, style), wall=int(rng.integers(3)))
        if rng.random() < 0.5:
            middle = np.array([*(self.extent[:2] * rng.uniform(0.35, 0.65, 2)), 0], np.float32)
            self._add(rug(rng), middle, float(rng.choice([0.0, rng.uniform(-0.4, 0.4)])))
        for _ in range(int(rng.integers(0, 5) * fullness)):
            build = STANDING_FREE[str(rng.choice(list(STANDING_FREE)))]
            self._place(rng, build(rng, style), wall=None)

    def _add(self, piece: Piece, position: Floats, yaw: float) -> BoxGroup:
        group = _grouped(piece, position, yaw)
        self.groups.append(group)
        self.materials.extend(piece.materials)
        return group

    def _at_wall(self, wall: int, along: float, height: float) -> tuple[Floats, float]:
        """Place and turn of what has its back at the far (0), left (1) or right (2) wall."""
        width, length, _ = (float(side) for side in self.extent)
        x, y = {0: (along * width, length), 1: (0.0, along * length), 2: (width, along * length)}[wall]
        return np.array([x, y, height], np.float32), (0.0, np.pi / 2, -np.pi / 2)[wall]

    def _hang(self, rng: np.random.Generator, wall: int, piece: Piece, height: float) -> BoxGroup | None:
        """Puts the piece on the wall if nothing hangs at the place drawn for it."""
        position, yaw = self._at_wall(wall, float(rng.uniform(0.15, 0.85)), height)
        group = _grouped(piece, position, yaw)
        low, high = _footprint(group)
        others = [_footprint(other) for other in self.hung]
        if not all(((high < lowest - 0.1) | (low > highest + 0.1)).any() for lowest, highest in others):
            return None
        self.hung.append(group)
        return self._add(piece, position, yaw)

    def _add_window(self, rng: np.random.Generator, wall: int) -> None:
        width, height = float(rng.uniform(0.8, 1.8)), float(rng.uniform(0.9, 1.3))
        group = self._hang(rng, wall, window(rng, width, height), 0.95)
        if group is not None:
            inwards = group.turned(np.array([[0], [-1], [0]], np.float32), back=True)[:, 0]
            middle = group.position + inwards * np.float32(0.2) + np.array([0, 0, height / 2], np.float32)
            self.window = middle, inwards

    def _place(self, rng: np.random.Generator, piece: Piece, wall: int | None) -> None:
        """Puts the piece where nothing stands yet; leaves it out after some vain tries."""
        for _ in range(8):
            if wall is None:
                position = np.array([*(self.extent[:2] * rng.uniform(0.2, 0.8, 2)), 0], np.float32)
                yaw = float(rng.uniform(-np.pi, np.pi))
            else:
                position, yaw = self._at_wall(wall, float(rng.uniform(0.1, 0.9)), 0)
            group = _grouped(piece, position, yaw)
            if self._is_free(group):
                self.standing.append(self._add(piece, position, yaw))
                return

    def _is_free(self, group: BoxGroup) -> bool:
        low, high = _footprint(group)
        inside = bool((low > -0.03).all() and (high < self.extent[:2] + 0.03).all())
        eye = self.camera.position[:2]
        apart = bool(((eye < low - 0.7) | (eye > high + 0.7)).any())
        others = [_footprint(other) for other in self.standing]
        return (
            inside
            and apart
            and all(((high < lowest - 0.03) | (low > highest + 0.03)).any() for lowest, highest in others)
        )


def _grouped(piece: Piece, position: Floats, yaw: float) -> BoxGroup:
    low, high = np.array(piece.lows, np.float32), np.array(piece.highs, np.float32)
    return BoxGroup(position=position, yaw=yaw, low=low, high=high)


def _footprint(group: BoxGroup) -> tuple[Floats, Floats]:
    """Lowest and highest x and y, (2,) each, that the group covers."""
    low, high = group.low.min(axis=0), group.high.max(axis=0)
    corners = np.array([[x, y, 0] for x in (low[0], high[0]) for y in (low[1], high[1])], np.float32).T
    turned = group.turned(corners, back=True)[:2] + group.position[:2, None]
    return turned.min(axis=1), turned.max(axis=1)


def _draw_shell(rng: np.random.Generator) -> list[Material]:
    """Walls, floor and ceiling, in the order of `WALLS`."""
    paint = draw_paint(rng, (0.03, 0.4), (0.5, 0.93))
    kind = str(rng.choice(["plaster", "plaster", "stripes", "tiles", "planks"], p=[0.3, 0.25, 0.25, 0.1, 0.1]))
    period = {
        "plaster": 1.0,
        "stripes": rng.uniform(0.15, 0.6),
        "tiles": rng.uniform(0.15, 0.4),
        "planks": 0.18,
    }
    wall = Material(pattern=kind, colours=(paint, toned(paint, rng.uniform(0.65, 1.3))), period=float(period[kind]))
    accent_paint = draw_paint(rng, (0.1, 0.55), (0.4, 0.9))
    accent = Material(pattern="plaster", colours=(accent_paint, accent_paint))
    sides = [accent if rng.random() < 0.2 else wall for _ in range(4)]
    ground: Colour
    kind = str(rng.choice(["planks", "tiles", "checks", "carpet"], p=[0.45, 0.2, 0.1, 0.25]))
    if kind == "planks":
        ground, period_here = draw_colour(rng, (0.05, 0.11), (0.25, 0.6), (0.4, 0.85)), rng.uniform(0.1, 0.2)
    else:
        ground, period_here = draw_paint(rng, (0.03, 0.3), (0.4, 0.9)), rng.uniform(0.25, 0.55)
    floor = Material(pattern=kind, colours=(ground, toned(ground, 0.62)), period=float(period_here))
    ceiling = Material(pattern="plaster", colours=((0.75, 0.74, 0.72),) * 2)
    return [*sides, floor, ceiling]


def _draw_lights(
    rng: np.random.Generator, extent: Floats, window_at: tuple[Floats, Floats] | None
) -> tuple[tuple[Lamp, ...], Floats]:
    """A lamp below the ceiling, the window if there is one, and light from all around."""
    warm = np.array([1.0, rng.uniform(0.82, 1.0), rng.uniform(0.62, 0.95)], np.float32)
    where = np.array([*(extent[:2] * rng.uniform(0.25, 0.75, 2)), extent[2] - rng.uniform(0.15, 0.6)], np.float32)
    strength = rng.uniform(2.5, 5)
    lamps = [Lamp(position=where, radius=float(rng.uniform(0.06, 0.25)), colour=warm * np.float32(strength))]
    if window_at is not None:
        day = np.array([rng.uniform(0.75, 1), rng.uniform(0.85, 1), 1.0], np.float32)
        bright = np.float32(rng.uniform(2, 9))
        lamps.append(Lamp(position=window_at[0], radius=0.45, colour=day * bright, facing=window_at[1]))
    ambient = warm * np.float32(rng.uniform(0.15, 0.4))
    return tuple(lamps), ambient


def _standing_places(
    extent: Floats, groups: tuple[BoxGroup, ...], standing: list[BoxGroup], camera: Camera
) -> tuple[Floats, int]:
    """Free places (P, 2) on the floor where the camera sees a figure's middle; how many show the feet."""
    x, y = np.meshgrid(*(np.arange(0.35, float(side) - 0.34, 0.14) for side in extent[:2]))
    spots = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)]).astype(np.float32)
    free = np.linalg.norm(spots[:2] - camera.position[:2, None], axis=0) > 0.95
    for group in standing:
        local, margin = group.local(spots)[:2].T, np.float32(FREE_RADIUS)
        low, high = group.low[:, :2].min(axis=0) - margin, group.high[:, :2].max(axis=0) + margin
        free &= ~((local > low) & (local < high)).all(axis=1)
    spots = spots[:, free]
    shown = []
    for height, edge in ((1.1, 0.1), (0.0, 0.02)):
        target = spots + np.array([[0], [0], [height]], np.float32)
        left, top, depth = camera.project(target)
        in_view = (np.minimum(left, 1 - left) > edge) & (np.minimum(top, 1 - top) > edge) & (depth > 0.8)
        hits = trace_room(extent, groups, camera.position[:, None], target - camera.position[:, None])
        shown.append(in_view & (hits.distance > 0.97))
    middle, floor = shown
    in_full = middle & floor
    order = np.concatenate([np.flatnonzero(in_full), np.flatnonzero(middle & ~floor)])
    return spots[:2, order].T, int(in_full.sum())
