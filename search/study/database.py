"""The connection to the database of a study, and error messages for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from data.errors import InputError
from search.spec.study_url import masked, parse

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

CONNECT_SECONDS = 10
"""Timeout of a connection attempt."""
PATIENCE_SECONDS = 300.0
"""Time for which a lost connection is retried."""


def open_database(url: str, source: str) -> RDBStorage:
    """Connect, and create Optuna's tables if there are none.

    A connection that is lost later is opened again, with retries for `PATIENCE_SECONDS`.

    Args:
        url: a checked SQLAlchemy URL.
        source: its origin, for error messages.

    Raises:
        InputError: if the driver is missing, the server cannot be reached or refuses, or the tables do not fit.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy import NullPool, event

    options = _options(url)
    with named_errors(url, source):
        # Without a pool first: if the constructor fails, the connections of a pool could not be closed.
        RDBStorage(url, engine_kwargs={**options, "poolclass": NullPool})
        storage = RDBStorage(
            url,
            engine_kwargs={**options, "pool_pre_ping": True},
            skip_compatibility_check=True,
            skip_table_creation=True,
        )
    # Not earlier: a wrong password or address must fail at once, not after minutes.
    event.listen(storage.engine, "do_connect", _connect_patiently)
    return storage


@contextmanager
def named_errors(url: str, source: str) -> Iterator[None]:
    """Convert database errors within the context to an InputError that names the database and a remedy."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ImportError) else None
        install = "'psycopg[binary]'" if missing == "psycopg" else missing
        advice = f"install it with: pip install {install}" if missing else "install it again"
        raise InputError(
            f"The driver of the database '{masked(url)}' of {source} is not installed; {advice}."
        ) from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        reason = reason_of(error)
        raise InputError(
            f"The database '{masked(url)}' of {source} cannot be used ({reason}); {_advice(url, reason)}."
        ) from None


def reason_of(error: BaseException) -> str:
    """The driver's message in one line."""
    cause = error.__cause__ if error.__cause__ is not None else error
    lines = [line for line in str(getattr(cause, "orig", None) or cause).splitlines() if line.strip()]
    # Further lines are hints, except for a host with several addresses: then each line is the result of one address.
    said = [line for line in lines if not line.startswith(("\t", " "))] or [type(cause).__name__]
    return (said[-1] if said[-1].startswith("- ") else said[0]).removesuffix(".")


def _advice(url: str, reason: str) -> str:
    parsed = parse(url)
    name = parsed.database if parsed else ""
    if "password" in reason or "authentication" in reason:
        return "give the right user, and the password in $PGPASSWORD, in ~/.pgpass or in the URL"
    if f'database "{name}" does not exist' in reason:
        return f"create it with 'createdb {name}', or correct search.study"
    if "permission denied" in reason:
        return "allow its user to create tables, or give another database in search.study"
    return "check that it exists and can be reached from here, or correct search.study"


def _options(url: str) -> dict[str, dict[str, str | int]]:
    """Options of SQLAlchemy's engine; parameters of the URL take precedence."""
    parsed = parse(url)
    if parsed is None or parsed.get_backend_name() != "postgresql" or "psycopg" not in parsed.get_driver_name():
        return {}
    wanted: dict[str, str | int] = {"connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8"}
    return {"connect_args": {name: value for name, value in wanted.items() if name not in parsed.query}}


def _connect_patiently(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    """Open a connection, with retries while the server is away."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return dialect.connect(*arguments, **options)
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(1)
