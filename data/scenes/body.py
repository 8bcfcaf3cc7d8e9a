"""Build a figure from rounded cones: limbs, trunk, head and clothes.

Lengths are metres. In the figure's frame, x points to its right, y forwards and z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.scenes.cones import RoundedCone, cone_between
from data.scenes.materials import Material, plain

if TYPE_CHECKING:
    from data.scenes.boxes import Floats
    from data.scenes.figure import Identity, Pose

Vector = tuple[float, float, float]

_AHEAD: Vector = (0.0, 1.0, 0.0)
_EYES = plain((0.02, 0.02, 0.02))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A posed figure in a room."""

    cones: tuple[RoundedCone, ...]
    materials: tuple[Material, ...]
    """One per cone."""
    bounds: RoundedCone
    """An upright cone that contains the others."""


def build_figure(identity: Identity, pose: Pose, x: float, y: float) -> Figure:
    """Build a figure that stands at (x, y), with its lowest sole on the floor."""
    body = _Body(identity, pose)
    body.add_legs()
    body.add_trunk()
    body.add_arms()
    body.add_head()
    return body.placed(x, y)


@dataclass(frozen=True)
class _Part:
    start: Floats
    end: Floats
    radii: tuple[float, float]
    material: Material
    front: Vector
    flatness: float
    open_end: bool

    def cone(self, rotation: Floats, shift: Floats) -> RoundedCone:
        return cone_between(
            rotation @ self.start + shift,
            rotation @ self.end + shift,
            self.radii,
            rotation @ np.array(self.front),
            flatness=self.flatness,
            open_end=self.open_end,
        )


class _Body:
    """The parts of a figure, relative to the middle of the hips."""

    def __init__(self, identity: Identity, pose: Pose) -> None:
        self.identity = identity
        self.pose = pose
        self.size = identity.height
        self.girth = identity.height * identity.build
        self.parts: list[_Part] = []
        right, ahead = pose.lean
        self.spine = np.array([np.sin(right), np.sin(ahead), np.cos(ahead)])
        self.spine /= np.linalg.norm(self.spine)
        self.neck = (0.845 - identity.legs) * self.size * self.spine
        self.top = self.neck - 0.035 * self.size * self.spine
        self.shoulder = _vector(identity.shoulders * self.size - 0.02 * self.girth, 0, 0)

    def add(
        self,
        start: Floats,
        end: Floats,
        radii: tuple[float, float],
        material: Material,
        *,
        front: Vector = _AHEAD,
        flatness: float = 1.0,
        open_end: bool = False,
    ) -> None:
        self.parts.append(_Part(start, end, radii, material, front, flatness, open_end))

    def add_legs(self) -> None:
        identity, size, girth = self.identity, self.size, self.girth
        # Shorter steps with a skirt: the legs would intersect it.
        step = 0.6 if identity.skirt else 1.0
        half = identity.legs * size * 0.5 - 0.02 * size
        cloth = identity.skin if identity.skirt else identity.trousers
        for number, side in enumerate((-1, 1)):
            swing, spread, bend = (pair[number] for pair in (self.pose.hips, self.pose.spread, self.pose.knees))
            hip = _vector(side * 0.05 * girth, 0, -0.03 * size)
            knee = hip + half * _limb(step * swing, side * spread)
            ankle = knee + half * _limb(step * (swing - bend), side * spread)
            self.add(hip, knee, (0.053 * girth, 0.034 * girth), cloth)
            shin = identity.skin if identity.shorts else cloth
            self.add(knee, ankle, (0.034 * girth, 0.023 * girth), shin)
            tilt = float(np.clip(swing - bend, -0.9, 0.25))
            toe = ankle + 0.095 * size * _vector(side * 0.2, np.cos(tilt), np.sin(tilt) - 0.12)
            heel = ankle + _vector(0, -0.012 * size, -0.008 * size)
            self.add(heel, toe, (0.026 * size, 0.02 * size), identity.shoes)
        if identity.skirt:
            hem = _vector(0, float(np.mean(self.pose.hips)) * 0.2 * size, -0.27 * size)
            self.add(
                _vector(0, 0, 0.05 * size),
                hem,
                (0.082 * girth, 0.13 * girth),
                identity.trousers,
                flatness=0.9,
                open_end=True,
            )

    def add_trunk(self) -> None:
        identity, size, girth = self.identity, self.size, self.girth
        hip = _vector(0.035 * girth, 0, 0)
        self.add(-hip, hip, (0.064 * girth, 0.064 * girth), identity.trousers)
        waist, chest = 0.1 * size * self.spine, 0.225 * size * self.spine
        hem = _vector(0, 0, -0.022 * size)
        self.add(waist, hem, (0.085 * girth, 0.108 * girth), identity.shirt, flatness=0.78, open_end=True)
        self.add(waist, chest, (0.085 * girth, 0.1 * girth), identity.shirt, flatness=0.68)
        self.add(chest, self.top, (0.1 * girth, 0.07 * girth), identity.shirt, flatness=0.64)
        across = 0.85 * self.shoulder
        self.add(self.top - across, self.top + across, (0.04 * girth, 0.04 * girth), identity.shirt)

    def add_arms(self) -> None:
        identity, size, girth = self.identity, self.size, self.girth
        for number, side in enumerate((-1, 1)):
            swing, lift, bend = (pair[number] for pair in (self.pose.shoulders, self.pose.lift, self.pose.elbows))
            shoulder = self.top + side * self.shoulder - 0.006 * size * self.spine
            elbow = shoulder + 0.168 * size * _limb(swing, side * lift)
            inwards = side * lift * (1 - 0.6 * min(bend, 1.6)) if lift < 1 else side * (lift + bend * 0.6)
            forearm = _limb(swing + bend * (1.0 if lift < 1 else 0.3), inwards)
            wrist = elbow + 0.145 * size * forearm
            sleeve = identity.shirt if identity.long_sleeves else identity.skin
            self.add(shoulder, elbow, (0.037 * girth, 0.027 * girth), identity.shirt)
            self.add(elbow, wrist, (0.027 * girth, 0.02 * girth), sleeve)
            hand = wrist + 0.06 * size * forearm
            self.add(wrist, hand, (0.019 * size, 0.021 * size), identity.skin, front=(1.0, 0.0, 0.0), flatness=0.6)

    def add_head(self) -> None:
        identity, size = self.identity, self.size
        turn = self.pose.look
        ahead = _vector(-np.sin(turn), np.cos(turn), 0)
        right = _vector(np.cos(turn), np.sin(turn), 0)
        centre = self.neck + 0.087 * size * self.spine
        up = _vector(0, 0, 1)
        self.add(self.neck - 0.04 * size * self.spine, centre, (0.034 * size, 0.03 * size), identity.skin)
        chin, brow = centre + size * (0.014 * ahead - 0.03 * up), centre + size * 0.018 * up
        self.add(chin, brow, (0.036 * size, 0.049 * size), identity.skin)
        cap = centre + size * (0.03 * up - 0.008 * ahead)
        nape = centre + size * (-0.012 * up - 0.026 * ahead)
        self.add(cap, nape, (0.056 * size, 0.047 * size), identity.hair)
        if identity.long_hair:
            self.add(nape, nape - size * (0.1 * up + 0.014 * ahead), (0.046 * size, 0.034 * size), identity.hair)
        nose = centre + size * (0.05 * ahead - 0.006 * up)
        self.add(nose, nose - size * (0.012 * up - 0.004 * ahead), (0.006 * size, 0.009 * size), identity.skin)
        for side in (-1, 1):
            eye = centre + size * (0.041 * ahead + side * 0.017 * right + 0.01 * up)
            self.add(eye, eye + 0.001 * size * right, (0.006 * size, 0.006 * size), _EYES)

    def placed(self, x: float, y: float) -> Figure:
        cos, sin = np.cos(self.pose.heading), np.sin(self.pose.heading)
        rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
        balls = [(part.start, part.radii[0]) for part in self.parts]
        balls += [(part.end, part.radii[1]) for part in self.parts if not part.open_end]
        sole = min(centre[2] - radius for centre, radius in balls)
        shift = np.array([x, y, -sole], np.float32)
        cones = tuple(part.cone(rotation, shift) for part in self.parts)
        ends = np.stack([cone.end for cone in cones])
        radius = float(np.hypot(ends[:, 0] - x, ends[:, 1] - y).max()) + 0.12
        axis = np.array([x, y, 0.0]), np.array([x, y, ends[:, 2].max()])
        bounds = cone_between(*axis, (radius, radius), np.array(_AHEAD), flatness=1.0, open_end=False)
        return Figure(cones=cones, materials=tuple(part.material for part in self.parts), bounds=bounds)


def _limb(swing: float, outwards: float) -> Floats:
    """Direction of a limb that hangs down, swung forwards and to the right."""
    return _vector(np.sin(outwards), np.sin(swing) * np.cos(outwards), -np.cos(swing) * np.cos(outwards))


def _vector(x: float, y: float, z: float) -> Floats:
    return np.array([x, y, z], np.float32)
