"""Find the samples of a data set that the library `datasets` of Hugging Face saved with `save_to_disk`.

The directory of a `Dataset` has `state.json`, which names its Arrow files; that of a `DatasetDict` has
`dataset_dict.json`, which names a directory for each split. Only pyarrow reads them, mapped into memory. The columns
`bg`, `fg_bg`, `mask` and `depth` are images: structures of `bytes` and `path`, of which the bytes are read. Optional
columns are `sample_id`, `bg_id`, `fg_id` and `split`.

Without ids, samples are named by split and index, as in 'train_0', samples with the same bytes of the background share
its id, a hash of these bytes, and each sample is a foreground of its own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from data.errors import InputError, did_you_mean
from data.folders import is_directory, is_file
from data.importers.layouts import ROLES
from data.importers.pairing import FoundSamples, Quadruple
from data.importers.problems import ImportProblems
from data.importers.tables import IDS, part_of_split, sort_by_split
from data.quantities import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

STATE, SPLITS = "state.json", "dataset_dict.json"
FILE_MAGIC = b"ARROW1"
"""First bytes of the Arrow file format; `datasets` writes the stream format."""


def is_saved_dataset(source: Path) -> bool:
    """Whether a source is the directory of a `Dataset` or a `DatasetDict`.

    Raises:
        InputError: if it cannot be examined.
    """
    return is_directory(source) and (is_file(source / STATE) or is_file(source / SPLITS))


def find_saved(directory: Path) -> FoundSamples:
    """List the samples of a saved data set, in the order of its rows, and by split if it has several.

    Raises:
        InputError: if a file is damaged or missing, a column is missing or has another type, an image has no bytes, a
            sample id is not unique, or a split has another name than a part of a split.
    """
    splits = _open_splits(directory)
    bg_names: dict[str, str] = {}
    """Name of the first background with a hash: a background that is stored in many rows is decoded once."""
    quadruples: list[Quadruple] = []
    for split in splits.values():
        part = part_of_split(split.name) if len(splits) > 1 else ""
        if part is None:
            raise InputError(
                f"The split '{split.name}' of '{directory}' is neither train, val, validation nor test; give the "
                f"directory of one split, such as '{split.directory}'."
            )
        quadruples += [split.sample(index, part, bg_names) for index in range(split.table.num_rows)]
    if not quadruples:
        raise InputError(f"The data set '{directory}' has no rows; give one with a row for each sample.")
    _refuse_repeated_ids(quadruples, directory)
    names = f" in {', '.join(splits)}" if len(splits) > 1 else ""
    return FoundSamples(
        source=directory,
        files=_Images(splits),
        quadruples=quadruples,
        split=sort_by_split(quadruples, str(directory)),
        problems=ImportProblems(str(directory)),
        layout="datasets",
        reason=f"{counted(len(quadruples), 'row')}{names}, saved by the library datasets of Hugging Face",
        depth_size="own",
    )


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A saved `Dataset`."""

    name: str
    directory: Path
    table: pa.Table

    def sample(self, index: int, part: str, bg_names: dict[str, str]) -> Quadruple:
        """The sample of a row; `part` is '' if its split is that of the column 'split', if there is one."""
        ids = {name: self._text(name, index) for name in IDS}
        sample_id = ids["sample_id"] or f"{self.name}_{index}"
        names = {role: f"{self.name}/{index}/{role}" for role in ROLES}
        if not ids["bg_id"]:
            digest = hashlib.sha256(self.image("bg", index)).hexdigest()
            ids["bg_id"] = f"bg_{digest[:16]}"
            names["bg"] = bg_names.setdefault(digest, names["bg"])
        name = self._text("split", index)
        stored = part_of_split(name) if name else ""
        if stored is None:
            raise InputError(
                f"Column 'split' is '{name}' in {self.where(index)}, but must be train, val or test; correct it."
            )
        return Quadruple(
            sample_id=sample_id,
            bg_id=ids["bg_id"],
            fg_id=ids["fg_id"] or sample_id,
            row=None,
            split=part or stored,
            **names,
        )

    def image(self, role: str, index: int) -> bytes:
        """The bytes of an image file.

        Raises:
            InputError: if there are none.
        """
        value = self.table[role][index].as_py()
        path = value.get("path") if isinstance(value, dict) else None
        content = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(content, bytes):
            return content
        what = f"only the path '{path}'" if path else "no image"
        raise InputError(
            f"Column '{role}' has {what} in {self.where(index)}, but must have the bytes of an image file; save the "
            "data set again with save_to_disk, which stores them."
        )

    def where(self, index: int) -> str:
        """The row, for messages, as it is written in Python."""
        return f"'{self.directory}'[{index}]"

    def _text(self, column: str, index: int) -> str:
        if column not in self.table.column_names:
            return ""
        value = self.table[column][index].as_py()
        return "" if value is None else str(value).strip()


class _Images:
    """The images of a saved data set as files; a name is 'SPLIT/INDEX/ROLE'."""

    archives: tuple[str, ...] = ()

    def __init__(self, splits: Mapping[str, _Split]) -> None:
        self._splits = splits

    def read(self, name: str) -> bytes:
        """Read an image."""
        split, index, role = name.split("/")
        return self._splits[split].image(role, int(index))

    def where(self, name: str) -> str:
        """Place of the image for messages."""
        split, index, role = name.split("/")
        return f"{self._splits[split].directory}[{index}]['{role}']"


def _open_splits(directory: Path) -> dict[str, _Split]:
    if (directory / STATE).is_file():
        # The name of a split, such as 'train', or None, such as of a table that was split by rows.
        name = _json(directory / STATE).get("_split")
        split = _open_split(name if isinstance(name, str) and _is_plain(name) else "row", directory)
        return {split.name: split}
    names = _json(directory / SPLITS).get("splits")
    if not isinstance(names, list) or not all(_is_plain(name) for name in names):
        raise InputError(f"The file '{directory / SPLITS}' does not list names of splits; save the data set again.")
    return {name: _open_split(name, directory / name) for name in names}


def _open_split(name: str, directory: Path) -> _Split:
    state = _json(directory / STATE)
    files = state.get("_data_files")
    named = [entry.get("filename") if isinstance(entry, dict) else None for entry in files or []]
    if not isinstance(files, list) or not all(_is_plain(file) for file in named):
        raise InputError(
            f"The file '{directory / STATE}' does not list Arrow files in its directory; save the data set again."
        )
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InputError(
            f"The data set '{directory}' has a selection of rows beside its Arrow files; save it again after "
            "flatten_indices()."
        )
    tables = [_read_arrow(directory / str(file)) for file in named]
    if not tables:
        raise InputError(f"The data set '{directory}' has no Arrow files; save it again.")
    for table in tables:
        _check_columns(table.schema, directory)
    try:
        return _Split(name=name, directory=directory, table=pa.concat_tables(tables))
    except pa.ArrowInvalid:
        raise InputError(f"The Arrow files of '{directory}' have different columns; save the data set again.") from None


def _read_arrow(path: Path) -> pa.Table:
    """Map an Arrow file into memory."""
    try:
        source = pa.memory_map(str(path))
        is_file = source.read(len(FILE_MAGIC)) == FILE_MAGIC
        source.seek(0)
        table = (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source).read_all()
        table.validate(full=True)  # offsets of a damaged file could point anywhere
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"The file '{path}' cannot be read ({reason}); save the data set again.") from None
    return table


def _check_columns(schema: pa.Schema, directory: Path) -> None:
    absent = [role for role in ROLES if role not in schema.names]
    if absent:
        others = [name for name in schema.names if name not in ROLES]
        hints = "".join(did_you_mean(role, others) for role in absent)
        raise InputError(
            f"The data set '{directory}' has no column {' and no '.join(map(repr, absent))}{hints}; its columns are "
            f"{', '.join(map(repr, schema.names)) or 'none'}: rename them to {', '.join(ROLES)} with rename_columns."
        )
    for role in ROLES:
        kind = schema.field(role).type
        is_image = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if not (is_image or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise InputError(
                f"Column '{role}' of '{directory}' is {kind}, but must be an image; convert it with "
                f"cast_column('{role}', datasets.Image())."
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"The file '{path}' cannot be read ({reason}); save the data set again.") from None
    if not isinstance(values, dict):
        raise InputError(f"The file '{path}' is not a JSON object; save the data set again.")
    return values


def _is_plain(name: object) -> bool:
    """Whether a name is that of an entry of the directory itself."""
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\\" not in name


def _refuse_repeated_ids(quadruples: list[Quadruple], directory: Path) -> None:
    seen: set[str] = set()
    for quadruple in quadruples:
        if quadruple.sample_id in seen:
            raise InputError(
                f"The sample id '{quadruple.sample_id}' occurs twice in '{directory}'; give each row its own."
            )
        seen.add(quadruple.sample_id)
