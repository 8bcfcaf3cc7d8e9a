"""Finished pieces of a composed data set, kept beside its destination until it is whole, so that a killed run goes on.

`.NAME.compose/` holds `run.json`, which says what the pieces are made of, and an Arrow file for each of them.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from filelock import FileLock, Timeout

from data.atomic import replace_file, replacing
from data.compose.placing import compose_sample, open_stage
from data.disk import disk_error
from data.errors import InputError
from data.schema import SAMPLE_COLUMNS, EncodedSample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from data.compose.composition import Composition
    from data.compose.depth import DepthScale
    from data.compose.sources import Background, SourceFile, Sources

PIECE_SAMPLES = 400
"""A piece has so many samples, or those of a single foreground if they are more."""
TOGETHER = 64
"""A process has so many samples in memory, of whatever number it composes."""
BACKGROUND = b"bg"
"""The key under which a piece keeps its background's picture."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A background with some of the foregrounds: all that a process must know to compose it."""

    number: int
    composition: Composition
    background: Background
    foregrounds: tuple[SourceFile, ...]
    scale: DepthScale

    def __len__(self) -> int:
        return len(self.foregrounds) * self.composition.per_foreground

    def samples(self) -> Iterator[EncodedSample]:
        """Compose them in order: by foreground, then unflipped and flipped, then placement."""
        stage = open_stage(self.background, self.composition.size, self.scale)
        for foreground in self.foregrounds:
            for flip in (False, True)[: self.composition.directions]:
                for placement in range(self.composition.placements):
                    yield compose_sample(self.composition, stage, foreground, flip=flip, placement=placement)


def cut_pieces(composition: Composition, sources: Sources) -> tuple[Piece, ...]:
    """The whole data set in pieces, in its order: by background, then foreground."""
    together = max(1, PIECE_SAMPLES // composition.per_foreground)
    parts = [
        (background, sources.foregrounds[first : first + together])
        for background in sources.backgrounds
        for first in range(0, len(sources.foregrounds), together)
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


class PieceFolder:
    """The pieces that are finished; held by one process at a time."""

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(f".{destination.name}.compose")
        self.whole = self.path / "set"
        """Where the data set is written before it is moved to its destination."""
        self._record = self.path / "run.json"

    @contextlib.contextmanager
    def held(self, made_of: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder for a run whose pieces are made of `made_of`, JSON values; it is made if it is not there.

        Raises:
            InputError: if another process holds it, it has pieces that are made of something else, or the disk does
                not take it.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise InputError(
                    f"Another process composes in '{self.path}'; wait for it, or give another --out."
                ) from None
        try:
            with self._writing():
                self._check_record(dict(made_of))
                self._remove_halves()
            yield
        finally:
            lock.release()

    def check(self, made_of: Mapping[str, Any]) -> None:
        """See to it that pieces that are there are made of `made_of`.

        Raises:
            InputError: if they are made of something else.
        """
        if not self._record.exists():
            return
        kept = _load(self._record)
        if differing := sorted(key for key in kept.keys() | made_of.keys() if kept.get(key) != made_of.get(key)):
            raise InputError(
                f"The unfinished set in '{self.path}' was begun with other values of {' and '.join(differing)}; give "
                "the arguments it was begun with to go on with it, remove it to begin anew, or give another --out."
            )

    def file(self, number: int) -> Path:
        """Where a finished piece is."""
        return self.path / f"piece-{number:06d}.arrow"

    def finished(self, pieces: tuple[Piece, ...]) -> set[int]:
        """Numbers of the pieces that are there; of a set that is whole, all."""
        return {piece.number for piece in pieces if self.whole.exists() or self.file(piece.number).exists()}

    def stored_bytes(self) -> int:
        """Bytes of all finished pieces, and of the set where it is whole."""
        return sum(path.stat().st_size for path in (*self._pieces(), *self.whole.glob("*")))

    def read(self, piece: Piece) -> Iterator[EncodedSample]:
        """A finished piece's samples, in order, few in memory at a time.

        Raises:
            InputError: if the file is damaged.
        """
        path = self.file(piece.number)
        try:
            with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
                bg = reader.schema.metadata[BACKGROUND]
                for number in range(reader.num_record_batches):
                    for row in reader.get_batch(number).to_pylist():
                        yield EncodedSample(bg=bg, **row)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"The piece '{path}' cannot be read ({error}); remove it, and start again.") from error

    def remove_pieces(self) -> None:
        """Remove all finished pieces: the set is whole."""
        for path in self._pieces():
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _pieces(self) -> Iterator[Path]:
        return self.path.glob("piece-*.arrow")

    def _check_record(self, made_of: dict[str, Any]) -> None:
        self.check(made_of)
        if self._record.exists():
            return
        replace_file(self._record, json.dumps(made_of, indent=2) + "\n")

    def _remove_halves(self) -> None:
        """What a killed run did not come to finish; one of an earlier version named them otherwise."""
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
    """Compose a piece; the file appears when it is whole.

    Raises:
        InputError: if a source was changed, or the file cannot be written.
        DiskError: if the file system is full or has another fault of its own.
    """
    rows: list[dict[str, str | bytes]] = []
    writer: pa.RecordBatchFileWriter | None = None
    try:
        with replacing(file) as half, half.open("wb") as sink:
            for sample in piece.samples():
                if writer is None:
                    writer = pa.ipc.new_file(sink, SAMPLE_COLUMNS.with_metadata({BACKGROUND: sample.bg}))
                rows.append({name: getattr(sample, name) for name in SAMPLE_COLUMNS.names})
                if len(rows) == TOGETHER:
                    writer.write_batch(pa.RecordBatch.from_pylist(rows, SAMPLE_COLUMNS))
                    rows = []
            if writer is not None:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, SAMPLE_COLUMNS))
                writer.close()
    except OSError as error:
        raise _unwritable(file, error) from error


def _load(path: Path) -> dict[str, Any]:
    try:
        kept: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"The file '{path}' is damaged ({error}); remove its folder, and start again.") from error
    if not isinstance(kept, dict):
        raise InputError(f"The file '{path}' is damaged; remove its folder, and start again.")
    return kept


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"The pieces cannot be written to '{path}' ({error}); free space there, or give another --out.")
