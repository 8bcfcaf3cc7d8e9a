"""Trials of a search method in simulated time, which can be paused and resumed.

The workers are those of `tune_loop.run`: asynchronous, the first ones started within one unit of time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.clock import Clock
from tests.benchmarks.peers.messages import Decision, Peer, Proposal, Report, Values


@dataclass(kw_only=True)
class Training:
    """A trial: its curve, and how far it is. A paused one keeps its checkpoint, that is, its epoch."""

    config: Any
    curve: Sequence[float]
    """Score after each epoch."""
    seconds: float
    """Of an epoch."""
    epoch: int = 0
    """Epochs done."""
    is_paused: bool = False


def run(
    peer: Peer,
    train: Callable[[Values], Training],
    observe: Callable[[int, Training, float], None],
    *,
    workers: int,
    epochs: int,
) -> None:
    """Run trials until `epochs` are spent over all of them.

    Args:
        peer: what proposes and decides.
        train: the trial with these values.
        observe: called with each epoch: the trial, its training and the score.
        workers: number of trials at a time. Those for which there is no proposal wait for the next report.
        epochs: to spend.

    Raises:
        RuntimeError: if the method proposes nothing before all is spent, or resumes a trial that is not paused.
    """
    clock, trainings, idle = Clock[int](), dict[int, Training](), 0

    def fill(now: float) -> None:
        nonlocal idle
        while idle and (proposal := peer.suggest()):
            idle -= 1
            training = _started(proposal, train, trainings)
            clock.add(now + training.seconds, proposal.trial)

    for worker in range(workers):
        idle += 1
        fill(worker / workers)
    for _ in range(epochs):
        if not clock:
            raise RuntimeError("the search method proposes nothing, but epochs are left")
        now, trial = clock.next()
        training = trainings[trial]
        score = training.curve[training.epoch]
        training.epoch += 1
        observe(trial, training, score)
        decision = peer.report(Report(trial=trial, epoch=training.epoch, score=score))
        if decision is Decision.CONTINUE and training.epoch < len(training.curve):
            clock.add(now + training.seconds, trial)
            continue
        training.is_paused = decision is Decision.PAUSE
        idle += 1
        fill(now)


def _started(proposal: Proposal, train: Callable[[Values], Training], trainings: dict[int, Training]) -> Training:
    """The training of a new trial, or of one that is resumed at its next epoch."""
    if proposal.values is not None:
        if proposal.trial in trainings:
            raise RuntimeError(f"trial {proposal.trial} is proposed as a new one, but was started before")
        trainings[proposal.trial] = train(proposal.values)
    elif proposal.trial not in trainings or not trainings[proposal.trial].is_paused:
        raise RuntimeError(f"trial {proposal.trial} is to be resumed, but is not paused")
    training = trainings[proposal.trial]
    training.is_paused = False
    return training
