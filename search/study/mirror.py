"""The mirror of a remote experiment: a directory on this machine, in which its files have the paths of local ones.

It lies in the cache, under storage/. Commands that read an experiment refresh it first; its driver changes it and
publishes what changed as whole objects. Checkpoints are fetched one by one, when they are needed.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from data.atomic import replace_file, replacing
from data.dataset.storage import Location
from data.dataset.transfer import (
    directories,
    download,
    listing,
    read_whole,
    remove_file,
    remove_tree,
    stored,
    write_whole,
)
from search.study.names import CONCURRENT_REQUESTS, FIXED_NAME, SPEC_NAME

JOURNAL_NAME, HEARTBEAT_NAME, LOCK_NAME = "study.journal", "heartbeat.json", ".lock"
REFRESHED = ("measured", "pictures")
"""Directories whose files are refreshed, beside those of the experiment's directory itself."""
PUBLISHED = (*REFRESHED, "best", "retrained")
"""Directories whose files are published."""
LOGS_NAME = "logs"
"""Directory of the trials' logs."""
EVENTS = "trials/*/events*"
"""Files of TensorBoard in an experiment."""
CURVES = (EVENTS, f"{LOGS_NAME}/*")
"""These and the logs of trials, which grow with each epoch; they are published less often."""
_BATCH = 64
"""Event files that are downloaded under one lock."""
_INDEX = ".mirror.json"
_ADDRESS = ".address"

_Stat = list[float]
"""Size in bytes, and time of the last change."""


def mirrored(directory: Path) -> Location | None:
    """The remote experiment that `directory` is a mirror of; None if it is no mirror."""
    address = directory / _ADDRESS
    return Location.parse(address.read_text(encoding="utf-8")) if address.is_file() else None


class Mirror:
    """The mirror of one remote experiment.

    Args:
        location: directory of the experiment in its storage.
    """

    def __init__(self, location: Location) -> None:
        from data.cache.remote import mirror_of  # imports numpy

        self.directory = mirror_of(location)
        self.changed = threading.Event()
        """Set to have changes published at once."""
        self._location = location
        self._is_fresh = False
        self._seen: set[str] = set()
        """Names of the files that were here, of which one that is missing was removed by this process."""
        self._changes = threading.RLock()  # of the index and the files that it describes

    def refreshed(self) -> Path:
        """The directory, after it was refreshed once.

        Raises:
            UnavailableError: if the storage cannot be used.
        """
        if not self._is_fresh:
            self.refresh()
        return self.directory

    def refresh(self, *, as_driver: bool = False) -> None:
        """Download what changed in the storage. Local changes that were not published yet are kept.

        Does nothing while a driver on this machine changes the mirror, unless this is the driver.

        Raises:
            InputError: if the storage cannot be used, or the cache cannot be written.
            DiskError: if the disk of the cache is full or has another fault.
        """
        from data.cache.cache import open_cache

        open_cache()
        with self._lock_of_readers():
            if as_driver:
                self._refresh((*REFRESHED, LOGS_NAME))  # a driver appends to the logs of trials that it resumes
            elif not self._is_driven():
                self._refresh(REFRESHED)
        self._is_fresh = True

    def refresh_curves(self) -> None:
        """Download the event files of TensorBoard that changed in the storage, unless a driver on this machine does.

        Raises:
            UnavailableError: if the storage cannot be used.
        """
        found = {
            f"trials/{name}": file
            for name, file in listing(self._location / "trials").items()
            if PurePosixPath("trials", name).match(EVENTS)
        }
        index = self._index()
        changed = [
            name for name, file in found.items() if name not in index or index[name][0] != [file.bytes, file.modified]
        ]
        for first in range(0, len(changed), _BATCH):
            names = changed[first : first + _BATCH]
            with self._lock_of_readers(), ThreadPoolExecutor(CONCURRENT_REQUESTS) as requests:
                if self._is_driven():
                    return
                list(requests.map(lambda name: self._download(name, self.directory / name), names))
                index = self._index()
                for name in names:
                    index[name] = ([found[name].bytes, found[name].modified], _stat(self.directory / name))
                self._write_index(index)

    def publish(self, *, curves: bool = True) -> None:
        """Upload what changed here since the last time, and remove what was removed. Only for the driver.

        Args:
            curves: whether to include the files of TensorBoard.

        Raises:
            UnavailableError: if the storage cannot be used; the next call continues.
        """
        with self._changes:
            index, files = self._index(), {self._name(path): path for path in self._local_files(curves=curves)}
            before = dict(index)
            try:
                for name in sorted(files, key=_publication_order):
                    self._publish(name, files[name], index)
                self._seen |= files.keys()
                for name in self._seen & index.keys():
                    if not (self.directory / name).exists():
                        remove_file(self._location / name)
                        del index[name]
            finally:
                if index != before:
                    self._write_index(index)

    def pull(self, *paths: Path) -> None:
        """Download files that another process wrote to the storage while this driver runs.

        Raises:
            UnavailableError: if the storage cannot be used.
            FileNotFoundError: if one does not exist.
        """
        with self._changes:
            index = self._index()
            for path in paths:
                name = self._name(path)
                file = stored(self._location / name)
                self._download(name, path)
                index[name] = ([file.bytes, file.modified] if file else [], _stat(path))
            self._write_index(index)

    def remove(self) -> None:
        """Remove the experiment from the storage, and its mirror.

        Raises:
            UnavailableError: if the storage cannot be used.
        """
        for name in directories(self._location):
            remove_tree(self._location / name)
        for name in listing(self._location, recursive=False).keys() - {SPEC_NAME, FIXED_NAME}:
            remove_file(self._location / name)
        remove_tree(self._location)  # last what makes it an experiment, so that a killed removal can be repeated
        shutil.rmtree(self.directory, ignore_errors=True)

    def _lock_of_readers(self) -> FileLock:
        """The lock of the processes that download into the mirror."""
        beside = self.directory.with_name(f".{self.directory.name}.mirror-lock")
        beside.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(beside)

    def _refresh(self, directories: Iterable[str]) -> None:
        found = {name: file for name, file in listing(self._location, recursive=False).items() if _is_refreshed(name)}
        if not {SPEC_NAME, FIXED_NAME} & found.keys():
            shutil.rmtree(self.directory, ignore_errors=True)  # it was removed, or there was never one
            return
        for directory in directories:
            found |= {f"{directory}/{name}": file for name, file in listing(self._location / directory).items()}
        self.directory.mkdir(parents=True, exist_ok=True)
        if not (self.directory / _ADDRESS).is_file():
            replace_file(self.directory / _ADDRESS, str(self._location))
        index = self._index()
        for name, file in found.items():
            remote: _Stat = [file.bytes, file.modified]
            path = self.directory / name
            if name not in index or index[name][0] != remote or not path.is_file():
                index[name] = (remote, self._take(name, path, index))
        for name in [name for name in index if _is_refreshed(name) and name not in found]:
            (self.directory / name).unlink(missing_ok=True)
            del index[name]
        self._write_index(index)

    def _take(self, name: str, path: Path, index: dict[str, tuple[_Stat, _Stat]]) -> _Stat:
        """Download a file, unless it only grows and the one here goes on: then the index is older than a request.

        Returns:
            The local file as the storage has it; nothing if it goes on, so that it is published.
        """
        grows = name == JOURNAL_NAME or path.suffix == ".log"
        is_published = not path.is_file() or (name in index and index[name][1] == _stat(path))
        if grows and not is_published and path.read_bytes().startswith(read_whole(self._location / name)):
            return []
        self._download(name, path)
        return _stat(path)

    def _download(self, name: str, path: Path) -> None:
        path.with_name(f".{path.name}.part").unlink(missing_ok=True)  # may be of an older object
        download(self._location / name, path)

    def _publish(self, name: str, path: Path, index: dict[str, tuple[_Stat, _Stat]]) -> None:
        try:
            here, known = _stat(path), index.get(name)
            if known is not None and known[1] == here:
                return
            content = path.read_bytes()
        except FileNotFoundError:  # replaced or removed a moment ago
            return
        if name == JOURNAL_NAME:
            content = content[: content.rfind(b"\n") + 1]  # the driver may be writing a line
        write_whole(self._location / name, content)
        there = stored(self._location / name)
        index[name] = ([there.bytes, there.modified] if there else [], here)

    def _is_driven(self) -> bool:
        """Whether another process, or this one, runs the experiment on this machine."""
        lock = self.directory / LOCK_NAME
        if not lock.exists():
            return False
        try:
            FileLock(lock).acquire(blocking=False).lock.release()
        except Timeout:
            return True
        return False

    def _local_files(self, *, curves: bool) -> Iterable[Path]:
        yield from (path for path in self.directory.glob("*") if path.is_file() and _is_refreshed(path.name))
        for directory in PUBLISHED:
            yield from (path for path in (self.directory / directory).glob("*") if _is_whole(path))
        if curves:
            for pattern in CURVES:
                yield from self.directory.glob(pattern)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.directory).as_posix()

    def _index(self) -> dict[str, tuple[_Stat, _Stat]]:
        """By name: the remote file as it was last downloaded or published, and the local file at that time."""
        try:
            known = json.loads((self.directory / _INDEX).read_text(encoding="utf-8"))
            return {str(name): (list(remote), list(local)) for name, (remote, local) in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write_index(self, index: dict[str, tuple[_Stat, _Stat]]) -> None:
        if self.directory.is_dir():
            with replacing(self.directory / _INDEX, durable=False) as partial:
                partial.write_text(json.dumps(index), encoding="utf-8")


def _is_refreshed(name: str) -> bool:
    """Whether a file of the experiment's directory is refreshed and published."""
    directory, _, file = name.rpartition("/")
    is_hidden = file.startswith(".") or file.endswith(".lock")
    return not is_hidden and (directory in REFRESHED or (not directory and file != HEARTBEAT_NAME))


def _is_whole(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _publication_order(name: str) -> tuple[bool, bool, bool, str]:
    """The journal first, a summary after what it names, and checksums after the files of their checkpoint."""
    return name != JOURNAL_NAME, "/" not in name, name.endswith("checksums.json"), name


def _stat(path: Path) -> _Stat:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
