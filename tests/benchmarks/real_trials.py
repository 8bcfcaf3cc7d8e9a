"""Trials that are trained for a benchmark, without Ray: from rung to rung, each stretch once, whoever asks for it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.loader import Loader
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.loop import EpochEnd, NonFiniteLossError
from trainable.loop.state import DistributedContext, Training
from trainable.metrics.names import OBJECTIVE, WORST


class _RungReachedError(Exception):
    """The stretch ends here; its checkpoint is written."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The epochs from one rung to the next."""

    scores: list[float]
    """One an epoch; the last one is `WORST` if the loss was not finite in it."""
    diverged: bool
    seconds: float
    """Of a core."""


class Trainer:
    """Gives a trial's reports as it is asked for them; may be called from several threads.

    Args:
        processes: do the training.
        data: what is trained on.
        directory: for checkpoints.
        rungs: the epochs at which a trial may be stopped, ascending, and its last one.
    """

    def __init__(self, processes: Executor, data: TrialData, directory: Path, rungs: Sequence[int]) -> None:
        self._processes = processes
        self._data = data
        self._directory = directory
        self._rungs = list(rungs)
        self._stretches: dict[tuple[str, int], Future[Stretch]] = {}
        self._lock = threading.Lock()

    def __call__(self, config: dict[str, Any]) -> Iterator[dict[str, float]]:
        """Reports of epoch and score; what is suggested lies at `trial` of the configuration."""
        name = hashlib.sha256(json.dumps(config["trial"], sort_keys=True).encode()).hexdigest()
        epoch = 0
        for rung in self._rungs:
            stretch = self._stretch(name, config["trial"], epoch, rung)
            for score in stretch.scores:
                epoch += 1
                yield {"epoch": epoch, OBJECTIVE: score}
            if stretch.diverged:
                return

    @property
    def epochs(self) -> int:
        """How many were trained."""
        return sum(len(each.result().scores) for each in self._stretches.values())

    @property
    def seconds(self) -> float:
        """What they took of all cores together."""
        return sum(each.result().seconds for each in self._stretches.values())

    def _stretch(self, name: str, values: dict[str, Any], start: int, end: int) -> Stretch:
        with self._lock:
            if (name, end) not in self._stretches:
                given = (values, self._data, self._directory / name, start, end)
                self._stretches[name, end] = self._processes.submit(train, *given)
            waited_for = self._stretches[name, end]
        return waited_for.result()


def train(values: dict[str, Any], data: TrialData, directory: Path, start: int, end: int) -> Stretch:
    """Train on one thread from the checkpoint of epoch `start`, or from the beginning, to the epoch `end`."""
    torch.set_num_threads(1)
    began, scores = time.process_time(), list[float]()
    config = build(TrialConfig, values, source="the searcher's suggestion")

    def report(epoch: EpochEnd, _training: Training, _val: Loader | None) -> None:
        scores.append(epoch.metrics[OBJECTIVE])
        if epoch.epoch == end and epoch.save is not None and end < config.epochs:
            directory.mkdir(exist_ok=True)
            epoch.save(directory)
            raise _RungReachedError

    diverged = False
    try:
        trial.run(
            config,
            data,
            context=DistributedContext(device=torch.device("cpu")),
            report=report,
            checkpoint_epochs=frozenset((end,)),
            resume_from=[directory] if start else [],
        )
    except _RungReachedError:
        pass
    except NonFiniteLossError:
        diverged = True
        scores.append(WORST)
    return Stretch(scores=scores, diverged=diverged, seconds=time.process_time() - began)
