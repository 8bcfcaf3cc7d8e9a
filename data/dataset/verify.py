"""Is a data set whole? Every part is compared with its checksum and every image decoded, and what is broken is named.

Parts are read by row group, several at once: neither memory nor the list of what is broken grows with the data set.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from data.dataset.dataset import read_manifest
from data.dataset.manifest import MANIFEST_NAME
from data.dataset.parts import row_groups, sha256
from data.dataset.storage import Location, Place, RefusedError
from data.dataset.verify_images import OF_SAMPLE, Fault, check_backgrounds, check_samples
from data.errors import InputError
from data.parallel import ahead
from data.schema import BACKGROUND_COLUMNS, SAMPLE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from data.dataset.manifest import DatasetInfo, Part
    from data.dataset.parts import RowGroup
    from data.dataset.verify_images import Found, Shapes

    Bar = Callable[[str, int, str], AbstractContextManager[Callable[[int, str], None]]]
    """From a title, a total and its unit to a function that moves on by so many, with a note."""

MOST_NAMED = 100
"""So much of what is broken is named; all of it is counted."""
MOST_THREADS = 16
"""Each holds a row group of some 16 MiB."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at, and what of it is broken."""

    samples: int
    """As dataset.json says."""
    backgrounds: int
    bytes: int
    """Of all parts, as dataset.json says."""
    pictures: int
    """How many decoded."""
    faults: tuple[Fault, ...]
    """The first of them, `MOST_NAMED` at most."""
    fault_count: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is broken."""
        return self.fault_count == 0


def verify(place: Place, *, bar: Bar | None = None, threads: int | None = None) -> Verification:
    """Compare every part with its checksum, and decode every image.

    Args:
        place: a data set's directory, or its address.
        bar: shows how far it is; nothing does if left out.
        threads: how many decode; as many as there are cores, 16 at most, if left out.

    Raises:
        InputError: if there is no data set, its dataset.json cannot be used, or it cannot be reached.
    """
    location = Location.parse(place)
    info, sizes = read_manifest(location)
    shown = bar or _no_bar
    work = _Work(location, info, threads or min(os.cpu_count() or 1, MOST_THREADS))
    total = sum(part.bytes for part in info.parts)
    with shown("comparing checksums", -(-total // 2**20), "MiB") as move:
        work.check_parts(sizes, move)
    with shown("decoding", info.counts.backgrounds + len(OF_SAMPLE) * info.counts.samples, "images") as move:
        work.check_pictures(move)
    return Verification(
        samples=info.counts.samples,
        backgrounds=info.counts.backgrounds,
        bytes=total,
        pictures=work.pictures,
        faults=tuple(work.faults),
        fault_count=work.fault_count,
    )


class _Work:
    """What was found so far."""

    def __init__(self, directory: Location, info: DatasetInfo, threads: int) -> None:
        self.faults: list[Fault] = []
        self.fault_count = 0
        self.pictures = 0
        self._directory = directory
        self._info = info
        self._threads = threads
        self._there: list[Part] = []
        self._shapes: Shapes = {}

    def check_parts(self, sizes: dict[str, int], move: Callable[[int, str], None]) -> None:
        self._there = [part for part in self._info.parts if part.path in sizes]
        self._add(
            [Fault(part=part.path, reason="it is missing") for part in self._info.parts if part.path not in sizes]
        )
        checksums = ahead((partial(_checksum, self._directory / part.path) for part in self._there), self._threads)
        done = 0
        for part, checksum in zip(self._there, checksums, strict=True):
            if sizes[part.path] != part.bytes:
                self._add([Fault(part=part.path, reason=f"it has {sizes[part.path]} bytes, not {part.bytes}")])
            elif checksum != part.sha256:
                self._add([Fault(part=part.path, reason="its SHA-256 differs: it was altered since it was written")])
            move(-(-(done + part.bytes) // 2**20) - -(-done // 2**20), self._note())
            done += part.bytes
        for name in ("samples", "backgrounds"):
            rows, count = sum(part.rows for part in self._info.parts_of(name)), self._count(name)
            if rows != count:
                self._add([Fault(part=MANIFEST_NAME, reason=f"it counts {count} {name}, but its parts have {rows}")])

    def check_pictures(self, move: Callable[[int, str], None]) -> None:
        groups = list(self._groups("backgrounds"))
        for found in ahead((partial(check_backgrounds, group) for group in groups), self._threads):
            self._shapes |= found.shapes
            self._take(found, move)
        are_all = len(self._shapes) == self._info.counts.backgrounds
        groups = list(self._groups("samples"))
        calls = (partial(check_samples, group, self._shapes, are_all=are_all) for group in groups)
        for found in ahead(calls, self._threads):
            self._take(found, move)

    def _groups(self, kind: Literal["samples", "backgrounds"]) -> Iterator[RowGroup]:
        schema = SAMPLE_COLUMNS if kind == "samples" else BACKGROUND_COLUMNS
        for part in self._there:
            if part.kind == kind:
                try:
                    yield from row_groups(self._directory, [part], schema)
                except RefusedError:
                    raise
                except InputError as error:
                    self._add([Fault(part=part.path, reason=str(error))])

    def _take(self, found: Found, move: Callable[[int, str], None]) -> None:
        self.pictures += found.pictures
        self._add(found.faults)
        move(found.pictures, self._note())

    def _add(self, faults: list[Fault]) -> None:
        self.fault_count += len(faults)
        self.faults += faults[: MOST_NAMED - len(self.faults)]

    def _count(self, name: str) -> int:
        counts = self._info.counts
        return counts.samples if name == "samples" else counts.backgrounds

    def _note(self) -> str:
        return f"{self.fault_count} broken" if self.fault_count else ""


def _checksum(path: Location) -> str | None:
    """SHA-256 of a part; None if it cannot be read."""
    try:
        return sha256(path)
    except RefusedError:
        raise
    except InputError:
        return None


@contextlib.contextmanager
def _no_bar(title: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:  # noqa: ARG001 - a bar's
    yield lambda steps, note: None  # noqa: ARG005
