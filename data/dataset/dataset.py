"""Write and read a data set: a directory of Parquet parts, described by `dataset.json`.

The directory is local or remote (see `data.dataset.storage`). Each background is stored once, and samples refer to it.
The images of samples are stored, or, in a recipe (`data.composed`), composed when they are read.
Shapes: H and W are height and width in pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data.composed.recipe import Recipe
from data.dataset.ids import IdColumn
from data.dataset.intake import DecodedBackgrounds, Intake
from data.dataset.manifest import MANIFEST_NAME, Counts, DatasetInfo, SampleIds, Size
from data.dataset.parts import PartsWriter, RowGroup, row_groups, sha256
from data.dataset.publish import pending_dataset
from data.dataset.storage import AnyPath, Location, unavailable
from data.errors import InputError
from data.images import decode_photo, decode_sample
from data.parallel import ahead
from data.schema import (
    BACKGROUND_COLUMNS,
    BASE_SCHEMA_VERSION,
    SAMPLE_COLUMNS,
    VALID_COLUMN,
    VALIDITY_SCHEMA_VERSION,
    EncodedSample,
    Pixels,
    Sample,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from data.dataset.intake import CheckedSamples
    from data.dataset.manifest import Part, StoredSplit
    from data.dataset.publish import PendingDataset

SAMPLE_GROUP_BYTES = 16 * 2**20
BACKGROUND_GROUP_BYTES = 4 * 2**20
"""Smaller, because backgrounds are looked up individually, while samples are read in order."""

ID_COLUMNS = ("sample_id", "bg_id", "fg_id")

PREFETCHED_GROUPS = 1
PREFETCHED_GROUPS_REMOTE = 3
"""Row groups read while one is decoded; over a network, concurrent reads are faster."""
CONCURRENT_READS = 8
"""Concurrent reads of ids or checksums."""


def write_dataset(
    samples: Iterable[EncodedSample],
    destination: AnyPath,
    *,
    source: Mapping[str, object],
    split: StoredSplit | None = None,
    on_sample: Callable[[int], None] | None = None,
    part_bytes: int = 256 * 2**20,
) -> DatasetInfo:
    """Write a data set with `samples` in their order. It appears at `destination` when it is complete.

    Every image is decoded, to check it and to compute statistics. Only the ids and one row group of images are in
    memory.

    Args:
        samples: at least one.
        destination: a directory that does not exist (missing parents are created), or an address without a data set,
            such as s3://bucket/prefix.
        source: origin of the samples, as JSON values, for `dataset.json`.
        split: a split that came with the samples, which are then in the order train, val, test.
        on_sample: progress callback with the number of samples so far.
        part_bytes: size at which a part is finished.

    Raises:
        InputError: if the destination exists or cannot be written, there are no samples, a sample id is not unique, an
            image is unusable, two different backgrounds have the same id, or no sample has a valid depth pixel.
    """

    def checked(intake: Intake) -> Iterator[tuple[EncodedSample, bool]]:
        return ((encoded, intake.take(encoded)) for encoded in samples)

    with pending_dataset(Location.parse(destination)) as pending:
        info = _write_parts(checked, pending, dict(source), on_sample, part_bytes)
        if split is not None:
            sizes = (split.train, split.val, split.test)
            if sum(sizes) != info.counts.samples:
                raise ValueError(f"There are {info.counts.samples} samples, but the split is {split}.")
            fingerprint = hashlib.sha256(f"{info.fingerprint} {sizes}".encode()).hexdigest()
            info = replace(info, split=split, fingerprint=fingerprint)
        pending.publish(info.to_json())
    return info


def write_checked(
    batches: Iterable[CheckedSamples],
    destination: AnyPath,
    *,
    source: Mapping[str, object],
    on_sample: Callable[[int], None] | None = None,
    part_bytes: int = 256 * 2**20,
) -> DatasetInfo:
    """Write samples that other processes have checked and measured: the files are those of `write_dataset`.

    Only backgrounds are decoded. Arguments and errors are those of `write_dataset`.
    """

    def taken(intake: Intake) -> Iterator[tuple[EncodedSample, bool]]:
        return (entry for batch in batches for entry in intake.take_checked(batch))

    with pending_dataset(Location.parse(destination)) as pending:
        info = _write_parts(taken, pending, dict(source), on_sample, part_bytes)
        pending.publish(info.to_json())
    return info


class Dataset:
    """A data set for reading. Files are open only during a read, so it can be sent to another process."""

    def __init__(self, path: Location, info: DatasetInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def open(cls, path: AnyPath, *, verify: bool = False, on_bytes: Callable[[int], None] | None = None) -> Dataset:
        """Open the data set at `path`, and check that all parts exist and have the right size.

        Args:
            path: a directory or an address.
            verify: also compare the SHA-256 of each part, which reads every byte.
            on_bytes: progress callback with the number of bytes verified so far.

        Raises:
            InputError: if it is not a data set, has a newer schema version, or a part is missing or altered.
        """
        location = Location.parse(path)
        info, sizes = read_manifest(location)
        for part in info.parts:
            _check_size(location, part, sizes.get(part.path))
        if verify:
            verified = 0
            checksums = ahead((partial(sha256, location / part.path) for part in info.parts), CONCURRENT_READS)
            for part, checksum in zip(info.parts, checksums, strict=True):
                if checksum != part.sha256:
                    raise _altered(location, part, "its SHA-256 differs")
                verified += part.bytes
                if on_bytes is not None:
                    on_bytes(verified)
        return cls(location, info)

    @cached_property
    def recipe(self) -> Recipe | None:
        """How samples are composed when they are read; None if their images are stored."""
        return Recipe(self.path, self.info) if self.info.is_recipe else None

    @cached_property
    def ids(self) -> SampleIds:
        """The ids of all samples in storage order; reads only the id columns."""
        if self.recipe is not None:
            return self.recipe.ids
        calls = (partial(group.read, ID_COLUMNS) for group in self.sample_groups)
        table = pa.concat_tables(ahead(calls, CONCURRENT_READS))
        return SampleIds(split=self.info.split, **{name: IdColumn(table[name]) for name in ID_COLUMNS})

    def read(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> Iterator[Sample]:
        """Read samples in storage order; only the row groups that contain `rows` are read.

        Args:
            rows: row numbers in 0..N-1 in any order; duplicates are ignored. All rows by default.

        Raises:
            InputError: if a part is damaged, or an image cannot be decoded.
        """
        decoded = DecodedBackgrounds()
        for part, encoded in self._read_encoded(rows):
            bg = decoded.get(encoded.bg_id, encoded.bg, f"background {encoded.bg_id} in {self.path}")
            yield decode_sample(encoded, bg=bg, where=str(part))

    def read_encoded(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> Iterator[EncodedSample]:
        """Like `read`, without decoding the images."""
        for _, encoded in self._read_encoded(rows):
            yield encoded

    def backgrounds(self, bg_ids: Iterable[str] | None = None) -> Iterator[tuple[str, Pixels]]:
        """Read backgrounds in storage order: the id and (H, W, 3) RGB.

        Args:
            bg_ids: ids to read; all by default.

        Raises:
            InputError: if a background does not exist, a part is damaged, or an image cannot be decoded.
        """
        selected = set(self._group_of_background) if bg_ids is None else set(bg_ids)
        for part, bg_id, bg in self._background_rows(selected):
            yield bg_id, decode_photo(bg, f"background {bg_id} in {part}")

    def _read_encoded(self, rows: Sequence[int] | NDArray[np.int64] | None) -> Iterator[tuple[Location, EncodedSample]]:
        total = self.info.counts.samples
        selected = np.arange(total) if rows is None else np.unique(np.asarray(rows, np.int64))
        if len(selected) and not 0 <= selected[0] <= selected[-1] < total:
            raise ValueError(f"Row numbers must be in 0..{total - 1}, not {selected[0]}..{selected[-1]}.")
        if self.recipe is not None:
            yield from ((self.path, sample) for sample in self.recipe.encoded(selected))
            return
        chosen = []
        for group in self.sample_groups:
            start, stop = np.searchsorted(selected, [group.first, group.first + group.rows])
            if start < stop:
                chosen.append((group, selected[start:stop] - group.first))
        columns = SAMPLE_COLUMNS.names + [VALID_COLUMN.name] * self.info.has_validity
        tables = self._tables((group for group, _ in chosen), columns)
        backgrounds: dict[str, bytes] = {}
        for (group, indices), table in zip(chosen, tables, strict=True):
            bg_ids = [table["bg_id"][index].as_py() for index in indices]
            backgrounds = self._encoded_backgrounds(set(bg_ids), backgrounds)
            for index, bg_id in zip(indices, bg_ids, strict=True):
                # Row by row: a list of all images would double the memory.
                values = {name: table[name][index].as_py() for name in columns}
                yield group.path, EncodedSample(bg=backgrounds[bg_id], **values)

    def _tables(self, groups: Iterable[RowGroup], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read row groups in order, ahead of the consumer."""
        depth = PREFETCHED_GROUPS_REMOTE if self.path.scheme else PREFETCHED_GROUPS
        return ahead((partial(group.read, columns) for group in groups), depth)

    def _encoded_backgrounds(self, bg_ids: set[str], known: dict[str, bytes]) -> dict[str, bytes]:
        """Encoded backgrounds of one row group of samples; `known` are those of the previous group."""
        found = {bg_id: bg for bg_id, bg in known.items() if bg_id in bg_ids}
        return found | {bg_id: bg for _, bg_id, bg in self._background_rows(bg_ids - found.keys())}

    def _background_rows(self, bg_ids: set[str]) -> Iterator[tuple[Location, str, bytes]]:
        """Part, id and encoded image of each of `bg_ids`, in storage order."""
        ids_of_group: dict[int, set[str]] = {}
        for bg_id in bg_ids:
            if bg_id not in self._group_of_background:
                raise InputError(
                    f"The data set '{self.path}' has no background '{bg_id}'; correct the id, or write the data set "
                    "again."
                )
            ids_of_group.setdefault(self._group_of_background[bg_id], set()).add(bg_id)
        numbers = sorted(ids_of_group)
        groups = [self.background_groups[number] for number in numbers]
        tables = self._tables(groups, BACKGROUND_COLUMNS.names)
        for number, group, table in zip(numbers, groups, tables, strict=True):
            for row, bg_id in enumerate(table["bg_id"].to_pylist()):
                if bg_id in ids_of_group[number]:
                    yield group.path, bg_id, table["bg"][row].as_py()

    @cached_property
    def sample_groups(self) -> tuple[RowGroup, ...]:
        """The row groups of samples, in storage order."""
        return tuple(row_groups(self.path, self.info.parts_of("samples"), SAMPLE_COLUMNS, VALID_COLUMN))

    @cached_property
    def background_groups(self) -> tuple[RowGroup, ...]:
        """The row groups of backgrounds, in storage order."""
        return tuple(row_groups(self.path, self.info.parts_of("backgrounds"), BACKGROUND_COLUMNS))

    @cached_property
    def _group_of_background(self) -> dict[str, int]:
        tables = ahead((partial(group.read, ["bg_id"]) for group in self.background_groups), CONCURRENT_READS)
        return {bg_id: number for number, table in enumerate(tables) for bg_id in table["bg_id"].to_pylist()}


def read_manifest(location: Location) -> tuple[DatasetInfo, dict[str, int]]:
    """Read the `dataset.json` of a data set, and the sizes in bytes of the files in its directory.

    Raises:
        InputError: if there is no data set, it cannot be reached, or it has a newer schema version.
    """
    manifest = location / MANIFEST_NAME
    try:
        sizes = location.files()
    except NotADirectoryError:
        raise InputError(
            f"'{location}' is a file, but must be the directory of a data set; 'twinhead import' makes one."
        ) from None
    except FileNotFoundError:
        raise InputError(f"The data set '{location}' does not exist; give the directory of a data set.") from None
    except OSError as error:
        raise unavailable(location, error) or _unreadable(manifest, error) from error
    if MANIFEST_NAME not in sizes:
        raise InputError(
            f"The data set '{location}' has no {MANIFEST_NAME}; give the directory of a data set, such as one made by "
            "'twinhead import'."
        )
    try:
        with manifest.open_input() as file:
            text = file.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unavailable(manifest, error) or _unreadable(manifest, error) from error
    return DatasetInfo.from_json(text, str(manifest)), sizes


def _write_parts(
    take: Callable[[Intake], Iterator[tuple[EncodedSample, bool]]],
    pending: PendingDataset,
    source: dict[str, object],
    on_sample: Callable[[int], None] | None,
    part_bytes: int,
) -> DatasetInfo:
    """Write the samples that `take` yields as it counts them, each with whether its background is new."""
    intake = Intake()
    writer = partial(
        PartsWriter, pending.directory, destination=pending.destination, part_bytes=part_bytes, mark=pending.mark
    )
    with (
        writer("samples", SAMPLE_COLUMNS, group_bytes=SAMPLE_GROUP_BYTES, optional=VALID_COLUMN) as sample_parts,
        writer("backgrounds", BACKGROUND_COLUMNS, group_bytes=BACKGROUND_GROUP_BYTES) as background_parts,
    ):
        for number, (encoded, has_new_background) in enumerate(take(intake), start=1):
            if has_new_background:
                background_parts.add({name: getattr(encoded, name) for name in BACKGROUND_COLUMNS.names})
            sample_parts.add({name: getattr(encoded, name) for name in (*SAMPLE_COLUMNS.names, VALID_COLUMN.name)})
            if on_sample is not None:
                on_sample(number)
        if not intake.samples:
            raise InputError("There are no samples to write; give a source that has at least one.")
        if not intake.statistics.has_depth:
            raise InputError(
                "No sample has a depth that was measured anywhere: all validity masks are black; correct the masks, or "
                "what counts as not measured."
            )
        parts = sample_parts.finish() + background_parts.finish()
        fingerprint = hashlib.sha256(sample_parts.digest() + background_parts.digest()).hexdigest()
    statistics = intake.statistics.result()
    return DatasetInfo(
        schema_version=BASE_SCHEMA_VERSION if statistics.valid_fraction is None else VALIDITY_SCHEMA_VERSION,
        counts=Counts(samples=intake.samples, backgrounds=len(intake.backgrounds), foregrounds=len(intake.foregrounds)),
        sizes=tuple(
            Size(height=height, width=width, samples=count) for (height, width), count in sorted(intake.sizes.items())
        ),
        statistics=statistics,
        depth_polarity="far-bright",
        parts=parts,
        fingerprint=fingerprint,
        source=source,
    )


def _check_size(directory: Location, part: Part, size: int | None) -> None:
    if size is None:
        raise InputError(
            f"The part '{directory / part.path}' of the data set is missing; restore it, or write the data set again."
        )
    if size != part.bytes:
        raise _altered(directory, part, f"{size} bytes, not {part.bytes}")


def _altered(directory: Location, part: Part, how: str) -> InputError:
    return InputError(
        f"The part '{directory / part.path}' was altered since it was written ({how}); "
        "restore it, or write the data set again."
    )


def _unreadable(manifest: Location, error: Exception) -> InputError:
    return InputError(f"The file '{manifest}' cannot be read ({error}); write the data set again.")
