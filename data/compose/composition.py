"""The options of a composed data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.depth.meaning import UNITS
from data.errors import InputError
from data.importers.polarity import POLARITIES

if TYPE_CHECKING:
    from pathlib import Path

    from data.depth.meaning import DepthUnit
    from data.importers.polarity import PolarityName


MIN_SIZE, MAX_SIZE = 32, 1024
"""Limits of an image's side in pixels."""
DEFAULT_SCALE = (0.2, 0.67)
"""The published foregrounds are up to 150 pixels long in images of 224; those below 40 x 50 pixels were left out."""


@dataclass(frozen=True, kw_only=True)
class Composition:
    """Which folders a data set is composed from, and how.

    Raises:
        InputError: if a value is out of range, or contradicts another one.
    """

    backgrounds: Path
    """Folder of photographs."""
    foregrounds: Path
    """Folder of RGBA images, transparent around the object."""
    depths: Path
    """Folder with a depth map of the same name for each background."""
    depth_unit: DepthUnit
    """'mm', 'cm' and 'm': distance from the camera's plane, 0 where not measured. 'relative': levels without a unit."""
    depth_polarity: PolarityName | None = None
    """What bright means. Required for relative depth; None for metric depth."""
    depth_far: float | None = None
    """Metric depth in metres from which the level is 255, above 0 to 1000. Default: the largest depth of the set."""
    placements: int = 20
    """Samples of each foreground in each background and each direction, 1 to 10,000."""
    flips: bool = False
    """Whether each foreground is also used mirrored left to right."""
    size: int = 224
    """Side in pixels to which the middle square of each background is resized, 32 to 1024."""
    scale: tuple[float, float] = DEFAULT_SCALE
    """Smallest and largest longer side of a foreground, as shares of the image's side, 0.05 to 1."""
    seed: int = 0
    """0 or more; decides the position and size of each foreground."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("placements", self.placements, 1, 10_000),
            ("size", self.size, MIN_SIZE, MAX_SIZE),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if not low <= value <= high:
                raise InputError(f"The value of '--{name}' is {value}, but must be an integer from {low} to {high}.")
        if not 0.05 <= self.scale[0] <= self.scale[1] <= 1:
            raise InputError(
                f"The value of '--scale' is {self.scale[0]:g} {self.scale[1]:g}, but must be two shares from 0.05 "
                "to 1, the smaller one first."
            )
        self._check_depth()

    def _check_depth(self) -> None:
        if self.depth_unit not in UNITS:
            raise InputError(f"The value of '--depth-unit' is '{self.depth_unit}', but must be mm, cm, m or relative.")
        if self.depth_unit != "relative":
            if self.depth_polarity is not None:
                raise InputError(
                    f"The value of '--depth-polarity' is '{self.depth_polarity}', but depth in {self.depth_unit} grows "
                    "with distance; leave it out."
                )
            if self.depth_far is not None and not 0 < self.depth_far <= 1000:
                raise InputError(
                    f"The value of '--depth-far' is {self.depth_far:g}, but must be metres, above 0 and up to 1000."
                )
            return
        if self.depth_polarity not in POLARITIES:
            raise InputError(
                "The polarity of relative depth is missing; give --depth-polarity far-bright or near-bright."
            )
        if self.depth_far is not None:
            raise InputError(
                f"The value of '--depth-far' is {self.depth_far:g}, but relative depth has no metres; leave it out."
            )

    @property
    def directions(self) -> int:
        """1, or 2 with `flips`."""
        return 2 if self.flips else 1

    @property
    def longest(self) -> int:
        """Longer side of the largest foreground in pixels."""
        return max(1, round(self.scale[1] * self.size))

    @property
    def per_foreground(self) -> int:
        """Number of samples of a foreground in a background."""
        return self.directions * self.placements
