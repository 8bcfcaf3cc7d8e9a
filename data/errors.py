"""Errors shown to the user: the command line prints the message alone, without a traceback."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_COMMA = re.compile(r"[-+]?\d+(,\d+)+([eE][-+]?\d+)?")
_AT_END = re.compile(r"([-+]?)(\d*),(\d*)([eE][-+]?\d+)?")
"""A comma without digits on one side."""
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


class InputError(ValueError):
    """The user's input is not usable. Exit code 2.

    The message is one sentence that names the value, its source, and what to do.
    """


class EnvironmentFaultError(InputError):
    """A resource shared by all trials is unavailable: the data set, the cache, the storage, or a node.

    It does not count as a failure of the trial. The search waits, then trains the trial again.
    """

    @property
    def reason(self) -> str:
        """The message without its advice and full stop."""
        text = str(self)
        return (text.rpartition("; ")[0] or text).removesuffix(".")


class NodeDrainedError(RuntimeError):
    """The node of a trial will be taken away. The trial resumes from its checkpoint on another node.

    It does not count as a failure of the trial.
    """


@dataclass(frozen=True, kw_only=True)
class KeyFault:
    """What is wrong with a key of a configuration, or with its value."""

    key: str
    """Dotted key below the value that is checked."""
    said: str
    """The predicate of a sentence about the key, if `is_key`, or about its value."""
    advice: str = "correct it in"
    """What to do, before the origin of the values."""
    value: object = None
    """Value of the key, if that is wrong."""
    is_key: bool = False
    """Whether the key itself is wrong."""


class FaultsError(ValueError):
    """A check found faults at keys below its value."""

    def __init__(self, faults: Sequence[KeyFault]) -> None:
        super().__init__(faults[0].said)
        self.faults = tuple(faults)


class UnfinishedError(RuntimeError):
    """Valid input, but the command has no result; the message says why. Exit code 1."""


class DiskError(UnfinishedError):
    """A file system fault that affects every write, such as a full disk.

    Args:
        problem: the file system, its fault, and the file, without a full stop.
        advice: how to remove the fault.
        then: what to do afterwards.
    """

    def __init__(self, problem: str, advice: str, then: str = "give the same command again") -> None:
        super().__init__(problem, advice, then)  # pickle needs all of them
        self.problem = problem
        self.advice = advice
        self.then = then

    def __str__(self) -> str:
        return f"{self.problem}; {self.advice}, then {self.then}."

    def followed_by(self, then: str) -> DiskError:
        """The same error with another final instruction."""
        return DiskError(self.problem, self.advice, then)


def without_comma(text: str) -> str | None:
    """Suggest how to write a number that contains a decimal comma or thousands separators.

    Returns:
        '0.001' for '0,001', '0.5' for ',5', '1000, or 1.000 with a decimal point' for '1,000'; None for any other text.
    """
    if (found := _AT_END.fullmatch(text)) and bool(found[2]) != bool(found[3]):
        sign, whole, decimals, exponent = found.groups(default="")
        return f"{sign}{whole or 0}.{decimals or 0}{exponent}"
    if not _COMMA.fullmatch(text):
        return None
    with_point = text.replace(",", ".")
    if not _THOUSANDS.fullmatch(text):
        return with_point if text.count(",") == 1 else None
    whole = text.replace(",", "")
    return f"{whole}, or {with_point} with a decimal point" if text.count(",") == 1 else whole


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its causes and contexts, and those of the Ray task or worker group that it is about."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        found = pending.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        context = None if found.__suppress_context__ else found.__context__
        # Attributes of Ray's errors, which are not imported here.
        pending += [getattr(found, name, None) for name in ("cause", "health_check_failure")]
        pending += [found.__cause__, context]
        pending += getattr(found, "worker_failures", {}).values()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause with the known name that is most similar to an unknown one: ' (did you mean 'samples'?)'; '' if none."""
    similar = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{similar[0]}'?)" if similar else ""


@contextmanager
def environment(what: str) -> Iterator[None]:
    """Convert errors in a block that uses only shared resources into environment faults.

    Out-of-memory errors pass through unchanged, because they depend on the trial.

    Args:
        what: the resource, as the subject of a sentence.

    Raises:
        EnvironmentFaultError: instead of an InputError, UnfinishedError or OSError.
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
