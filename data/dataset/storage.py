"""Where a data set lies: a directory of this machine, or an address that pyarrow's filesystems open.

s3://bucket/prefix?region=eu-central-1                      credentials are those of the environment
s3://bucket/prefix?endpoint_override=http://server:9000     a server of one's own
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

Place = str | os.PathLike[str]
"""A path, a `Location`, or an address as text."""

SEPARATOR = "://"
CONNECT_SECONDS = 5
ANSWER_SECONDS = 10
"""How long a server may take to accept, and then be silent; three attempts are made."""
GIVE_UP = "retry_limit_seconds"
"""Google's option of that kind, a quarter of an hour by itself."""
S3_OPTIONS = ("endpoint_override", "region", "scheme")
NO_DIRECTORIES = ("s3", "gcs", "abfs")
"""Filesystems where a directory is but the start of a name."""
DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "INVALID_CLIENT_TOKEN", "SIGNATURE_DOES_NOT_MATCH", "status 403")


class RefusedError(InputError):
    """A place elsewhere cannot be used now, whatever lies there."""


@dataclass(frozen=True)
class Location:
    """A directory or a file, on this machine or elsewhere; nothing is opened before it is asked for."""

    path: str
    """As the filesystem has it: of S3, bucket/prefix."""
    scheme: str = ""
    """Empty on this machine."""
    query: str = ""
    """Options of the address, after its '?'."""

    @classmethod
    def parse(cls, place: Place) -> Location:
        """What a user gave: a path, file:///path, or an address such as s3://bucket/prefix.

        Raises:
            InputError: if it is an address that cannot be used, or a path that the locale and Arrow read unlike.
        """
        if isinstance(place, Location):
            return place
        text = os.fspath(place)
        if SEPARATOR not in text:
            check_path(text)
            return cls(os.fspath(Path(text)))
        parts = urlsplit(text)
        if "@" in parts.netloc:
            raise InputError(
                f"The address '{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}' holds credentials, "
                "which would be written into reports; give them in the environment, such as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY."
            )
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            return cls(unquote(parts.path))
        path = f"{parts.netloc}{parts.path}".rstrip("/")
        if not parts.netloc or not parts.path.strip("/") or "//" in path or parts.fragment:
            raise InputError(
                f"The address '{text}' names no place for a data set; write it as s3://bucket/prefix, or give the path "
                "of a directory."
            )
        return cls(path, parts.scheme, parts.query)

    def __str__(self) -> str:
        if not self.scheme:
            return self.path
        return f"{self.scheme}{SEPARATOR}{self.path}{'?' if self.query else ''}{self.query}"

    def __fspath__(self) -> str:
        if self.scheme:
            raise TypeError(f"'{self}' is not on this machine.")
        return self.path

    def __truediv__(self, name: str) -> Location:
        return replace(self, path=f"{self.path.rstrip('/')}/{name}" if self.path != "." else name)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return Path(self.path).absolute().name

    @property
    def local(self) -> Path | None:
        """Its path, if it is on this machine."""
        return None if self.scheme else Path(self.path)

    @property
    def parent(self) -> Location:
        """The directory that it is in."""
        return replace(self, path=os.fspath(Path(self.path).parent))

    def absolute(self) -> Location:
        """The same for a process in another directory."""
        return self if self.scheme else replace(self, path=os.fspath(Path(self.path).absolute()))

    def files(self) -> dict[str, int]:
        """Names and bytes of the files in this directory.

        Raises:
            OSError: if there is no such directory, or the filesystem refuses.
        """
        found = self.filesystem().get_file_info(fs.FileSelector(self.path))
        return {info.base_name: info.size for info in found if info.type == fs.FileType.File}

    def is_file(self) -> bool:
        """Whether there is a file.

        Raises:
            OSError: if the filesystem refuses.
        """
        return bool(self.filesystem().get_file_info(self.path).type == fs.FileType.File)

    def open_input(self) -> pa.NativeFile:
        """Open a file to read anywhere in it.

        Raises:
            OSError: if there is none, or the filesystem refuses.
        """
        return self.filesystem().open_input_file(self.path)

    def open_output(self) -> pa.NativeFile:
        """Open a file to write; it is there when it is closed.

        Raises:
            OSError: if the filesystem refuses.
        """
        filesystem = self.filesystem()
        if self.scheme and filesystem.type_name not in NO_DIRECTORIES:
            filesystem.create_dir(self.parent.path)
        return filesystem.open_output_stream(self.path)

    def filesystem(self) -> fs.FileSystem:
        """The filesystem that its path is of.

        Raises:
            InputError: if the address has an option that is not known, or its filesystem cannot be opened.
        """
        if not self.scheme:
            return fs.LocalFileSystem()
        # One for a process: connections do not survive a fork.
        return _filesystem(replace(self, path=self.path.partition("/")[0]), os.getpid())


def check_path(path: str | Path) -> None:
    """Arrow and Ray read paths as UTF-8, whatever the locale: elsewhere they would look for, or make, another file.

    Raises:
        InputError: if the path's bytes on disk are others.
    """
    try:
        alike = os.fsencode(path) == os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        alike = False
    if not alike:
        raise InputError(
            f"The path '{path}' has characters that this locale ({sys.getfilesystemencoding()}) reads unlike Arrow and "
            "Ray do, which take it for UTF-8; set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or give a path in ASCII."
        )


def refused(place: Location, error: Exception) -> RefusedError | None:
    """What to say when a filesystem elsewhere did not do as it was asked; None if its files are at fault."""
    reason = str(error).partition("\n")[0].partition(" (Request ID")[0]
    if not place.scheme or isinstance(error, FileNotFoundError):
        return None
    if "NO_SUCH_BUCKET" in reason or "Bucket '" in reason:
        return RefusedError(f"The bucket of '{place}' does not exist; create it, or correct the address.")
    if any(word in reason for word in DENIED):
        return RefusedError(
            f"Access to '{place}' was denied ({_short(reason)}); give credentials that may use it in AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or in ~/.aws/credentials."
        )
    if "NETWORK_CONNECTION" in reason or "REQUEST_TIMEOUT" in reason:
        return RefusedError(
            f"'{place}' cannot be reached ({_short(reason)}); check the address, its endpoint_override and the network."
        )
    if "AWS Error" in reason:
        return RefusedError(f"'{place}' did not do as it was asked ({_short(reason)}); try again, or ask its keeper.")
    return None


@functools.lru_cache(maxsize=8)
def _filesystem(root: Location, process: int) -> fs.FileSystem:  # noqa: ARG001 - of the cache's key
    try:
        if root.scheme == "s3":
            return _open_s3(root)
        if root.scheme in ("gs", "gcs") and GIVE_UP not in root.query:
            root = replace(root, query=f"{root.query}&{GIVE_UP}={ANSWER_SECONDS}".lstrip("&"))
        return fs.FileSystem.from_uri(str(root))[0]
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        known = refused(root, error)
        reason = str(error).partition("\n")[0]
        raise known or InputError(
            f"The address '{root}' cannot be opened ({reason}); give a path, or an address such as s3://bucket/prefix."
        ) from None


def _open_s3(root: Location) -> fs.FileSystem:
    """As pyarrow opens an address, but with an end to waiting: by itself it takes minutes to give a server up."""
    options = dict(parse_qsl(root.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - set(S3_OPTIONS)):
        raise InputError(
            f"The address '{root}' has the option '{unknown[0]}', but there are {', '.join(S3_OPTIONS)}; leave it out."
        )
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and not _has_own_server(options):
        region = fs.resolve_s3_region(root.path)
    return fs.S3FileSystem(
        region=region or "us-east-1",
        scheme=options.get("scheme"),
        endpoint_override=options.get("endpoint_override"),
        connect_timeout=CONNECT_SECONDS,
        request_timeout=ANSWER_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        # Not behind our back: images that are not yet sent would pile up in memory.
        background_writes=False,
    )


def _has_own_server(options: Mapping[str, str]) -> bool:
    return "endpoint_override" in options or any(f"AWS_ENDPOINT_URL{end}" in os.environ for end in ("", "_S3"))


def _short(reason: str) -> str:
    """The end of what was reported, where its cause stands."""
    return reason.rpartition("AWS Error ")[2].rpartition("Details: ")[2].rstrip(". ")
