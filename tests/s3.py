"""An S3 server of its own process on the loopback, and a proxy in front of it that fails as a storage may."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import pytest
from pyarrow import fs

STARTS_WITHIN = 60.0
BUCKET = "searches"
FRAMING = ("transfer-encoding", "connection", "content-length", "expect", "server", "date")
"""Headers of a connection, which the proxy sets itself."""


@contextmanager
def s3_server(**environment: str) -> Iterator[int]:
    """The port of a server of its own process, which ends with the block, however that ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            give_up = time.monotonic() + STARTS_WITHIN
            while not _answers(port):
                assert server.poll() is None, "the server ended by itself"
                assert time.monotonic() < give_up, "the server did not start"
                time.sleep(0.05)
            yield port
        finally:
            server.kill()


@contextmanager
def own_credentials() -> Iterator[None]:
    """No test uses the credentials of the user."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


class Faults:
    """What the proxy does with requests, and how many of each kind it saw."""

    def __init__(self) -> None:
        self.refuses: Literal["", "busy", "denied"] = ""
        """Answer every request with 503 or 403."""
        self.refused_part = 0
        """Answer every upload of this part of a large file with 503; 0 accepts any."""
        self.only_key = ""
        """Deny every request that is not signed with this access key; '' accepts any."""
        self.cuts: list[int] = []
        """For each of the next downloads, the number of bytes after which the connection breaks."""
        self.delay = 0.0
        """Seconds by which every answer is late, as from a server that is far away."""
        self.requests: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        """The same by their path with its query."""


class _Server(ThreadingHTTPServer):
    """Listens on the loopback, and forwards to a port."""

    daemon_threads = True

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.faults = behind, Faults()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _forward(self) -> None:
        faults = self.server.faults
        faults.requests[self.command] += 1
        faults.paths[self.path] += 1
        time.sleep(faults.delay)
        content = self._content()
        if faults.refused_part and f"partNumber={faults.refused_part}&" in f"{self.path}&":
            self._refuse(busy=True)
            return
        if faults.refuses or (faults.only_key and f"Credential={faults.only_key}/" not in self._authorization()):
            self._refuse(busy=faults.refuses == "busy")
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        kept = {name: text for name, text in self.headers.items() if name.lower() not in FRAMING}
        connection.request(self.command, self.path, content, kept | {"Content-Length": str(len(content))})
        answer = connection.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in FRAMING:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command == "GET" and answer.status in (200, 206) and "list-type" not in self.path and faults.cuts:
            body = body[: faults.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - names that http.server calls

    def _content(self) -> bytes:
        """The body of the request, which may be sent in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return content

    def _authorization(self) -> str:
        return str(self.headers.get("Authorization") or "")

    def _refuse(self, *, busy: bool) -> None:
        code = "ServiceUnavailable" if busy else "AccessDenied"
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.send_response(503 if busy else 403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Store:
    """A bucket on an S3 server that fails on demand."""

    def __init__(self, port: int, faults: Faults, direct: int) -> None:
        self.port, self.faults = port, faults
        self.direct = f"http://127.0.0.1:{direct}"
        """The server without the proxy in front of it."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def address(self, prefix: str = "") -> str:
        return f"s3://{BUCKET}{f'/{prefix}' if prefix else ''}?endpoint_override={self.endpoint}"

    def behind(self) -> fs.S3FileSystem:
        """To look behind our own code."""
        return fs.S3FileSystem(endpoint_override=self.endpoint, allow_bucket_creation=True)

    def names(self, prefix: str = "") -> list[str]:
        """All files under a prefix, relative to it."""
        below = f"{BUCKET}/{prefix}".rstrip("/")
        found = self.behind().get_file_info(fs.FileSelector(below, recursive=True, allow_not_found=True))
        return sorted(info.path.removeprefix(f"{below}/") for info in found if info.is_file)

    def read(self, path: str) -> bytes:
        with self.behind().open_input_file(f"{BUCKET}/{path}") as file:
            return bytes(file.read())

    def write(self, path: str, content: bytes) -> None:
        with self.behind().open_output_stream(f"{BUCKET}/{path}") as file:
            file.write(content)


@contextmanager
def failing_store() -> Iterator[Store]:
    """An empty bucket, with credentials of its own in the environment."""
    with own_credentials(), s3_server() as behind, _Server(behind) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            store = Store(server.server_address[1], server.faults, behind)
            store.behind().create_dir(BUCKET)
            server.faults.requests.clear()
            server.faults.paths.clear()
            yield store
        finally:
            server.shutdown()
            thread.join()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
