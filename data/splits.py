"""Stable train, val and test parts: an id's hash decides, so it keeps its part whatever else there is."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from data.manifest import SampleIds

PARTS = ("train", "val", "test")

SplitKey = Literal["background", "foreground", "sample"]

SHARES = (0.70, 0.15, 0.15)

KEYS = {"background": "bg_id", "foreground": "fg_id", "sample": "sample_id"}
"""What a split may be made by, and the id that it is."""


def assign(ids: Sequence[str], shares: tuple[float, float, float] = SHARES) -> NDArray[np.str_]:
    """Assign each id to a part: the start of its SHA-256, as a number in [0, 1), against the shares.

    Args:
        ids: N ids; equal ones get the same part.
        shares: of train, val and test; each in 0..1, and 1 together. They are met on average: with few ids a
            part can be empty.

    Returns:
        (N,) of 'train', 'val' or 'test'.

    Raises:
        InputError: if the shares do not add up to 1, or one is outside of 0..1.
    """
    if any(not 0 <= share <= 1 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise InputError(
            f"The shares of train, val and test are {shares}, but each must be in 0..1 and together 1; "
            "correct data.split in the spec."
        )
    # Rounded, so that 0.1 + 0.2 + 0.7 leaves no sliver for a part whose share is 0.
    bounds = [round(shares[0], 12), round(shares[0] + shares[1], 12)]
    places = np.searchsorted(bounds, [_fraction(id_) for id_ in ids], side="right")
    return np.asarray(PARTS)[places]


def rows(
    dataset_ids: SampleIds, part: str, split_by: SplitKey, shares: tuple[float, float, float] = SHARES
) -> NDArray[np.int64]:
    """Row numbers, in storage order, of the samples of a part.

    Args:
        dataset_ids: `Dataset.ids`, N samples.
        part: 'train', 'val' or 'test', several joined by '+' as in 'train+val', or 'all'.
        split_by: the id whose hash decides: 'background', 'foreground' or 'sample'.
        shares: of train, val and test.

    Returns:
        Ascending row numbers, each in 0..N-1.

    Raises:
        InputError: if the part has no samples, or its name, the key or the shares are not known.
    """
    wanted = PARTS if part == "all" else tuple(part.split("+"))
    if not set(wanted) <= set(PARTS):
        raise InputError(f"The part '{part}' is not known; give 'train', 'val', 'test', 'train+val' or 'all'.")
    if split_by not in KEYS:
        raise InputError(f"The value of 'split_by' is '{split_by}', but must be one of {', '.join(KEYS)}.")
    keys: Sequence[str] = getattr(dataset_ids, KEYS[split_by])
    chosen = np.flatnonzero(np.isin(assign(keys, shares), wanted)).astype(np.int64)
    if not len(chosen):
        noun = split_by if len(set(keys)) == 1 else f"{split_by}s"
        raise InputError(
            f"The part '{part}' of a split by {split_by} has no samples: the data set has {len(set(keys))} "
            f"{noun}, and none falls into it with shares {', '.join(f'{share:g}' for share in shares)} of "
            "train, val and test; "
            f"use a data set with more {split_by}s, or give other shares in data.split of the spec."
        )
    return chosen


def _fraction(id_: str) -> float:
    """Turn an id into a number in [0, 1), a multiple of 2^-53: with more bits rounding could reach 1."""
    return (int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8], "big") >> 11) / 2**53
