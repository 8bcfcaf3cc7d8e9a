"""A comparison's plain values, read: its rows in order, its columns by whose they are, what was done in a paragraph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.handover import baseline_metrics

BASELINES = {"mask_threshold": "a threshold on the difference", "depth_mean": "the mean depth"}
"""What needs no network, and what to call it."""


def summary_of(comparison: Mapping[str, Any]) -> str:
    """What was done, in a paragraph."""
    samples, test = comparison["samples"], comparison["test"]
    return (
        f"Every recipe was trained for {comparison['epochs']} epochs on {samples['train']:,} samples of "
        f"{comparison['data']} at {comparison['image_size']} px, {comparison['samples_seen']:,} samples in all. The "
        f"epoch that {samples['val']:,} validation samples picked was measured on {test['pictures']:,} test pictures "
        f"of {test['backgrounds']:,} backgrounds. Intervals are 95 % of a bootstrap over backgrounds, of one seed."
    )


def below_baselines(comparison: Mapping[str, Any]) -> str:
    """A sentence that names the recipes that do no better than what needs no network; '' if there are none."""
    without = baseline_metrics(comparison["baselines"])["score"]
    names = [
        row["recipe"]
        for row in sorted_rows(comparison)
        if row["figures"] and not (row["figures"]["score"]["value"] or 0) > without
    ]
    return f"Not better than without a network (score {without:.3f}): {', '.join(names)}." if names else ""


def groups(comparison: Mapping[str, Any]) -> dict[str, list[Mapping[str, str]]]:
    """The columns by what they belong to, in their order."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for column in comparison["columns"]:
        found.setdefault(column["group"], []).append(column)
    return found


def sorted_rows(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Best score first; those without a result last."""
    return sorted(comparison["rows"], key=lambda row: -row["figures"]["score"]["value"] if row["figures"] else 1)


def best_value(rows: Sequence[Mapping[str, Any]], column: Mapping[str, str]) -> float | None:
    """The best value of a column; None if there is none, or several share it."""
    values = [row["figures"][column["key"]]["value"] for row in rows if row["figures"]]
    known = [value for value in values if value is not None]
    if not known:
        return None
    best = float(max(known) if column["better"] == "higher" else min(known))
    return best if known.count(best) == 1 else None
