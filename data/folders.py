"""List the files below a folder. Symbolic links are followed; broken links are reported."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.errors import InputError

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors that say that there is no file."""


@dataclass(eq=False)
class Folder:
    """The files below a folder, without hidden ones."""

    root: Path

    @property
    def archives(self) -> tuple[str, ...]:
        """Always empty."""
        return ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files, sorted."""
        return self._found[0]

    @property
    def gaps(self) -> dict[str, str]:
        """Unreadable folders and broken links: name to error message."""
        return self._found[1]

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            InputError: if it cannot be read.
        """
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
        """Names and gaps. A link to a folder that contains the link is skipped: its files are listed already."""
        names: list[str] = []
        gaps: dict[str, str] = {}
        pending = [("", _with_parents(self.root))]
        while pending:
            folder, ancestors = pending.pop()
            try:
                entries = list(os.scandir(self.root / folder))
            except OSError as error:
                gaps[folder.rstrip("/")] = _unreadable(self.root / folder, error)
                continue
            for entry in entries:
                name = folder + entry.name
                if entry.name.startswith("."):
                    continue
                try:
                    if entry.is_symlink() and (reason := broken_link_reason(Path(entry.path))):
                        gaps[name] = reason
                    elif entry.is_file():
                        names.append(name)
                    elif entry.is_dir() and (identity := _identity(Path(entry.path))) not in ancestors:
                        pending.append((f"{name}/", ancestors | {identity}))
                except OSError as error:  # such as a folder of a folder that may be listed, but not entered
                    gaps[name] = _unreadable(Path(entry.path), error)
        if "" in gaps:
            raise InputError(gaps[""])
        return tuple(sorted(names)), gaps


def examine(path: Path) -> os.stat_result | None:
    """The status of a file or directory; None if there is none of this path.

    Raises:
        InputError: if that cannot be found out, such as in a directory of another user, or of a name that is too long.
    """
    try:
        return path.stat()
    except ValueError:  # a name with a zero byte
        return None
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise InputError(
            f"The path '{path}' cannot be examined ({error.strerror}); correct it, or make its folder accessible."
        ) from None


def is_directory(path: Path) -> bool:
    """Whether there is a directory of this path.

    Raises:
        InputError: as `examine`.
    """
    status = examine(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def is_file(path: Path) -> bool:
    """Whether there is a file of this path.

    Raises:
        InputError: as `examine`.
    """
    status = examine(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def from_here(path: Path) -> Path:
    """A path relative to the working directory, if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def refuse_other_encodings(names: Iterable[str]) -> None:
    """Refuse file names that are not UTF-8, such as from an old zip archive: the ids that are made of them must be.

    Raises:
        InputError: for the first such name.
    """
    for name in names:
        if escaped(name) != name:
            raise InputError(f"The file name '{escaped(name)}' is not UTF-8; rename the file, such as with convmv.")


def escaped(text: str) -> str:
    r"""The text, with escapes such as '\xfc' in place of bytes and characters that are not UTF-8."""
    try:
        encoded = text.encode("utf-8", "surrogateescape")  # the bytes of a file name, as the operating system has it
    except UnicodeEncodeError:
        encoded = text.encode("utf-8", "backslashreplace")
    return encoded.decode("utf-8", "backslashreplace")


def broken_link_reason(path: Path) -> str | None:
    """Error message for a broken symbolic link; None if `path` is not one, or cannot be examined."""
    try:
        if not path.is_symlink():
            return None
    except OSError:
        return None
    try:
        path.stat()
    except OSError as error:
        advice = "restore its target, or remove the link."
        if error.errno == errno.ELOOP:
            return f"The link '{path}' points to itself; correct or remove it."
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return f"The link '{path}' points to '{path.readlink()}', which does not exist; {advice}"
        return f"The link '{path}' points to '{path.readlink()}', which cannot be read ({error.strerror}); {advice}"
    return None


def _with_parents(root: Path) -> frozenset[tuple[int, int]]:
    """The identities of a folder and of those that contain it."""
    try:
        return frozenset(map(_identity, (root.resolve(), *root.resolve().parents)))
    except OSError as error:
        raise InputError(_unreadable(root, error)) from None


def _identity(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return status.st_dev, status.st_ino


def _unreadable(folder: Path, error: OSError) -> str:
    return f"The folder '{folder}' cannot be read ({error.strerror}); make it readable."
