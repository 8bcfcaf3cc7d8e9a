"""Files that appear whole or not at all: written under a temporary name in the same directory, then renamed.

replace_file(path, text)                 text or bytes
with replacing(path) as partial: ...     a file that the block creates at `partial`

Links are followed. Devices and pipes, which cannot be replaced, are written to directly.
Directories appear whole by `data/dataset/partial.py`.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from data.disk import disk_error

ABANDONED_SECONDS = 3600.0
"""A temporary file that nobody has written to for so long is of a killed writer, maybe on another host."""


def partial_name(name: str) -> str:
    """The hidden temporary name of this thread for a file."""
    writer = f"{socket.gethostname()} {threading.get_native_id()}"
    return f".{name}.partial-{hashlib.sha256(writer.encode()).hexdigest()[:8]}"


def partial_path(path: Path) -> Path:
    """The hidden temporary path of this thread for `path`, in the same directory."""
    return path.with_name(partial_name(path.name))


def is_device(path: Path) -> bool:
    """Whether a path exists and can be written to, but not replaced: a device, a pipe or a socket."""
    try:
        mode = path.stat().st_mode
    except OSError:  # such as a name that is too long
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path; the file that the block creates there then replaces `path`.

    If the block or the file system fails, the temporary path is removed and `path` is unchanged. Of a device or a pipe,
    `path` itself is yielded.

    Args:
        path: a file, which need not exist, or a link to one; missing parents are created.
        durable: whether to sync the content before the rename, so that a power loss leaves the old or the new content,
            and to remove what killed writers of the file left. Takes some milliseconds per file.

    Raises:
        DiskError: if the file system is full or has another fault.
        OSError: for any other reason, such as missing permissions.
    """
    target = Path(os.path.realpath(path))
    partial = partial_path(target)
    try:
        if is_device(path):
            yield path
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if durable:
            _remove_abandoned(target)
        yield partial
        if durable:
            sync_file(partial)
        partial.replace(target)
    except OSError as error:
        if error.filename == os.fspath(partial):
            error.filename = os.fspath(path)  # the user does not know the temporary name
        raise disk_error(error, path) or error  # noqa: B904 - the same error, or its user-facing form
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def replace_file(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write a file atomically, text as UTF-8; readers see the old or the new content.

    Args:
        path: the file; missing parents are created.
        content: the whole content.
        mode: permissions; by default those of the replaced file, or those of a new file.

    Raises:
        DiskError: if the file system is full or has another fault.
        OSError: for any other reason.
    """
    with replacing(path) as partial:
        if mode is None and path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
        if partial != path:
            partial.touch(mode=0o666 if mode is None else mode)  # before the content, which may be secret
            if mode is not None:
                partial.chmod(mode)  # the umask applies to touch
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def _remove_abandoned(path: Path) -> None:
    for partial in path.parent.glob(f".{glob.escape(path.name)}.partial-{'[0-9a-f]' * 8}"):
        with contextlib.suppress(OSError):  # such as a directory
            if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
                partial.unlink()


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as opened:
        os.fsync(opened.fileno())
