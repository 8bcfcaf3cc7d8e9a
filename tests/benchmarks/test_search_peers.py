"""Search methods in processes of their own: the protocol, pause and resume in simulated time, and flat spaces."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest

from search.strategy.encoding import SampledTrial
from search.strategy.space import define_space
from tests.benchmarks import search_peers, search_quality
from tests.benchmarks.curves import simulation
from tests.benchmarks.curves.simulation import Outcome, Reference
from tests.benchmarks.curves.surrogate import EPOCHS
from tests.benchmarks.peers.flat_space import FlatSpace
from tests.benchmarks.peers.loop import Training, run
from tests.benchmarks.peers.messages import Begin, Decision, Kind, Parameter, Proposal, Report, Values
from tests.benchmarks.peers.one_epoch import BEST
from tests.benchmarks.peers.process import PeerProcess
from trainable.config import TrialConfig, build

SPACE = (
    Parameter(name="lr", kind=Kind.FLOAT, low=0.001, high=0.1, log=True),
    Parameter(name="units", kind=Kind.INT, low=16, high=64),
    Parameter(name="batch", kind=Kind.ORDERED, choices=(8, 16, 32)),
    Parameter(name="halve", kind=Kind.CHOICE, choices=(True, False)),
)
MAX_EPOCHS, BUDGET = 5, 30
BEGIN = Begin(method="one-epoch", seed=3, max_epochs=MAX_EPOCHS, budget=BUDGET, space=SPACE)


class Scripted:
    """Proposes a list of trials, pauses each trial after its first epoch, and otherwise continues."""

    def __init__(self, proposals: Sequence[Proposal | None]) -> None:
        self._left = list(proposals)

    def suggest(self) -> Proposal | None:
        return self._left.pop(0) if self._left else None

    def report(self, report: Report) -> Decision:
        return Decision.PAUSE if report.epoch == 1 else Decision.CONTINUE


def new(trial: int) -> Proposal:
    return Proposal(trial=trial, values={"trial": trial})


def resumed(trial: int) -> Proposal:
    return Proposal(trial=trial, values=None)


def epochs_of(
    proposals: Sequence[Proposal | None], *, workers: int, epochs: int, seconds: Sequence[float] = (1, 1, 1)
) -> list[tuple[int, int, float]]:
    """Run a scripted method; the trial, epoch and score of each epoch, in order."""
    seen: list[tuple[int, int, float]] = []

    def train(values: Values) -> Training:
        trial = int(values["trial"])
        return Training(config=values, curve=[trial + epoch / 10 for epoch in (1, 2, 3)], seconds=seconds[trial])

    run(
        Scripted(proposals),
        train,
        lambda trial, training, score: seen.append((trial, training.epoch, score)),
        workers=workers,
        epochs=epochs,
    )
    return seen


def test_a_resumed_trial_continues_at_its_next_epoch() -> None:
    """Its checkpoint is kept: no epoch is trained, or counted, twice."""
    seen = epochs_of([new(0), new(1), resumed(0), resumed(1)], workers=1, epochs=6)

    assert [(trial, epoch) for trial, epoch, _ in seen] == [(0, 1), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    assert [score for *_, score in seen] == pytest.approx([0.1, 1.1, 0.2, 0.3, 1.2, 1.3])


def test_a_pause_frees_the_worker_and_takes_no_time() -> None:
    """While a slow trial has one epoch, the other worker trains two others, one of them after its pause."""
    seen = epochs_of([new(0), new(1), new(2), resumed(1)], workers=2, epochs=4, seconds=(10, 1, 1))

    assert [(trial, epoch) for trial, epoch, _ in seen] == [(1, 1), (2, 1), (1, 2), (1, 3)]


def test_a_worker_without_a_proposal_waits_for_the_next_report() -> None:
    """As with methods that wait for all trials of a rung."""
    seen = epochs_of([new(0), None, new(1), new(2)], workers=2, epochs=3, seconds=(1, 5, 1))

    # Trials 1 and 2 both start after the first report, on both workers.
    assert [(trial, epoch) for trial, epoch, _ in seen] == [(0, 1), (2, 1), (1, 1)]


@pytest.mark.parametrize(
    ("proposals", "what"),
    [
        ([new(0), resumed(1)], "trial 1 is to be resumed, but is not paused"),
        ([new(0), resumed(0), resumed(0)], "trial 0 is to be resumed, but is not paused"),
        ([new(0), new(0)], "trial 0 is proposed as a new one"),
        ([new(0)], "proposes nothing, but epochs are left"),
    ],
    ids=["unknown", "ended", "new twice", "nothing"],
)
def test_a_method_that_breaks_the_rules_is_noticed(proposals: Sequence[Proposal], what: str) -> None:
    """Else its figures would be those of a simulation that it was not made for."""
    with pytest.raises(RuntimeError, match=what):
        epochs_of(proposals, workers=1, epochs=9)


def simulated(begin: Begin) -> tuple[list[Training], list[str], int]:
    """Run a method in its process; the score of a trial falls with its learning rate."""
    trainings: list[Training] = []

    def train(values: Values) -> Training:
        curve = [epoch - float(values["lr"]) for epoch in range(begin.max_epochs)]
        trainings.append(Training(config=values, curve=curve, seconds=1.0))
        return trainings[-1]

    order: list[str] = []
    with PeerProcess(Path(sys.executable), begin) as peer:
        run(
            peer,
            train,
            lambda trial, training, _: order.append(f"{trial}:{training.epoch}"),
            workers=8,
            epochs=begin.budget,
        )
    return trainings, order, peer.proposals


def test_the_one_epoch_baseline_trains_the_best_to_the_end() -> None:
    """In its process: its budget is spent to the last epoch, and three trials are resumed, the best ones."""
    trainings, order, proposals = simulated(BEGIN)
    first = BUDGET - BEST * (MAX_EPOCHS - 1)

    by_score = sorted(trainings, key=lambda training: -training.curve[0])
    assert [training.epoch for training in by_score] == [MAX_EPOCHS] * BEST + [1] * (first - BEST)
    assert {each.partition(":")[2] for each in order[:first]} == {"1"}
    assert len(order) == BUDGET
    assert proposals == first + BEST


def test_values_arrive_as_they_were_sent() -> None:
    """Numbers, booleans and choices have their types and ranges, and the same seed has the same values."""
    trainings, *_ = simulated(BEGIN)
    again, *_ = simulated(BEGIN)
    rng = random.Random(BEGIN.seed)  # noqa: S311 - no secrets here
    expected = [{each.name: each.sampled(rng) for each in Begin.of_line(BEGIN.as_line()).space} for _ in trainings]

    assert [training.config for training in trainings] == expected
    assert [training.config for training in again] == expected
    assert {type(value) for training in trainings for value in training.config.values()} == {float, int, bool}
    assert {training.config["batch"] for training in trainings} == {8, 16, 32}


def test_a_process_that_fails_says_why() -> None:
    """Here the baseline, with too few epochs for it."""
    begin = Begin(method="one-epoch", seed=0, max_epochs=27, budget=27, space=SPACE)
    with PeerProcess(Path(sys.executable), begin) as peer, pytest.raises(RuntimeError, match="the budget is 27 epochs"):
        peer.suggest()


def small_space(trial: Any) -> Mapping[str, Any]:
    """A learning rate by optimizer, a width by family, and a choice."""
    name = trial.suggest_categorical("name", ["sgd", "adam"])
    low, high = (0.01, 1.0) if name == "sgd" else (0.0001, 0.01)
    family = trial.suggest_categorical("family", ["a", "b"])
    widths = (8, 16, 32) if family == "a" else (8, 16)
    return {
        "name": name,
        "lr": trial.suggest_float(f"lr@{name}", low, high, log=True),
        "family": family,
        "width": trial.suggest_categorical(f"width@{family}", widths),
        "dropout": trial.suggest_float("dropout@a", 0.0, 0.3) if family == "a" else 0.0,
    }


def test_a_flat_space_has_positions_for_what_depends_on_another_parameter() -> None:
    """Each position is mapped to the range or the choices that hold."""
    flat = FlatSpace(small_space)
    by_name = {parameter.name: parameter for parameter in flat.parameters}
    values = {"name": "sgd", "lr": 0.5, "family": "a", "width": 0.99, "dropout": 0.2}

    assert set(by_name) == set(values)
    assert (by_name["lr"].low, by_name["lr"].high, by_name["lr"].log) == (0.0, 1.0, False)
    assert (by_name["dropout"].low, by_name["dropout"].high) == (0.0, 0.3)
    assert by_name["name"].choices == ("sgd", "adam")
    assert flat.configuration(values) == {
        "name": "sgd", "lr": pytest.approx(0.1), "family": "a", "width": 32, "dropout": 0.2
    }  # fmt: skip
    assert flat.configuration({**values, "name": "adam", "family": "b", "width": 1.0}) == {
        "name": "adam", "lr": pytest.approx(0.001), "family": "b", "width": 16, "dropout": 0.0
    }  # fmt: skip


def test_a_flat_space_without_a_result_gives_the_parameters() -> None:
    """As the published surrogate has it, with ascending choices as ordered numbers."""

    def space(trial: optuna.Trial) -> None:
        trial.suggest_int("units", 64, 1024, log=True)
        trial.suggest_categorical("batch", [8, 16])

    flat = FlatSpace(space)

    assert [parameter.kind for parameter in flat.parameters] == [Kind.INT, Kind.ORDERED]
    assert flat.configuration({"units": 100, "batch": 16}) == {"units": 100, "batch": 16}


def test_the_default_space_is_the_same_when_flat() -> None:
    """Random values of the flat space give configurations as good as random ones of the space."""
    space = define_space(simulation.spec_of({"max_epochs": EPOCHS}))
    flat, rng = FlatSpace(space), random.Random(0)  # noqa: S311 - no secrets here
    drawn = [
        flat.configuration({parameter.name: parameter.sampled(rng) for parameter in flat.parameters})
        for _ in range(400)
    ]
    direct = [space(SampledTrial(np.random.default_rng(seed))) for seed in range(400)]  # type: ignore[arg-type]

    for values in drawn:
        build(TrialConfig, values, source="this test")
    for of in (
        lambda each: float(np.log(each["optimizer"]["lr"])),
        lambda each: each["model"]["width"],
        lambda each: each["loss"]["mask"]["dice"],
        lambda each: each["data"]["batch_size"],
        lambda each: each["optimizer"]["weight_decay"],
    ):
        one, other = np.array([of(each) for each in drawn]), np.array([of(each) for each in direct])
        error = np.hypot(one.std(), other.std()) / np.sqrt(400)
        assert abs(one.mean() - other.mean()) < 4 * error
        assert one.min() >= other.min() - 4 * error
        assert one.max() <= other.max() + 4 * error


def found(side: str, task: str, seed: int, score: float, budget: int = 10) -> search_quality.Found:
    job = search_quality.Job(on="curves", task=task, seed=seed, side=side, setting={}, kind="mixed", budgets=(budget,))
    outcome = Outcome(chosen=score, best_tried=score)
    return search_quality.Found(
        job=job, outcomes={budget: outcome}, log_worth={}, seconds=9.0, proposals=20, proposal_seconds=5.0
    )


def test_rows_have_the_seconds_of_a_proposal_and_ours_over_those_of_a_method() -> None:
    """The other columns are those of `search_quality`."""
    references = {name: Reference(best=0.7, random=np.arange(1, 100) / 200) for name in ("nyu", "rooms")}
    sides = {search_quality.DEFAULT: 0.65, "dehb": 0.6}
    all_found = [
        found(side, task, seed, score) for seed in range(2) for task in references for side, score in sides.items()
    ]

    rows = search_peers.rows_of("curves", all_found, references)
    (dehb,) = (row for row in rows if (row["on"], row["side"]) == ("curves", "dehb"))

    assert dehb["regret"] == pytest.approx(10)
    assert dehb["proposal_seconds"] == pytest.approx(0.25)
    assert dehb["proposals"] == 20
    assert "cpu_seconds" not in dehb
    assert len(rows) == 6
    assert search_peers.ratios_of("curves", rows) == {
        "curves_regret_dehb_10": pytest.approx(0.5),
        "curves_worth_dehb_10": pytest.approx(1.0),  # better than all random configurations, both
    }


def test_all_sides_of_a_seed_and_budget_stand_together() -> None:
    """Ours among them, so that both sides come from the same run."""
    options = argparse.Namespace(methods=["dehb", "bohb"], seeds=2, budgets=[10, 40], surrogate="mixed")
    jobs = search_peers.jobs("curves", options)

    assert [job.side for job in jobs[:4]] == [search_quality.OURS, search_quality.DEFAULT, "dehb", "bohb"]
    assert [(job.seed, job.budgets) for job in jobs[::8]] == [(0, (10,)), (0, (40,)), (1, (10,)), (1, (40,))]
    assert len(jobs) == 32


@pytest.mark.slow
def test_a_method_is_measured_as_ours_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline in its process, on a table of a single score: nothing is left to find, and all is counted."""

    surrogate = SimpleNamespace(
        observed=lambda *_: np.linspace(0.1, 0.5, EPOCHS),
        seconds=lambda *_: 1.0,
        score_curves=lambda configurations: np.tile(np.linspace(0.1, 0.4, EPOCHS), (len(configurations), 1)),
    )
    monkeypatch.setattr(simulation, "surrogate_of", lambda *_: surrogate)
    job = search_quality.Job(on="curves", task="nyu", seed=1, side="one-epoch", setting={}, kind="mixed", budgets=(10,))

    measured = search_peers.simulate(job, Path("not needed"), refit_every=1)

    assert measured.outcomes == {10: Outcome(chosen=pytest.approx(0.4), best_tried=pytest.approx(0.4))}
    assert measured.proposals == 10 * EPOCHS - BEST * (EPOCHS - 1) + BEST
