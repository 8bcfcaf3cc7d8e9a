"""Write and read a data set: a directory of Parquet parts and one `dataset.json` that describes them.

A background is stored once, however many samples it has. Shapes: H and W height and width in pixels.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.errors import InputError
from data.images import decode_photo, decode_sample
from data.intake import DecodedBackgrounds, Intake
from data.manifest import MANIFEST_NAME, Counts, DatasetInfo, SampleIds, Size
from data.parts import PartsWriter, RowGroup, row_groups, sha256, writing_to
from data.schema import BACKGROUND_COLUMNS, SAMPLE_COLUMNS, SCHEMA_VERSION, EncodedSample, Pixels, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from data.manifest import Part

SAMPLE_GROUP_BYTES = 16 * 2**20
BACKGROUND_GROUP_BYTES = 4 * 2**20
"""Smaller: backgrounds are looked up one by one, samples are read in order."""

ID_COLUMNS = ("sample_id", "bg_id", "fg_id")


def write_dataset(
    samples: Iterable[EncodedSample],
    destination: Path,
    *,
    source: Mapping[str, Any],
    on_sample: Callable[[int], None] | None = None,
    part_bytes: int = 256 * 2**20,
) -> DatasetInfo:
    """Write `samples` in their order as a data set, which appears at `destination` only when it is whole.

    Every picture is decoded on the way, to check it and to gather statistics. In memory are the ids, and
    of the pictures no more than a row group.

    Args:
        samples: at least one.
        destination: a directory that does not exist yet; its parents are made.
        source: where the samples came from, as JSON values, for `dataset.json`.
        on_sample: called after each sample with how many were taken so far.
        part_bytes: size at which a part ends and the next begins.

    Raises:
        InputError: if the destination exists or cannot be written, there are no samples, a sample's id comes
            twice, its pictures cannot be used, or one background id stands for two different pictures.
    """
    destination = Path(destination)
    _refuse_existing(destination)
    partial = destination.with_name(f".{destination.name}.partial-{os.getpid()}")
    # What is there under this process's number was left by a dead process that had the same one.
    shutil.rmtree(partial, ignore_errors=True)
    with writing_to(destination.parent):
        partial.mkdir(parents=True)
    try:
        info = _write_parts(samples, partial, dict(source), on_sample, part_bytes)
        _refuse_existing(destination)
        with writing_to(destination.parent):
            _write_synced(partial / MANIFEST_NAME, info.to_json())
            partial.rename(destination)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return info


class Dataset:
    """A data set to read. It opens files only while it reads, so it can be sent to another process."""

    def __init__(self, path: Path, info: DatasetInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def open(cls, path: Path, *, verify: bool = False, on_bytes: Callable[[int], None] | None = None) -> Dataset:
        """Open the data set at `path`, and check that its parts are there with their sizes.

        Args:
            path: the directory.
            verify: also compare each part with its SHA-256, which reads every byte.
            on_bytes: called while verifying with how many bytes were compared so far.

        Raises:
            InputError: if it is no data set, was written by a newer version, or a part is missing or altered.
        """
        path = Path(path)
        manifest = path / MANIFEST_NAME
        if not manifest.is_file():
            what = f"has no {MANIFEST_NAME}" if path.is_dir() else "does not exist"
            raise InputError(f"The data set '{path}' {what}; give the directory of a data set.")
        try:
            text = manifest.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The file '{manifest}' cannot be read ({error}); write the data set again.") from error
        info = DatasetInfo.from_json(text, str(manifest))
        compared = 0
        for part in info.parts:
            _check_part(path, part, verify=verify)
            compared += part.bytes
            if verify and on_bytes is not None:
                on_bytes(compared)
        return cls(path, info)

    @cached_property
    def ids(self) -> SampleIds:
        """The samples' ids in storage order; only their columns are read."""
        columns: dict[str, list[str]] = {name: [] for name in ID_COLUMNS}
        # An id that comes often is kept once.
        shared: dict[str, str] = {}
        for group in self._sample_groups:
            table = group.read(ID_COLUMNS)
            for name, values in columns.items():
                values.extend(shared.setdefault(id_, id_) for id_ in table[name].to_pylist())
        return SampleIds(**{name: tuple(values) for name, values in columns.items()})

    def read(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> Iterator[Sample]:
        """Read samples in storage order, whatever the order of `rows`; only their row groups are read.

        Args:
            rows: row numbers in 0..N-1, each counting once; all rows if not given.

        Raises:
            InputError: if a part is damaged, or a picture cannot be decoded.
        """
        decoded = DecodedBackgrounds()
        for part, encoded in self._read_encoded(rows):
            bg = decoded.get(encoded.bg_id, encoded.bg, f"background {encoded.bg_id} in {self.path}")
            yield decode_sample(encoded, bg=bg, where=str(part))

    def read_encoded(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> Iterator[EncodedSample]:
        """Read as `read` does, but leave the pictures as they are stored."""
        for _, encoded in self._read_encoded(rows):
            yield encoded

    def backgrounds(self, bg_ids: Iterable[str] | None = None) -> Iterator[tuple[str, Pixels]]:
        """Read backgrounds in storage order, each decoded once: its id, and (H, W, 3) RGB.

        Args:
            bg_ids: which ones; all if not given.

        Raises:
            InputError: if there is no such background, a part is damaged, or a picture cannot be decoded.
        """
        wanted = set(self._group_of_background) if bg_ids is None else set(bg_ids)
        for group, ids in self._by_group(wanted):
            for bg_id, bg in _background_rows(group, ids):
                yield bg_id, decode_photo(bg, f"background {bg_id} in {group.path}")

    def _read_encoded(self, rows: Sequence[int] | NDArray[np.int64] | None) -> Iterator[tuple[Path, EncodedSample]]:
        total = self.info.counts.samples
        wanted = np.arange(total) if rows is None else np.unique(np.asarray(rows, np.int64))
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < total:
            raise ValueError(f"Row numbers must be in 0..{total - 1}, not {wanted[0]}..{wanted[-1]}.")
        backgrounds: dict[str, bytes] = {}
        for group in self._sample_groups:
            start, stop = np.searchsorted(wanted, [group.first, group.first + group.rows])
            if start == stop:
                continue
            table = group.read(SAMPLE_COLUMNS.names).take(wanted[start:stop] - group.first)
            columns = {name: table[name].to_pylist() for name in SAMPLE_COLUMNS.names}
            backgrounds = self._encoded_backgrounds(set(columns["bg_id"]), backgrounds)
            for row, bg_id in enumerate(columns["bg_id"]):
                values = {name: column[row] for name, column in columns.items()}
                yield group.path, EncodedSample(bg=backgrounds[bg_id], **values)

    def _encoded_backgrounds(self, wanted: set[str], known: dict[str, bytes]) -> dict[str, bytes]:
        """Read those of one row group's samples; `known` are those of the group before."""
        found = {bg_id: bg for bg_id, bg in known.items() if bg_id in wanted}
        for group, ids in self._by_group(wanted - found.keys()):
            found.update(_background_rows(group, ids))
        return found

    def _by_group(self, bg_ids: set[str]) -> Iterator[tuple[RowGroup, set[str]]]:
        """Yield the row groups that hold `bg_ids`, in storage order, each with the ids it holds."""
        ids_of_group: dict[int, set[str]] = {}
        for bg_id in bg_ids:
            if bg_id not in self._group_of_background:
                raise InputError(
                    f"The data set '{self.path}' has no background '{bg_id}'; correct the id, or write the "
                    "data set again."
                )
            ids_of_group.setdefault(self._group_of_background[bg_id], set()).add(bg_id)
        for number in sorted(ids_of_group):
            yield self._background_groups[number], ids_of_group[number]

    @cached_property
    def _sample_groups(self) -> tuple[RowGroup, ...]:
        parts = [part for part in self.info.parts if part.kind == "samples"]
        return tuple(row_groups(self.path, parts, SAMPLE_COLUMNS))

    @cached_property
    def _background_groups(self) -> tuple[RowGroup, ...]:
        parts = [part for part in self.info.parts if part.kind == "backgrounds"]
        return tuple(row_groups(self.path, parts, BACKGROUND_COLUMNS))

    @cached_property
    def _group_of_background(self) -> dict[str, int]:
        return {
            bg_id: number
            for number, group in enumerate(self._background_groups)
            for bg_id in group.read(["bg_id"])["bg_id"].to_pylist()
        }


def _write_parts(
    samples: Iterable[EncodedSample],
    directory: Path,
    source: dict[str, Any],
    on_sample: Callable[[int], None] | None,
    part_bytes: int,
) -> DatasetInfo:
    intake = Intake()
    with (
        PartsWriter(
            directory, "samples", SAMPLE_COLUMNS, part_bytes=part_bytes, group_bytes=SAMPLE_GROUP_BYTES
        ) as sample_parts,
        PartsWriter(
            directory,
            "backgrounds",
            BACKGROUND_COLUMNS,
            part_bytes=part_bytes,
            group_bytes=BACKGROUND_GROUP_BYTES,
        ) as background_parts,
    ):
        for number, encoded in enumerate(samples, start=1):
            if intake.take(encoded):
                background_parts.add({name: getattr(encoded, name) for name in BACKGROUND_COLUMNS.names})
            sample_parts.add({name: getattr(encoded, name) for name in SAMPLE_COLUMNS.names})
            if on_sample is not None:
                on_sample(number)
        if not intake.sample_ids:
            raise InputError("There are no samples to write; give a source that has at least one.")
        parts = sample_parts.finish() + background_parts.finish()
        fingerprint = hashlib.sha256(sample_parts.digest() + background_parts.digest()).hexdigest()
    return DatasetInfo(
        schema_version=SCHEMA_VERSION,
        counts=Counts(
            samples=len(intake.sample_ids),
            backgrounds=len(intake.backgrounds),
            foregrounds=len(intake.foregrounds),
        ),
        sizes=tuple(
            Size(height=height, width=width, samples=count) for (height, width), count in sorted(intake.sizes.items())
        ),
        statistics=intake.statistics.result(),
        depth_polarity="far-bright",
        parts=parts,
        fingerprint=fingerprint,
        source=source,
    )


def _refuse_existing(destination: Path) -> None:
    if os.path.lexists(destination):
        raise InputError(f"The destination '{destination}' exists already; remove it, or give another one.")


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _check_part(directory: Path, part: Part, *, verify: bool) -> None:
    path = directory / part.path
    if Path(part.path).name != part.path or not path.is_file():
        raise InputError(f"The part '{path}' of the data set is missing; restore it, or write the data set again.")
    size = path.stat().st_size
    if size != part.bytes or (verify and sha256(path) != part.sha256):
        raise InputError(
            f"The part '{path}' was altered since it was written "
            f"({f'{size} bytes, not {part.bytes}' if size != part.bytes else 'its SHA-256 differs'}); "
            "restore it, or write the data set again."
        )


def _background_rows(group: RowGroup, bg_ids: set[str]) -> Iterator[tuple[str, bytes]]:
    table = group.read(BACKGROUND_COLUMNS.names)
    for row, bg_id in enumerate(table["bg_id"].to_pylist()):
        if bg_id in bg_ids:
            yield bg_id, table["bg"][row].as_py()
