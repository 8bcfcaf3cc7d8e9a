"""Read the files of a source: a folder, a zip archive, or a folder with zip archives.

Archives are not extracted: the index is read once, and members are read in place.
"""

from __future__ import annotations

import re
import stat
import struct
import weakref
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo, is_zipfile

from data.errors import InputError
from data.folders import Folder, broken_link_reason, examine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUFFIX = ".zip"
MAX_MEMBER_BYTES = 256 * 2**20
"""Limit for the unpacked size of a member: a larger one is not an image and could exhaust the memory."""
METHODS = (ZIP_STORED, ZIP_DEFLATED)
"""Compression methods of members: zipfile unpacks bzip2 and LZMA without a limit."""
ENCRYPTED = 0x1
"""Flag bit of an encrypted member."""
RESOURCE_FORKS = "__MACOSX"
"""Folder of metadata files that macOS adds to archives."""
UNIX_MODE_SHIFT = 16
"""Position of the Unix file mode in a member's attributes."""
DAMAGE_ERRORS = (BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError)
"""Errors of a damaged archive."""


class Files(Protocol):
    """The files of a source, by name."""

    @property
    def archives(self) -> tuple[str, ...]:
        """Archives that are read, relative to the source."""

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            InputError: if it cannot be read.
        """

    def where(self, name: str) -> str:
        """Name of the file for messages."""


class ListedFiles(Files, Protocol):
    """The files of a source whose names say what they are."""

    root: Path
    """The source, as the user gave it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files, sorted, relative to the source, with '/' between folders."""

    @property
    def gaps(self) -> Mapping[str, str]:
        """Unreadable entries, such as broken links: name to error message."""


def open_source(source: Path) -> ListedFiles:
    """Open a folder, a zip archive, or a folder with zip archives.

    Raises:
        InputError: if the source does not exist, cannot be examined or is another kind of file, or if an archive in it
            is unreadable.
    """
    if reason := broken_link_reason(source):
        raise InputError(reason)
    if examine(source) is None:
        raise InputError(
            f"The source '{source}' does not exist; give a folder, a zip archive or a table (.csv, .jsonl, .parquet)."
        )
    if source.is_dir():
        folder = Folder(source)
        archives = [name for name in folder.names if name.lower().endswith(SUFFIX)]
        return FolderWithArchives(folder, archives) if archives else folder
    if source.suffix.lower() == SUFFIX or is_zipfile(source):
        return Archive(source)
    raise InputError(
        f"The source '{source}' is a file, but must be a folder or a zip archive, or a table (.csv, "
        ".jsonl, .parquet); extract it if it is another archive."
    )


@dataclass(eq=False)
class Archive:
    """The files of a zip archive, without hidden ones. The archive stays open while this object exists.

    If several members have the same name, the last one counts, as in extraction.
    """

    root: Path

    @property
    def archives(self) -> tuple[str, ...]:
        """The archive itself."""
        return (self.root.name,)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all files, sorted."""
        return tuple(sorted(self._members.keys() - self.gaps.keys()))

    @cached_property
    def gaps(self) -> dict[str, str]:
        """Symbolic links, which are not followed within an archive."""
        return {
            name: f"The member '{self.where(name)}' is a symbolic link, which is not followed within an archive; "
            "create the archive with the link's target, or extract it and give the folder."
            for name, member in self._members.items()
            if stat.S_ISLNK(member.external_attr >> UNIX_MODE_SHIFT)
        }

    def read(self, name: str) -> bytes:
        """Read a member."""
        member = self._members[name]
        if member.flag_bits & ENCRYPTED:
            raise InputError(f"The file '{self.where(name)}' is encrypted; give an archive without a password.")
        if member.file_size > MAX_MEMBER_BYTES:
            raise InputError(
                f"The file '{self.where(name)}' has {member.file_size:,} bytes, but an image must have at most "
                f"{MAX_MEMBER_BYTES:,}; replace it in the archive."
            )
        if member.compress_type not in METHODS:
            raise InputError(
                f"The file '{self.where(name)}' has an unsupported compression (method {member.compress_type}); create "
                "the archive with deflate, or extract it and give the folder."
            )
        try:
            # Not ZipFile.read, which unpacks all there is before it compares the size with that of the index.
            with self._zip.open(member) as file:
                return file.read(member.file_size + 1)  # reading 0 bytes would not compare the checksum
        except DAMAGE_ERRORS as error:
            raise InputError(
                f"The file '{self.where(name)}' is damaged in its archive ({error}); download the archive again."
            ) from error

    def where(self, name: str) -> str:
        """Path of the archive, followed by the name in it."""
        return f"{self.root}/{name}"

    @cached_property
    def _members(self) -> dict[str, ZipInfo]:
        members: dict[str, ZipInfo] = {}
        for member in self._zip.infolist():
            parts = member.filename.replace("\\", "/").split("/")  # backslashes: some programs on Windows
            name = "/".join(part for part in parts if part != ".")  # './bg/a.jpg': bsdtar
            if _is_outside(name):
                raise InputError(
                    f"The archive '{self.root}' has a member '{member.filename}', but member names must not be "
                    "absolute, have a drive letter, or contain '..'; download the archive from a trusted source."
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
        except DAMAGE_ERRORS as error:
            raise InputError(
                f"The archive '{self.root}' is damaged or not a zip archive ({error}); download it again, or remove it."
            ) from error
        weakref.finalize(self, archive.close)
        return archive


class FolderWithArchives:
    """The files below a folder; each zip archive in it appears as a folder of the same name.

    If all members of an archive are in one top folder, that folder is omitted from their names. An archive is skipped
    if a folder of its name exists beside it: it has been extracted.
    """

    def __init__(self, folder: Folder, archives: Sequence[str]) -> None:
        self.root = folder.root
        self._folder = folder
        folders = {parent.as_posix() for name in folder.names for parent in Path(name).parents}
        self.archives = tuple(name for name in archives if name[: -len(SUFFIX)] not in folders)
        self._plain_files = tuple(name for name in folder.names if name not in set(archives))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all files, sorted."""
        names = list(self._plain_files)
        for mount, (archive, top) in self._mounts.items():
            names += [mount + name.removeprefix(top) for name in archive.names]
        return tuple(sorted(names))

    @cached_property
    def gaps(self) -> dict[str, str]:
        """Gaps of the folder and of each archive."""
        gaps = dict(self._folder.gaps)
        for mount, (archive, top) in self._mounts.items():
            gaps |= {mount + name.removeprefix(top): reason for name, reason in archive.gaps.items()}
        return gaps

    def read(self, name: str) -> bytes:
        """Read a file."""
        files, inner = self._find(name)
        return files.read(inner)

    def where(self, name: str) -> str:
        """Path of the file, or of its archive followed by the name in it."""
        files, inner = self._find(name)
        return files.where(inner)

    @cached_property
    def _mounts(self) -> dict[str, tuple[Archive, str]]:
        """By folder name: the archive, and its top folder or ''."""
        mounts = {}
        for name in self.archives:
            archive = Archive(self.root / name)
            mounts[name[: -len(SUFFIX)] + "/"] = archive, top_folder(archive.names)
        return mounts

    def _find(self, name: str) -> tuple[Archive | Folder, str]:
        for mount, (archive, top) in self._mounts.items():
            if name.startswith(mount):
                return archive, top + name.removeprefix(mount)
        return self._folder, name


def top_folder(names: Sequence[str]) -> str:
    """The folder that contains all files, with a trailing '/', or ''."""
    tops = {name[: name.find("/") + 1] for name in names}
    return tops.pop() if len(tops) == 1 else ""


def _is_outside(name: str) -> bool:
    return name.startswith("/") or re.match(r"[A-Za-z]:", name) is not None or ".." in name.split("/")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == RESOURCE_FORKS for part in name.split("/"))
