"""A view of a run that is redrawn in place on a terminal, and repeated as a plain line elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

from search.results.status import SearchStatus
from search.terminal import LINE_SECONDS, Screen
from search.view import line, view

REDRAW_SECONDS = 0.5
_UP = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2))


@contextmanager
def live(screen: Screen, status: Callable[[], SearchStatus]) -> Iterator[Callable[[], None]]:
    """Show a run within the context; the lines that `screen` writes meanwhile scroll above it.

    Args:
        screen: where it is shown.
        status: returns the present state; called from another thread.

    Yields:
        A function to call after a change: without a terminal, it writes the line, at most every ten seconds.
    """
    if not screen.console.is_terminal or screen.console.is_dumb_terminal:
        yield _Lines(screen, status).changed
        return
    ended = threading.Event()
    with Live(_Drawn(status), console=screen.console, auto_refresh=False, transient=True) as shown:
        thread = threading.Thread(target=_redraw, args=(shown, ended), name="live view", daemon=True)
        thread.start()
        try:
            yield lambda: None
        finally:
            ended.set()
            thread.join()


class _Lines:
    """The line, without a terminal."""

    def __init__(self, screen: Screen, status: Callable[[], SearchStatus]) -> None:
        self._screen, self._status = screen, status
        self._written = -math.inf

    def changed(self) -> None:
        """Write the line, unless it was written within the last seconds."""
        if time.monotonic() - self._written >= LINE_SECONDS:
            self._written = time.monotonic()
            self._screen.say(line(self._status()))


class _Drawn:
    """The view as it was drawn last."""

    def __init__(self, status: Callable[[], SearchStatus]) -> None:
        self._status = status
        self._lengths: list[int] = []
        self._width = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Rich has moved the cursor up by the lines that it drew, and erased them; the terminal has wrapped them since.
        yield Control(*(_UP * self._wrapped(options.max_width)))
        lines = [[], *console.render_lines(view(self._status(), options.max_width), options, pad=False)]
        self._width = options.max_width
        self._lengths = [Segment.get_line_length(segments) for segments in lines]
        for number, segments in enumerate(lines):
            yield from segments
            if number < len(lines) - 1:
                yield Segment.line()

    def _wrapped(self, width: int) -> int:
        """Number of lines that a terminal added to those that were drawn, when it became narrower."""
        if width >= self._width:
            return 0
        return sum(max(0, -(-length // width) - 1) for length in self._lengths)


def _redraw(shown: Live, ended: threading.Event) -> None:
    """Redraw the view until the context ends: its clock goes on, and the window may have another size."""
    while not ended.wait(REDRAW_SECONDS):
        shown.refresh()
