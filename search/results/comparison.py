"""A comparison's plain values, read: its rows in order, its columns by whose they are, what was done in a paragraph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.results.export import baseline_metrics

BASELINES = {"mask_threshold": "a threshold on the difference", "depth_mean": "the mean depth"}
"""What needs no network, and what to call it."""
FINISHED = "finished"
"""The outcome of a training that went through all its epochs."""


def summary_of(comparison: Mapping[str, Any]) -> str:
    """What was done, in a paragraph."""
    samples, test = comparison["samples"], comparison["test"]
    return (
        f"Every recipe was trained for {comparison['epochs']} epochs on {samples['train']:,} samples of "
        f"{comparison['data']} at {comparison['image_size']} px, {comparison['samples_seen']:,} samples in all. The "
        f"epoch that {samples['val']:,} validation samples picked was measured on {test['pictures']:,} test pictures "
        f"of {test['backgrounds']:,} backgrounds. Intervals are 95 % of a bootstrap over backgrounds, of one seed."
        f"{_faithfulness(comparison['rows'])}"
    )


def below_baselines(comparison: Mapping[str, Any]) -> str:
    """A sentence that names the recipes that do no better than what needs no network; '' if there are none."""
    without = baseline_metrics(comparison["baselines"])["score"]
    names = [
        row["recipe"]
        for row in sorted_rows(comparison)
        if row["figures"] and ((score := figure(row, "score")) is None or not score["value"] > without)
    ]
    return f"Not better than without a network (score {without:.3f}): {', '.join(names)}." if names else ""


def provenance(comparison: Mapping[str, Any]) -> str:
    """On what data, with which seed and versions: what somebody needs who does it again."""
    versions = ", ".join(f"{name} {version}" for name, version in comparison["versions"].items())
    said = f"Data set with fingerprint {comparison['data_fingerprint']}, seed {comparison['seed']}"
    return f"{said}; {versions}." if versions else f"{said}."


def label(row: Mapping[str, Any]) -> str:
    """A recipe's name, with how its training ended where that was not at its end."""
    return str(row["recipe"]) if row["outcome"] == FINISHED else f"{row['recipe']} ({row['outcome']})"


def unfinished(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each recipe that was not trained to its end: how it ended, why, and what its figures are of."""
    said = []
    for row in rows:
        if row["outcome"] == FINISHED:
            continue
        reason = f": {row['reason']}" if row["reason"] else ""
        measured = f" (its figures are of epoch {row['epoch']})" if row["figures"] else ""
        said.append(f"{row['recipe']} {row['outcome']}{reason}{measured}")
    return said


def figure(row: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """A row's figure with its ends; None if it has none, or one that is no number."""
    found: Mapping[str, Any] | None = (row["figures"] or {}).get(key)
    return None if found is None or found["value"] is None else found


def groups(comparison: Mapping[str, Any]) -> dict[str, list[Mapping[str, str]]]:
    """The columns by what they belong to, in their order."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for column in comparison["columns"]:
        found.setdefault(column["group"], []).append(column)
    return found


def sorted_rows(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Best score first; those without one last."""

    def place(row: Mapping[str, Any]) -> float:
        score = figure(row, "score")
        return 1.0 if score is None else -float(score["value"])

    return sorted(comparison["rows"], key=place)


def best_value(rows: Sequence[Mapping[str, Any]], column: Mapping[str, str]) -> float | None:
    """The best value of a column; None if there is none, or several share it."""
    known = [float(found["value"]) for row in rows if (found := figure(row, column["key"])) is not None]
    if not known:
        return None
    best = max(known) if column["better"] == "higher" else min(known)
    return best if known.count(best) == 1 else None


def _faithfulness(rows: Sequence[Mapping[str, Any]]) -> str:
    faithful = [row["recipe"] for row in rows if row["faithful"]]
    if not faithful:
        return ""
    whose = "every recipe" if len(faithful) == len(rows) else ", ".join(faithful)
    return f" Published errors are turned back on in {whose}."
