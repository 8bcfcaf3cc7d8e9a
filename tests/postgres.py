"""A temporary PostgreSQL server: in a directory of its own, on a socket, removed at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

USER, PASSWORD = "searcher", "p%ss wörd"
SETTINGS = ("-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "-N")
GIVE_UP = 60
"""Seconds after which a server that has not started or stopped has certainly hung."""


@dataclass
class Server:
    """A server, with functions that start and stop it."""

    directory: Path
    account: str | None
    """Its user account; None for the account that runs the tests."""
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str, *, user: str = USER, password: str | None = PASSWORD) -> str:
        """The URL of a database for SQLAlchemy."""
        secret = f":{quote(password)}" if password is not None else ""
        return f"postgresql+psycopg://{user}{secret}@/{database}?host={self.directory}"

    def create(self, database: str) -> str:
        """Create a database, and return its URL."""
        with self._connection() as connection:
            connection.execute(f'CREATE DATABASE "{database}"')  # type: ignore[call-overload]
        return self.url(database)

    def guest(self, database: str) -> str:
        """Create a user who may only read the database, and return the URL for that user."""
        with self._connection() as connection:
            connection.execute("CREATE USER guest PASSWORD 'guest'")
        return self.url(database, user="guest", password="guest")  # noqa: S106

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ("-k", str(self.directory), "-c", "listen_addresses=", "-F")
        self.process = subprocess.Popen(
            ["postgres", "-D", str(self.directory / "data"), *settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **_as(self.account),
        )
        end = time.monotonic() + GIVE_UP
        while True:
            try:
                self._connection().close()
            except psycopg.OperationalError:
                assert self.process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop it and close every connection."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(GIVE_UP)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait(GIVE_UP)

    def _connection(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self.directory), dbname="postgres", user=USER, password=PASSWORD, autocommit=True
        )


@contextmanager
def running_server() -> Iterator[Server]:
    """A server with a superuser who needs a password; the test is skipped if PostgreSQL is not installed."""
    missing = [name for name in ("postgres", "initdb") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} of PostgreSQL are not on the path")
    account = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    # Not below pytest's directory, which only its owner may enter; and the path of a socket must be short.
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    server = Server(directory=directory, account=account)
    try:
        (directory / "password").write_text(PASSWORD)
        if account is not None:
            owner = pwd.getpwnam(account)
            for path in (directory, directory / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        made = subprocess.run(
            ["initdb", "-D", directory / "data", "-U", USER, f"--pwfile={directory / 'password'}", *SETTINGS],
            capture_output=True,
            text=True,
            check=False,
            **_as(account),
        )
        assert made.returncode == 0, made.stderr
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


def _as(account: str | None) -> dict[str, object]:
    """Arguments of `Popen` to start a process as another account."""
    if account is None:
        return {}
    owner = pwd.getpwnam(account)
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": [], "cwd": "/"}
