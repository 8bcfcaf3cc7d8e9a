"""Compose a data set, and write the images of every sample, as the published data sets have them.

sources = open_sources(composition)
materialise(composition, sources, Path("footballers"))
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

import cv2

from data.compose.pieces import PieceFolder, cut_pieces, make_piece, useful_processes
from data.dataset.dataset import Dataset, write_checked
from data.dataset.partial import remove_abandoned
from data.dataset.publish import refuse_existing, rename_to
from data.dataset.storage import Location
from data.errors import UnfinishedError
from data.parallel import open_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from data.compose.composition import Composition
    from data.compose.pieces import Piece
    from data.compose.sources import Sources
    from data.dataset.intake import CheckedSamples
    from data.dataset.manifest import DatasetInfo
    from data.dataset.storage import AnyPath

ENCODING = 3
"""Version of the encoding of images and of the format of pieces: a run does not resume from pieces of another one."""
METHOD = 2
"""Version of the composing algorithm: a run does not resume from the pieces of another version."""


def materialise(
    composition: Composition,
    sources: Sources,
    destination: AnyPath,
    *,
    processes: int | None = None,
    on_sample: Callable[[int], None] | None = None,
) -> DatasetInfo:
    """Compose the data set in pieces, and write it. After an interruption, the same call resumes.

    Samples are ordered by background, foreground, direction and placement. Samples and files depend neither on the
    number of processes nor on interruptions. The processes that compose also measure: the calling one decodes nothing
    but backgrounds. Each process has some samples in memory; the calling one has the ids of all samples, and the images
    of a row group. Pieces are kept in `.NAME.compose/` beside the destination, or in the cache for a remote one, and
    removed at the end: until then they need as much disk space as the data set.

    Args:
        composition: the options.
        sources: the result of `open_sources`.
        destination: a directory that does not exist yet, whose missing parents are created; or an address.
        processes: most pieces that are composed at the same time; default: the number of cores.
        on_sample: progress callback, called after each written sample with the number written so far.

    Raises:
        InputError: if the destination exists or cannot be written, an unfinished data set with other arguments or
            sources lies beside it, or a source changes meanwhile.
    """
    refuse_existing(destination)
    local, folder = Location.parse(destination).local, PieceFolder(destination)
    pieces = cut_pieces(composition, sources)
    source = source_entry(composition, sources)
    if local is None:
        with (
            folder.locked(run_record(composition, sources)),
            contextlib.closing(_all_batches(pieces, folder, processes)) as samples,
        ):
            info = write_checked(samples, destination, source=source, on_sample=on_sample)
            folder.remove_pieces()
            folder.remove()
        return info
    remove_abandoned(local.parent)
    with folder.locked(run_record(composition, sources)):
        if not folder.dataset.exists():
            with contextlib.closing(_all_batches(pieces, folder, processes)) as samples:
                write_checked(samples, folder.dataset, source=source, on_sample=on_sample)
        # Before the move: if the run is killed in between, the next run still finds the data set in the folder.
        folder.remove_pieces()
        info = Dataset.open(folder.dataset).info
        refuse_existing(destination)
        rename_to(folder.dataset, local)
        folder.remove()
    return info


def check_resumable(composition: Composition, sources: Sources, destination: AnyPath) -> None:
    """Refuse an unfinished data set of other arguments or sources for the same destination.

    Raises:
        InputError: if there is one.
    """
    PieceFolder(destination).check(run_record(composition, sources))


def run_record(composition: Composition, sources: Sources) -> dict[str, object]:
    """Everything that decides the samples, as JSON values; the paths of the folders do not."""
    return {"opencv": cv2.__version__, "encoding": ENCODING, **_options(composition, sources), **sources.digests()}


def _options(composition: Composition, sources: Sources) -> dict[str, object]:
    return {
        "method": METHOD,
        "placements": composition.placements,
        "flips": composition.flips,
        "size": composition.size,
        "scale": list(composition.scale),
        "seed": composition.seed,
        "depth": sources.scale.to_json(),
    }


def source_entry(composition: Composition, sources: Sources) -> dict[str, object]:
    """The entry `source` of `dataset.json`, of a recipe and of images."""
    return {
        "kind": "compose",
        "backgrounds": str(composition.backgrounds),
        "foregrounds": str(composition.foregrounds),
        "depths": str(composition.depths),
        **_options(composition, sources),
    }


def _all_batches(pieces: tuple[Piece, ...], folder: PieceFolder, processes: int | None) -> Generator[CheckedSamples]:
    """The samples of all pieces in order, each piece read from its file when the file is complete."""
    finished = folder.finished(pieces)
    missing = [piece for piece in pieces if piece.number not in finished]
    processes = useful_processes(missing, processes)
    if processes <= 1:
        for piece in pieces:
            if piece.number not in finished:
                make_piece(piece, folder.file(piece.number))
            yield from folder.read(piece)
        return
    with open_pool(processes) as pool:
        composed: dict[int, Future[None]] = {
            piece.number: pool.submit(make_piece, piece, folder.file(piece.number)) for piece in missing
        }
        try:
            for piece in pieces:
                if piece.number in composed:
                    composed.pop(piece.number).result()
                yield from folder.read(piece)
        except BrokenProcessPool as error:
            raise UnfinishedError(
                "A worker process was killed, possibly because memory ran out; run the same command again to resume, "
                "with fewer --workers if it happens again."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
