"""Location of a data set or of searches: a local directory, or an address that a pyarrow filesystem can open.

s3://bucket/prefix?region=eu-central-1                      credentials come from the environment
s3://bucket/prefix?endpoint_override=http://server:9000     another S3-compatible server; also by $AWS_ENDPOINT_URL
"""

from __future__ import annotations

import functools
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from data.errors import EnvironmentFaultError, InputError

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
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Environment variables of the S3 server, the first one first. pyarrow does not read them."""
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
"""Environment variables that select credentials."""
OBJECT_STORES = ("s3", "gcs", "abfs")
"""Filesystems in which a directory is only a prefix of names."""
_SECRET = re.compile("sig|secret|password|token|key", re.IGNORECASE)
"""Part of the names of options that hold credentials, such as those of Azure."""
DENIED = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY",
    "INVALID_CLIENT_TOKEN",
    "EXPIRED_TOKEN",
    "SIGNATURE_DOES_NOT_MATCH",
    "status 403",
)


class UnavailableError(EnvironmentFaultError):
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
        return cls._parse(text, what="a data set", form="s3://bucket/prefix")

    @classmethod
    def of_storage(cls, text_or_path: AnyPath) -> Location:
        """Parse the location of searches or of one of their files; it may be a whole bucket.

        Raises:
            InputError: if the address is not valid.
        """
        if isinstance(text_or_path, Location):
            return text_or_path
        return cls._parse(os.fspath(text_or_path), what="a storage", form="s3://bucket/searches")

    @classmethod
    def _parse(cls, text: str, *, what: str, form: str) -> Location:
        if SEPARATOR not in text:
            return cls(os.fspath(Path(text)))
        parts = urlsplit(text)
        options = parse_qsl(parts.query, keep_blank_values=True)
        if "@" in parts.netloc or "@" in unquote(parts.query) or any(_SECRET.search(name) for name, _ in options):
            raise _with_credentials(f"address '{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}'")
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            return cls(unquote(parts.path))
        path = f"{parts.netloc}{parts.path}".rstrip("/")
        is_complete = bool(parts.netloc) and (what == "a storage" or bool(parts.path.strip("/")))
        if not is_complete or "//" in path or parts.fragment or {".", ".."} & {*path.split("/")}:
            raise InputError(
                f"The address '{text}' is not valid for {what}; use the form {form}, or give the path of a directory."
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

    def explicit(self) -> Location:
        """The same location with the server that $AWS_ENDPOINT_URL names, for processes of other machines.

        Raises:
            InputError: if that contains credentials.
        """
        endpoint = _endpoint(dict(parse_qsl(self.query, keep_blank_values=True))) if self.scheme == "s3" else None
        if endpoint is None or "endpoint_override=" in self.query:
            return self
        return replace(self, query=f"{self.query}&endpoint_override={quote(endpoint, safe='/:')}".lstrip("&"))

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
        # Cached per process, because connections do not survive a fork, and per credentials, which may be renewed.
        root = replace(self, path=self.path.partition("/")[0]).explicit()
        return _filesystem(root, os.getpid(), _credentials() if self.scheme == "s3" else ())


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
def _filesystem(root: Location, process: int, credentials: tuple[object, ...]) -> fs.FileSystem:  # noqa: ARG001 - keys
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
            f"The address '{root.scheme}{SEPARATOR}{root.path}' has an unknown option '{unknown[0]}'; use only "
            f"{', '.join(S3_OPTIONS)}."
        )
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = _endpoint(options)
    if region is None and endpoint is None:
        region = fs.resolve_s3_region(root.path)
    return fs.S3FileSystem(
        region=region or "us-east-1",
        scheme=options.get("scheme"),
        endpoint_override=endpoint,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        request_timeout=REQUEST_TIMEOUT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        background_writes=False,  # unsent images would accumulate in memory
        allow_delayed_open=True,  # a small object takes one request, and appears whole or not at all
    )


def _endpoint(options: Mapping[str, str]) -> str | None:
    """The S3 server of an address with these options; None for that of AWS."""
    endpoint = options.get("endpoint_override") or next(filter(None, map(os.environ.get, ENDPOINTS)), None)
    if endpoint and "@" in endpoint:
        raise _with_credentials(f"S3 server '…@{endpoint.rpartition('@')[2]}' of ${ENDPOINTS[1]}")
    return endpoint


def _with_credentials(what: str) -> InputError:
    return InputError(
        f"The {what} contains credentials, which would be written to reports; set them in the environment, such as "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AZURE_CLIENT_SECRET."
    )


def _credentials() -> tuple[object, ...]:
    """What the credentials depend on; changes when they are renewed. Those of an instance role renew themselves."""
    files = [
        Path(os.environ.get(name) or Path.home() / ".aws" / file)
        for name, file in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config"))
    ]
    return (*map(os.environ.get, CREDENTIALS), *((file, file.is_file() and file.stat().st_mtime_ns) for file in files))


def _cause(reason: str) -> str:
    """The last part of an AWS error message, which names the cause."""
    return reason.rpartition("AWS Error ")[2].rpartition("Details: ")[2].rstrip(". ")
