"""Location of a data set: a local directory, or an address that a pyarrow filesystem can open.

s3://bucket/prefix?region=eu-central-1                      credentials come from the environment
s3://bucket/prefix?endpoint_override=http://server:9000     another S3-compatible server
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

AnyPath = str | os.PathLike[str]
"""A path, a `Location`, or an address as text."""

SEPARATOR = "://"
CONNECT_TIMEOUT_SECONDS = 5
REQUEST_TIMEOUT_SECONDS = 10
"""Timeouts of one request; there are three attempts."""
GCS_RETRY_OPTION = "retry_limit_seconds"
"""Retry limit of Google Cloud Storage; its default is 15 minutes."""
S3_OPTIONS = ("endpoint_override", "region", "scheme")
OBJECT_STORES = ("s3", "gcs", "abfs")
"""Filesystems in which a directory is only a prefix of names."""
DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "INVALID_CLIENT_TOKEN", "SIGNATURE_DOES_NOT_MATCH", "status 403")


class UnavailableError(InputError):
    """A remote location cannot be used now; says nothing about its content."""


@dataclass(frozen=True)
class Location:
    """A local or remote directory or file; opened only when needed."""

    path: str
    """Path in the filesystem; for S3, bucket/prefix."""
    scheme: str = ""
    """Empty for a local path."""
    query: str = ""
    """Options of the address, after the '?'."""

    @classmethod
    def parse(cls, text_or_path: AnyPath) -> Location:
        """Parse a path, file:///path, or an address such as s3://bucket/prefix.

        Raises:
            InputError: if the address is not valid, or the locale decodes the path differently from Arrow.
        """
        if isinstance(text_or_path, Location):
            return text_or_path
        text = os.fspath(text_or_path)
        if SEPARATOR not in text:
            check_path(text)
            return cls(os.fspath(Path(text)))
        parts = urlsplit(text)
        if "@" in parts.netloc:
            raise InputError(
                f"The address '{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}' contains credentials, "
                "which would be written to reports; set them in the environment, such as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY."
            )
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            return cls(unquote(parts.path))
        path = f"{parts.netloc}{parts.path}".rstrip("/")
        if not parts.netloc or not parts.path.strip("/") or "//" in path or parts.fragment:
            raise InputError(
                f"The address '{text}' is not valid for a data set; use the form s3://bucket/prefix, or give the path "
                "of a directory."
            )
        return cls(path, parts.scheme, parts.query)

    def __str__(self) -> str:
        if not self.scheme:
            return self.path
        return f"{self.scheme}{SEPARATOR}{self.path}{'?' if self.query else ''}{self.query}"

    def __fspath__(self) -> str:
        if self.scheme:
            raise TypeError(f"'{self}' is not a local path.")
        return self.path

    def __truediv__(self, name: str) -> Location:
        return replace(self, path=f"{self.path.rstrip('/')}/{name}" if self.path != "." else name)

    @property
    def name(self) -> str:
        """The last component of the path."""
        return Path(self.path).absolute().name

    @property
    def local(self) -> Path | None:
        """The path if it is local, else None."""
        return None if self.scheme else Path(self.path)

    @property
    def parent(self) -> Location:
        """The parent directory."""
        return replace(self, path=os.fspath(Path(self.path).parent))

    def absolute(self) -> Location:
        """The same location, independent of the working directory."""
        return self if self.scheme else replace(self, path=os.fspath(Path(self.path).absolute()))

    def files(self) -> dict[str, int]:
        """Names and sizes in bytes of the files in this directory.

        Raises:
            OSError: if it does not exist or cannot be read.
        """
        found = self.filesystem().get_file_info(fs.FileSelector(self.path))
        return {info.base_name: info.size for info in found if info.type == fs.FileType.File}

    def is_file(self) -> bool:
        """Whether the location is a file.

        Raises:
            OSError: if the filesystem cannot be read.
        """
        return bool(self.filesystem().get_file_info(self.path).type == fs.FileType.File)

    def open_input(self) -> pa.NativeFile:
        """Open the file for random-access reading.

        Raises:
            OSError: if it does not exist or cannot be read.
        """
        return self.filesystem().open_input_file(self.path)

    def open_output(self) -> pa.NativeFile:
        """Open the file for writing; it is complete when it is closed.

        Raises:
            OSError: if it cannot be written.
        """
        filesystem = self.filesystem()
        if self.scheme and filesystem.type_name not in OBJECT_STORES:
            filesystem.create_dir(self.parent.path)
        return filesystem.open_output_stream(self.path)

    def filesystem(self) -> fs.FileSystem:
        """The filesystem of the path.

        Raises:
            InputError: if the address has an unknown option, or its filesystem cannot be opened.
        """
        if not self.scheme:
            return fs.LocalFileSystem()
        # Cached per process: connections do not survive a fork.
        return _filesystem(replace(self, path=self.path.partition("/")[0]), os.getpid())


def check_path(path: str | Path) -> None:
    """Refuse a path that the locale does not encode as UTF-8: Arrow and Ray would use another file.

    Raises:
        InputError: if the path's bytes on disk are not its UTF-8 encoding.
    """
    try:
        is_utf8 = os.fsencode(path) == os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        is_utf8 = False
    if not is_utf8:
        raise InputError(
            f"The path '{path}' has characters that this locale ({sys.getfilesystemencoding()}) does not encode as "
            "UTF-8, which Arrow and Ray use; set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or give a path in ASCII."
        )


def unavailable(location: Location, error: Exception) -> UnavailableError | None:
    """Convert an error of a remote filesystem; None for a local path, or if the error is about a file's content."""
    reason = str(error).partition("\n")[0].partition(" (Request ID")[0]
    if not location.scheme or isinstance(error, FileNotFoundError):
        return None
    if "NO_SUCH_BUCKET" in reason or "Bucket '" in reason:
        return UnavailableError(f"The bucket of '{location}' does not exist; create it, or correct the address.")
    cause = _cause(reason)
    if any(word in reason for word in DENIED):
        return UnavailableError(
            f"Access to '{location}' was denied ({cause}); set credentials with access in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or in ~/.aws/credentials."
        )
    if "NETWORK_CONNECTION" in reason or "REQUEST_TIMEOUT" in reason:
        return UnavailableError(
            f"'{location}' cannot be reached ({cause}); check the address, its endpoint_override and the network."
        )
    if "AWS Error" in reason:
        return UnavailableError(f"A request to '{location}' failed ({cause}); try again, or contact its administrator.")
    return None


@functools.lru_cache(maxsize=8)
def _filesystem(root: Location, process: int) -> fs.FileSystem:  # noqa: ARG001 - part of the cache key
    try:
        if root.scheme == "s3":
            return _open_s3(root)
        if root.scheme in ("gs", "gcs") and GCS_RETRY_OPTION not in root.query:
            root = replace(root, query=f"{root.query}&{GCS_RETRY_OPTION}={REQUEST_TIMEOUT_SECONDS}".lstrip("&"))
        return fs.FileSystem.from_uri(str(root))[0]
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).partition("\n")[0]
        raise unavailable(root, error) or InputError(
            f"The address '{root}' cannot be opened ({reason}); give a path, or an address such as s3://bucket/prefix."
        ) from None


def _open_s3(root: Location) -> fs.FileSystem:
    """Open S3 with timeouts: pyarrow's default takes minutes to fail if a server does not respond."""
    options = dict(parse_qsl(root.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - set(S3_OPTIONS)):
        raise InputError(
            f"The address '{root}' has an unknown option '{unknown[0]}'; use only {', '.join(S3_OPTIONS)}."
        )
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and not _has_endpoint(options):
        region = fs.resolve_s3_region(root.path)
    return fs.S3FileSystem(
        region=region or "us-east-1",
        scheme=options.get("scheme"),
        endpoint_override=options.get("endpoint_override"),
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        request_timeout=REQUEST_TIMEOUT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        background_writes=False,  # unsent images would accumulate in memory
    )


def _has_endpoint(options: Mapping[str, str]) -> bool:
    return "endpoint_override" in options or any(f"AWS_ENDPOINT_URL{end}" in os.environ for end in ("", "_S3"))


def _cause(reason: str) -> str:
    """The last part of an AWS error message, which names the cause."""
    return reason.rpartition("AWS Error ")[2].rpartition("Details: ")[2].rstrip(". ")
