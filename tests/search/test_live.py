"""The live view: redrawn in place on a terminal, also after its window became narrower; plain lines elsewhere."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

import search.live
from search.live import live
from search.terminal import Screen
from tests.search.test_view import STATUS

_CODES = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|(.)", re.DOTALL)


class Terminal:
    """A terminal that wraps long lines anew when its width changes, as most do."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=True, color_system=None, legacy_windows=False)
        self._lines, self._row, self._read = [""], 0, 0
        self.resize(width)

    def resize(self, width: int) -> None:
        """Change the width; lines that are longer take several rows."""
        self.rows()
        at_end = len(self._lines) - self._row
        self._lines = [part for text in self._lines for part in _wrapped(text, width)]
        self._row = len(self._lines) - at_end
        self.width = self.console.width = width
        self.console.height = 30

    def rows(self) -> list[str]:
        """What is on the screen now."""
        text = self.file.getvalue()
        new, self._read = text[self._read :], len(text)
        for code, command, character in _CODES.findall(new):
            self._apply(code, command, character)
        return [row.rstrip() for row in self._lines]

    def _apply(self, code: str, command: str, character: str) -> None:
        if command == "A":
            self._row = max(0, self._row - int(code))
        elif command == "K":
            self._lines[self._row] = ""
        elif character == "\n":
            self._row += 1
            self._lines += [""] * (self._row == len(self._lines))
        elif character and character != "\r":
            if len(self._lines[self._row]) == self.width:
                self._row += 1
                self._lines[self._row :] = [""]
            self._lines[self._row] += character


def _wrapped(text: str, width: int) -> list[str]:
    return [text[start : start + width] for start in range(0, len(text), width)] or [""]


def until(condition: Callable[[], bool]) -> None:
    """Wait for the thread that redraws."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.live, "REDRAW_SECONDS", 0.02)


def test_the_view_stays_below_the_lines() -> None:
    """It is there once, however often it was redrawn; at its end, the lines alone stay."""
    terminal, status = Terminal(100), STATUS
    screen = Screen(terminal.console)
    with live(screen, lambda: status):
        screen.say("trial 0: score 0.5")
        until(lambda: "search      first: searching" in terminal.rows())
        status = replace(STATUS, samples_per_second=7.0)
        until(lambda: any("7 samples/s" in row for row in terminal.rows()))
        screen.say("trial 1: score 0.6")
        rows = terminal.rows()
        assert rows[:4] == ["trial 0: score 0.5", "trial 1: score 0.6", "", "search      first: searching"]
        assert len(rows) == 2 + 1 + 8

    assert [row for row in terminal.rows() if row] == ["trial 0: score 0.5", "trial 1: score 0.6"]


def test_a_narrower_window_leaves_nothing_behind() -> None:
    """The terminal wraps the rows of the view, which are more than were drawn."""
    terminal, status = Terminal(100), STATUS
    screen = Screen(terminal.console)
    with live(screen, lambda: status):
        screen.say("a line")
        until(lambda: len(terminal.rows()) == 1 + 1 + 8)
        terminal.resize(40)
        status = replace(STATUS, samples_per_second=7.0)
        until(lambda: any("7 samples/s" in row for row in terminal.rows()))
        until(lambda: terminal.rows()[:3] == ["a line", "", "search      first: searching"])
        until(lambda: sum("searching" in row for row in terminal.rows()) == 1)


def test_an_error_leaves_the_terminal_as_it_was() -> None:
    """Ctrl-C too: the cursor is there again, and the view is not."""
    terminal = Terminal(80)
    with pytest.raises(KeyboardInterrupt), live(Screen(terminal.console), lambda: STATUS):
        raise KeyboardInterrupt

    assert not any(terminal.rows())
    assert terminal.file.getvalue().rindex("\x1b[?25h") > terminal.file.getvalue().rindex("\x1b[?25l")


def test_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With their times, and few of them; no control characters."""
    now, file = [0.0], io.StringIO()
    monkeypatch.setattr("search.live.time.monotonic", lambda: now[0])
    screen = Screen(Console(file=file, width=40), stamped=True)
    with live(screen, lambda: STATUS) as changed:
        for now[0] in (0.0, 5.0, 9.0, 11.0):
            changed()

    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ searching: 3 of 8 trials ended, [^\n]* 13 s\n"
    assert re.fullmatch(pattern * 2, file.getvalue())
