"""The study's file: one record a line, appended under a lock; the disk is synchronised now and then.

A record that a full disk or a kill left incomplete at the end is cut before the next one is appended. A damaged record
further up is left out; see `search.damage` for what becomes of those after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import get_lock_file

from data.atomic import replace_file
from data.disk import disk_error
from search.study.damage import examine, parse

SYNC_SECONDS = 1.0
"""At least so long from one synchronisation with the disk to the next.

What a process wrote outlives it; only a machine that loses its power may lose what was written since.
"""


class Journal(JournalFileBackend):
    """Optuna's own, which waits for the disk after every line, of which a trial has some forty, and reads no damage.

    Each wait took 5 ms on an AMD EPYC with a virtual disk.

    Args:
        path: the file; made when it is missing.
        say: told in a sentence what was left out or cut.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        # The lock is a file that is opened, not linked: it works wherever the experiment may lie.
        lock = JournalFileOpenLock(str(path))
        self._path = path
        self._say = say
        self._synced = time.monotonic()
        self._checked = False
        self._offsets = [0]
        """The byte at which each record begins, as far as they were read."""
        super().__init__(str(path), lock_obj=lock)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The records from that number on; an incomplete one at the end is not there yet."""
        begin = min(log_number_from, len(self._offsets) - 1)
        with self._path.open("rb") as file:
            file.seek(self._offsets[begin])
            for number, line in enumerate(file, start=begin):
                if not line.endswith(b"\n"):
                    return
                record = parse(line)
                if record is None:
                    break
                if number + 1 == len(self._offsets):
                    self._offsets.append(self._offsets[-1] + len(line))
                if number >= log_number_from:
                    yield record
            else:
                return
        yield from self._intact(max(number, log_number_from))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records at the end, under the file's lock: all of them, or none.

        Raises:
            DiskError: if the file system is full or has another fault of its own.
            OSError: if it refuses for another reason.
        """
        lines = _as_lines(logs)
        try:
            with get_lock_file(self._lock):
                self._mend()
                with self._path.open("ab", buffering=0) as file:
                    self._write(file, lines)
        except OSError as error:
            raise disk_error(error, self._path) or error  # noqa: B904 - the same error, or its sentence

    def _write(self, file: FileIO, lines: bytes) -> None:
        """Write all of `lines`, or leave nothing of them."""
        end = file.tell()
        try:
            while lines:
                lines = lines[file.write(lines) :]
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(file.fileno())
                self._synced = time.monotonic()
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise

    def _intact(self, first: int) -> Iterator[dict[str, Any]]:
        """The records of a damaged file that can be used, from a number on."""
        damage = examine(self._path.read_bytes())
        if damage.lines:
            self._say(f"warning: the journal '{self._path}' is damaged: {damage}")
        yield from damage.records[first:]

    def _mend(self) -> None:
        """Cut an incomplete last record; write a file that is damaged further up anew, and keep the old one."""
        if self._checked and self._ends_whole():
            return
        content = self._path.read_bytes()
        damage = examine(content)
        if damage.lines:
            kept = _free_path(self._path.with_name(f"{self._path.name}.damaged"))
            replace_file(kept, content)
            replace_file(self._path, _as_lines(damage.records))
            self._offsets = [0]
            self._say(f"warning: the journal '{self._path}' is written anew without that; as it was, it is '{kept}'")
        elif damage.torn:
            with self._path.open("r+b") as file:
                file.truncate(len(content) - len(damage.torn))
            self._say(
                f"warning: the last record of the journal '{self._path}' is incomplete and was cut: {len(damage.torn)} "
                f"bytes, {damage.torn[:60].decode(errors='replace')!r}"
            )
        self._checked = True

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _as_lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records).encode()


def _free_path(wanted: Path) -> Path:
    paths = [wanted, *(wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 1000))]
    return next(path for path in paths if not path.exists())
