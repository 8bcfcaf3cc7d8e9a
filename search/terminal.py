"""Output on a terminal: messages and progress bars on standard error, and tables that fit."""

from __future__ import annotations

import re
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from data.errors import InputError, UnfinishedError
from search.signals import InterruptedSearchError

STAMP = "%Y-%m-%d %H:%M:%SZ"
"""Form of a time in a log, in UTC."""
LINE_SECONDS = 10.0
"""Interval of the progress lines without a terminal."""
WIDE = 100
"""Columns of a terminal that shows everything beside a progress bar."""
GAP = 2
"""Characters between two columns of a table."""
MIN_TEXT = 46
"""Width of a column of long texts, in which most configurations take one line."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def without_control(text: str) -> str:
    """A text of another program without control characters, which would move the cursor of a terminal that shows it."""
    return _CONTROL.sub("", text)


class Screen:
    """Standard error, with progress bars on a terminal and plain lines elsewhere.

    Args:
        console: in place of standard error.
        stamped: whether each line begins with its time, as in the log of a job.
        verbose: whether Ray's own output is wanted too.
    """

    def __init__(self, console: Console | None = None, *, stamped: bool = False, verbose: bool = False) -> None:
        self.console = console or Console(stderr=True, highlight=False, emoji=False)
        self._stamped = stamped
        self.verbose = verbose
        self._file: Path | None = None

    def say(self, line: str) -> None:
        """Write a line; what goes wrong with its output does not end the work."""
        with suppress(OSError):  # standard error may be a file on a full disk
            print_line(self.console, stamp(line) if self._stamped else line)
        if self._file is not None:
            append_line(self._file, line)

    @contextmanager
    def logging_to(self, file: Path) -> Iterator[None]:
        """Within the context, append each line to a file too, and the error that ends the context."""
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        try:
            yield
        except (InputError, UnfinishedError) as error:
            append_line(file, str(error))
            raise
        except InterruptedSearchError:
            append_line(file, "stopped")
            raise
        except Exception:
            append_line(file, traceback.format_exc())
            raise
        finally:
            self._file = None

    def warn(self, sentence: str) -> None:
        """Write a warning; nothing if the sentence is empty."""
        if sentence:
            self.say(f"warning: {sentence}")

    @contextmanager
    def bar(
        self, title: str, total: int, unit: str = "", *, done: int = 0, note: str = ""
    ) -> Iterator[Callable[[int, str], None]]:
        """A progress bar; the yielded function advances it by a number of steps and sets the note beside it.

        Args:
            title: of the bar.
            total: number of steps, including those of earlier runs.
            unit: of a step, in the plural.
            done: steps of earlier runs, which the estimate of the remaining time ignores.
            note: text beside the bar before the first step.
        """
        log = None if self.console.is_terminal else _Log(self, title, total, unit, done)
        is_wide = self.console.width >= WIDE
        columns: list[ProgressColumn] = [
            SpinnerColumn("dots" if self.console.encoding.startswith("utf") else "line"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30 if is_wide else 10),
            MofNCompleteColumn(),
            TextColumn(unit),
            *([TimeElapsedColumn()] if is_wide else []),
            TextColumn("· left"),
            TimeRemainingColumn(),
            _Note(),
        ]
        with Progress(*columns, console=self.console, transient=True, disable=log is not None) as progress:
            task = progress.add_task(title, total=total, completed=done, note=note)

            def move(steps: int, note: str = "") -> None:
                progress.update(task, advance=steps, note=note)
                if log is not None:
                    log.move(steps, note)

            yield move

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Within the context, print each distinct Python warning once, as a plain line."""
        printed: set[str] = set()

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            if str(message) not in printed:
                printed.add(str(message))
                self.say(str(message))

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            yield


class _Note(ProgressColumn):
    """The note of a bar: where the terminal is too narrow, it is cut off, and not the time left."""

    def get_table_column(self) -> Column:
        return Column(no_wrap=False)  # only such columns are narrowed first

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


class _Log:
    """Progress as plain lines, without a terminal."""

    def __init__(self, screen: Screen, title: str, total: int, unit: str, done: int) -> None:
        self._screen, self._title, self._total, self._unit = screen, title, total, unit
        self._done = self._before = done
        self._started = self._written = time.monotonic()

    def move(self, steps: int, note: str) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._written < LINE_SECONDS:
            return
        self._written = now
        elapsed = now - self._started
        steps_now = self._done - self._before
        left = f", about {clock(elapsed / steps_now * (self._total - self._done))} left" if steps_now else ""
        progress = f"{self._done}/{self._total} {self._unit}".rstrip()
        self._screen.say(f"{self._title}: {progress}, {clock(elapsed)} so far{left}{f'; {note}' if note else ''}")


class Ragged:
    """A table without the spaces at the ends of its lines: a terminal that becomes narrower would wrap them."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for shown in console.render_lines(self._table, options, pad=False):
            while shown and not shown[-1].text.strip():
                shown.pop()
            if shown:
                yield from shown[:-1]
                yield Segment(shown[-1].text.rstrip(), shown[-1].style)
            yield Segment.line()


def print_line(console: Console, line: str, *, title: str = "") -> None:
    """Print a line as it is, after a bold title: without markup and line breaks, so that commands can be copied."""
    console.print(Text.assemble((title, "bold"), line), soft_wrap=True)


def print_table(
    console: Console,
    rows: Sequence[Mapping[str, str]],
    *,
    left: Collection[str] = (),
    wrapped: str | None = None,
    optional: Sequence[str] = (),
    title: str = "",
) -> None:
    """Print a table without the columns that a narrow terminal has no room for, and say which.

    Args:
        console: where it is printed.
        rows: at least one; cells by heading, the same headings in all of them.
        left: headings of the columns of texts, which are aligned left, not right. Where everything else is too wide,
            their cells take several lines; a number is never cut off.
        wrapped: heading of a column of long texts, whose cells may always take several lines.
        optional: headings of the columns that may be left out, the least important one first.
        title: bold, above the headings.
    """
    widths = {name: max(map(cell_len, (name, *(row[name] for row in rows)))) for name in rows[0]}
    if wrapped is not None:
        widths[wrapped] = min(widths[wrapped], MIN_TEXT)
    left_out = []
    for name in (name for name in optional if name in widths):
        if sum(widths.values()) + GAP * (len(widths) - 1) <= console.width:
            break
        left_out.append(name)
        del widths[name]
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in widths:
        is_text = name == wrapped or name in left
        table.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[name]) for name in widths))
    console.print(Ragged(table))
    if left_out:
        print_line(console, f"not shown in {console.width} columns: {', '.join(left_out)} (--json shows everything)")


def stamp(line: str, at: float | None = None) -> str:
    """A line with its time in UTC before it: '2026-11-26 19:02:33Z trial 3: ...'.

    Args:
        line: the line.
        at: seconds since the epoch; now when left out.
    """
    return f"{time.strftime(STAMP, time.gmtime(at))} {line}"


def append_line(file: Path, line: str) -> None:
    """Append a line with its time; nothing happens if the disk is full or the directory is gone."""
    with suppress(OSError), file.open("a", encoding="utf-8", errors="replace") as opened:
        opened.write(f"{stamp(line)}\n")


def percent(probability: float) -> str:
    """A probability from resamples, none of which shows that something is impossible."""
    if 0.01 <= probability <= 0.99:
        return f"{probability:.0%}".replace("%", " %")
    return "over 99 %" if probability > 0.5 else "under 1 %"


def clock(seconds: float) -> str:
    """Format seconds as 42 s, 3 min 20 s or 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
