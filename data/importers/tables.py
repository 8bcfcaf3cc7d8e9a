"""Find the samples that a table lists: a CSV, JSON Lines or Parquet file with a row for each sample.

The columns `bg`, `fg_bg`, `mask` and `depth` hold paths, relative to the directory of the table, or absolute. Optional
columns are `sample_id`, `bg_id`, `fg_id` and `split`. Without ids, `sample_id` and `bg_id` are the paths of `fg_bg`
and `bg` without extension, with '_' between directories, so that rows with one background file share its id, as do
rows with copies of it; `fg_id` is the sample's id. Rows count from 1, without the header.
"""

from __future__ import annotations

import csv
import json
import os
import posixpath
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from data.dataset.manifest import StoredSplit
from data.errors import InputError, did_you_mean
from data.folders import Folder, broken_link_reason, escaped, is_directory
from data.importers.layouts import ROLES
from data.importers.pairing import BackgroundIds, FoundSamples, Quadruple
from data.importers.problems import ImportProblems
from data.quantities import counted
from data.splits.splits import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

IDS = ("sample_id", "bg_id", "fg_id")
COLUMNS = (*ROLES, *IDS, "split")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Parts of a split by their names in a table."""
CSV, JSON_LINES, PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".parquet",)
DELIMITERS = ",;\t"
BATCH_ROWS = 4096
MAX_SHOWN = 400
"""Characters of a path that messages show."""


def is_table(source: Path) -> bool:
    """Whether the name of a source is that of a table.

    Raises:
        InputError: if it cannot be examined.
    """
    return source.suffix.lower() in CSV + JSON_LINES + PARQUET and not is_directory(source)


def lists_samples(path: Path) -> bool:
    """Whether a table has a column for each image.

    Raises:
        InputError: if it cannot be read.
    """
    return set(ROLES) <= next((values.keys() for _, values in _rows(path)), set())


def find_listed(path: Path) -> FoundSamples:
    """List the samples of a table, in the order of its rows; missing files are among the problems.

    Raises:
        InputError: if the table is unusable: a column is missing, a value is empty or not a path within the directory
            of the table, or a sample id is not unique.
    """
    if reason := broken_link_reason(path):
        raise InputError(reason)
    problems = ImportProblems(str(path))
    files = Folder(path.parent)
    table = _Table(path, BackgroundIds(files))
    quadruples = [table.sample(row, values, problems) for row, values in _rows(path)]
    if not quadruples:
        raise InputError(f"The table '{path}' has no rows; give one with a row for each sample.")
    return FoundSamples(
        source=path,
        files=files,
        quadruples=quadruples,
        split=sort_by_split(quadruples, str(path)),
        problems=problems,
        layout="table",
        reason=f"{counted(len(quadruples), 'row')} of '{path.name}'",
        depth_size="own",
    )


def part_of_split(name: str) -> str | None:
    """'train', 'val' or 'test' for a name in a table; None for any other."""
    return SPLIT_NAMES.get(name.lower())


def sort_by_split(samples: list[Quadruple], where: str) -> StoredSplit | None:
    """Sort samples by the part of their split, if they have one, and count them.

    Args:
        samples: sorted in place; the order within a part stays.
        where: the source, for error messages.

    Raises:
        InputError: if only some samples have a part.
    """
    counts = Counter(sample.split for sample in samples)
    if set(counts) == {""}:
        return None
    if counts[""]:
        first = next(sample for sample in samples if not sample.split)
        row = f"row {first.row}" if first.row is not None else f"sample '{first.sample_id}'"
        raise InputError(
            f"Column 'split' is empty in {counts['']} of {len(samples)} rows of '{where}', first in {row}; give all "
            "rows a part, or none."
        )
    samples.sort(key=lambda sample: PARTS.index(sample.split))
    return StoredSplit(train=counts["train"], val=counts["val"], test=counts["test"])


class _Table:
    """Converts the rows of a table to samples."""

    def __init__(self, path: Path, bg_ids: BackgroundIds) -> None:
        self.path = path
        self._bg_ids = bg_ids
        self._directory = str(path.parent)
        self._row_of: dict[str, int] = {}
        """First row by sample id."""
        self._reasons: dict[str, str] = {}
        """Result of `_missing` by name: many rows share a background."""

    def sample(self, row: int, values: Mapping[str, str], problems: ImportProblems) -> Quadruple:
        """Convert a row; missing files are added to the problems, and have the name ''."""
        if row == 1:
            self._check_columns(values)
        names = {role: self._name(row, role, values) for role in ROLES}
        sample_id = values.get("sample_id") or _id_of(names["fg_bg"])
        first = self._row_of.setdefault(sample_id, row)
        if first != row:
            derived = "" if values.get("sample_id") else ", the path of its fg_bg without extension,"
            raise InputError(
                f"The sample id '{sample_id}'{derived} is in rows {first} and {row} of '{self.path}'; give each row "
                "its own in a column 'sample_id'."
            )
        for role, name in names.items():
            if reason := self._missing(name):
                sentence = f"{reason}; restore it, or correct column '{role}' of '{self.path}'."
                problems.add("missing", role, _shown(self.path.parent / name), sentence, sample_id, row=row)
        found = {role: "" if self._missing(name) else name for role, name in names.items()}
        return Quadruple(
            sample_id=sample_id,
            bg_id=values.get("bg_id") or self._bg_ids.find(found["bg"], _id_of(names["bg"])),
            fg_id=values.get("fg_id") or sample_id,
            row=row,
            split=self._part(row, values),
            **found,
        )

    def _check_columns(self, values: Mapping[str, str]) -> None:
        absent = [role for role in ROLES if role not in values]
        if not absent:
            return
        has = [name for name in values if name]
        hints = "".join(did_you_mean(role, [name for name in has if name not in COLUMNS]) for role in absent)
        raise InputError(
            f"The table '{self.path}' has no column {' and no '.join(map(repr, absent))}{hints}; its columns are "
            f"{', '.join(map(repr, has)) or 'none'}: rename them to {', '.join(ROLES)}."
        )

    def _name(self, row: int, role: str, values: Mapping[str, str]) -> str:
        """The path in a row, normalised."""
        value = values.get(role, "")
        if not value:
            raise InputError(f"Column '{role}' is empty in row {row} of '{self.path}'; give the path of a file.")
        name = posixpath.normpath(value)
        if name.split("/")[0] == "..":
            raise InputError(
                f"The path '{value}' in row {row}, column '{role}' of '{self.path}' leaves the directory of the table; "
                "move the table, or give an absolute path."
            )
        return name

    def _part(self, row: int, values: Mapping[str, str]) -> str:
        """The part of the split in a row; '' if there is none."""
        name = values.get("split", "")
        part = part_of_split(name) if name else ""
        if part is None:
            raise InputError(
                f"Column 'split' is '{name}' in row {row} of '{self.path}', but must be one of "
                f"{', '.join(SPLIT_NAMES)}; correct it."
            )
        return part

    def _missing(self, name: str) -> str:
        """Why a file cannot be used; '' if it exists."""
        if name not in self._reasons:
            if os.path.isfile(os.path.join(self._directory, name)):  # noqa: PTH113, PTH118 - a third of the time
                self._reasons[name] = ""
            else:
                path = self.path.parent / name
                reason = (broken_link_reason(path) or "").rpartition("; ")[0]
                self._reasons[name] = reason or f"The file '{_shown(path)}' {_state(path)}"
        return self._reasons[name]


def _state(path: Path) -> str:
    """What is at a path that is not that of a file."""
    try:
        return "is a directory, not a file" if path.is_dir() else "does not exist"
    except OSError as error:
        return f"cannot be examined ({error.strerror})"


def _shown(path: Path) -> str:
    """A path for messages: a cell may hold an encoded image in place of a path."""
    text = str(path)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _id_of(name: str) -> str:
    return posixpath.splitext(name)[0].strip("/").replace("/", "_")


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Number of each row, from 1, and its values by column; '' for an empty one."""
    suffix = path.suffix.lower()
    try:
        rows = _csv_rows(path) if suffix in CSV else _json_rows(path) if suffix in JSON_LINES else _parquet_rows(path)
        yield from enumerate(rows, start=1)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
        raise InputError(
            f"The table '{path}' cannot be read ({reason}); give a CSV, JSON Lines or Parquet file."
        ) from None


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter=max(DELIMITERS, key=header.count), strict=True)
        columns = [name.strip() for name in next(reader, [])]
        _refuse_repeated(columns, path)
        for number, cells in enumerate((cells for cells in reader if cells), start=1):
            if len(cells) != len(columns):
                raise InputError(
                    f"Row {number} of '{path}' has {len(cells)} values, but the header has {len(columns)}; correct the "
                    "row, or put values with a delimiter in quotes."
                )
            yield {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}


def _json_rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate((line for line in file if line.strip()), start=1):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:  # also for a number of thousands of digits
                raise InputError(
                    f"Row {number} of '{path}' is not JSON ({error}); write an object on each line."
                ) from None
            if not isinstance(values, dict):
                raise InputError(f"Row {number} of '{path}' is not a JSON object; write an object on each line.")
            yield {column: _text(value, path, number, column) for column, value in values.items()}


def _parquet_rows(path: Path) -> Iterator[dict[str, str]]:
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name in COLUMNS]
        if not set(ROLES) <= set(names):
            yield dict.fromkeys(file.schema_arrow.names, "")  # for the message about missing columns
        number = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=names):
            for values in batch.to_pylist():
                number += 1
                yield {column: _text(value, path, number, column) for column, value in values.items()}


def _text(value: object, path: Path, row: int, column: str) -> str:
    """The text of a value; ids may be whole numbers."""
    if value is None:
        return ""
    if isinstance(value, str):
        if column in COLUMNS and escaped(value) != value:
            raise InputError(
                f"Column '{column}' has '{escaped(value)}' in row {row} of '{path}', which is not UTF-8; rename the "
                "file, such as with convmv, and correct the value."
            )
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if column not in COLUMNS:
        return ""
    kind = "the path of a file" if column in ROLES else "text or a whole number"
    raise InputError(
        f"Column '{column}' has a value of type {type(value).__name__} in row {row} of '{path}', but must have {kind}; "
        "convert it."
    )


def _refuse_repeated(columns: Sequence[str], path: Path) -> None:
    repeated = [name for name in columns if columns.count(name) > 1]
    if repeated:
        raise InputError(f"The table '{path}' has two columns '{repeated[0]}'; rename or remove one.")
