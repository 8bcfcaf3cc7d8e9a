"""What the values of a depth file mean: their unit, and which of them are not measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from data.errors import InputError

DepthUnit = Literal["mm", "cm", "m", "relative"]
UNITS: tuple[DepthUnit, ...] = get_args(DepthUnit)
PER_METRE = {"mm": 1000, "cm": 100, "m": 1}


@dataclass(frozen=True, kw_only=True)
class DepthMeaning:
    """What the values of the depth files of a source mean.

    NaN, infinite and negative values are never measurements.

    Raises:
        InputError: if the unit is not known, or the invalid value is not a number.
    """

    unit: DepthUnit | None = None
    """Metric depth is a distance, so far is bright, and 0 is no measurement. In relative depth, 0 is one. None: files
    of 8 and 16 bits, whose values are read as `data.depth.levels` describes."""
    invalid: float | None = None
    """A further value that is no measurement, such as 65535."""

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in UNITS:
            raise InputError(f"The value of '--depth-unit' is '{self.unit}', but must be one of {', '.join(UNITS)}.")
        if self.invalid is not None and not math.isfinite(self.invalid):
            raise InputError(
                f"The value of '--depth-invalid' is {self.invalid}, but must be a number; NaN and infinite values are "
                "invalid without the option."
            )

    @property
    def is_metric(self) -> bool:
        """Whether the values are distances."""
        return self.unit in PER_METRE


UNKNOWN = DepthMeaning()
"""What is assumed by default."""
