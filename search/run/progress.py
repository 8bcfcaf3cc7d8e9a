"""What a person sees while something takes long: how far it is and what is left, on standard error."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from search.driver import DriverOnly
from search.study.trials import RECIPE
from trainable.metrics.names import CONSTRAINT, DIVERGED, OBJECTIVE

_LINE_SECONDS = 10.0
"""Without a terminal, a line is written this often."""


class Screen:
    """Standard error, as a terminal with moving bars or as a log of plain lines."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self.console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int, unit: str = "") -> Iterator[Callable[[int, str], None]]:
        """A bar that the yielded function moves on by a number of steps, with a note beside it."""
        log = None if self.console.is_terminal else _Log(self, title, total, unit)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True, disable=log is not None) as progress:
            task = progress.add_task(title, total=total, note="")

            def move(steps: int, note: str = "") -> None:
                progress.update(task, advance=steps, note=note)
                if log is not None:
                    log.move(steps, note)

            yield move

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Within it, a warning is a line like any other, and is said once."""
        said: set[str] = set()

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            if str(message) not in said:
                said.add(str(message))
                self.say(str(message))

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            yield


class _Log:
    """The lines that take a bar's place where there is no terminal."""

    def __init__(self, screen: Screen, title: str, total: int, unit: str) -> None:
        self._screen, self._title, self._total, self._unit = screen, title, total, unit
        self._done = 0
        self._started = self._written = time.monotonic()

    def move(self, steps: int, note: str) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._written < _LINE_SECONDS:
            return
        self._written = now
        elapsed = now - self._started
        left = f", about {clock(elapsed / self._done * (self._total - self._done))} left" if self._done else ""
        place = f"{self._done}/{self._total} {self._unit}".rstrip()
        self._screen.say(f"{self._title}: {place}, {clock(elapsed)} so far{left}{f'; {note}' if note else ''}")


class SearchProgress(DriverOnly, tune.Callback):
    """A bar over the trials, or over all their epochs, and a line for each trial that ended."""

    def __init__(
        self,
        screen: Screen,
        move: Callable[[int, str], None],
        *,
        max_epochs: int,
        best: float | None = None,
        by_epoch: bool = False,
    ) -> None:
        self._screen = screen
        self._move = move
        self._max_epochs = max_epochs
        self._by_epoch = by_epoch
        self._best = best
        self._best_of: dict[str, tuple[float, int]] = {}
        self._running: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Count it among those that run."""
        self._running.add(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Note a trial's best score, and show the best of all."""
        score = float(result[OBJECTIVE])
        if score > self._best_of.get(trial.trial_id, (-1.0, 0))[0]:
            self._best_of[trial.trial_id] = (score, int(result["epoch"]))
        trained = result.get("outcome") != CONSTRAINT
        if trained and (self._best is None or score > self._best):
            self._best = score
        self._move(int(self._by_epoch), self._note())

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the trial's line."""
        result = trial.last_result or {}
        epoch = result.get("epoch", 0)
        if result.get("outcome") == DIVERGED:
            said = f"diverged in epoch {epoch}"
        elif result.get("outcome") == CONSTRAINT:
            said = f"not trained, for {result['reason']}"
        else:
            score, best_epoch = self._best_of.get(trial.trial_id, (float("nan"), 0))
            ended = "" if epoch >= self._max_epochs else f", stopped after epoch {epoch}"
            said = f"score {score:.4f} at epoch {best_epoch}{ended}"
        self._end(trial, said)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Write the trial's line."""
        self._end(trial, "failed")

    def _end(self, trial: Trial, said: str) -> None:
        self._running.discard(trial.trial_id)
        recipe = trial.config.get(RECIPE)
        self._screen.say(f"trial {trial.config['number']}{f' ({recipe})' if recipe else ''}: {said}")
        self._move(int(not self._by_epoch), self._note())

    def _note(self) -> str:
        best = f", best score {self._best:.4f}" if self._best is not None else ""
        return f"{len(self._running)} running{best}"


class EpochProgress(DriverOnly, tune.Callback):
    """A bar over the epochs of a single trial."""

    def __init__(self, move: Callable[[int, str], None]) -> None:
        self._move = move

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Move on by one epoch."""
        self._move(1, f"training loss {result.get('train_loss', float('nan')):.4f}")


def clock(seconds: float) -> str:
    """Seconds as 42 s, 3 min 20 s or 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
