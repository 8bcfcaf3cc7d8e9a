"""The journal of a study: one record per line, appended under a lock.

An incomplete record at the end, from a full disk or a kill, is removed before the next record is appended. A damaged
record elsewhere is left out; `search.study.damage` decides on the records after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import get_lock_file

from data.atomic import replace_file
from data.disk import disk_error
from search.study.damage import Record, examine, parse
from trainable.metrics.names import MODE

SYNC_SECONDS = 1.0
"""Minimum time between two synchronisations with the disk.

Written data survives the end of the process; only a power failure loses what was written since.
"""


class Journal(JournalFileBackend):
    """Optuna's journal with fewer synchronisations and with recovery of damaged files.

    Optuna's own synchronises after every line, about forty per trial; each took 5 ms on an AMD EPYC with a virtual
    disk.

    Args:
        path: the file; created if it is missing.
        say: callback for a message about records that were left out or removed.
        mode: 'max' or 'min', for a study whose first record is damaged.
    """

    def __init__(self, path: Path, say: Callable[[str], None], mode: str = MODE) -> None:
        # This lock opens a file and makes no link, which not every file system supports.
        lock = JournalFileOpenLock(str(path))
        self._path = path
        self._say = say
        self._mode = mode
        self._synced = time.monotonic()
        self._checked = False
        self._offsets = [0]
        """Byte offset of each record that was read, and of the next one."""
        super().__init__(str(path), lock_obj=lock)

    def read_logs(self, log_number_from: int) -> Iterator[Record]:  # type: ignore[override]
        """The records from a number on, without an incomplete one at the end."""
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
        """Append all records or none, under the lock of the file.

        Raises:
            DiskError: if the disk is full or has another fault.
            OSError: for any other reason.
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
        """Write all of `lines`, or nothing."""
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

    def _intact(self, first: int) -> Iterator[Record]:
        """The usable records of a damaged file, from a number on."""
        damage = examine(self._path.read_bytes(), self._mode)
        if damage.lines:
            self._say(f"warning: the journal '{self._path}' is damaged: {damage}")
        yield from damage.records[first:]

    def _mend(self) -> None:
        """Remove an incomplete last record, or rewrite a damaged file and keep a copy of the damaged one."""
        if self._checked and self._ends_whole():
            return
        content = self._path.read_bytes()
        damage = examine(content, self._mode)
        if damage.lines:
            kept = _free_path(self._path.with_name(f"{self._path.name}.damaged"))
            replace_file(kept, content)
            replace_file(self._path, _as_lines(damage.records))
            self._offsets = [0]
            self._say(f"warning: the journal '{self._path}' was rewritten without them; the damaged file is '{kept}'")
        elif damage.torn:
            with self._path.open("r+b") as file:
                file.truncate(len(content) - len(damage.torn))
            self._say(
                f"warning: removed the incomplete last record of the journal '{self._path}': {len(damage.torn)} "
                f"bytes, {damage.torn[:60].decode(errors='replace')!r}"
            )
        self._checked = True

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _as_lines(records: Sequence[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records).encode()


def _free_path(wanted: Path) -> Path:
    paths = [wanted, *(wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 1000))]
    return next(path for path in paths if not path.exists())
