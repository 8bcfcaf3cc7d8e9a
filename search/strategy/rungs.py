"""The epochs at which trials are compared."""

from __future__ import annotations

import itertools
import math

TIME_ATTR = "epoch"
"""Key of the epoch in a trial's reports."""


def rung_epochs(*, max_epochs: int, grace_epochs: int, reduction_factor: float) -> list[int]:
    """The epochs at which ASHA compares trials, and the last one."""
    reached = (grace_epochs * reduction_factor**number for number in itertools.count())
    before_the_end = itertools.takewhile(lambda epoch: epoch < max_epochs, reached)
    # A rung between two epochs is compared at the later one.
    return sorted({*(math.ceil(epoch) for epoch in before_the_end), max_epochs})
