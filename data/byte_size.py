"""Byte counts in readable units."""

from __future__ import annotations

import math

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
"""Powers of 1000."""


def byte_size(count: float) -> str:
    """Format a number of bytes >= 0 with three digits, such as '61.8 MB'; only 0 is '0 bytes'."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    if power == 0:
        whole = math.ceil(count)
        return f"{whole} byte{'' if whole == 1 else 's'}"
    decimals = 2 if count < 9.995 else 1 if count < 99.95 else 0
    return f"{count:.{decimals}f} {UNITS[power]}"
