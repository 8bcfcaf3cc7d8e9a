"""The table of curves: trainings of configurations from the default search space, epoch by epoch, in one Parquet file.

for curve in read_curves(): ...

A row is an epoch of a training. `train.py` makes the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from data.atomic import replacing

TABLE = Path(__file__).with_name("curves.parquet")
TRAINED, DIVERGED = "trained", "diverged"
"""Values of the column `outcome`."""

_METRICS = (
    "score",
    "mask_iou", "mask_rmse", "mask_mae", "mask_delta1", "mask_delta2", "mask_delta3",
    "depth_rmse", "depth_mae", "depth_delta1", "depth_delta2", "depth_delta3",
)  # fmt: skip
_LOSSES = ("loss", "mask_bce", "mask_dice", "mask_l1", "depth_l1", "depth_ssim", "depth_edge")
NUMBERS = (*_METRICS, "val_loss", *(f"train_{name}" for name in _LOSSES), "lr", "seconds", "train_seconds")
"""Columns with a number for each epoch; null where a training does not have it, such as the loss of a weight of 0.

The metrics and `val_loss` are of the validation split, `train_…` the training loss and its unweighted parts. `seconds`
are of the whole epoch, `train_seconds` without evaluation.
"""
_TEXTS = ("data_set", "fingerprint", "outcome", "device", "precision", "configuration")
KEY = ("data_set", "configuration_id", "seed")
"""Columns that identify a training."""

SCHEMA = pa.schema(
    [
        ("data_set", pa.string()),
        ("configuration_id", pa.int16()),
        ("seed", pa.int16()),
        ("epoch", pa.int16()),
        ("outcome", pa.string()),
        *((name, pa.float32()) for name in NUMBERS),
        ("device", pa.string()),
        ("precision", pa.string()),
        ("workers", pa.int16()),
        ("fingerprint", pa.string()),
        ("configuration", pa.string()),
    ]
)
"""`workers` counts the trainings that shared the device; `configuration` is JSON, without seed and precision.

The epoch in which a training diverged is its last row, without numbers.
"""

Key = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One training: E epochs; fewer than the others if it diverged."""

    data_set: str
    configuration_id: int
    seed: int
    outcome: str
    """'trained' or 'diverged'."""
    device: str
    precision: str
    workers: int
    """Number of trainings that shared the device."""
    fingerprint: str
    """Fingerprint of the data set."""
    values: dict[str, Any]
    """Nested values of a `TrialConfig`: those that the search space searches, and those that the benchmark fixes."""
    numbers: dict[str, NDArray[np.float32]]
    """(E,) for each of `NUMBERS`; NaN where there is no number, as in the last epoch of a training that diverged."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """(E,) validation scores in 0..1; 0 in the epoch in which the training diverged, as in a search."""
        return np.nan_to_num(self.numbers["score"], nan=0.0)


def read_curves(path: Path = TABLE) -> list[Curve]:
    """All trainings of a table, by data set, configuration and seed."""
    table = _read(path)
    ends = np.flatnonzero(np.diff(_training_numbers(table))) + 1
    bounds = [0, *ends.tolist(), len(table)]
    return [_curve(table.slice(start, end - start)) for start, end in pairwise(bounds) if end]


def trainings(path: Path) -> set[Key]:
    """The keys of the trainings in a table; none if there is no table."""
    return _keys(_read(path)) if path.exists() else set()


def merge(path: Path, parts: Iterable[Path]) -> int:
    """Add the trainings of `parts` to the table at `path`, which appears whole or stays as it was.

    Args:
        path: the table; it is created if it does not exist.
        parts: tables with the same columns. A training that the table has already is left out.

    Returns:
        The number of trainings that were added.
    """
    merged = _read(path) if path.exists() else SCHEMA.empty_table()
    before = known = _keys(merged)
    tables = [merged]
    for part in parts:
        table = _read(part)
        is_new = [key not in known for key in _key_of_rows(table)]
        tables.append(table.filter(pa.array(is_new, pa.bool_())))
        known = known | _keys(table)
    if known != before:
        merged = pa.concat_tables(tables).sort_by([(name, "ascending") for name in (*KEY, "epoch")])
        write(path, merged)
    return len(known) - len(before)


def write(path: Path, table: pa.Table) -> None:
    """Write a table with the columns `SCHEMA` atomically."""
    with replacing(path) as partial:
        parquet.write_table(
            table.cast(SCHEMA),
            partial,
            compression="zstd",
            compression_level=15,
            use_dictionary=list(_TEXTS),
            use_byte_stream_split=list(NUMBERS),
        )


def rows_of(key: Key, texts: dict[str, str], workers: int, epochs: Sequence[dict[str, float] | None]) -> pa.Table:
    """The rows of one training.

    Args:
        key: of the training.
        texts: the text columns but `data_set`.
        workers: number of trainings that shared the device.
        epochs: metrics of each epoch, of which `NUMBERS` are kept; None for the epoch in which it diverged.
    """
    rows = [
        {**dict(zip(KEY, key, strict=True)), "epoch": number, **texts, "workers": workers}
        | {name: (metrics or {}).get(name) for name in NUMBERS}
        for number, metrics in enumerate(epochs, start=1)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _read(path: Path) -> pa.Table:
    return parquet.read_table(path, schema=SCHEMA)


def _key_of_rows(table: pa.Table) -> list[Key]:
    return list(zip(*(table[name].to_pylist() for name in KEY), strict=True))


def _keys(table: pa.Table) -> set[Key]:
    return set(_key_of_rows(table))


def _training_numbers(table: pa.Table) -> NDArray[np.int64]:
    """(rows,) the same number for the rows of a training, which lie together."""
    keys = _key_of_rows(table)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def _curve(rows: pa.Table) -> Curve:
    first = rows.slice(0, 1).to_pylist()[0]
    names = (*KEY, "outcome", "device", "precision", "workers", "fingerprint")
    return Curve(
        **{name: first[name] for name in names},
        values=json.loads(first["configuration"]),
        numbers={name: np.array(rows[name].to_pylist(), np.float32) for name in NUMBERS},
    )
