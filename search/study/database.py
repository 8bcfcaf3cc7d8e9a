"""The database that a study may lie in: connecting to it, and one sentence for what goes wrong."""

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
"""A server that does not answer for so long cannot be reached."""
PATIENCE_SECONDS = 300.0
"""One that was reached before, and is away, is waited for so long."""


def open_database(url: str, source: str) -> RDBStorage:
    """Connect, and make Optuna's tables where there are none.

    A connection that is lost later is made anew; while the server is away, it is waited for.

    Args:
        url: as SQLAlchemy has it; it was checked.
        source: where it came from, for the errors.

    Raises:
        InputError: if its driver is missing, the server cannot be reached or refuses, or the tables do not fit.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy import NullPool, event

    options = _options(url)
    with named_errors(url, source):
        # Without a pool first: where the constructor fails, nobody could close a pool's connections.
        RDBStorage(url, engine_kwargs={**options, "poolclass": NullPool})
        storage = RDBStorage(
            url,
            engine_kwargs={**options, "pool_pre_ping": True},
            skip_compatibility_check=True,
            skip_table_creation=True,
        )
    # From here on: a wrong password or address is said at once, and not after minutes.
    event.listen(storage.engine, "do_connect", _connect_patiently)
    return storage


@contextmanager
def named_errors(url: str, source: str) -> Iterator[None]:
    """Within it, what goes wrong with a database is an InputError that names it and says what to do."""
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
    """What the driver said, in a line."""
    cause = error.__cause__ if error.__cause__ is not None else error
    lines = [line for line in str(getattr(cause, "orig", None) or cause).splitlines() if line.strip()]
    # Further lines are hints, but for a host with several addresses: there they are what each one came to.
    said = [line for line in lines if not line.startswith(("\t", " "))] or [type(cause).__name__]
    return (said[-1] if said[-1].startswith("- ") else said[0]).removesuffix(".")


def _advice(url: str, reason: str) -> str:
    parsed = parse(url)
    name = parsed.database if parsed else ""
    if "password" in reason or "authentication" in reason:
        return "give the right user, and the password in $PGPASSWORD, in ~/.pgpass or in the URL"
    if f'database "{name}" does not exist' in reason:
        return f"make it with 'createdb {name}', or correct search.study"
    if "permission denied" in reason:
        return "let its user make tables there, or give another database in search.study"
    return "see that it is there and can be reached from here, or correct search.study"


def _options(url: str) -> dict[str, Any]:
    """For SQLAlchemy's engine; what the URL says itself comes before it."""
    parsed = parse(url)
    if parsed is None or parsed.get_backend_name() != "postgresql" or "psycopg" not in parsed.get_driver_name():
        return {}
    wanted = {"connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8"}
    return {"connect_args": {name: value for name, value in wanted.items() if name not in parsed.query}}


def _connect_patiently(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    """A new connection, tried again and again while the server is away."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return dialect.connect(*arguments, **options)
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(1)
