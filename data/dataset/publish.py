"""Publish a data set atomically: it appears at its destination only when it is complete.

A local data set is written beside its destination and renamed. Remote stores cannot rename: the parts are written in
place, and `dataset.json`, without which they are not a data set, is written last.
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
    from pathlib import Path

    from data.dataset.storage import AnyPath


@dataclass(frozen=True)
class PendingDataset:
    """A data set that is being written."""

    directory: Location
    """Directory for the parts."""
    mark: str
    """Suffix that the names of the parts must have; see `PartsWriter`."""
    destination: Location

    def publish(self, manifest: str) -> None:
        """Write `dataset.json`, and move the data set to its destination; call after all parts are written.

        Raises:
            InputError: if the destination has appeared in the meantime, or cannot be written.
        """
        refuse_existing(self.destination)
        with writing_to(self.destination):
            path, final = self.directory.local, self.destination.local
            if path is None or final is None:
                _write_last(self.directory / MANIFEST_NAME, manifest)
            else:
                replace_file(path / MANIFEST_NAME, manifest)
                rename_to(path, final)


def rename_to(path: Path, destination: Path) -> None:
    """Rename a whole data set to its destination.

    Raises:
        InputError: if the destination has appeared in the meantime.
        OSError: if the file system refuses for another reason.
    """
    try:
        path.rename(destination)
    except OSError:
        refuse_existing(destination)
        raise


def refuse_existing(path: AnyPath) -> None:
    """Refuse a destination where no data set can be created.

    Args:
        path: a directory or an address.

    Raises:
        InputError: if it exists, its parent is not writable, or it cannot be reached.
    """
    destination = Location.parse(path)
    if destination.local is None:
        with writing_to(destination):
            if (destination / MANIFEST_NAME).is_file():
                raise InputError(
                    f"The destination '{destination}' has a data set already; remove it, or give another destination."
                )
        return
    if os.path.lexists(destination.local):
        raise InputError(f"The destination '{destination}' exists already; remove it, or give another destination.")
    if error := unwritable(destination.local):
        raise InputError(
            f"The data set cannot be written to '{error.filename}' ({error.strerror}); give another destination."
        )


@contextlib.contextmanager
def pending_dataset(destination: Location) -> Iterator[PendingDataset]:
    """Yield a data set to write and publish at `destination`; if that fails, everything written is removed.

    Raises:
        InputError: if the destination exists or cannot be written.
    """
    refuse_existing(destination)
    if destination.local is None:
        # The mark separates the parts from those of other or killed writers.
        mark = secrets.token_hex(4)
        try:
            yield PendingDataset(destination, mark, destination)
        except BaseException:
            with contextlib.suppress(OSError, InputError):
                _remove_parts(destination, mark)
            raise
        return
    with contextlib.ExitStack() as stack:
        with writing_to(destination):
            path = stack.enter_context(partial_directory(destination.local))
        yield PendingDataset(Location.parse(path), "", destination)


def _remove_parts(directory: Location, mark: str) -> None:
    """Remove the parts of one writer, and the empty-directory marker that some stores leave."""
    filesystem = directory.filesystem()
    for name in directory.files():
        if name.endswith(f"-{mark}.parquet"):
            filesystem.delete_file((directory / name).path)
    everything = fs.FileSelector(directory.path, recursive=True, allow_not_found=True)
    if not filesystem.get_file_info(everything):
        filesystem.delete_dir(directory.path)


def _write_last(manifest: Location, text: str) -> None:
    """Write the manifest. If that fails, remove it: it must not remain without its parts."""
    try:
        with manifest.open_output() as file:
            file.write(text.encode())
    except BaseException:
        with contextlib.suppress(OSError):
            manifest.filesystem().delete_file(manifest.path)
        raise
