"""Progress of a search or a training on the screen, as callbacks of Ray Tune."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from search.driver import DriverOnly
from search.results.summary import best_score
from search.run.failures import find_fault, last_error, reason_of
from search.study.trials import RECIPE, TrialRecord
from search.terminal import Screen
from trainable.metrics.names import CONSTRAINT, DIVERGED, OBJECTIVE

_ON_ANOTHER_MACHINE = (
    "a trial that starts there measures model.precision 'auto' there, one that continues keeps its own"
)


class SearchProgress(DriverOnly, tune.Callback):
    """A progress bar over the trials or over all epochs, and a line for each trial that ended.

    Args:
        screen: where they are shown.
        move: advances the bar.
        max_epochs: of a trial.
        earlier: trials of earlier runs; interrupted ones among them may be resumed.
        by_epoch: whether the bar counts epochs, not trials.
    """

    def __init__(
        self,
        screen: Screen,
        move: Callable[[int, str], None],
        *,
        max_epochs: int,
        earlier: Sequence[TrialRecord] = (),
        by_epoch: bool = False,
    ) -> None:
        self._screen = screen
        self._move = move
        self._max_epochs = max_epochs
        self._by_epoch = by_epoch
        self._best = best_score(earlier)
        self._earlier = {trial.number: best for trial in earlier if (best := trial.best_epoch) is not None}
        self._best_of: dict[str, tuple[float, int]] = {}
        self._running: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Count the trial as running, with the epochs that it ran before an interruption."""
        self._running.add(trial.trial_id)
        if (before := self._earlier.get(trial.config["number"])) is not None:
            self._best_of.setdefault(trial.trial_id, (before.score, before.epoch))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Update the best scores, and show the best."""
        if note := result.get("note"):
            self._screen.say(f"trial {trial.config['number']}: {note}")
        score = float(result[OBJECTIVE])
        if score > self._best_of.get(trial.trial_id, (-1.0, 0))[0]:
            self._best_of[trial.trial_id] = (score, int(result["epoch"]))
        trained = result.get("outcome") != CONSTRAINT
        if trained and (self._best is None or score > self._best):
            self._best = score
        self._move(int(self._by_epoch), self._note())

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Print the trial's line."""
        result = trial.last_result or {}
        epoch = result.get("epoch", 0)
        if result.get("outcome") == DIVERGED:
            line = f"diverged in epoch {epoch}"
        elif result.get("outcome") == CONSTRAINT:
            line = f"not trained: {result['reason']}"
        else:
            score, best_epoch = self._best_of.get(trial.trial_id, (float("nan"), 0))
            ended = "" if epoch >= self._max_epochs else f", stopped after epoch {epoch}"
            line = f"score {score:.4f} at epoch {best_epoch}{ended}"
        self._end(trial, line)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Print the trial's line if the failure is its own."""
        if find_fault(last_error(trial)) is None:
            self._end(trial, f"failed: {reason_of(trial)}")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Drop interrupted trials."""
        self._running.clear()

    def _end(self, trial: Trial, line: str) -> None:
        self._running.discard(trial.trial_id)
        recipe = trial.config.get(RECIPE)
        self._screen.say(f"trial {trial.config['number']}{f' ({recipe})' if recipe else ''}: {line}")
        self._move(int(not self._by_epoch), self._note())

    def _note(self) -> str:
        best = best_note(self._best)
        return f"{len(self._running)} running{f', {best}' if best else ''}"


class MachineChange(DriverOnly, tune.Callback):
    """Warns when a trial runs on another kind of machine than earlier trials.

    Args:
        screen: where the warning is shown.
        earlier: the earlier trials.
        consequence: for the trials' precision, as a clause.
    """

    def __init__(self, screen: Screen, earlier: Iterable[TrialRecord], consequence: str = _ON_ANOTHER_MACHINE) -> None:
        self._screen = screen
        self._known = {trial.machine for trial in earlier if trial.machine}
        self._consequence = consequence

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Compare the machine of a report with earlier ones."""
        machine = result.get("machine", "")
        if not machine or machine in self._known:
            return
        if self._known:
            number = trial.config.get("number")
            name = "the retraining" if number is None else f"trial {number}"
            self._screen.warn(
                f"{name} runs on another kind of machine, {machine}, than earlier trials, "
                f"{' and '.join(sorted(self._known))}: {self._consequence} ({result['precision']} here)"
            )
        self._known.add(machine)


class EpochProgress(DriverOnly, tune.Callback):
    """A progress bar over the epochs of a single trial."""

    def __init__(self, screen: Screen, move: Callable[[int, str], None]) -> None:
        self._screen = screen
        self._move = move

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Advance by one epoch."""
        if note := result.get("note"):
            self._screen.say(note)
        self._move(1, f"training loss {result.get('train_loss', float('nan')):.4f}")


def best_note(score: float | None) -> str:
    """The best score so far, as a note beside a bar; '' if there is none."""
    return f"best score {score:.4f}" if score is not None else ""
