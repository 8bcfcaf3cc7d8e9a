"""The log of a driver: the lines on the screen with their times, and the error that ended them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data.errors import InputError
from search.signals import InterruptedSearchError
from search.terminal import Screen, append_line

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"


def test_lines_are_kept_with_their_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of all runs; the screen of a terminal shows them without."""
    log, screen = tmp_path / "logs" / "driver.log", Screen()
    for line in ("one", "two [red]"):
        with screen.logging_to(log):
            screen.say(line)
    screen.say("three")

    assert re.fullmatch(rf"{TIME} one\n{TIME} two \[red\]\n", log.read_text())
    assert capsys.readouterr().err == "one\ntwo [red]\nthree\n"


def test_the_log_of_a_job_has_times_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray keeps what a job writes without them."""
    Screen(stamped=True).say("one")

    assert re.fullmatch(rf"{TIME} one\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (InputError("The value is wrong."), "The value is wrong."),
        (InterruptedSearchError(), "stopped"),
        (KeyError("x"), "Traceback"),
    ],
)
def test_the_error_that_ends_a_run_is_in_its_log(tmp_path: Path, error: Exception, kept: str) -> None:
    """A sentence for what a user can cause, and where it was raised for anything else."""
    with pytest.raises(type(error)), Screen().logging_to(tmp_path / "driver.log"):
        raise error

    assert re.match(rf"{TIME} {kept}", (tmp_path / "driver.log").read_text())


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    """Its search may have been removed, or the disk be full; what matters is said elsewhere."""
    append_line(tmp_path / "gone" / "driver.log", "one")

    assert not (tmp_path / "gone").exists()
