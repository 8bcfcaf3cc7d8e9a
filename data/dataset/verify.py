"""Verify a data set: compare every part with its checksum, decode every image, and list the faults.

Parts are read by row group in several threads. Memory and the list of faults do not grow with the data set.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from data.composed.columns import RECIPE_SCHEMAS
from data.dataset.dataset import read_manifest
from data.dataset.manifest import MANIFEST_NAME
from data.dataset.parts import row_groups, sha256
from data.dataset.storage import AnyPath, Location, UnavailableError
from data.dataset.verify_images import (
    SAMPLE_IMAGES,
    Fault,
    check_backgrounds,
    check_placements,
    check_recipe_images,
    check_samples,
)
from data.errors import InputError
from data.parallel import ahead
from data.schema import BACKGROUND_COLUMNS, SAMPLE_COLUMNS, VALID_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from data.dataset.manifest import DatasetInfo, Part, PartKind
    from data.dataset.parts import RowGroup
    from data.dataset.verify_images import GroupResult, Shapes

    Bar = Callable[[str, int, str], AbstractContextManager[Callable[[int, str], None]]]
    """Progress bar: (title, total, unit) -> context with an advance function (steps, note)."""

MAX_FAULTS = 100
"""Limit for the faults in the result; all are counted."""
MAX_THREADS = 16
"""Each thread uses a row group of about 16 MiB."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Result of `verify`."""

    samples: int
    """From dataset.json, as are the next two."""
    backgrounds: int
    bytes: int
    """Of all parts."""
    pictures: int
    """Number of images that were decoded."""
    faults: tuple[Fault, ...]
    """The first `MAX_FAULTS` faults."""
    fault_count: int

    @property
    def is_whole(self) -> bool:
        """Whether there are no faults."""
        return self.fault_count == 0


def verify(path: AnyPath, *, bar: Bar | None = None, threads: int | None = None) -> Verification:
    """Compare every part with its checksum, and decode every image.

    Args:
        path: directory or address of a data set.
        bar: progress bar; none by default.
        threads: number of decoding threads; by default the number of cores, at most 16.

    Raises:
        InputError: if there is no data set, its dataset.json is not valid, or it cannot be reached.
    """
    location = Location.parse(path)
    info, sizes = read_manifest(location)
    bar = bar or (lambda *_: contextlib.nullcontext(lambda *_: None))
    verifier = _Verifier(location, info, threads or min(os.cpu_count() or 1, MAX_THREADS))
    total = sum(part.bytes for part in info.parts)
    with bar("comparing checksums", -(-total // 2**20), "MiB") as advance:
        verifier.check_parts(sizes, advance)
    with bar("decoding", verifier.images_to_decode(), "images") as advance:
        verifier.check_images(advance)
    return Verification(
        samples=info.counts.samples,
        backgrounds=info.counts.backgrounds,
        bytes=total,
        pictures=verifier.images,
        faults=tuple(verifier.faults),
        fault_count=verifier.fault_count,
    )


class _Verifier:
    """Checks a data set, and collects the faults."""

    def __init__(self, directory: Location, info: DatasetInfo, threads: int) -> None:
        self.faults: list[Fault] = []
        self.fault_count = 0
        self.images = 0
        self._directory = directory
        self._info = info
        self._threads = threads
        self._existing: list[Part] = []
        self._shapes: Shapes = {}

    def check_parts(self, sizes: dict[str, int], advance: Callable[[int, str], None]) -> None:
        self._existing = [part for part in self._info.parts if part.path in sizes]
        self._add(
            [Fault(part=part.path, reason="it is missing") for part in self._info.parts if part.path not in sizes]
        )
        checksums = ahead((partial(_checksum, self._directory / part.path) for part in self._existing), self._threads)
        done = 0
        for part, checksum in zip(self._existing, checksums, strict=True):
            if sizes[part.path] != part.bytes:
                self._add([Fault(part=part.path, reason=f"it has {sizes[part.path]} bytes, not {part.bytes}")])
            elif checksum != part.sha256:
                self._add([Fault(part=part.path, reason="its SHA-256 differs: it was altered since it was written")])
            advance(-(-(done + part.bytes) // 2**20) - -(-done // 2**20), self._note())
            done += part.bytes
        for kind, (name, count) in self._counts().items():
            rows = sum(part.rows for part in self._info.parts_of(kind))
            if rows != count:
                self._add([Fault(part=MANIFEST_NAME, reason=f"it counts {count} {name}, but its parts have {rows}")])

    def check_images(self, advance: Callable[[int, str], None]) -> None:
        groups = list(self._groups("backgrounds"))
        for result in ahead((partial(check_backgrounds, group) for group in groups), self._threads):
            self._shapes |= result.shapes
            self._collect(result, advance)
        if self._info.is_recipe:
            for result in ahead(self._recipe_checks(), self._threads):
                self._collect(result, advance)
            return
        is_complete = len(self._shapes) == self._info.counts.backgrounds
        groups = list(self._groups("samples"))
        calls = (partial(check_samples, group, self._shapes, is_complete=is_complete) for group in groups)
        for result in ahead(calls, self._threads):
            self._collect(result, advance)

    def _recipe_checks(self) -> Iterator[Callable[[], GroupResult]]:
        counts, size = self._info.counts, self._info.sizes[0].height
        for kind in ("depths", "cutouts"):
            for group in self._groups(kind):
                yield partial(check_recipe_images, group, RECIPE_SCHEMAS[kind], size)
        for group in self._groups("placements"):
            yield partial(check_placements, group, counts.backgrounds, counts.foregrounds, size)

    def _groups(self, kind: PartKind) -> Iterator[RowGroup]:
        schema = ({"samples": SAMPLE_COLUMNS, "backgrounds": BACKGROUND_COLUMNS} | RECIPE_SCHEMAS)[kind]
        optional = VALID_COLUMN if kind == "samples" else None
        for part in self._existing:
            if part.kind == kind:
                try:
                    yield from row_groups(self._directory, [part], schema, optional)
                except UnavailableError:
                    raise
                except InputError as error:
                    self._add([Fault(part=part.path, reason=str(error))])

    def _collect(self, result: GroupResult, advance: Callable[[int, str], None]) -> None:
        self.images += result.images
        self._add(result.faults)
        advance(result.images, self._note())

    def _add(self, faults: list[Fault]) -> None:
        self.fault_count += len(faults)
        self.faults += faults[: MAX_FAULTS - len(self.faults)]

    def _counts(self) -> dict[PartKind, tuple[str, int]]:
        """What the rows of each kind of part are, and how many there must be."""
        counts = self._info.counts
        backgrounds, foregrounds = ("backgrounds", counts.backgrounds), ("foregrounds", counts.foregrounds)
        if not self._info.is_recipe:
            return {"samples": ("samples", counts.samples), "backgrounds": backgrounds}
        placements = ("samples", counts.samples)
        return {"placements": placements, "backgrounds": backgrounds, "depths": backgrounds, "cutouts": foregrounds}

    def images_to_decode(self) -> int:
        """Number of images in the data set."""
        counts = self._info.counts
        if self._info.is_recipe:
            return 2 * counts.backgrounds + counts.foregrounds
        valid = self._info.statistics.valid_fraction
        return counts.backgrounds + len(SAMPLE_IMAGES) * counts.samples + (valid.masks if valid else 0)

    def _note(self) -> str:
        return f"{self.fault_count} broken" if self.fault_count else ""


def _checksum(path: Location) -> str | None:
    """SHA-256 of a part; None if it cannot be read."""
    try:
        return sha256(path)
    except UnavailableError:
        raise
    except InputError:
        return None
