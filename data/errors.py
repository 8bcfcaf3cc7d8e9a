"""The errors that a user is meant to read: each is a sentence, printed alone and without a traceback."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

_COMMA = re.compile(r"[-+]?\d+(,\d+)+([eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


class InputError(ValueError):
    """Something a user gave cannot be used.

    Its message is one sentence that names the value, says where it came from, and ends with what to do. The
    command line prints it alone, without a traceback, and exits with code 2.
    """


class EnvironmentFaultError(InputError):
    """What all trials share cannot be used for now: the data set, the cache, the storage, a node.

    It is no failure of the trial that meets it. A search waits, and then trains that trial again.
    """

    @property
    def reason(self) -> str:
        """What is wrong, without what to do and without a full stop."""
        text = str(self)
        return (text.rpartition("; ")[0] or text).removesuffix(".")


class UnfinishedError(RuntimeError):
    """Work that was asked for, and rightly, came to no result; its message says why. Exit code 1."""


class DiskError(UnfinishedError):
    """A file system cannot be written, whatever is written to it.

    Args:
        problem: which file system, its fault, and the file, without a full stop.
        advice: how the fault is removed.
        then: what to do afterwards.
    """

    def __init__(self, problem: str, advice: str, then: str = "give the same command again") -> None:
        super().__init__(problem, advice, then)  # all of them, so that it can be pickled
        self.problem = problem
        self.advice = advice
        self.then = then

    def __str__(self) -> str:
        return f"{self.problem}; {self.advice}, then {self.then}."

    def followed_by(self, then: str) -> DiskError:
        """The same with something else to do afterwards."""
        return DiskError(self.problem, self.advice, then)


def without_comma(text: str) -> str | None:
    """How a number that is written with a decimal comma, or with commas between thousands, is to be written.

    Returns:
        '0.001' for '0,001', '1000 (or 1.000 …)' for '1,000'; None where `text` is no such number.
    """
    if not _COMMA.fullmatch(text):
        return None
    with_point = text.replace(",", ".")
    if not _THOUSANDS.fullmatch(text):
        return with_point if text.count(",") == 1 else None
    whole = text.replace(",", "")
    return f"{whole}, or {with_point} with a decimal point" if text.count(",") == 1 else whole


@contextmanager
def environment(what: str) -> Iterator[None]:
    """Mark a block that uses only what all trials share: whatever goes wrong in it is a fault of the environment.

    A lack of memory is the exception, for it depends on the trial.

    Args:
        what: what the block uses, as the beginning of a sentence.

    Raises:
        EnvironmentFaultError: in the place of an InputError, UnfinishedError or OSError.
    """
    try:
        yield
    except EnvironmentFaultError:
        raise
    except (InputError, UnfinishedError) as error:
        raise EnvironmentFaultError(str(error)) from error
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise
        name = f": '{error.filename}'" if error.filename else ""
        raise EnvironmentFaultError(
            f"{what} cannot be used ({error.strerror or error}{name}); bring it back."
        ) from error
