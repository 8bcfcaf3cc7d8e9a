"""Draw a room: walls, furniture, lamps, a camera, and the positions where a figure can stand.

Lengths are metres, z is up, and the room is the box from (0, 0, 0) to `extent`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.scenes.boxes import BoxGroup, Floats, trace_room
from data.scenes.camera import Camera, draw_camera
from data.scenes.furniture import (
    FREE_FURNITURE,
    WALL_FURNITURE,
    Piece,
    Style,
    door,
    painting,
    rug,
    skirting,
    window,
)
from data.scenes.materials import Colour, Material, draw_colour, draw_paint, scale_colour

_CLEARANCE = 0.3
"""Least distance in metres from a standing position to furniture."""
_MIN_POSITIONS = 12
"""A room with fewer positions in full view is furnished again, with less furniture."""
_MAX_ATTEMPTS = 12


@dataclass(frozen=True, kw_only=True)
class Lamp:
    """A spherical light, or that of a window, which shines to one side only."""

    position: Floats
    """(3,)"""
    radius: float
    colour: Floats
    """(3,): irradiance of a perpendicular surface at a distance of one metre."""
    facing: Floats | None = None
    """(3,): unit vector in which a window shines; None for all directions."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """Everything of a scene except the figure."""

    extent: Floats
    """(3,): width, length and height."""
    groups: tuple[BoxGroup, ...]
    materials: tuple[Material, ...]
    """One per surface, in the order of `Hits.surface`."""
    lamps: tuple[Lamp, ...]
    ambient: Floats
    """(3,): light from all directions."""
    camera: Camera
    positions: Floats
    """(P, 2): x and y of free positions where the camera sees a figure, those in full view first."""
    full_view_count: int
    """Number of positions in full view: the camera also sees the floor there."""


def draw_room(rng: np.random.Generator) -> Room:
    """Draw a furnished room; furniture is drawn again, and less of it, while it leaves too few positions."""
    extent = np.array([rng.uniform(3.2, 7.5), rng.uniform(3.8, 9.0), rng.uniform(2.4, 3.1)], np.float32)
    style = Style.draw(rng)
    shell = _draw_shell(rng)
    for attempt in range(_MAX_ATTEMPTS):
        camera = draw_camera(rng, extent)
        layout = _Layout(extent, camera)
        layout.furnish(rng, style, fullness=1 - attempt / _MAX_ATTEMPTS)
        positions, in_full = _standing_positions(extent, tuple(layout.groups), layout.standing, camera)
        if in_full >= _MIN_POSITIONS:
            break
    lamps, ambient = _draw_lights(rng, extent, layout.window)
    return Room(
        extent=extent,
        groups=tuple(layout.groups),
        materials=(*shell, *layout.materials),
        lamps=lamps,
        ambient=ambient,
        camera=camera,
        positions=positions,
        full_view_count=in_full,
    )


class _Layout:
    """The furniture of a room while it is drawn."""

    def __init__(self, extent: Floats, camera: Camera) -> None:
        self.extent = extent
        self.camera = camera
        self.groups: list[BoxGroup] = []
        self.materials: list[Material] = []
        self.standing: list[BoxGroup] = []
        self.hung: list[BoxGroup] = []
        self.window: tuple[Floats, Floats] | None = None

    def furnish(self, rng: np.random.Generator, style: Style, fullness: float) -> None:
        """Draw things on the walls, furniture along them, and furniture in the middle of the room."""
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
                piece = painting(rng, rng.uniform(0.35, 1.0), rng.uniform(0.35, 0.8))
                self._hang(rng, wall, piece, float(rng.uniform(1.2, 1.5)))
        for _ in range(int(rng.integers(3, 8) * fullness)):
            build = WALL_FURNITURE[str(rng.choice(list(WALL_FURNITURE)))]
            self._place(rng, build(rng, style), wall=int(rng.integers(3)))
        if rng.random() < 0.5:
            centre = np.array([*(self.extent[:2] * rng.uniform(0.35, 0.65, 2)), 0], np.float32)
            self._add(rug(rng), centre, float(rng.choice([0.0, rng.uniform(-0.4, 0.4)])))
        for _ in range(int(rng.integers(0, 5) * fullness)):
            build = FREE_FURNITURE[str(rng.choice(list(FREE_FURNITURE)))]
            self._place(rng, build(rng, style), wall=None)

    def _add(self, piece: Piece, position: Floats, yaw: float) -> BoxGroup:
        group = _grouped(piece, position, yaw)
        self.groups.append(group)
        self.materials.extend(piece.materials)
        return group

    def _at_wall(self, wall: int, along: float, height: float) -> tuple[Floats, float]:
        """Position and yaw of a piece with its back at the far (0), left (1) or right (2) wall."""
        width, length, _ = (float(side) for side in self.extent)
        x, y = {0: (along * width, length), 1: (0.0, along * length), 2: (width, along * length)}[wall]
        return np.array([x, y, height], np.float32), (0.0, np.pi / 2, -np.pi / 2)[wall]

    def _hang(self, rng: np.random.Generator, wall: int, piece: Piece, height: float) -> BoxGroup | None:
        """Draw a position on the wall, and hang the piece there unless it would overlap another."""
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
            inwards = group.rotated(np.array([[0], [-1], [0]], np.float32), inverse=True)[:, 0]
            centre = group.position + inwards * np.float32(0.2) + np.array([0, 0, height / 2], np.float32)
            self.window = centre, inwards

    def _place(self, rng: np.random.Generator, piece: Piece, wall: int | None) -> None:
        """Draw positions until one is free; leave the piece out if none of the first 8 is."""
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
        clear_of_camera = bool(((eye < low - 0.7) | (eye > high + 0.7)).any())
        others = [_footprint(other) for other in self.standing]
        return (
            inside
            and clear_of_camera
            and all(((high < lowest - 0.03) | (low > highest + 0.03)).any() for lowest, highest in others)
        )


def _grouped(piece: Piece, position: Floats, yaw: float) -> BoxGroup:
    low, high = np.array(piece.lows, np.float32), np.array(piece.highs, np.float32)
    return BoxGroup(position=position, yaw=yaw, low=low, high=high)


def _footprint(group: BoxGroup) -> tuple[Floats, Floats]:
    """Lowest and highest x and y, (2,) each, of the area that the group covers."""
    low, high = group.low.min(axis=0), group.high.max(axis=0)
    corners = np.array([[x, y, 0] for x in (low[0], high[0]) for y in (low[1], high[1])], np.float32).T
    rotated = group.rotated(corners, inverse=True)[:2] + group.position[:2, None]
    return rotated.min(axis=1), rotated.max(axis=1)


def _draw_shell(rng: np.random.Generator) -> list[Material]:
    """Draw the materials of walls, floor and ceiling, in the order of `Hits.surface`."""
    paint = draw_paint(rng, (0.03, 0.4), (0.5, 0.93))
    kind = str(rng.choice(["plaster", "plaster", "stripes", "tiles", "planks"], p=[0.3, 0.25, 0.25, 0.1, 0.1]))
    period = {
        "plaster": 1.0,
        "stripes": rng.uniform(0.15, 0.6),
        "tiles": rng.uniform(0.15, 0.4),
        "planks": 0.18,
    }
    wall = Material(
        pattern=kind, colours=(paint, scale_colour(paint, rng.uniform(0.65, 1.3))), period=float(period[kind])
    )
    accent_paint = draw_paint(rng, (0.1, 0.55), (0.4, 0.9))
    accent = Material(pattern="plaster", colours=(accent_paint, accent_paint))
    sides = [accent if rng.random() < 0.2 else wall for _ in range(4)]
    ground: Colour
    kind = str(rng.choice(["planks", "tiles", "checks", "carpet"], p=[0.45, 0.2, 0.1, 0.25]))
    if kind == "planks":
        ground, floor_period = draw_colour(rng, (0.05, 0.11), (0.25, 0.6), (0.4, 0.85)), rng.uniform(0.1, 0.2)
    else:
        ground, floor_period = draw_paint(rng, (0.03, 0.3), (0.4, 0.9)), rng.uniform(0.25, 0.55)
    floor = Material(pattern=kind, colours=(ground, scale_colour(ground, 0.62)), period=float(floor_period))
    ceiling = Material(pattern="plaster", colours=((0.75, 0.74, 0.72),) * 2)
    return [*sides, floor, ceiling]


def _draw_lights(
    rng: np.random.Generator, extent: Floats, window_light: tuple[Floats, Floats] | None
) -> tuple[tuple[Lamp, ...], Floats]:
    """Draw a lamp below the ceiling, the light of the window if there is one, and the ambient light (3,)."""
    warm = np.array([1.0, rng.uniform(0.82, 1.0), rng.uniform(0.62, 0.95)], np.float32)
    position = np.array([*(extent[:2] * rng.uniform(0.25, 0.75, 2)), extent[2] - rng.uniform(0.15, 0.6)], np.float32)
    strength = rng.uniform(2.5, 5)
    lamps = [Lamp(position=position, radius=float(rng.uniform(0.06, 0.25)), colour=warm * np.float32(strength))]
    if window_light is not None:
        day = np.array([rng.uniform(0.75, 1), rng.uniform(0.85, 1), 1.0], np.float32)
        bright = np.float32(rng.uniform(2, 9))
        lamps.append(Lamp(position=window_light[0], radius=0.45, colour=day * bright, facing=window_light[1]))
    ambient = warm * np.float32(rng.uniform(0.15, 0.4))
    return tuple(lamps), ambient


def _standing_positions(
    extent: Floats, groups: tuple[BoxGroup, ...], standing: list[BoxGroup], camera: Camera
) -> tuple[Floats, int]:
    """Free positions (P, 2) on the floor where the camera sees a figure's middle; in how many it sees the feet."""
    x, y = np.meshgrid(*(np.arange(0.35, float(side) - 0.34, 0.14) for side in extent[:2]))
    spots = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)]).astype(np.float32)
    free = np.linalg.norm(spots[:2] - camera.position[:2, None], axis=0) > 0.95
    for group in standing:
        local, margin = group.local(spots)[:2].T, np.float32(_CLEARANCE)
        low, high = group.low[:, :2].min(axis=0) - margin, group.high[:, :2].max(axis=0) + margin
        free &= ~((local > low) & (local < high)).all(axis=1)
    spots = spots[:, free]
    visible = []
    for height, edge in ((1.1, 0.1), (0.0, 0.02)):
        target = spots + np.array([[0], [0], [height]], np.float32)
        left, top, depth = camera.project(target)
        in_view = (np.minimum(left, 1 - left) > edge) & (np.minimum(top, 1 - top) > edge) & (depth > 0.8)
        hits = trace_room(extent, groups, camera.position[:, None], target - camera.position[:, None])
        visible.append(in_view & (hits.distance > 0.97))
    middle, floor = visible
    in_full = middle & floor
    order = np.concatenate([np.flatnonzero(in_full), np.flatnonzero(middle & ~floor)])
    return spots[:2, order].T, int(in_full.sum())
