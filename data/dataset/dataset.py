"""Write and read a data set: a directory of Parquet parts and one `dataset.json` that describes them.

It may be on this machine or anywhere else that `data.storage` opens. A background is stored once, however many samples
it has. Shapes: H and W height and width in pixels.
"""

from __future__ import annotations

import hashlib
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data.dataset.ids import IdColumn
from data.dataset.intake import DecodedBackgrounds, Intake
from data.dataset.manifest import MANIFEST_NAME, Counts, DatasetInfo, SampleIds, Size
from data.dataset.parts import PartsWriter, RowGroup, row_groups, sha256
from data.dataset.publish import building
from data.dataset.storage import Location, Place, refused
from data.errors import InputError
from data.images import decode_photo, decode_sample
from data.parallel import ahead
from data.schema import BACKGROUND_COLUMNS, SAMPLE_COLUMNS, SCHEMA_VERSION, EncodedSample, Pixels, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from data.dataset.manifest import Part
    from data.dataset.publish import Building

SAMPLE_GROUP_BYTES = 16 * 2**20
BACKGROUND_GROUP_BYTES = 4 * 2**20
"""Smaller: backgrounds are looked up one by one, samples are read in order."""

ID_COLUMNS = ("sample_id", "bg_id", "fg_id")

GROUPS_AHEAD = 1
GROUPS_AHEAD_ELSEWHERE = 3
"""Row groups on their way while one is decoded: over a network, several are faster than one."""
SMALL_READS = 8
"""Reads of ids or checksums that are made at once."""


def write_dataset(
    samples: Iterable[EncodedSample],
    destination: Place,
    *,
    source: Mapping[str, Any],
    on_sample: Callable[[int], None] | None = None,
    part_bytes: int = 256 * 2**20,
) -> DatasetInfo:
    """Write `samples` in their order as a data set, which appears at `destination` only when it is whole.

    Every image is decoded on the way, to check it and to gather statistics. In memory are the ids, and
    of the images no more than a row group.

    Args:
        samples: at least one.
        destination: a directory that does not exist yet, whose parents are made; or an address such as
            s3://bucket/prefix where no data set is.
        source: where the samples came from, as JSON values, for `dataset.json`.
        on_sample: called after each sample with how many were taken so far.
        part_bytes: size at which a part ends and the next begins.

    Raises:
        InputError: if the destination exists or cannot be written, there are no samples, a sample's id comes
            twice, its images cannot be used, or one background id stands for two different images.
    """
    with building(Location.parse(destination)) as place:
        info = _write_parts(samples, place, dict(source), on_sample, part_bytes)
        place.publish(info.to_json())
    return info


class Dataset:
    """A data set to read. It opens files only while it reads, so it can be sent to another process."""

    def __init__(self, path: Location, info: DatasetInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def open(cls, path: Place, *, verify: bool = False, on_bytes: Callable[[int], None] | None = None) -> Dataset:
        """Open the data set at `path`, and check that its parts are there with their sizes.

        Args:
            path: the directory, or the address of one elsewhere.
            verify: also compare each part with its SHA-256, which reads every byte.
            on_bytes: called while verifying with how many bytes were compared so far.

        Raises:
            InputError: if it is no data set, was written by a newer version, or a part is missing or altered.
        """
        place = Location.parse(path)
        info, sizes = read_manifest(place)
        for part in info.parts:
            _check_size(place, part, sizes.get(part.path))
        if verify:
            compared = 0
            checksums = ahead((partial(sha256, place / part.path) for part in info.parts), SMALL_READS)
            for part, checksum in zip(info.parts, checksums, strict=True):
                if checksum != part.sha256:
                    raise _altered(place, part, "its SHA-256 differs")
                compared += part.bytes
                if on_bytes is not None:
                    on_bytes(compared)
        return cls(place, info)

    @cached_property
    def ids(self) -> SampleIds:
        """The samples' ids in storage order; only their columns are read."""
        calls = (partial(group.read, ID_COLUMNS) for group in self.sample_groups)
        table = pa.concat_tables(ahead(calls, SMALL_READS))
        return SampleIds(**{name: IdColumn(table[name]) for name in ID_COLUMNS})

    def read(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> Iterator[Sample]:
        """Read samples in storage order, whatever the order of `rows`; only their row groups are read.

        Args:
            rows: row numbers in 0..N-1, each counting once; all rows if not given.

        Raises:
            InputError: if a part is damaged, or an image cannot be decoded.
        """
        decoded = DecodedBackgrounds()
        for part, encoded in self._read_encoded(rows):
            bg = decoded.get(encoded.bg_id, encoded.bg, f"background {encoded.bg_id} in {self.path}")
            yield decode_sample(encoded, bg=bg, where=str(part))

    def read_encoded(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> Iterator[EncodedSample]:
        """Read as `read` does, but leave the images as they are stored."""
        for _, encoded in self._read_encoded(rows):
            yield encoded

    def backgrounds(self, bg_ids: Iterable[str] | None = None) -> Iterator[tuple[str, Pixels]]:
        """Read backgrounds in storage order, each decoded once: its id, and (H, W, 3) RGB.

        Args:
            bg_ids: which ones; all if not given.

        Raises:
            InputError: if there is no such background, a part is damaged, or an image cannot be decoded.
        """
        wanted = set(self._group_of_background) if bg_ids is None else set(bg_ids)
        for part, bg_id, bg in self._background_rows(wanted):
            yield bg_id, decode_photo(bg, f"background {bg_id} in {part}")

    def _read_encoded(self, rows: Sequence[int] | NDArray[np.int64] | None) -> Iterator[tuple[Location, EncodedSample]]:
        total = self.info.counts.samples
        wanted = np.arange(total) if rows is None else np.unique(np.asarray(rows, np.int64))
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < total:
            raise ValueError(f"Row numbers must be in 0..{total - 1}, not {wanted[0]}..{wanted[-1]}.")
        chosen = []
        for group in self.sample_groups:
            start, stop = np.searchsorted(wanted, [group.first, group.first + group.rows])
            if start < stop:
                chosen.append((group, wanted[start:stop] - group.first))
        tables = self._tables((group for group, _ in chosen), SAMPLE_COLUMNS.names)
        backgrounds: dict[str, bytes] = {}
        for (group, places), table in zip(chosen, tables, strict=True):
            bg_ids = [table["bg_id"][place].as_py() for place in places]
            backgrounds = self._encoded_backgrounds(set(bg_ids), backgrounds)
            for place, bg_id in zip(places, bg_ids, strict=True):
                # One by one: as a list, the images would be in memory twice.
                values = {name: table[name][place].as_py() for name in SAMPLE_COLUMNS.names}
                yield group.path, EncodedSample(bg=backgrounds[bg_id], **values)

    def _tables(self, groups: Iterable[RowGroup], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read one row group after the other, the next already while one is worked on."""
        depth = GROUPS_AHEAD_ELSEWHERE if self.path.scheme else GROUPS_AHEAD
        return ahead((partial(group.read, columns) for group in groups), depth)

    def _encoded_backgrounds(self, wanted: set[str], known: dict[str, bytes]) -> dict[str, bytes]:
        """Read those of one row group's samples; `known` are those of the group before."""
        found = {bg_id: bg for bg_id, bg in known.items() if bg_id in wanted}
        return found | {bg_id: bg for _, bg_id, bg in self._background_rows(wanted - found.keys())}

    def _background_rows(self, bg_ids: set[str]) -> Iterator[tuple[Location, str, bytes]]:
        """The part, the id and the encoded image of each of `bg_ids`, in storage order."""
        ids_of_group: dict[int, set[str]] = {}
        for bg_id in bg_ids:
            if bg_id not in self._group_of_background:
                raise InputError(
                    f"The data set '{self.path}' has no background '{bg_id}'; correct the id, or write the "
                    "data set again."
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
        return tuple(row_groups(self.path, self.info.parts_of("samples"), SAMPLE_COLUMNS))

    @cached_property
    def background_groups(self) -> tuple[RowGroup, ...]:
        """The row groups of backgrounds, in storage order."""
        return tuple(row_groups(self.path, self.info.parts_of("backgrounds"), BACKGROUND_COLUMNS))

    @cached_property
    def _group_of_background(self) -> dict[str, int]:
        tables = ahead((partial(group.read, ["bg_id"]) for group in self.background_groups), SMALL_READS)
        return {bg_id: number for number, table in enumerate(tables) for bg_id in table["bg_id"].to_pylist()}


def read_manifest(place: Location) -> tuple[DatasetInfo, dict[str, int]]:
    """What the data set at `place` says of itself, and the bytes of each file that is there.

    Raises:
        InputError: if there is no data set, it cannot be reached, or it was written by a newer version.
    """
    manifest = place / MANIFEST_NAME
    try:
        sizes = place.files()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"The data set '{place}' does not exist; give the directory of a data set.") from None
    except OSError as error:
        raise refused(place, error) or _unreadable(manifest, error) from error
    if MANIFEST_NAME not in sizes:
        raise InputError(
            f"The data set '{place}' has no {MANIFEST_NAME}; give the directory of a data set, as 'twinhead import' "
            "makes one of a folder of images."
        )
    try:
        with manifest.open_input() as file:
            text = file.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise refused(manifest, error) or _unreadable(manifest, error) from error
    return DatasetInfo.from_json(text, str(manifest)), sizes


def _write_parts(
    samples: Iterable[EncodedSample],
    place: Building,
    source: dict[str, Any],
    on_sample: Callable[[int], None] | None,
    part_bytes: int,
) -> DatasetInfo:
    intake = Intake()
    writer = partial(PartsWriter, place.directory, part_bytes=part_bytes, mark=place.mark)
    with (
        writer("samples", SAMPLE_COLUMNS, group_bytes=SAMPLE_GROUP_BYTES) as sample_parts,
        writer("backgrounds", BACKGROUND_COLUMNS, group_bytes=BACKGROUND_GROUP_BYTES) as background_parts,
    ):
        for number, encoded in enumerate(samples, start=1):
            if intake.take(encoded):
                background_parts.add({name: getattr(encoded, name) for name in BACKGROUND_COLUMNS.names})
            sample_parts.add({name: getattr(encoded, name) for name in SAMPLE_COLUMNS.names})
            if on_sample is not None:
                on_sample(number)
        if not intake.samples:
            raise InputError("There are no samples to write; give a source that has at least one.")
        parts = sample_parts.finish() + background_parts.finish()
        fingerprint = hashlib.sha256(sample_parts.digest() + background_parts.digest()).hexdigest()
    return DatasetInfo(
        schema_version=SCHEMA_VERSION,
        counts=Counts(
            samples=intake.samples,
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
