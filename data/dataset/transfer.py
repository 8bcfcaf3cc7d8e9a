"""Whole files of a `Location`: read, written atomically, listed, removed, and downloaded with continuation."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyarrow import fs

from data.atomic import partial_name, replace_file
from data.dataset.storage import OBJECT_STORES, Location, UnavailableError, unavailable
from data.disk import disk_error
from data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK_BYTES = 4 * 2**20
MAX_SINGLE_BYTES = 8 * 2**20
"""Largest object that takes one request. pyarrow 26 completes a larger one even if one of its parts failed."""
ATTEMPTS = 4
"""Attempts to download a file; each continues the one before."""
FIRST_PAUSE_SECONDS = 0.5
"""Pause before the second attempt; each is twice the one before."""


@dataclass(frozen=True)
class Stored:
    """A file in a storage."""

    bytes: int
    modified: float
    """Seconds since the epoch; stores round it to a second."""


@contextlib.contextmanager
def reaching(location: Location) -> Iterator[None]:
    """Convert errors of a block that uses a remote location; those of a local one pass unchanged.

    Raises:
        UnavailableError: if the storage cannot be reached, denies access or refuses the request.
        FileNotFoundError: if the file does not exist.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise
    except OSError as error:
        if not location.scheme:
            raise
        reason = str(error).partition("\n")[0]
        raise unavailable(location, error) or UnavailableError(
            f"'{location}' cannot be used ({reason}); check the address and the network."
        ) from error


def read_whole(file: Location) -> bytes:
    """The content of a file.

    Raises:
        UnavailableError, FileNotFoundError: as `reaching`.
    """
    if file.local is not None:
        return file.local.read_bytes()
    with reaching(file), file.filesystem().open_input_stream(file.path) as opened:
        return bytes(opened.read())


def write_whole(file: Location, content: bytes) -> None:
    """Write or replace a file; readers see the old or the new content.

    Raises:
        DiskError: if a local disk is full or has another fault.
        UnavailableError, OSError: as `reaching`.
    """
    if file.local is not None:
        replace_file(file.local, content)
        return
    with reaching(file):
        filesystem = file.filesystem()
        if filesystem.type_name in OBJECT_STORES and len(content) <= MAX_SINGLE_BYTES:
            _put(file, content)
            return
        partial = file.parent / partial_name(file.name)
        try:
            _put(partial, content)
            filesystem.move(partial.path, file.path)
        except OSError:
            with contextlib.suppress(OSError):
                filesystem.delete_file(partial.path)
            raise


def stored(file: Location) -> Stored | None:
    """Size and time of a file; None if it does not exist.

    Raises:
        UnavailableError, OSError: as `reaching`.
    """
    with reaching(file):
        info = file.filesystem().get_file_info(file.path)
    return Stored(info.size, _modified(info)) if info.type == fs.FileType.File else None


def listing(directory: Location, *, recursive: bool = True) -> dict[str, Stored]:
    """All files in a directory by their path relative to it; empty if it does not exist.

    Raises:
        UnavailableError, OSError: as `reaching`.
    """
    return {name: found for name, found in _entries(directory, recursive=recursive).items() if found is not None}


def directories(parent: Location) -> list[str]:
    """Names of the directories in a directory, sorted; empty if it does not exist.

    Raises:
        UnavailableError, OSError: as `reaching`.
    """
    return sorted(name for name, found in _entries(parent, recursive=False).items() if found is None)


def is_inside(name: str) -> bool:
    """Whether a relative path cannot lead out of the directory that it is relative to."""
    return not {"", ".", ".."} & {*name.split("/")}


def remove_file(file: Location) -> None:
    """Remove a file; nothing happens if it does not exist.

    Raises:
        UnavailableError, OSError: as `reaching`.
    """
    if file.local is not None:
        file.local.unlink(missing_ok=True)
        return
    with reaching(file), contextlib.suppress(FileNotFoundError):
        file.filesystem().delete_file(file.path)


def remove_tree(directory: Location) -> None:
    """Remove a directory with its content; nothing happens if it does not exist.

    Raises:
        UnavailableError, OSError: as `reaching`.
    """
    if directory.local is not None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory.local)
        return
    with reaching(directory), contextlib.suppress(FileNotFoundError):
        directory.filesystem().delete_dir(directory.path)


def download(file: Location, path: Path) -> None:
    """Download a file to `path`, which appears when it is complete.

    A download that broke off is continued, also one of an earlier process, from `.NAME.part` beside `path`. Call with
    the lock of the directory held.

    Raises:
        UnavailableError: if the storage cannot be used, after `ATTEMPTS` attempts.
        FileNotFoundError: if the file does not exist.
        DiskError: if the local disk is full or has another fault.
        OSError: if `path` cannot be written for another reason.
    """
    part, pause = path.with_name(f".{path.name}.part"), FIRST_PAUSE_SECONDS
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            _continue(file, part)
            break
        except InputError:
            if attempt + 1 == ATTEMPTS:
                raise
        except OSError as error:
            raise disk_error(error, path) or error  # noqa: B904 - the same error, or its sentence
        time.sleep(pause)
        pause *= 2
    part.replace(path)


def _continue(file: Location, part: Path) -> None:
    """Append to `part` what it lacks of the file."""
    with reaching(file):
        remote = file.open_input()
    with remote, part.open("ab") as local:
        with reaching(file):
            size, done = int(remote.size()), local.tell()
        if done > size:  # of another file
            local.truncate(0)
            done = 0
        while done < size:
            with reaching(file):
                block = remote.read_at(min(BLOCK_BYTES, size - done), done)
                if not block:
                    raise OSError(f"it ended after {done} of {size} bytes")
            local.write(block)
            done += len(block)


def _put(file: Location, content: bytes) -> None:
    with file.open_output() as opened:
        opened.write(content)


def _entries(directory: Location, *, recursive: bool) -> dict[str, Stored | None]:
    """Files, and None for directories, by their path relative to `directory`."""
    found: dict[str, Stored | None] = {}
    with reaching(directory), contextlib.suppress(FileNotFoundError):
        selector = fs.FileSelector(directory.path, recursive=recursive, allow_not_found=True)
        prefix = f"{directory.path.rstrip('/')}/"
        for info in directory.filesystem().get_file_info(selector):
            name = info.path.removeprefix(prefix)
            if is_inside(name):  # an object may be called anything
                found[name] = Stored(info.size, _modified(info)) if info.is_file else None
    return found


def _modified(info: fs.FileInfo) -> float:
    return float((info.mtime_ns or 0) / 1e9)
