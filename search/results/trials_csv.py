"""The trials of a search as CSV after RFC 4180, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from search.results.trials_table import TrialRow
from trainable.config import TrialConfig
from trainable.config.settings import Value, flatten
from trainable.metrics.names import OBJECTIVE

FIRST = ("number", "state", "outcome", "recipe", "proposed_by", "epochs", "rung", "seconds")
"""Columns before the metrics."""
LAST = ("reason",)
"""Columns after the settings."""
MAX_EPOCHS = "max_epochs"
"""Column of the setting `epochs`, whose name is that of the epochs that were trained."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - as spreadsheets read them
"""Beginnings of a text that a spreadsheet takes for a formula."""


def as_csv(rows: Sequence[TrialRow], rungs: Sequence[int]) -> str:
    """The trials as CSV, with a header, one trial a record, and CRLF at the end of each.

    A cell is empty if the trial lacks the value. Numbers have all their digits, lists are JSON. Text that a spreadsheet
    would take for a formula has a leading apostrophe, which it hides.

    Args:
        rows: the trials.
        rungs: epochs at which trials are compared; the column `rung` is the last one that a trial reached.
    """
    settings = [_settings(row) for row in rows]
    metrics = sorted(dict.fromkeys(name for row in rows for name in row.metrics if name not in FIRST), key=_metric_rank)
    present = {key for each in settings for key in each}
    known = [key for key in _renamed(flatten(TrialConfig().model_dump())) if key in present]
    keys = [*known, *sorted(present - {*known})]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*FIRST, *metrics, *keys, *LAST])
    for row, values in zip(rows, settings, strict=True):
        own = {name: getattr(row, name) for name in (*FIRST, *LAST) if name != "rung"}
        own["rung"] = max((rung for rung in rungs if rung <= row.epochs), default=None)
        cells = [*(own[name] for name in FIRST), *map(row.metrics.get, metrics), *map(values.get, keys)]
        writer.writerow(map(_cell, [*cells, *(own[name] for name in LAST)]))
    return text.getvalue()


def _metric_rank(name: str) -> int:
    """Results first, the objective before the others."""
    groups = (OBJECTIVE, "mask", "depth")
    return groups.index(name.partition("_")[0]) if name.partition("_")[0] in groups else len(groups)


def _settings(row: TrialRow) -> dict[str, Value]:
    """The settings of a trial by dotted key."""
    return _renamed(flatten(row.config))


def _renamed(settings: dict[str, Value]) -> dict[str, Value]:
    return {MAX_EPOCHS if key == "epochs" else key: value for key, value in settings.items()}


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.lstrip(" ").startswith(_FORMULA) else value
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)
