"""The logs of a search: times, duration, and following one that grows, breaks off and ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from data.dataset.storage import UnavailableError
from data.errors import InputError
from search.cluster.client import Job, JobState, UnreachableError
from search.cluster.logs import STILL_RUNNING, Log, clean, exit_code_of, follow, lines_since, seconds_of
from search.terminal import stamp

Followed = Callable[..., tuple[int, str, list[str]]]


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("1.5h", 5400), ("2d", 172800)])
def test_a_duration(text: str, seconds: float) -> None:
    """As people write it."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "ten minutes", "-5m", "10 m"])
def test_what_is_no_duration(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(InputError, match=r"The value of --since is '.*', but must be a duration such as 30s, 10m"):
        seconds_of(text)


def test_lines_since_a_time() -> None:
    """A traceback has no times of its own; it stays with the line before it, and what precedes all times is old."""
    log = f"Running entrypoint\n{stamp('one', 100)}\n{stamp('two', 200)}\n  a traceback\n{stamp('three', 300)}\n"

    assert lines_since(log, 200) == f"{stamp('two', 200)}\n  a traceback\n{stamp('three', 300)}\n"
    assert lines_since(log, 301) == ""


def test_a_log_has_no_control_characters() -> None:
    """They would move the cursor of the terminal that shows it."""
    assert clean("\x1b[31mred\x1b[0m\tand\x07 \x1b[2Kmore\n") == "red\tand more\n"


class _Growing:
    """A log that has another text at each reading; an exception is raised."""

    def __init__(self, *texts: str | Exception) -> None:
        self._texts = iter(texts)
        self._left = len(texts)

    def log(self, code: int) -> Log:
        return Log(read=self._read, exit_code=lambda: STILL_RUNNING if self._left > 1 else code)

    def _read(self) -> str:
        self._left -= 1
        text = next(self._texts)
        if isinstance(text, Exception):
            raise text
        return text


@pytest.fixture
def followed() -> Followed:
    def run(*texts: str | Exception, code: int = 0, earliest: float | None = None) -> tuple[int, str, list[str]]:
        written: list[str] = []
        warned: list[str] = []
        ended = follow(
            _Growing(*texts).log(code), written.append, warned.append, earliest=earliest, pause=lambda _: None
        )
        return ended, "".join(written), warned

    return run


def test_lines_of_rays_job_manager_are_left_out() -> None:
    """They come before those of the search, and say nothing of it."""
    lines = (
        "2026-11-26 20:25:45,123\tINFO job_manager.py:568 -- Runtime env is setting up.\n"
        "Running entrypoint for job twinhead-first-aa8ef379-1: exec sh twinhead search --resume first\n"
    )
    assert clean(f"{lines}2026-11-26 20:25:51Z first\n") == "2026-11-26 20:25:51Z first\n"


def test_each_line_is_shown_once_and_whole(followed: Followed) -> None:
    """A line that is half written waits for its other half, except at the end."""
    assert followed("one\ntw", "one\ntwo\n", "one\ntwo\nthr", code=4) == (4, "one\ntwo\nthr", [])


@pytest.mark.parametrize("fault", [UnreachableError, UnavailableError])
def test_a_connection_that_breaks_is_taken_up_again(followed: Followed, fault: type[InputError]) -> None:
    """To the cluster or to the storage: nothing is lost or repeated, and it is said once."""
    lost = fault("No Ray cluster answers.")

    code, text, warned = followed("one\n", lost, lost, "one\ntwo\n", "one\ntwo\nthree\n")

    assert (code, text) == (0, "one\ntwo\nthree\n")
    assert warned == ["No Ray cluster answers. Trying again; the search goes on.", "The connection is back."]


def test_what_comes_later_is_shown_without_a_time_too(followed: Followed) -> None:
    """Lost lines: the summary and a traceback, which have no times, were dropped where a piece begins with them."""
    old, new = f"{stamp('one', 100)}\n", f"{stamp('two', 200)}\n"

    assert followed(old, f"{old}a summary\n", f"{old}a summary\n{new}", earliest=150)[1] == f"a summary\n{new}"
    assert followed(f"{old}{new}", f"{old}{new}a traceback\n", earliest=150)[1] == f"{new}a traceback\n"
    assert followed("", "a traceback\n", earliest=150)[1] == "a traceback\n"


def job(state: JobState, exit_code: int | None = None) -> Job:
    return Job(id="a-1", state=state, exit_code=exit_code, started=1.0, message="", metadata={})


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (job("pending"), 3),
        (job("running"), 3),
        (job("succeeded", 0), 0),
        (job("failed", 2), 2),
        (job("failed", -9), 137),
        (job("failed"), 1),
        (job("stopped"), 130),
    ],
)
def test_the_exit_code_of_a_job(ended: Job, code: int) -> None:
    """A script waits for it; a job whose supervisor was killed has none of its own."""
    assert exit_code_of(ended) == code
