"""A source's files, wherever they are kept: a folder, a zip archive, or a folder that holds zip archives.

Nothing is extracted: an archive's index is read once, and its members where they lie.
"""

from __future__ import annotations

import lzma
import re
import stat
import struct
import weakref
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from zipfile import BadZipFile, ZipFile, ZipInfo, is_zipfile

from data.errors import InputError
from data.folders import Folder, broken_link_reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUFFIX = ".zip"
MOST_BYTES = 256 * 2**20
"""A member that claims to be larger is no image, but fills the memory."""
ENCRYPTED = 0x1
"""The bit of a member's flags that says so."""
RESOURCE_FORKS = "__MACOSX"
"""The folder in which macOS keeps its own files beside those that were archived."""
UNIX_MODE = 16
"""The first bit of a member's attributes that holds its mode, where Unix wrote it."""
DAMAGES = (BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, ValueError, RuntimeError)
"""What reading a damaged archive can raise."""


class Files(Protocol):
    """A source's files by name, wherever they are kept."""

    root: Path
    """The source, as the user gave it."""

    @property
    def archives(self) -> tuple[str, ...]:
        """The archives among what is read, relative to the source; empty if it is all folders."""

    @property
    def names(self) -> tuple[str, ...]:
        """All files' names, sorted, relative to the source, with '/' between folders."""

    @property
    def gaps(self) -> Mapping[str, str]:
        """What cannot be looked into, such as a link that leads nowhere, by name: a sentence that says why."""

    def read(self, name: str) -> bytes:
        """Bytes of a file; InputError if they cannot be read."""

    def where(self, name: str) -> str:
        """How to name the file to a user."""


def open_source(source: Path) -> Files:
    """The files of a folder, of a zip archive, or of a folder and the zip archives in it.

    Raises:
        InputError: if the source does not exist, is another file, or holds an archive that cannot be read.
    """
    if reason := broken_link_reason(source):
        raise InputError(reason)
    if not source.exists():
        raise InputError(
            f"The source '{source}' does not exist; give the folder or the zip archive of a published data set."
        )
    if source.is_dir():
        folder = Folder(source)
        archives = [name for name in folder.names if name.lower().endswith(SUFFIX)]
        return FolderWithArchives(folder, archives) if archives else folder
    if source.suffix.lower() == SUFFIX or is_zipfile(source):
        return Archive(source)
    raise InputError(
        f"The source '{source}' is a file, but must be a folder or a zip archive; extract it if it is another archive."
    )


@dataclass(eq=False)
class Archive:
    """The files of a zip archive, hidden ones left out; it stays open as long as this object lives.

    Of members with one name the last counts, as it would when extracted.
    """

    root: Path

    @property
    def archives(self) -> tuple[str, ...]:
        """Itself."""
        return (self.root.name,)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All files' names."""
        return tuple(sorted(self._members.keys() - self.gaps.keys()))

    @cached_property
    def gaps(self) -> dict[str, str]:
        """Symbolic links, which are not followed within an archive."""
        return {
            name: f"The member '{self.where(name)}' is a symbolic link, which is not followed within an archive; make "
            "the archive anew with what it points to, or extract it and give the folder."
            for name, member in self._members.items()
            if stat.S_ISLNK(member.external_attr >> UNIX_MODE)
        }

    def read(self, name: str) -> bytes:
        """Bytes of a member."""
        member = self._members[name]
        if member.flag_bits & ENCRYPTED:
            raise InputError(f"The file '{self.where(name)}' is encrypted; give an archive without a password.")
        if member.file_size > MOST_BYTES:
            raise InputError(
                f"The file '{self.where(name)}' claims {member.file_size:,} bytes, but an image must have at most "
                f"{MOST_BYTES:,}; replace it in the archive."
            )
        try:
            return self._zip.read(member)
        except NotImplementedError as error:
            raise InputError(
                f"The file '{self.where(name)}' is compressed in a way that is not known ({error}); make the archive "
                "anew with deflate, or extract it and give the folder."
            ) from error
        except DAMAGES as error:
            raise InputError(
                f"The file '{self.where(name)}' is damaged in its archive ({error}); get the archive anew."
            ) from error

    def where(self, name: str) -> str:
        """Path of the archive, and within it of the file."""
        return f"{self.root}/{name}"

    @cached_property
    def _members(self) -> dict[str, ZipInfo]:
        members: dict[str, ZipInfo] = {}
        for member in self._zip.infolist():
            name = member.filename.replace("\\", "/")  # as some programs on Windows write it
            if _is_outside(name):
                raise InputError(
                    f"The archive '{self.root}' has a member '{member.filename}', but a name in it must not be "
                    "absolute, nor have a drive letter or '..'; get the archive anew from where it can be trusted."
                )
            if name and not name.endswith("/") and not _is_hidden(name):
                members[name] = member
        return members

    @cached_property
    def _zip(self) -> ZipFile:
        try:
            archive = ZipFile(self.root)
        except PermissionError as error:
            raise InputError(
                f"The archive '{self.root}' cannot be read ({error.strerror}); make it readable."
            ) from error
        except DAMAGES as error:
            raise InputError(
                f"The archive '{self.root}' is damaged, or no zip archive ({error}); get it anew, or remove it."
            ) from error
        weakref.finalize(self, archive.close)
        return archive


class FolderWithArchives:
    """The files below a folder, and those of each zip archive in it, as if it were a folder of its name.

    A single folder that all of an archive's members lie in is left out of their names. An archive that was
    already extracted, to a folder of its name beside it, is passed over.
    """

    def __init__(self, folder: Folder, archives: Sequence[str]) -> None:
        self.root = folder.root
        self._folder = folder
        folders = {parent.as_posix() for name in folder.names for parent in Path(name).parents}
        self.archives = tuple(name for name in archives if name[: -len(SUFFIX)] not in folders)
        self._own = tuple(name for name in folder.names if name not in set(archives))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All files' names."""
        names = list(self._own)
        for mount, (archive, top) in self._mounts.items():
            names += [mount + name.removeprefix(top) for name in archive.names]
        return tuple(sorted(names))

    @cached_property
    def gaps(self) -> dict[str, str]:
        """Those of the folder, and of each archive."""
        gaps = dict(self._folder.gaps)
        for mount, (archive, top) in self._mounts.items():
            gaps |= {mount + name.removeprefix(top): reason for name, reason in archive.gaps.items()}
        return gaps

    def read(self, name: str) -> bytes:
        """Bytes of a file."""
        files, inner = self._find(name)
        return files.read(inner)

    def where(self, name: str) -> str:
        """Path of the file, or of its archive and within it of the file."""
        files, inner = self._find(name)
        return files.where(inner)

    @cached_property
    def _mounts(self) -> dict[str, tuple[Archive, str]]:
        """For the folder that an archive stands for, the archive and the single folder in it, or ''."""
        mounts = {}
        for name in self.archives:
            archive = Archive(self.root / name)
            mounts[name[: -len(SUFFIX)] + "/"] = archive, _top(archive.names)
        return mounts

    def _find(self, name: str) -> tuple[Files, str]:
        for mount, (archive, top) in self._mounts.items():
            if name.startswith(mount):
                return archive, top + name.removeprefix(mount)
        return self._folder, name


def _top(names: Sequence[str]) -> str:
    """The folder that all files lie in, with its '/', or ''."""
    tops = {name[: name.find("/") + 1] for name in names}
    return tops.pop() if len(tops) == 1 else ""


def _is_outside(name: str) -> bool:
    return name.startswith("/") or re.match(r"[A-Za-z]:", name) is not None or ".." in name.split("/")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == RESOURCE_FORKS for part in name.split("/"))
