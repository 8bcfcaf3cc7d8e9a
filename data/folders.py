"""The files below a folder: symbolic links are followed, also to other disks, and what leads nowhere is named."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.errors import InputError


@dataclass(eq=False)
class Folder:
    """The files below a folder, hidden ones left out."""

    root: Path

    @property
    def archives(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def names(self) -> tuple[str, ...]:
        """All files' names, sorted."""
        return self._found[0]

    @property
    def gaps(self) -> dict[str, str]:
        """What cannot be looked into, by name: a sentence that says why."""
        return self._found[1]

    def read(self, name: str) -> bytes:
        """Bytes of a file."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise InputError(
                f"The file '{self.where(name)}' cannot be read ({error.strerror}); restore it, or make it readable."
            ) from error

    def where(self, name: str) -> str:
        """Path of the file."""
        return str(self.root / name)

    @cached_property
    def _found(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """A link to a directory that the link itself lies in is passed over: all that is in it is found already."""
        names: list[str] = []
        gaps: dict[str, str] = {}
        above = frozenset(map(_identity, (self.root.resolve(), *self.root.resolve().parents)))
        waiting = [("", above)]
        while waiting:
            folder, above = waiting.pop()
            try:
                entries = list(os.scandir(self.root / folder))
            except OSError as error:
                gaps[folder.rstrip("/")] = _unreadable(self.root / folder, error)
                continue
            for entry in entries:
                name = folder + entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink() and (reason := why_dead(Path(entry.path))):
                    gaps[name] = reason
                elif entry.is_file():
                    names.append(name)
                elif entry.is_dir() and (identity := _identity(Path(entry.path))) not in above:
                    waiting.append((f"{name}/", above | {identity}))
        if "" in gaps:
            raise InputError(gaps[""])
        return tuple(sorted(names)), gaps


def why_dead(path: Path) -> str | None:
    """Say what is wrong with a symbolic link that leads nowhere; None if it is none."""
    if not path.is_symlink():
        return None
    try:
        path.stat()
    except OSError as error:
        advice = "restore what it points to, or remove the link."
        if error.errno == errno.ELOOP:
            return f"The link '{path}' leads back to itself; correct or remove it."
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return f"The link '{path}' points to '{path.readlink()}', which does not exist; {advice}"
        return f"The link '{path}' points to '{path.readlink()}', which cannot be read ({error.strerror}); {advice}"
    return None


def _identity(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return status.st_dev, status.st_ino


def _unreadable(folder: Path, error: OSError) -> str:
    return f"The folder '{folder}' cannot be read ({error.strerror}); make it readable."
