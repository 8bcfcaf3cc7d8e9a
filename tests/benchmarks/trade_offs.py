"""How much of the best trade-offs a search of two objectives finds: ours, random, and Optuna's NSGA-II and TPE.

python tests/benchmarks/trade_offs.py [--seeds 10] [--trials 60] [--json FILE]

On two made-up problems with learning curves, of which every side runs the same number of whole trials: what each has
after them is the hypervolume of its front, as a share of what 100,000 random configurations come to. A ratio says how
many times as much is missing to that without our search as with it. Ours runs with its scheduler as well, which
stops trials by the first objective alone, until it has run as many epochs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from results import Row, arguments, publish

from search.spec.sampler import SamplerNotation
from search.spec.sections import rung_epochs
from search.strategy.encoding import SampledTrial
from search.strategy.pareto import hypervolume
from search.strategy.proposer import KNOWN
from search.strategy.scheduler import build_scheduler
from search.strategy.searcher import RungSearcher

EPOCHS = 27
SCHEDULE = {"max_epochs": EPOCHS, "grace_epochs": 3, "reduction_factor": 3}
REFERENCE_DRAWS = 100_000
OURS, STOPPED = "RungSearcher", "RungSearcher with its scheduler"
SAMPLERS: dict[str, SamplerNotation] = {
    OURS: "gp",
    STOPPED: "gp",
    "random": "random",
    "NSGA-II": {"NSGAIISampler": {"population_size": 20}},
    "TPE": "tpe",
}
"""Values of `search.sampler`; all but one without early stopping."""
SIDES = tuple(SAMPLERS)


class Problem(Protocol):
    """A space, the other objective, and curves of both objectives."""

    @property
    def objective(self) -> str:
        """The second objective, such as '-macs'."""

    def space(self, trial: optuna.Trial) -> dict[str, Any]:
        """SampledTrial a configuration."""

    def curve(self, config: dict[str, Any], epoch: int) -> tuple[float, float]:
        """Score and second objective after an epoch; larger is better."""


@dataclass(frozen=True)
class Sizes:
    """Good networks are large ones, with diminishing returns; how large one is is known before it is trained."""

    objective: str = "-macs"

    def space(self, trial: optuna.Trial) -> dict[str, Any]:
        """Eight parameters, of which the network's three settle its multiply-adds."""
        config: dict[str, Any] = {
            "family": trial.suggest_categorical("family", ["plain", "residual", "separable"]),
            "width": trial.suggest_int("width", 4, 64, log=True),
            "depth": trial.suggest_int("depth", 1, 4),
            "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
            "momentum": trial.suggest_float("momentum", 0.0, 1.0),
            "decay": trial.suggest_float("decay", 1e-6, 1e-2, log=True),
            "warmup": trial.suggest_float("warmup", 0.0, 0.5),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        }
        trial.set_user_attr(KNOWN, {"macs": self._size(config)})
        return config

    def curve(self, config: dict[str, Any], epoch: int) -> tuple[float, float]:
        """Larger networks learn slower, and want smaller learning rates."""
        size = self._size(config)
        gain = {"plain": 0.0, "residual": 0.06, "separable": 0.02}[config["family"]]
        end = 0.5 + gain + 0.3 * (1 - math.exp(-size / 3)) - 0.02 * abs(config["depth"] - 3)
        off = math.log10(config["lr"]) + 1.2 + 0.2 * size
        end -= 0.06 * off**2 + 0.1 * (config["momentum"] - 0.8) ** 2 + 0.01 * (math.log10(config["decay"]) + 4) ** 2
        end -= 0.2 * (config["dropout"] - 0.04 * size) ** 2
        speed = 3 + 2 * size + 6 * config["warmup"]
        return end * (1 - 0.6 * math.exp(-epoch / speed)), -size

    def _size(self, config: dict[str, Any]) -> float:
        """Logarithm of the multiply-adds."""
        share = {"plain": 1.0, "residual": 1.6, "separable": 0.3}[config["family"]]
        return math.log(share * config["width"] ** 2 * config["depth"] / 5)


@dataclass(frozen=True)
class Heads:
    """Two heads share a network: what helps one takes from the other."""

    objective: str = "-error"

    def space(self, trial: optuna.Trial) -> dict[str, Any]:
        """Six parameters."""
        return {
            "weight": trial.suggest_float("weight", 0.05, 20.0, log=True),
            "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
            "width": trial.suggest_categorical("width", [8, 16, 32, 64]),
            "decay": trial.suggest_float("decay", 1e-6, 1e-2, log=True),
            "jitter": trial.suggest_float("jitter", 0.0, 1.0),
            "policy": trial.suggest_categorical("policy", ["step", "cosine", "cyclic"]),
        }

    def curve(self, config: dict[str, Any], epoch: int) -> tuple[float, float]:
        """The weight shifts what is learned from one head to the other; jitter helps the first and hurts the second."""
        share = 1 / (1 + config["weight"])
        off = 0.05 * (math.log10(config["lr"]) + 2) ** 2 + 0.008 * (math.log10(config["decay"]) + 4) ** 2
        off += {"step": 0.03, "cosine": 0.0, "cyclic": 0.05}[config["policy"]]
        off += {8: 0.12, 16: 0.05, 32: 0.0, 64: 0.03}[config["width"]]
        one = 0.9 - 0.4 * (1 - share) ** 2 - 0.2 * (config["jitter"] - 0.7) ** 2 - off
        other = 0.1 + 0.5 * share**2 + 0.3 * (config["jitter"] - 0.2) ** 2 + off
        slow = math.exp(-epoch / (4 + 6 * config["jitter"]))
        return one * (1 - 0.5 * slow), -other * (1 + slow)


PROBLEMS: dict[str, Problem] = {"sizes": Sizes(), "heads": Heads()}


def main() -> None:
    """Every side on every problem and seed."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=60)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for name, problem in PROBLEMS.items():
        measure = volume_of(problem)
        shares = {side: [] for side in SIDES}  # type: dict[str, list[float]]
        for seed in range(options.seeds):
            for side in SIDES:
                shares[side].append(measure(run(side, problem, options.trials, seed)))
        rows += [row(name, side, options.trials, shares[side]) for side in SIDES]
        missing = {side: 1 - statistics.mean(shares[side]) for side in SIDES}
        ratios |= {f"{name}: {side} / {OURS}": missing[side] / missing[OURS] for side in SIDES[1:]}
    publish(rows, ratios, options.json)


def row(problem: str, side: str, trials: int, shares: list[float]) -> Row:
    """The mean share of the best hypervolume, with one standard error."""
    error = statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) > 1 else math.nan
    return {"problem": problem, "side": side, "trials": trials, "share": statistics.mean(shares), "error": error}


def volume_of(problem: Problem) -> Callable[[list[tuple[float, float]]], float]:
    """The hypervolume of points, as a share of that of many random configurations, on the scale of their front."""
    rng = np.random.default_rng(0)
    draws = (SampledTrial(rng) for _ in range(REFERENCE_DRAWS))
    points: NDArray[np.float64] = np.array([problem.curve(problem.space(draw), EPOCHS) for draw in draws])  # type: ignore[arg-type]
    low, high = np.quantile(points, 0.5, axis=0), points.max(0)
    whole = hypervolume(staircase(points), low)

    def measure(found: list[tuple[float, float]]) -> float:
        return hypervolume(np.array(found), low) / whole

    assert (high > low).all()
    return measure


def staircase(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of many points of two objectives that nothing dominates."""
    ordered = points[np.lexsort((-points[:, 1], -points[:, 0]))]
    best = np.maximum.accumulate(ordered[:, 1])
    return np.asarray(ordered[np.append(True, ordered[1:, 1] > best[:-1])])


def run(side: str, problem: Problem, trials: int, seed: int) -> list[tuple[float, float]]:
    """What the trials of a search reached, each at the epoch of its best score."""
    searcher = RungSearcher(
        problem.space,
        rungs=rung_epochs(**SCHEDULE),
        seed=seed,
        objectives=[problem.objective],
        sampler=SAMPLERS[side],
    )
    budget, reached = trials * EPOCHS, []  # type: int, list[tuple[float, float]]
    stop = stops_at(side)
    while budget > 0:
        number = str(len(reached))
        config = searcher.suggest(number)
        name, curve = (
            problem.objective.removeprefix("-"),
            [problem.curve(config, epoch) for epoch in range(1, EPOCHS + 1)],
        )
        last = stop(number, [score for score, _ in curve])
        for epoch, (score, other) in enumerate(curve[:last], start=1):
            report = {"epoch": epoch, "score": score, name: -other}
            if epoch < last:
                searcher.on_trial_result(number, report)
            else:
                searcher.on_trial_complete(number, report)
        budget -= last
        reached.append(max(curve[:last]))
    return reached


def stops_at(side: str) -> Callable[[str, list[float]], int]:
    """The epoch after which a trial with these scores is stopped."""
    scheduler: Any = build_scheduler(name="halving" if side == STOPPED else "none", **SCHEDULE)  # type: ignore[arg-type]

    def stop(number: str, scores: list[float]) -> int:
        trial: Any = type("Stub", (), {"trial_id": number, "config": {}})()
        for epoch, score in enumerate(scores, start=1):
            if scheduler.on_trial_result(None, trial, {"epoch": epoch, "score": score}) == "STOP":
                return epoch
        return len(scores)

    return stop


if __name__ == "__main__":
    main()
