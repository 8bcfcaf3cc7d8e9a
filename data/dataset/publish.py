"""A data set appears at its destination only when it is whole, whatever kind of place that is.

On this machine it is written beside its destination and renamed. Elsewhere nothing can be renamed: its parts are
written where they stay, and dataset.json, without which they are no data set, is written last.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyarrow import fs

from data.atomic import replace_file
from data.dataset.manifest import MANIFEST_NAME
from data.dataset.partial import partial_directory, unwritable
from data.dataset.parts import writing_to
from data.dataset.storage import Location
from data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data.dataset.storage import Place


@dataclass(frozen=True)
class Building:
    """A data set that is being written."""

    directory: Location
    """Where its parts go."""
    mark: str
    """What must be in their names."""
    destination: Location

    def publish(self, manifest: str) -> None:
        """Make it appear; all of its parts are written.

        Raises:
            InputError: if something appeared at the destination before, or it cannot be written.
        """
        refuse_existing(self.destination)
        with writing_to(self.destination):
            path, final = self.directory.local, self.destination.local
            if path is None or final is None:
                _write_last(self.directory / MANIFEST_NAME, manifest)
            else:
                replace_file(path / MANIFEST_NAME, manifest)
                path.rename(final)


def refuse_existing(place: Place) -> None:
    """Refuse a place where a data set cannot appear, before the work begins that makes it.

    Args:
        place: a directory, or the address of one elsewhere.

    Raises:
        InputError: if there is something already, its parent cannot be written to, or it cannot be reached.
    """
    destination = Location.parse(place)
    if destination.local is None:
        with writing_to(destination):
            if (destination / MANIFEST_NAME).is_file():
                raise InputError(
                    f"The destination '{destination}' has a data set already; remove it, or give another one."
                )
        return
    if os.path.lexists(destination.local):
        raise InputError(f"The destination '{destination}' exists already; remove it, or give another one.")
    if error := unwritable(destination.local):
        raise InputError(
            f"The data set cannot be written to '{error.filename}' ({error.strerror}); give another destination."
        )


@contextlib.contextmanager
def building(destination: Location) -> Iterator[Building]:
    """Where to write a data set that is to appear at `destination`; nothing is left of it if that fails.

    Raises:
        InputError: if there is something already, or it cannot be written.
    """
    refuse_existing(destination)
    if destination.local is None:
        # No other writer's parts have its names, nor those of one that was killed.
        mark = secrets.token_hex(4)
        try:
            yield Building(destination, mark, destination)
        except BaseException:
            with contextlib.suppress(OSError, InputError):
                _remove_parts(destination, mark)
            raise
        return
    with contextlib.ExitStack() as stack:
        with writing_to(destination):
            path = stack.enter_context(partial_directory(destination.local))
        yield Building(Location.parse(path), "", destination)


def _remove_parts(directory: Location, mark: str) -> None:
    """Remove what one writer wrote, and the mark of an empty directory that some stores leave then."""
    filesystem = directory.filesystem()
    for name in directory.files():
        if name.endswith(f"-{mark}.parquet"):
            filesystem.delete_file((directory / name).path)
    everything = fs.FileSelector(directory.path, recursive=True, allow_not_found=True)
    if not filesystem.get_file_info(everything):
        filesystem.delete_dir(directory.path)


def _write_last(manifest: Location, text: str) -> None:
    """A manifest that was interrupted may be there: without its parts, it must not stay."""
    try:
        with manifest.open_output() as file:
            file.write(text.encode())
    except BaseException:
        with contextlib.suppress(OSError):
            manifest.filesystem().delete_file(manifest.path)
        raise
