"""The pieces of a composed data set, from which an interrupted run resumes.

The directory `.NAME.compose/` beside the destination has `run.json`, the arguments and sources of the run, and an Arrow
file for each finished piece. It is removed when the data set is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from data.atomic import replace_file, replacing
from data.cache.remote import mirror_of
from data.compose.grounds import Scenes, read_background
from data.compose.placing import place
from data.compose.sources import read_cutout
from data.composed.measuring import SampleMeasure
from data.composed.rendering import compose, encode_composed
from data.dataset.intake import CheckedSamples
from data.dataset.statistics import LEVELS, MeasuredSamples
from data.dataset.storage import Location
from data.disk import disk_error
from data.errors import InputError
from data.schema import SAMPLE_COLUMNS, EncodedSample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from data.compose.composition import Composition
    from data.compose.depth import DepthScale
    from data.compose.grounds import Scene
    from data.compose.sources import Background, SourceFile, Sources
    from data.dataset.storage import AnyPath

PIECE_SAMPLES = 400
"""Samples of a piece; a piece has at least one foreground, also if that alone has more samples."""
MIN_SAMPLES_PER_PROCESS = 500
"""For fewer, a process takes longer to start than it saves."""
BATCH_SAMPLES = 64
"""Samples that a process has in memory at a time."""
BACKGROUND_KEY = b"bg"
"""The key of the background image in the metadata of a piece's schema."""
LEVELS_KEY, COVERED_KEY, CHECKSUM_KEY = b"levels", b"covered", b"crc32"
"""The keys of the fields of `MeasuredSamples`, and of the checksum, in the metadata of a batch."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A background with some of the foregrounds: everything that a process needs to compose their samples."""

    number: int
    composition: Composition
    background: Background
    foregrounds: tuple[SourceFile, ...]
    scale: DepthScale

    def __len__(self) -> int:
        return len(self.foregrounds) * self.composition.per_foreground

    def scene(self) -> Scene:
        """Read the background."""
        return read_background(self.background, self.composition.size, self.scale)

    def batches(self, scene: Scene) -> Iterator[CheckedSamples]:
        """Compose the samples, up to `BATCH_SAMPLES` at a time, by foreground, direction and placement.

        The unflipped direction is first.
        """
        measure, samples = SampleMeasure(scene.bg, scene.depth), []
        for sample in self._samples(scene, measure):
            samples.append(sample)
            if len(samples) == BATCH_SAMPLES:
                yield self._checked(samples, measure)
                samples = []
        if samples:
            yield self._checked(samples, measure)

    def _samples(self, scene: Scene, measure: SampleMeasure) -> Iterator[EncodedSample]:
        scenes = Scenes([scene])
        for foreground in self.foregrounds:
            rgba = read_cutout(foreground, self.composition.longest)
            for placement in place(self.composition, scenes, foreground.name, rgba).placements(0, 0):
                images = compose(scene.bg, scene.depth, rgba, placement)
                measure.add(*images, placement)
                yield encode_composed((scene.bg_id, foreground.name), scene.encoded, images, placement)

    def _checked(self, samples: list[EncodedSample], measure: SampleMeasure) -> CheckedSamples:
        size = self.composition.size
        return CheckedSamples(samples=samples, height=size, width=size, measured=measure.take())


def cut_pieces(composition: Composition, sources: Sources) -> tuple[Piece, ...]:
    """Divide the data set into pieces, in its order: by background, then foreground."""
    count = max(1, PIECE_SAMPLES // composition.per_foreground)
    parts = [
        (background, sources.foregrounds[first : first + count])
        for background in sources.backgrounds
        for first in range(0, len(sources.foregrounds), count)
    ]
    return tuple(
        Piece(
            number=number,
            composition=composition,
            background=background,
            foregrounds=foregrounds,
            scale=sources.scale,
        )
        for number, (background, foregrounds) in enumerate(parts)
    )


def useful_processes(pieces: Sequence[Piece], most: int | None) -> int:
    """Number of processes that compose pieces, at least 1: up to `most`, by default the number of cores."""
    wanted = sum(map(len, pieces)) // MIN_SAMPLES_PER_PROCESS
    return max(1, min(most or os.cpu_count() or 1, len(pieces), wanted))


class PieceFolder:
    """The directory of the finished pieces; one run at a time may lock it.

    Args:
        destination: a directory, which gets the pieces beside it, or the address of one; then they are in the cache.
    """

    def __init__(self, destination: AnyPath) -> None:
        location = Location.parse(destination)
        beside = location.local or mirror_of(location)
        self.path = beside.with_name(f".{beside.name}.compose")
        self.dataset = self.path / "set"
        """Where the data set is written before it is moved to its destination."""
        self._record_file = self.path / "run.json"

    @contextlib.contextmanager
    def locked(self, record: Mapping[str, object]) -> Iterator[None]:
        """Lock the directory, which is created if missing, for a run with this record of JSON values.

        Raises:
            InputError: if another process has locked it, it has pieces of a run with another record, or it cannot be
                written.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise InputError(
                    f"Another process composes in '{self.path}'; wait until it ends, or choose another --out."
                ) from None
        try:
            with self._writing():
                self.check(record)
                if not self.is_started:
                    replace_file(self._record_file, json.dumps(dict(record), indent=2) + "\n")
                self._remove_partial_files()
            yield
        finally:
            lock.release()

    def check(self, record: Mapping[str, object]) -> None:
        """Refuse pieces of a run with another record.

        Raises:
            InputError: if there are any.
        """
        if not self.is_started:
            return
        stored = _load(self._record_file)
        if differing := sorted(key for key in stored.keys() | record.keys() if stored.get(key) != record.get(key)):
            raise InputError(
                f"The unfinished data set in '{self.path}' was started with other values of "
                f"{' and '.join(differing)}; use the same arguments and sources to resume it, remove it to start "
                "over, or choose another --out."
            )

    @property
    def is_started(self) -> bool:
        """Whether a run was started, has finished a piece, and is not finished."""
        return self._record_file.exists() and (self.dataset.exists() or any(self._pieces()))

    def file(self, number: int) -> Path:
        """Path of a finished piece."""
        return self.path / f"piece-{number:06d}.arrow"

    def finished(self, pieces: tuple[Piece, ...]) -> set[int]:
        """Numbers of the finished pieces; all if the data set is complete."""
        return {piece.number for piece in pieces if self.dataset.exists() or self.file(piece.number).exists()}

    def stored_bytes(self) -> int:
        """Bytes of the finished pieces, and of the data set if it is complete."""
        return sum(path.stat().st_size for path in (*self._pieces(), *self.dataset.glob("*")))

    def read(self, piece: Piece) -> Iterator[CheckedSamples]:
        """Read the samples of a finished piece in order, `BATCH_SAMPLES` at a time.

        Raises:
            InputError: if the file is damaged.
        """
        path, size = self.file(piece.number), piece.composition.size
        try:
            with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
                bg = reader.schema.metadata[BACKGROUND_KEY]
                for number in range(reader.num_record_batches):
                    rows, metadata = reader.get_batch_with_custom_metadata(number)
                    samples = [EncodedSample(bg=bg, **row) for row in rows.to_pylist()]
                    if _checksum(samples) != metadata[CHECKSUM_KEY]:
                        raise pa.ArrowInvalid("the checksum of its samples differs")
                    measured = MeasuredSamples(
                        levels=np.frombuffer(metadata[LEVELS_KEY], np.int64).reshape(-1, LEVELS),
                        covered=np.frombuffer(metadata[COVERED_KEY], np.float64),
                    )
                    yield CheckedSamples(samples=samples, height=size, width=size, measured=measured)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"The piece '{path}' cannot be read ({error}); remove it, and run the command again."
            ) from error

    def remove_pieces(self) -> None:
        """Remove all finished pieces."""
        for path in self._pieces():
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory with its contents."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _pieces(self) -> Iterator[Path]:
        return self.path.glob("piece-*.arrow")

    def _remove_partial_files(self) -> None:
        """Remove what a killed run left incomplete; earlier versions named such files `*.half`."""
        for path in [*self.path.glob("*.half"), *self.path.glob(".*.partial-*")]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(error, self.path) or _unwritable(self.path, error) from error


def make_piece(piece: Piece, file: Path) -> None:
    """Compose a piece and write it; the file appears when it is complete.

    Raises:
        InputError: if a source has changed, or the file cannot be written.
        DiskError: if the file system is full or has another fault.
    """
    scene = piece.scene()
    schema = SAMPLE_COLUMNS.with_metadata({BACKGROUND_KEY: scene.encoded})
    try:
        with replacing(file) as partial, partial.open("wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in piece.batches(scene):
                rows = [{name: getattr(sample, name) for name in schema.names} for sample in batch.samples]
                metadata = {
                    LEVELS_KEY: batch.measured.levels.tobytes(),
                    COVERED_KEY: batch.measured.covered.tobytes(),
                    CHECKSUM_KEY: _checksum(batch.samples),
                }
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema), metadata)
    except OSError as error:
        raise _unwritable(file, error) from error


def _checksum(samples: Sequence[EncodedSample]) -> bytes:
    """CRC-32 of the ids and images of samples, without the background, in hexadecimal."""
    checksum = 0
    for sample in samples:
        for name in SAMPLE_COLUMNS.names:
            value = getattr(sample, name)
            checksum = zlib.crc32(value.encode() if isinstance(value, str) else value, checksum)
    return f"{checksum:08x}".encode()


def _load(path: Path) -> dict[str, object]:
    try:
        record: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"The file '{path}' is damaged ({error}); remove its folder, and run the command again."
        ) from error
    if not isinstance(record, dict):
        raise InputError(f"The file '{path}' is damaged; remove its folder, and run the command again.")
    return record


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"The pieces cannot be written to '{path}' ({error}); free space there, or choose another --out.")
