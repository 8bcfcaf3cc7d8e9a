"""Objects that exist only in the process of the driver."""

from __future__ import annotations


class DriverOnly:
    """Mixin for objects that Ray Tune pickles but never needs again.

    Tune pickles its settings to be able to restore a run. A search is resumed from its study instead, so the pickle of
    such an object is empty.
    """

    def __getstate__(self) -> dict[str, object]:
        return {}
