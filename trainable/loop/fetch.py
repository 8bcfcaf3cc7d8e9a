"""Checkpoints of a remote storage on this machine: downloaded, continued after a break, and verified."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from data.dataset.storage import Location
from data.dataset.transfer import Stored, download, listing, write_whole
from data.errors import EnvironmentFaultError
from trainable.loop.checkpoint_files import CHECKSUMS, FILES, STATE, DamagedCheckpointError, checksums, is_intact

_CARD = "README.md"


def fetch(checkpoint: Location, directory: Path, *, state: bool = False) -> None:
    """Download what `directory` lacks of a checkpoint, and verify it.

    A broken download continues, also one of an earlier process. Files that are there already are only verified.

    Args:
        checkpoint: a directory of a remote storage.
        directory: the copy; created if it is missing.
        state: whether to include the state that a trial resumes from.

    Raises:
        EnvironmentFaultError: if the checkpoint does not exist.
        UnavailableError: if the storage cannot be used.
        DamagedCheckpointError: if a file is missing, truncated or altered. It names the file in the storage.
    """
    found = listing(checkpoint, recursive=False)
    if not found:
        raise EnvironmentFaultError(f"The checkpoint '{checkpoint}' does not exist; bring the storage back.")
    if CHECKSUMS not in found:
        raise DamagedCheckpointError(checkpoint / CHECKSUMS, "is missing, so the checkpoint is incomplete")
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_name(f".{directory.name}.lock")):
        _download_again(checkpoint, directory, CHECKSUMS)
        try:
            sums = checksums(directory)
        except DamagedCheckpointError as error:
            raise DamagedCheckpointError(checkpoint / CHECKSUMS, error.problem) from None
        for name in (*FILES, _CARD):
            if name == STATE and not state:
                continue
            if name in found:
                _fetch_file(checkpoint, directory, name, found[name], sums.get(name))
            elif name in sums:
                raise DamagedCheckpointError(checkpoint / name, "is missing")


def _fetch_file(checkpoint: Location, directory: Path, name: str, file: Stored, sha256: str | None) -> None:
    path = directory / name
    if path.is_file() and path.stat().st_size == file.bytes and is_intact(path, sha256):
        return
    download(checkpoint / name, path)
    if is_intact(path, sha256):
        return
    _download_again(checkpoint, directory, name)  # what was continued may have been of another file
    if not is_intact(path, sha256):
        raise DamagedCheckpointError(
            checkpoint / name, f"is truncated or altered: its SHA-256 is not that in {CHECKSUMS}"
        )


def _download_again(checkpoint: Location, directory: Path, name: str) -> None:
    (directory / f".{name}.part").unlink(missing_ok=True)
    download(checkpoint / name, directory / name)


def earlier_checkpoints(checkpoint: Location) -> list[Location]:
    """Earlier checkpoints of the same run that have a state, newest first. Ray numbers them.

    Raises:
        UnavailableError: if a remote storage cannot be used.
    """
    states = (Path(name) for name in listing(checkpoint.parent))
    names = {path.parent.name for path in states if path.name == STATE and len(path.parts) == 2}
    earlier = [name for name in names if name.startswith("checkpoint_") and name < checkpoint.name]
    return [checkpoint.parent / name for name in sorted(earlier, reverse=True)]


def intact_copies(checkpoints: Sequence[Location], directory: Path) -> tuple[list[Path], list[str]]:
    """The checkpoints on this machine; of remote ones, the first that is intact, and those after it are left out.

    Args:
        checkpoints: local ones, which are not verified, or remote ones.
        directory: for a copy with its state.

    Returns:
        The checkpoints, and the problem of each damaged one as a clause.

    Raises:
        EnvironmentFaultError: if a remote checkpoint does not exist, or its storage cannot be used.
    """
    copies, problems = list[Path](), list[str]()
    for number, checkpoint in enumerate(checkpoints):
        if checkpoint.local is not None:
            copies.append(checkpoint.local)
            continue
        copy = directory / str(number) / checkpoint.name
        try:
            fetch(checkpoint, copy, state=True)
        except DamagedCheckpointError as error:
            problems.append(f"the file '{error.file}' {error.problem}")
            continue
        return [*copies, copy], problems
    return copies, problems


@contextmanager
def local_copy(checkpoint: str) -> Iterator[Path]:
    """Yield a checkpoint as a directory of this machine; a copy is verified, and removed at the end.

    Args:
        checkpoint: a directory, or the address of one.

    Raises:
        InputError: as `fetch`.
    """
    location = Location.of_storage(checkpoint)
    if location.local is not None:
        yield location.local
        return
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / location.name
        fetch(location, copy)
        yield copy


@contextmanager
def output_file(file: str) -> Iterator[Path]:
    """Yield a path of this machine for a file to write; one with an address is uploaded at the end.

    Raises:
        UnavailableError: if the storage cannot be used.
    """
    location = Location.of_storage(file)
    if location.local is not None:
        location.local.parent.mkdir(parents=True, exist_ok=True)
        yield location.local
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / location.name
        yield path
        write_whole(location, path.read_bytes())
