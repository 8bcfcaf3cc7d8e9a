"""Compose a data set as the published ones were: every background with every foreground, mirrored too, in many places.

sources = open_sources(composition)
compose(composition, sources, Path("footballers"))
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import cv2

from data.compose.depth import DepthUnit
from data.compose.pieces import PieceFolder, cut_pieces, make_piece
from data.compose.sources import Sources, open_sources
from data.dataset.dataset import Dataset, write_dataset
from data.errors import InputError, UnfinishedError
from data.importers.polarity import POLARITIES
from data.parallel import open_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from data.compose.pieces import Piece
    from data.dataset.manifest import DatasetInfo
    from data.importers.polarity import PolarityName
    from data.schema import EncodedSample

__all__ = ["SCALE", "Composition", "compose", "made_of", "open_sources", "refuse_existing", "refuse_other"]

SIZES = (32, 1024)
"""The smallest and the largest side of a picture in pixels."""
SCALE = (0.2, 0.67)
"""Published foregrounds fit 150 pixels of 224; what was smaller than 40 by 50 was left out."""
METHOD = 1
"""Counts the changes of how samples are composed: pieces of another method are not gone on with."""


@dataclass(frozen=True, kw_only=True)
class Composition:
    """What is composed, and how.

    Raises:
        InputError: if a value is out of its range, or does not go with another.
    """

    backgrounds: Path
    """Folder of photographs, PNG or JPEG."""
    foregrounds: Path
    """Folder of RGBA pictures, transparent around what they show."""
    depths: Path
    """Folder with a depth picture for each background, of the same name."""
    depth_unit: DepthUnit
    """'mm' and 'cm': from the camera's plane, 0 where nothing was measured. 'relative': levels without a unit."""
    depth_polarity: PolarityName | None = None
    """Of relative depth: what bright means. Metric depth has none."""
    depth_far: float | None = None
    """Metres that are stored as 255, and all that is farther; the set's largest depth if not given. Not if relative."""
    placements: int = 20
    """How often each foreground stands in each background, 1 to 10,000; with `flips`, so often each way round."""
    flips: bool = False
    """Whether each foreground is also mirrored left to right."""
    size: int = 224
    """Side in pixels that the middle square of each background gets, 32 to 1024."""
    scale: tuple[float, float] = SCALE
    """Smallest and largest longer side of a foreground, as a share of the picture's side, 0.05 to 1."""
    seed: int = 0
    """0 or more; another seed places the foregrounds elsewhere."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("placements", self.placements, 1, 10_000),
            ("size", self.size, *SIZES),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if not low <= value <= high:
                raise InputError(f"The value of '--{name}' is {value}, but must be an integer from {low} to {high}.")
        if not 0.05 <= self.scale[0] <= self.scale[1] <= 1:
            raise InputError(
                f"The value of '--scale' is {self.scale[0]:g} {self.scale[1]:g}, but must be two shares from 0.05 "
                "to 1, the smaller one first."
            )
        self._check_depth()

    def _check_depth(self) -> None:
        if self.depth_unit not in get_args(DepthUnit):
            raise InputError(f"The value of '--depth-unit' is '{self.depth_unit}', but must be mm, cm or relative.")
        if self.depth_unit != "relative":
            if self.depth_polarity is not None:
                raise InputError(
                    f"The value of '--depth-polarity' is '{self.depth_polarity}', but depth in {self.depth_unit} grows "
                    "with distance; leave it out."
                )
            if self.depth_far is not None and not 0 < self.depth_far <= 1000:
                raise InputError(
                    f"The value of '--depth-far' is {self.depth_far:g}, but must be metres, above 0 and up to 1000."
                )
            return
        if self.depth_polarity not in POLARITIES:
            raise InputError(
                "The polarity of relative depth is not known; give --depth-polarity far-bright or near-bright."
            )
        if self.depth_far is not None:
            raise InputError(
                f"The value of '--depth-far' is {self.depth_far:g}, but relative depth has no metres; leave it out."
            )

    @property
    def directions(self) -> int:
        """1, or 2 with flips."""
        return 2 if self.flips else 1

    @property
    def per_foreground(self) -> int:
        """Samples of one foreground in one background."""
        return self.directions * self.placements


def compose(
    composition: Composition,
    sources: Sources,
    destination: Path,
    *,
    processes: int | None = None,
    on_sample: Callable[[int], None] | None = None,
) -> DatasetInfo:
    """Compose the data set in pieces, and write it; run again after an end half-way, it goes on with those.

    Samples are in the order of backgrounds, foregrounds, directions, placements. Neither they nor the files depend on
    the number of processes, or on how often the run was interrupted. In memory are some samples of each process, and
    what `write_dataset` holds: ids, and pictures of a row group. Pieces are kept in `.NAME.compose/` beside the
    destination, and removed at the end: until then they take as much of the disk as the data set.

    Args:
        composition: what is composed.
        sources: as `open_sources` gave them.
        destination: a directory that does not exist yet; its parents are made.
        processes: how many pieces to compose at a time; the machine's cores when left out.
        on_sample: called after each sample that is written with how many were written so far.

    Raises:
        InputError: if the destination exists or cannot be written, an unfinished set of other arguments or sources
            lies beside it, or a source is changed on the way.
    """
    refuse_existing(destination)
    pieces = cut_pieces(composition, sources)
    folder = PieceFolder(destination)
    with folder.held(made_of(composition, sources)):
        if not folder.whole.exists():
            with contextlib.closing(_all_samples(pieces, folder, processes)) as samples:
                write_dataset(samples, folder.whole, source=_described(composition, sources), on_sample=on_sample)
        info = _move(folder, destination)
        folder.remove()
    return info


def refuse_existing(destination: Path) -> None:
    """See to it that nothing is overwritten.

    Raises:
        InputError: if there is something.
    """
    if os.path.lexists(destination):
        raise InputError(f"The destination '{destination}' exists already; remove it, or give another one.")


def refuse_other(composition: Composition, sources: Sources, destination: Path) -> None:
    """See to it that what is unfinished there can be gone on with.

    Raises:
        InputError: if it was begun with other arguments or sources.
    """
    PieceFolder(destination).check(made_of(composition, sources))


def made_of(composition: Composition, sources: Sources) -> dict[str, Any]:
    """All that decides on the samples; where the folders lie does not."""
    return {
        "method": METHOD,
        "opencv": cv2.__version__,
        **_options(composition),
        "depth": sources.scale.described(),
        **sources.digests(),
    }


def _options(composition: Composition) -> dict[str, Any]:
    return {
        "placements": composition.placements,
        "flips": composition.flips,
        "size": composition.size,
        "scale": list(composition.scale),
        "seed": composition.seed,
    }


def _described(composition: Composition, sources: Sources) -> dict[str, Any]:
    """For `dataset.json`."""
    return {
        "kind": "compose",
        "backgrounds": str(composition.backgrounds),
        "foregrounds": str(composition.foregrounds),
        "depths": str(composition.depths),
        "method": METHOD,
        **_options(composition),
        "depth": sources.scale.described(),
    }


def _all_samples(pieces: tuple[Piece, ...], folder: PieceFolder, processes: int | None) -> Generator[EncodedSample]:
    """Samples of all pieces in order, each read from its file when that is finished."""
    finished = folder.finished(pieces)
    missing = [piece for piece in pieces if piece.number not in finished]
    processes = min(processes or os.cpu_count() or 1, len(missing))
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
                "A process that composes was ended from outside, perhaps for want of memory; the same command goes on, "
                "with fewer --workers if need be."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _move(folder: PieceFolder, destination: Path) -> DatasetInfo:
    info = Dataset.open(folder.whole).info
    refuse_existing(destination)
    folder.whole.rename(destination)
    return info
