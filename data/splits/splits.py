"""Stable train, val and test parts: the hash of an id decides, so other samples never change its part.

The splits of published projects are in `data.splits.published`. A split that came with the data is the storage order of
the data set with the sizes of its parts.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from data.errors import InputError
from data.splits.published import PUBLISHED

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from data.dataset.manifest import SampleIds

PARTS = ("train", "val", "test")

SplitKey = Literal["background", "foreground", "sample", "listing", "draws", "shuffled", "pairs", "batch", "stored"]
SPLITS: tuple[SplitKey, ...] = get_args(SplitKey)
"""Split keys: an id whose hash decides, a published split, or the split that came with the data."""

SHARES = (0.70, 0.15, 0.15)

KEYS = {"background": "bg_id", "foreground": "fg_id", "sample": "sample_id"}
"""The id whose hash decides."""
SHARE_STEPS = (20, 100, 1000)
"""Proposed shares are multiples of 1/20, else of 1/100, else of 1/1000."""
SCARCE = {"pairs": "samples of each pair of background and foreground", "batch": "batches"}
"""What a data set has too few of if a part of a published split is empty; 'samples' by default."""


def assign(ids: Sequence[str], shares: tuple[float, float, float] = SHARES) -> NDArray[np.str_]:
    """Assign each id to a part by its hash, a number in [0, 1).

    Args:
        ids: N ids; equal ids get the same part.
        shares: of train, val and test, each in 0..1, with sum 1. They hold on average: with few ids a part can be
            empty.

    Returns:
        (N,) of 'train', 'val' or 'test'.

    Raises:
        InputError: if the shares are outside 0..1 or do not add up to 1.
    """
    _check(shares)
    # Rounding error must not give ids to a part whose share is 0, as with 0.1 + 0.2 + 0.7.
    bounds = [round(shares[0], 12), round(shares[0] + shares[1], 12)]
    indices = np.searchsorted(bounds, [_fraction(id_) for id_ in ids], side="right")
    return np.asarray(PARTS)[indices]


def rows(
    dataset_ids: SampleIds, part: str, split_by: SplitKey, shares: tuple[float, float, float] = SHARES
) -> NDArray[np.int64]:
    """Row numbers of the samples of a part.

    A published split defines only the training samples. The others are divided between val and test by the hash of
    the sample id, in proportion to their shares.

    Args:
        dataset_ids: `Dataset.ids`, N samples.
        part: 'train', 'val' or 'test', several joined by '+' as in 'train+val', or 'all'.
        split_by: the id whose hash decides ('background', 'foreground' or 'sample'), or a published split
            ('listing', 'draws', 'shuffled', 'pairs' or 'batch'; see `data.splits.published`), or 'stored' for the
            split that came with the data.
        shares: of train, val and test; the published splits document how they use that of train, 'stored' uses none.

    Returns:
        Ascending row numbers, each in 0..N-1.

    Raises:
        InputError: if the part has no samples, the split is not possible for this data set, or an argument is invalid.
    """
    wanted = PARTS if part == "all" else tuple(part.split("+"))
    if not set(wanted) <= set(PARTS):
        raise InputError(f"The part '{part}' is not known; give 'train', 'val', 'test', 'train+val' or 'all'.")
    if split_by not in SPLITS:
        raise InputError(f"The value of 'split_by' is '{split_by}', but must be one of {', '.join(SPLITS)}.")
    if split_by in KEYS:
        parts = assign(getattr(dataset_ids, KEYS[split_by]), shares)
    elif split_by == "stored":
        parts = _stored(dataset_ids, part)
    else:
        parts = _published(dataset_ids, split_by, shares)
    chosen = np.flatnonzero(np.isin(parts, wanted)).astype(np.int64)
    if not len(chosen):
        raise InputError(_empty_part_message(dataset_ids, part, split_by, shares))
    return chosen


def _published(dataset_ids: SampleIds, split_by: str, shares: tuple[float, float, float]) -> NDArray[np.str_]:
    """(N,) of 'train', 'val' or 'test'."""
    _check(shares)
    training = PUBLISHED[split_by](dataset_ids, shares[0])
    held_out = shares[1] + shares[2]
    val = shares[1] / held_out if held_out else 0.0
    return np.where(training, "train", assign(dataset_ids.sample_id, (0.0, val, 1 - val)))


def _stored(dataset_ids: SampleIds, part: str) -> NDArray[np.str_]:
    """(N,) of 'train', 'val' or 'test'; without a stored split, there is only the part 'all'."""
    if dataset_ids.split is not None:
        return np.repeat(PARTS, [getattr(dataset_ids.split, name) for name in PARTS])
    if part == "all":
        return np.repeat("train", len(dataset_ids))
    raise InputError(
        "The value of 'data.split_by' is 'stored', but the data set has no split of its own; import it from a "
        "table with a column 'split', or set data.split_by to 'background'."
    )


def _check(shares: tuple[float, float, float]) -> None:
    if any(not 0 <= share <= 1 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise InputError(
            f"The shares of train, val and test are {shares}, but each must be in 0..1 and together 1; "
            "correct data.split."
        )


def _empty_part_message(
    dataset_ids: SampleIds, part: str, split_by: SplitKey, shares: tuple[float, float, float]
) -> str:
    """Error message for a part without samples: the cause, and shares or a split key that work."""
    if split_by == "stored":
        return (
            f"The part '{part}' of the data set's own split has no samples; import it again with samples of this part, "
            "or set data.split_by to 'background'."
        )
    if not sum(share for name, share in zip(PARTS, shares, strict=True) if name in part.split("+")):
        return (
            f"The part '{part}' of a split by {split_by} has no samples: its share is 0; give it a share above 0 in "
            "data.split of the spec."
        )
    shown = ", ".join(f"{share:g}" for share in shares)
    if split_by in KEYS:
        ids = set(getattr(dataset_ids, KEYS[split_by]))
        has = f"{len(ids)} {split_by}{'' if len(ids) == 1 else 's'}"
        if len(ids) < len(PARTS):
            return (
                f"The part '{part}' of a split by {split_by} has no samples: the data set has {has}, but train, val "
                f"and test need one each, so at least {len(PARTS)}; use a data set with more {split_by}s"
                f"{_other_key(dataset_ids, split_by, shares)}."
            )
        other = _format(nearest_shares(ids, shares))
        return (
            f"The part '{part}' of a split by {split_by} has no samples: the data set has {has}, and none falls into "
            f"it with shares {shown} of train, val and test; use a data set with more {split_by}s"
            f"{f', or give each part one with data.split: {other}' if other else ''}."
        )
    return (
        f"The part '{part}' of the published split '{split_by}' has no samples: none of the data set's "
        f"{len(dataset_ids)} falls into it with shares {shown} of train, val and test; use a data set with more "
        f"{SCARCE.get(split_by, 'samples')}, or give another data.split or data.split_by."
    )


def _other_key(dataset_ids: SampleIds, split_by: str, shares: tuple[float, float, float]) -> str:
    """Last clause of the message: another split key with enough ids; '' if there is none."""
    for key, column in KEYS.items():
        ids = set(getattr(dataset_ids, column))
        if key == split_by or len(ids) < len(PARTS):
            continue
        other = "" if set(assign(sorted(ids), shares)) == set(PARTS) else _format(nearest_shares(ids, shares))
        also = f" and data.split: {other}" if other else ""
        return f", or set data.split_by: {key}{also} (there are {len(ids)}, but a {split_by} is then in several parts)"
    return ""


def _format(shares: tuple[float, float, float] | None) -> str:
    """Format shares as in a spec; '' for None."""
    if shares is None:
        return ""
    return f"{{{', '.join(f'{part}: {share:g}' for part, share in zip(PARTS, shares, strict=True))}}}"


def nearest_shares(ids: Collection[str], shares: tuple[float, float, float]) -> tuple[float, float, float] | None:
    """Find the nearest round shares for which each part has at least one id; None if there are none.

    Args:
        ids: distinct ids.
        shares: the desired shares of train, val and test.
    """
    fractions = np.sort([_fraction(id_) for id_ in ids])
    for steps in SHARE_STEPS:
        bounds = np.arange(1, steps) / steps
        below = np.searchsorted(fractions, bounds)
        train, val = below[:, None], below[None, :]
        fits = (train > 0) & (val > train) & (val < len(fractions))
        if fits.any():
            distance = np.abs(bounds - shares[0])[:, None] + np.abs(bounds - shares[0] - shares[1])[None, :]
            first, second = np.unravel_index(np.where(fits, distance, np.inf).argmin(), fits.shape)
            found = (bounds[first], bounds[second] - bounds[first], 1 - bounds[second])
            return float(round(found[0], 6)), float(round(found[1], 6)), float(round(found[2], 6))
    return None


def _fraction(id_: str) -> float:
    """Hash an id to a number in [0, 1), a multiple of 2^-53: with more bits, rounding could return 1."""
    return (int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8], "big") >> 11) / 2**53
