"""Check the URL of a study's database, and mask its password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainable.config import Problem

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


_SECRETS = "pass|pwd|secret|token|odbc_connect"
"""Parts of the names of options that hold secrets."""
_IN_MEMORY = frozenset({"", ":memory:"})


def problems_of_study(url: str | None, source: str) -> Iterator[Problem]:
    """Problems of the URL of a spec that can be found without a connection; none for None."""
    if url is None:
        return
    parsed = parse(url)
    if parsed is None:
        wanted = (
            "must be the URL of a database, such as postgresql+psycopg://USER@HOST/DATABASE, with special characters "
            "of a password percent-encoded"
        )
    elif parsed.get_backend_name() == "sqlite" and (parsed.database or "") in _IN_MEMORY:
        wanted = "must name a file, as in sqlite:////home/me/study.db, since a database in memory is lost at the end"
    elif parsed.get_backend_name() == "sqlite" and not str(parsed.database).startswith("/"):
        wanted = "must name an absolute path, with four slashes, as in sqlite:////home/me/study.db"
    else:
        return
    sentence = f"The value of 'search.study' is '{masked(url)}', but {wanted}; correct it in {source}."
    yield Problem(key="search.study", sentence=sentence)


def masked(url: str) -> str:
    """`url` without its password, for output. Where an '@' could belong to a password, more is masked, never less."""
    without = re.sub(r"(://[^:/]*):.*@", r"\1:***@", url)  # a user name as SQLAlchemy takes it
    return re.sub(rf"(?i)([?&][^=&]*(?:{_SECRETS})[^=&]*=)[^&]*", r"\1***", without)


def parse(url: str) -> URL | None:
    """The parsed URL; None if it is not the URL of a usable database."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
        dialect = parsed.get_dialect()
    except (ArgumentError, ValueError):
        return None
    except ImportError:  # the driver is missing, which `open_database` reports
        return parsed
    return None if dialect.is_async or "@" in (parsed.host or "") else parsed
