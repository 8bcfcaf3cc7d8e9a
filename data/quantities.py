"""Counts as text: of bytes in readable units, and of anything with a noun."""

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
        return counted(math.ceil(count), "byte")
    decimals = 2 if count < 9.995 else 1 if count < 99.95 else 0
    return f"{count:.{decimals}f} {UNITS[power]}"


def counted(number: float, noun: str) -> str:
    """A number with a noun, such as '1 fault', '1,200 faults', '0.5 GPUs'."""
    return f"{number if isinstance(number, float) and number % 1 else int(number):,} {noun}{'' if number == 1 else 's'}"
