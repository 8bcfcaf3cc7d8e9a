"""The checkpoints of an experiment, by their paths relative to it, wherever its storage is.

Those of a local storage are directories. Those of a remote one are fetched when they are needed, verified, and kept in
the mirror. They are removed in the background, because each removal takes some requests.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from concurrent.futures._base import Future
from pathlib import Path, PurePosixPath

from data.dataset.storage import Location
from data.dataset.transfer import is_inside, listing, read_whole, remove_file, remove_tree
from data.errors import InputError
from trainable.loop.checkpoint_files import STATE
from trainable.loop.fetch import fetch

DIRECTORIES = ("trials", "groups", "retraining")
"""Directories of an experiment with checkpoints: of trials, of trials with several workers, of the retraining."""
SNAPSHOT_SECONDS = 10.0
"""Time for which a listing of a remote storage is used."""

_Files = dict[str, set[str]]
"""Names of files by the directory that holds them."""


class Checkpoints:
    """The checkpoints of one experiment.

    Args:
        location: directory of the experiment in its storage.
        root: the same directory, or its mirror.
    """

    def __init__(self, location: Location, root: Path) -> None:
        self._location = location
        self._root = root
        self._snapshot: _Files | None = None
        self._taken = 0.0
        self._background: ThreadPoolExecutor | None = None
        self._removals: list[Future[None]] = []

    def kept(self, checkpoints: Iterable[str], *, at_once: bool = False) -> set[str]:
        """Those of `checkpoints` that still exist.

        Args:
            checkpoints: paths relative to the experiment.
            at_once: whether their directories are listed now; otherwise the whole storage is, from time to time.

        Raises:
            UnavailableError: if a remote storage cannot be used.
        """
        wanted = set(filter(is_inside, checkpoints))  # a study may name anything
        if self._location.local is not None:
            return {path for path in wanted if (self._root / path).is_dir()}
        found: _Files = {} if at_once else self._bulk()
        for parent in {str(PurePosixPath(path).parent) for path in wanted} if at_once else ():
            found |= self._list(parent)
        return wanted & found.keys()

    def exists(self, checkpoint: Path) -> bool:
        """Whether a checkpoint exists, by its path below the experiment's directory; raises as `kept`."""
        if self._location.local is not None:
            return checkpoint.is_dir()
        return bool(listing(self._location / self._relative(checkpoint), recursive=False))

    def is_resumable(self, checkpoint: str) -> bool:
        """Whether a checkpoint has the state that a trial resumes from; raises as `kept`."""
        if not is_inside(checkpoint):
            return False
        if self._location.local is not None:
            return (self._root / checkpoint / STATE).is_file()
        return STATE in self._files(checkpoint, at_once=True)

    def resumable(self, directory: Path) -> list[Path]:
        """All checkpoints below a directory that have the state that a training resumes from; raises as `kept`."""
        if self._location.local is not None:
            return [state.parent for state in directory.rglob(STATE)]
        below = self._relative(directory)
        files = listing(self._location / below)
        return [directory / PurePosixPath(name).parent for name in files if PurePosixPath(name).name == STATE]

    def fetch(self, checkpoint: Path, *, state: bool = False) -> Path:
        """Make sure that a checkpoint is on this machine; that of a remote storage is verified.

        Args:
            checkpoint: its path below the experiment's directory.
            state: whether to include the state that a trial resumes from.

        Returns:
            `checkpoint`.

        Raises:
            InputError: if a remote storage cannot be used; the subclass DamagedCheckpointError if the checkpoint is
                incomplete or altered.
        """
        if self._location.local is None:
            fetch(self._location / self._relative(checkpoint), checkpoint, state=state)
        return checkpoint

    def read(self, file: str) -> bytes | None:
        """The content of a file of a checkpoint; None if it does not exist, or a remote storage cannot be used."""
        with contextlib.suppress(FileNotFoundError, InputError):
            return read_whole(self._location / file)
        return None

    def remove(self, checkpoint: str) -> None:
        """Remove a checkpoint; errors are ignored, because `keep_only` removes it again."""
        self._later(lambda: self._remove(checkpoint))

    def keep_only(self, checkpoint: str, directories: Iterable[PurePosixPath], *, at_once: bool = False) -> None:
        """Remove the other checkpoints of the same trial, and the state of this one; errors are ignored.

        Look at the directories, not at the reports: a worker group may be an epoch ahead when it is stopped, and so may
        a trial whose driver is killed.

        Args:
            checkpoint: path relative to the experiment.
            directories: of all attempts of the trial, relative to the experiment.
            at_once: as for `kept`.
        """
        parents = {PurePosixPath(checkpoint).parent, *directories}
        self._later(lambda: self._keep_only(checkpoint, parents, at_once=at_once))

    def remove_all(self, directory: Path) -> None:
        """Remove a directory with checkpoints.

        Raises:
            UnavailableError: if a remote storage cannot be used.
        """
        shutil.rmtree(directory, ignore_errors=True)
        if self._location.local is None:
            remove_tree(self._location / self._relative(directory))
            self.forget()

    def forget(self) -> None:
        """Forget what exists in a remote storage, because it changed."""
        self._snapshot = None

    def settle(self) -> None:
        """Wait until the removals are done."""
        removals, self._removals = self._removals, []
        wait(removals)

    def _keep_only(self, checkpoint: str, parents: Iterable[PurePosixPath], *, at_once: bool) -> None:
        for other in [path for parent in parents for path in self._below(parent, at_once=at_once)]:
            if other != checkpoint and PurePosixPath(other).name.startswith("checkpoint_"):
                self._remove(other)
        if self._location.local is not None:
            (self._root / checkpoint / STATE).unlink(missing_ok=True)
        elif STATE in self._files(checkpoint, at_once=at_once):
            remove_file(self._location / checkpoint / STATE)

    def _below(self, parent: PurePosixPath, *, at_once: bool) -> list[str]:
        """The checkpoints in the directory of an attempt."""
        if self._location.local is not None:
            return [str(parent / path.name) for path in (self._root / parent).glob("checkpoint_*") if path.is_dir()]
        found = self._list(str(parent)) if at_once else self._all()
        return [path for path in found if PurePosixPath(path).parent == parent]

    def _remove(self, checkpoint: str) -> None:
        shutil.rmtree(self._root / checkpoint, ignore_errors=True)
        if self._location.local is None:
            remove_tree(self._location / checkpoint)
            if self._snapshot is not None:
                self._snapshot.pop(checkpoint, None)

    def _later(self, work: Callable[[], None]) -> None:
        """Do the work, that on a remote storage in the background."""

        def ignoring_errors() -> None:
            with contextlib.suppress(OSError, InputError):
                work()

        if self._location.local is not None:
            ignoring_errors()
            return
        if self._background is None:
            self._background = ThreadPoolExecutor(1, "checkpoints")
        self._removals = [each for each in self._removals if not each.done()]
        self._removals.append(self._background.submit(ignoring_errors))

    def _files(self, checkpoint: str, *, at_once: bool) -> set[str]:
        """Names of the files of a checkpoint in a remote storage; empty if it does not exist."""
        found = self._list(checkpoint) if at_once else self._all()
        return found.get(checkpoint, set())

    def _bulk(self) -> _Files:
        """All checkpoints, after the removals that wait. Not for a removal itself, which would wait for its own end."""
        if self._is_stale():
            self.settle()
        return self._all()

    def _is_stale(self) -> bool:
        return self._snapshot is None or time.monotonic() - self._taken > SNAPSHOT_SECONDS

    def _all(self) -> _Files:
        if self._snapshot is None or self._is_stale():
            found: _Files = {}
            for directory in DIRECTORIES:
                found |= self._list(directory)
            self._snapshot, self._taken = found, time.monotonic()
        return self._snapshot

    def _list(self, directory: str) -> _Files:
        found: _Files = {}
        for name in listing(self._location / directory):
            path = PurePosixPath(directory) / name
            found.setdefault(str(path.parent), set()).add(path.name)
        return found

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()
