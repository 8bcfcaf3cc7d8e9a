"""Objects that live in the driver's process alone."""

from __future__ import annotations


class DriverOnly:
    """Mixed into what is handed to Ray Tune but never leaves this process.

    Tune pickles its settings for a restore of its own; here the study has everything that a resumed search needs, so
    nothing of such an object is kept.
    """

    def __getstate__(self) -> dict[str, object]:
        return {}
