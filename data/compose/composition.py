"""What a composed data set consists of, and how it is composed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from data.compose.depth import DepthUnit
from data.errors import InputError
from data.importers.polarity import POLARITIES

if TYPE_CHECKING:
    from pathlib import Path

    from data.importers.polarity import PolarityName


SIZES = (32, 1024)
"""The smallest and the largest side of a picture in pixels."""
SCALE = (0.2, 0.67)
"""Published foregrounds fit 150 pixels of 224; what was smaller than 40 by 50 was left out."""


@dataclass(frozen=True, kw_only=True)
class Composition:
    """What is composed, and how.

    Raises:
        InputError: if a value is out of its range, or does not go with another.
    """

    backgrounds: Path
    """Folder of photographs, PNG or JPEG."""
    foregrounds: Path
    """Folder of RGBA pictures, transparent around what they show."""
    depths: Path
    """Folder with a depth picture for each background, of the same name."""
    depth_unit: DepthUnit
    """'mm' and 'cm': from the camera's plane, 0 where nothing was measured. 'relative': levels without a unit."""
    depth_polarity: PolarityName | None = None
    """Of relative depth: what bright means. Metric depth has none."""
    depth_far: float | None = None
    """Metres that are stored as 255, and all that is farther; the set's largest depth if not given. Not if relative."""
    placements: int = 20
    """How often each foreground stands in each background, 1 to 10,000; with `flips`, so often each way round."""
    flips: bool = False
    """Whether each foreground is also mirrored left to right."""
    size: int = 224
    """Side in pixels that the middle square of each background gets, 32 to 1024."""
    scale: tuple[float, float] = SCALE
    """Smallest and largest longer side of a foreground, as a share of the picture's side, 0.05 to 1."""
    seed: int = 0
    """0 or more; another seed places the foregrounds elsewhere."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("placements", self.placements, 1, 10_000),
            ("size", self.size, *SIZES),
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
        if self.depth_unit not in get_args(DepthUnit):
            raise InputError(f"The value of '--depth-unit' is '{self.depth_unit}', but must be mm, cm or relative.")
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
                "The polarity of relative depth is not known; give --depth-polarity far-bright or near-bright."
            )
        if self.depth_far is not None:
            raise InputError(
                f"The value of '--depth-far' is {self.depth_far:g}, but relative depth has no metres; leave it out."
            )

    @property
    def directions(self) -> int:
        """1, or 2 with flips."""
        return 2 if self.flips else 1

    @property
    def per_foreground(self) -> int:
        """Samples of one foreground in one background."""
        return self.directions * self.placements
