"""Number of optimizer steps of a training, and a warning if they are too few to train a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from data.quantities import counted
from search.run.prepare import Session, announce_dashboard, each_uses
from search.spec.domains import representatives
from search.spec.spec import SearchSpec
from search.study.experiment import Experiment
from search.terminal import Screen
from trainable.config import TrialConfig
from trainable.config.settings import Value
from trainable.loop.loaders import optimizer_steps

MIN_STEPS = 200
"""With fewer, a network scores below the baselines.

A ResUNet of width 8 (64 px, batches of 16, AdamW at 0.003, one cycle over the run) reached these validation scores:

    rendered rooms, baselines 0.511:        23 steps 0.25, 46 0.40, 92 0.52, 207 0.60, 414 0.67, 828 0.68
    composed photographs, baselines 0.558:  26 steps 0.34, 52 0.50, 104 0.55, 234 0.58, 468 0.61
"""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Range of optimizer steps of a whole training, over all its possible configurations."""

    fewest: int
    most: int
    enough_epochs: int
    """Epochs with which every configuration has at least `MIN_STEPS`."""
    setting: str
    """The spec's key or the option that sets the epochs."""

    def __str__(self) -> str:
        low = "" if self.fewest == self.most else f"{self.fewest:,} to "
        return low + counted(self.most, "optimizer step")

    @property
    def warning(self) -> str:
        """What to do if they are too few for every configuration; '' if they suffice for some."""
        if self.most >= MIN_STEPS:
            return ""
        return (
            f"{self} are too few to train a network, at least {MIN_STEPS} are needed; set "
            f"{self.setting} to {self.enough_epochs} or more, lower data.batch_size, or use more data"
        )

    def as_plain(self) -> dict[str, Value]:
        """As JSON holds it."""
        return {"fewest": self.fewest, "most": self.most, "warning": self.warning or None}


def steps_of_search(spec: SearchSpec, samples: int, workers: int = 1) -> Steps:
    """Steps of a trial that runs for all epochs.

    Args:
        spec: of the search.
        samples: in the training part.
        workers: processes that share a trial.
    """
    batches, repeats = (_ends(spec, key) for key in ("data.batch_size", "optimizer.steps_per_batch"))
    slow, fast = (
        steps_of(spec.largest_trial(chosen), samples, workers, setting="scheduler.max_epochs")
        for chosen in (
            {"data.batch_size": batches[1], "optimizer.steps_per_batch": repeats[0]},
            {"data.batch_size": batches[0], "optimizer.steps_per_batch": repeats[1]},
        )
    )
    return replace(slow, most=fast.most)


def steps_of(config: TrialConfig, samples: int, workers: int = 1, *, setting: str = "--epochs") -> Steps:
    """Steps of the training of one configuration; see `steps_of_search`, and `Steps.setting`."""
    steps = found = optimizer_steps(config, samples, workers)
    epochs = config.epochs
    while found < MIN_STEPS:
        epochs = max(epochs + 1, math.ceil(epochs * MIN_STEPS / found))
        found = optimizer_steps(config.model_copy(update={"epochs": epochs}), samples, workers)
    return Steps(fewest=steps, most=steps, enough_epochs=epochs, setting=setting)


def announce(
    screen: Screen, experiment: Experiment, spec: SearchSpec, counts: Mapping[str, int], steps: Steps, session: Session
) -> None:
    """Print what a search will do, with a warning if its trials are too short.

    Args:
        screen: where it is shown.
        experiment: the search.
        spec: of the search.
        counts: number of samples in each part.
        steps: of a whole trial.
        session: of the search.
    """
    parts = ", ".join(f"{count} {part}" for part, count in counts.items())
    screen.say(
        f"search '{experiment.name}': {counted(spec.plan.budget.trials, 'trial')} of up to "
        f"{counted(spec.plan.scheduler.max_epochs, 'epoch')} on {parts} samples; {session.concurrent} at a time with "
        f"{each_uses(session.workers)} each; a whole trial takes {steps}"
    )
    screen.warn(steps.warning)
    announce_dashboard(screen, session.dashboard)


def _ends(spec: SearchSpec, key: str) -> tuple[int, int]:
    """The smallest and the largest value of an integer leaf."""
    values = [value for value in representatives(spec.space[key]) if isinstance(value, int)]
    return min(values), max(values)
