"""The one-epoch baseline: random configurations are trained for one epoch, and the best of them to the end.

As in "Is One Epoch All You Need For Multi-Fidelity Hyperparameter Optimization?" (Egele et al. 2023), the best are
three. It knows its budget, unlike the other methods: all that the three do not need goes to first epochs.
"""

from __future__ import annotations

import random

from tests.benchmarks.peers.messages import Begin, Decision, Proposal, Report

BEST = 3


class OneEpoch:
    """The baseline as a `Peer`."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._rng = random.Random(begin.seed)  # noqa: S311 - no secrets here
        self._trials = begin.budget - BEST * (begin.max_epochs - 1)
        if self._trials < BEST:
            raise ValueError(
                f"the budget is {begin.budget} epochs, but must be at least those of {BEST} full trainings"
            )
        self._started = 0
        self._scores: dict[int, float] = {}
        """Of the first epochs, by trial."""
        self._resumed: set[int] = set()

    def suggest(self) -> Proposal | None:
        """A random configuration; the best ones when all first epochs are known."""
        if self._started < self._trials:
            self._started += 1
            values = {parameter.name: parameter.sampled(self._rng) for parameter in self._begin.space}
            return Proposal(trial=self._started - 1, values=values)
        if len(self._scores) < self._trials:
            return None
        best = sorted(self._scores, key=lambda trial: -self._scores[trial])[:BEST]
        paused = [trial for trial in best if trial not in self._resumed]
        if not paused:
            return None
        self._resumed.add(paused[0])
        return Proposal(trial=paused[0], values=None)

    def report(self, report: Report) -> Decision:
        """Pause after the first epoch, and train to the end afterwards."""
        if report.epoch > 1:
            return Decision.STOP if report.epoch == self._begin.max_epochs else Decision.CONTINUE
        self._scores[report.trial] = report.score
        return Decision.PAUSE
