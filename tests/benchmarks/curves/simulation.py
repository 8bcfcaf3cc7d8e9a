"""Searches of the default space on the surrogate of the table of curves, with asynchronous workers in simulated time.

Time is that of the trainings of the table, and budgets are in epochs, over all trials.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.spec.sections import rung_epochs
from search.spec.spec import SearchSpec, check_spec
from search.strategy.encoding import SampledTrial, SpaceEncoding
from search.strategy.scheduler import build_scheduler
from search.strategy.searcher import RungSearcher
from search.strategy.space import define_space
from search.strategy.warm_start import PORTFOLIO_MEMBER, Start, default_leaves, enqueue, find_starts, fit
from search.study.trials import RECIPE
from tests.benchmarks.curves.portfolio import portfolio
from tests.benchmarks.curves.surrogate import EPOCHS, CurveSurrogate
from tests.benchmarks.tune_loop import Search, optuna_search, run
from trainable.config import TrialConfig, build
from trainable.job import TrialRequest
from trainable.metrics.names import OBJECTIVE, TIME_ATTR

Floats = NDArray[np.float64]
Config = Mapping[str, Any]
Space = Callable[[Any], Config | None]
"""A define-by-run space; the configuration is what it returns, or else its parameters."""
Score = Callable[[Sequence[Config]], Floats]
"""Scores of configurations without noise, (n,)."""

DATA_SETS = ("nyu", "rooms")
IMAGE_SIZE = 48
WORKERS = 8
"""Trials at a time, as in the simulation of the published surrogate."""
RANDOM_TRAININGS = 4_000
LEADERS = 20
"""Configurations whose neighbours are tried for the best possible one."""
STEP_SIZES = (0.2, 0.1, 0.05, 0.02)
"""Of these neighbours, in shares of a range: one after the other in each round."""
ROUNDS = 6
NEIGHBOURS = 150


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What random trainings, and the best possible one, score without noise."""

    best: float
    random: Floats
    """(n,) of random full trainings, ascending."""

    def worth(self, score: float) -> float:
        """The number of random full trainings of which the best is expected to be as good as `score`."""
        better = len(self.random) - np.searchsorted(self.random, score, side="right")
        return float((len(self.random) + 1) / (1 + better))

    def regret(self, score: float) -> float:
        """How much better the best possible configuration is."""
        return self.best - score


def reference(
    space: Space,
    score: Score,
    *,
    trainings: int = RANDOM_TRAININGS,
    rounds: int = ROUNDS,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> Reference:
    """Score random configurations, and climb from the best of them to the best possible score.

    Args:
        space: the search space.
        score: without noise.
        trainings: number of random configurations.
        rounds: of neighbours of the best configurations, of all step sizes each.
        neighbours: number of neighbours at a time.
        seed: of everything random here.
    """
    rng, encoding = np.random.default_rng(seed), SpaceEncoding()
    drawn, scores = _drawn(space, rng, [{}] * trainings, encoding), np.zeros(0)
    scores = score([config for _, config in drawn])
    random = np.sort(scores)
    for width in STEP_SIZES * rounds:
        first = np.argsort(-scores, kind="stable")[:LEADERS]
        drawn, scores = [drawn[index] for index in first], scores[first]
        rows = np.stack([encoding.row(trial.params, trial.distributions) for trial, _ in drawn])
        moved = encoding.neighbours(rng, rows, neighbours, width)
        near = _drawn(space, rng, [encoding.wanted(row) for row in moved], encoding)
        drawn, scores = [*drawn, *near], np.concatenate([scores, score([config for _, config in near])])
    return Reference(best=float(scores.max()), random=random)


def _drawn(
    space: Space, rng: np.random.Generator, wanted: Sequence[Mapping[str, float]], encoding: SpaceEncoding
) -> list[tuple[SampledTrial, Config]]:
    """Sample the space once per mapping of wanted values, and extend the encoding."""
    found = []
    for values in wanted:
        trial = SampledTrial(rng, values)
        config = space(trial)
        encoding.extend(trial.distributions)
        found.append((trial, trial.params if config is None else config))
    return found


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search found in a budget, as scores without noise."""

    chosen: float
    """Of the configuration that the search would return."""
    best_tried: float
    """Of the best configuration of all trials, which the noise of their scores may hide."""


class Chosen:
    """The configuration that a search would return, after each epoch spent: that of the best observed epoch."""

    def __init__(self) -> None:
        self.configs: list[Config] = []
        """After each epoch spent, over all trials."""
        self.started: dict[str, tuple[int, Config]] = {}
        """By trial, the epochs spent when its first one was observed, and its configuration."""
        self._best = -np.inf

    def observe(self, trial_id: str, config: Config, score: float) -> None:
        """Add an epoch of a trial."""
        is_better = not self.configs or score > self._best
        self.configs.append(config if is_better else self.configs[-1])
        self._best = max(self._best, score)
        self.started.setdefault(trial_id, (len(self.configs), config))

    def outcomes(self, budgets: Sequence[int], score: Score) -> dict[int, Outcome]:
        """The outcome after each of the budgets, in epochs; `score` is without noise."""
        firsts = np.array([first for first, _ in self.started.values()])
        tried = score([config for _, config in self.started.values()])
        chosen = score([self.configs[budget - 1] for budget in budgets])
        return {
            budget: Outcome(chosen=float(one), best_tried=float(tried[firsts <= budget].max()))
            for budget, one in zip(budgets, chosen, strict=True)
        }


class _Observer(tune.Callback):
    """Shows the epochs of a simulated search to `Chosen`."""

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen

    def on_trial_result(self, *_: Any, trial: Any, result: dict[str, Any], **__: Any) -> None:
        self._chosen.observe(trial.trial_id, trial.config["trial"], float(result[OBJECTIVE]))


@dataclass(frozen=True, kw_only=True)
class Side:
    """What searches: values of `search.sampler`, `scheduler.name` and `search.start_from`."""

    sampler: str
    """'' for Ray's OptunaSearch."""
    scheduler: str
    start_from: tuple[str, ...] = ()
    """A portfolio is chosen on the other data sets, not on the one that is searched."""


def spec_of(setting: Mapping[str, Any], seed: int = 0) -> SearchSpec:
    """The default space at the image size of the table.

    Args:
        setting: the section `scheduler`.
        seed: of the search.
    """
    given = {
        "data": {"image_size": IMAGE_SIZE},
        "scheduler": dict(setting),
        "search": {"seed": seed, "start_from": []},
    }
    return check_spec(given, source="this benchmark", data_path="nowhere")


def search_of(side: Side, setting: Mapping[str, Any], seed: int, data_set: str) -> tuple[Searcher, TrialScheduler]:
    """The searcher and the scheduler of a side for a data set; `setting` is the section `scheduler` of its spec."""
    spec = spec_of(setting, seed)
    space = define_space(spec)
    scheduler = build_scheduler(name=side.scheduler, **setting)
    if not side.sampler:
        return optuna_search(space, seed), scheduler
    study = optuna.create_study(direction="maximize")
    for start in starts_of(side, spec, data_set):
        enqueue(study, start)
    searcher = RungSearcher(
        space,
        rungs=rung_epochs(**setting),
        seed=seed,
        sampler=side.sampler,
        study=study,
        describe=lambda trial, values: TrialRequest(
            name=str(trial.number), recipe=trial.user_attrs.get(RECIPE, ""), trial=values
        ).as_plain(),
    )
    return searcher, scheduler


def starts_of(side: Side, spec: SearchSpec, data_set: str) -> Iterator[Start]:
    """The first trials of a side."""
    by_default = default_leaves(spec)
    for name in side.start_from:
        if name == "portfolio":
            for chosen in portfolio(*(other for other in DATA_SETS if other != data_set)):
                start = Start(kind=PORTFOLIO_MEMBER, name=str(chosen.configuration_id))
                yield fit(start, build(TrialConfig, chosen.values, source="the table"), spec, by_default)
        else:
            yield from find_starts(spec, [name], Path())[0]


def best_epoch_scores(surrogate: CurveSurrogate, configurations: Sequence[Config]) -> Floats:
    """The best epoch of each configuration's mean curve, (n,): a search keeps the checkpoint of the best epoch."""
    return surrogate.score_curves(configurations).max(1)


def simulate(
    surrogate: CurveSurrogate, pair: tuple[Searcher, TrialScheduler], seed: int, budgets: Sequence[int]
) -> dict[int, Outcome]:
    """Search, and return what was found in each budget.

    Args:
        surrogate: of one data set.
        pair: searcher and scheduler.
        seed: of the noise; with the same one, a configuration has the same curve on all sides.
        budgets: in epochs, over all trials. A simulation does not know its budget, so that a smaller one is the first
            part of a larger one.
    """
    chosen = Chosen()

    def train(config: dict[str, Any]) -> Iterator[dict[str, float]]:
        for epoch, score in enumerate(surrogate.observed(config["trial"], seed).tolist(), start=1):
            yield {TIME_ATTR: epoch, OBJECTIVE: score}

    searcher, scheduler = pair
    run(
        Search(searcher=searcher, scheduler=scheduler, callbacks=[_Observer(chosen)]),
        train,
        concurrent=WORKERS,
        epochs=max(budgets),
        seconds=lambda config: surrogate.seconds(config["trial"]),
    )
    return chosen.outcomes(budgets, lambda configurations: best_epoch_scores(surrogate, configurations))


@functools.cache
def surrogate_of(data_set: str, kind: str) -> CurveSurrogate:
    """The surrogate of a data set, fitted once in a process."""
    return CurveSurrogate(data_set, kind)


def reference_of(data_set: str, kind: str) -> Reference:
    """The reference of a data set of the table."""
    surrogate = surrogate_of(data_set, kind)
    space = define_space(spec_of({"max_epochs": EPOCHS}))
    return reference(space, lambda configurations: best_epoch_scores(surrogate, configurations))
