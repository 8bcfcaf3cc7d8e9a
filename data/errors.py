"""The errors that a user is meant to read: each is a sentence, printed alone and without a traceback."""

from __future__ import annotations

import re

_COMMA = re.compile(r"[-+]?\d+(,\d+)+([eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


class InputError(ValueError):
    """Something a user gave cannot be used.

    Its message is one sentence that names the value, says where it came from, and ends with what to do. The
    command line prints it alone, without a traceback, and exits with code 2.
    """


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
