"""Everything that reads a search follows its objective: here the error of the depth, by which the best score loses."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from data.errors import InputError
from search.cli.main import cli
from search.cluster.status import search_status
from search.results.analysis import analyse
from search.results.front import front_of
from search.results.summary import (
    find_best,
    find_best_recipe,
    find_trial,
    outcomes,
    progress_line,
    summarise,
)
from search.results.trials_table import trial_rows
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import keep_best_of_finished, note_epoch, note_start, trial_records
from tests.search.conftest import CONFIGURATION
from trainable.loop.checkpoint import save
from trainable.loop.checkpoint_files import Origin
from trainable.metrics.objective import Objective
from trainable.models import build_model
from trainable.report import TrialReport

RMSE = Objective.of("-depth_rmse")
CURVES = {0: [(0.9, 0.4), (0.8, 0.3)], 1: [(0.5, 0.1), (0.6, 0.2)], 2: [(0.7, 0.25), (0.7, 0.25)]}
"""Score and error of each epoch, by trial: 0 has the best score, 1 the smallest error, in its first epoch."""


def search_of(storage: Path, objective: str = "-depth_rmse") -> Experiment:
    """A search of three trials as in `CURVES`, of which the last is a recipe, and one that diverged."""
    experiment = Experiment(storage=storage, name="first")
    spec = load_spec(data_path="set", overrides=[("objective", objective), ("scheduler.max_epochs", "2")])
    experiment.create(spec)
    study = open_study(experiment)
    for number, curve in CURVES.items():
        trial = study.ask()
        trial.set_user_attr("recipe", "ramana-dnn" if number == 2 else "")
        note_start(trial, CONFIGURATION.model_dump())
        values = []
        for epoch, (score, error) in enumerate(curve, start=1):
            metrics = {"score": score, "mask_iou": score, "depth_delta1": score, "depth_rmse": error, "seconds": 1.0}
            directory = experiment.trials / f"{number:05d}" / f"checkpoint_{epoch:06d}"
            origin = Origin(config=CONFIGURATION, data_fingerprint="0", epoch=epoch)
            save(directory, build_model(CONFIGURATION.model), origin, metrics)
            report = TrialReport(epoch=epoch, metrics=spec.plan.objective.with_value(metrics), outcome="trained")
            note_epoch(trial, report, experiment.relative(directory), spec.plan.objective)
            values.append(spec.plan.objective.value(metrics))
        study.tell(trial, min(values) if spec.plan.objective.sign < 0 else max(values))
    trial = study.ask()
    note_start(trial, CONFIGURATION.model_dump())
    worst = TrialReport.worst(1, "diverged", "The loss became nan", objective=spec.plan.objective)
    note_epoch(trial, TrialReport.from_plain(worst.as_plain()))  # as Ray carries it
    study.tell(trial, state=TrialState.FAIL)
    return experiment


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return search_of(tmp_path_factory.mktemp("storage"))


def said(experiment: Experiment, command: str, *arguments: str) -> Any:
    result = CliRunner().invoke(cli, [command, experiment.name, "--storage", str(experiment.storage), *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


def test_study_minimises_the_natural_values(searched: Experiment) -> None:
    """`optuna-dashboard` shows what is measured, with its name."""
    study = open_study(searched)

    assert study.direction == StudyDirection.MINIMIZE
    assert study.metric_names == ["depth_rmse"]
    assert (study.best_trial.number, study.best_value) == (1, 0.1)


def test_study_of_the_default_objective_is_as_it_was(tmp_path: Path) -> None:
    """Existing readers see no other records."""
    experiment = search_of(tmp_path, "score")
    records = [json.loads(line) for line in experiment.study_file.read_text().splitlines()]

    assert open_study(experiment).direction == StudyDirection.MAXIMIZE
    assert not any("system_attr" in record for record in records)
    assert find_best(experiment, trial_records(open_study(experiment))).trial.number == 0  # type: ignore[union-attr]


def test_direction_survives_a_damaged_first_record(tmp_path: Path) -> None:
    """The record that creates the study has the direction; the spec has it as well."""
    experiment = search_of(tmp_path)
    first, _, rest = experiment.study_file.read_bytes().partition(b"\n")
    experiment.study_file.write_bytes(b"?" * len(first) + b"\n" + rest)

    assert open_study(experiment).direction == StudyDirection.MINIMIZE


def test_best_trial_epoch_and_recipe_are_those_of_the_objective(searched: Experiment) -> None:
    trials = trial_records(open_study(searched), RMSE)
    best, recipe = find_best(searched, trials), find_best_recipe(searched, trials, 2)

    assert best is not None
    assert (best.trial.number, best.epoch.epoch, best.epoch.value) == (1, 1, 0.1)
    assert recipe is not None
    assert (recipe.trial.number, recipe.epoch.value) == (2, 0.25)
    assert "best depth_rmse 0.1000 of trial 1" in progress_line(trials, 4, 2)
    assert find_trial(searched, open_study(searched), 1).epoch.epoch == 1


def test_finished_trial_keeps_the_checkpoint_of_its_best_epoch(tmp_path: Path) -> None:
    """The others are removed for good."""
    experiment = search_of(tmp_path)
    keep_best_of_finished(experiment, open_study(experiment), RMSE)
    kept = {path.parent.name: path.name for path in experiment.trials.glob("*/checkpoint_*")}

    assert kept == {"00000": "checkpoint_000002", "00001": "checkpoint_000001", "00002": "checkpoint_000001"}


def test_diverged_trial_is_counted_as_one_and_has_no_number(searched: Experiment) -> None:
    """An infinite error is no JSON, and no trial with a failure of its own is meant."""
    trials = trial_records(open_study(searched), RMSE)

    assert outcomes(trials, 2) == {
        "finished": 3, "stopped": 0, "diverged": 1, "constraint": 0, "failed": 0, "interrupted": 0
    }  # fmt: skip
    assert trials[3].epochs[0].metrics == {"score": 0.0}
    assert trials[3].epochs[0].rank == -math.inf
    assert "Infinity" not in searched.study_file.read_text()


def test_summary_names_the_objective_and_keeps_the_score(searched: Experiment) -> None:
    """A reader of `score` gets the metric of that name, whatever the objective is."""
    trials = trial_records(open_study(searched), RMSE)
    best = find_best(searched, trials)
    found = summarise(searched, searched.spec(), trials, best, None, seconds=1, data_fingerprint="f").as_plain()

    assert found["objective"] == "-depth_rmse"
    assert {name: found["best"][name] for name in ("trial", "epoch", "score", "value")} == {  # type: ignore[index]
        "trial": 1, "epoch": 1, "score": 0.5, "value": 0.1
    }  # fmt: skip


def test_trials_are_listed_best_first(searched: Experiment) -> None:
    """The smallest error first, and what has none last; --sort score is still there."""
    assert [row.number for row in trial_rows(searched)] == [1, 2, 0, 3]
    assert [row.number for row in trial_rows(searched, sort="score")] == [0, 2, 1, 3]
    assert [row["depth_rmse"] for row in said(searched, "trials", "--json", "--top", "2")] == [0.1, 0.25]
    assert said(searched, "trials").splitlines()[0].split()[:5] == [
        "number",
        "outcome",
        "epochs",
        "depth_rmse",
        "score",
    ]


def test_status_and_list_show_the_best_value(searched: Experiment) -> None:
    best = search_status(searched).best

    assert best is not None
    assert (best.trial, best.epoch, best.score, best.objective, best.value) == (1, 1, 0.5, "depth_rmse", 0.1)
    assert re.search("depth_rmse 0.1000 .* trial 1, epoch 1\n", said(searched, "status"))
    assert said(searched, "status", "--json")["best"]["value"] == 0.1
    listed = CliRunner().invoke(cli, ["list", "--storage", str(searched.storage)]).stdout
    assert "depth_rmse 0.1000" in listed
    assert "best score" not in listed


def test_front_begins_with_the_objective(searched: Experiment) -> None:
    """Without --objectives it has the search's own, and each trial stands for its best epoch."""
    points = front_of(searched)

    assert [(point.trial.number, point.epoch.epoch, point.values) for point in points if point.on_front] == [
        (1, 1, {"depth_rmse": 0.1})
    ]
    assert front_of(searched, ["score"])[0].trial.number == 0  # 0.8 in the epoch of its smallest error
    assert "--objectives -depth_rmse,-macs" in said(searched, "front")


def test_exported_trial_says_what_it_was_picked_by(searched: Experiment, tmp_path: Path) -> None:
    """The model card leads with the objective, and metrics.json has it."""
    said(searched, "best", "--trial", "1", "--out", str(tmp_path / "out"))
    card = (tmp_path / "out/README.md").read_text()

    assert card.index("| depth_rmse | 0.1000 |") < card.index("| score | 0.5000 |")
    assert "The search picked by `depth_rmse` on the validation images; smaller is better." in card
    assert json.loads((tmp_path / "out/metrics.json").read_text())["val"]["depth_rmse"] == 0.1


def test_importance_is_that_of_the_objective(tmp_path: Path) -> None:
    """Of the parameters of the smallest values, and the neighbours are worse by how much larger theirs are."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set", overrides=[("objective", "-depth_rmse")]))
    study = open_study(experiment)
    for number in range(20):
        attributes = {"epoch:1": {"metrics": {"score": 0.5, "depth_rmse": number / 20}, "checkpoint": None}}
        params, distributions = {"optimizer.lr": number / 20}, {"optimizer.lr": FloatDistribution(0.0, 1.0)}
        study.add_trial(
            create_trial(value=number / 20, params=params, distributions=distributions, user_attrs=attributes)
        )
    study.add_trial(
        create_trial(
            state=TrialState.FAIL,
            params={"optimizer.lr": 1.0},
            distributions={"optimizer.lr": FloatDistribution(0.0, 1.0)},
            user_attrs={"outcome": "diverged"},
        )
    )
    analysis = analyse(experiment)

    assert (analysis.best, analysis.objective) == (0, "depth_rmse")
    assert analysis.trials == 21  # the diverged one has no value, but is worse than all others
    assert [(row.number, row.score, row.value, row.below) for row in analysis.neighbours[:2]] == [
        (1, 0.5, 0.05, 0.05),
        (2, 0.5, 0.1, 0.1),
    ]


def test_too_few_trials_for_importance_are_counted_by_the_objective(searched: Experiment) -> None:
    """The sentence names what they must have, also on the page of a report."""
    with pytest.raises(InputError, match="has 0 trials with a value of depth_rmse, but must have 10; continue it with"):
        analyse(searched)


def test_weighted_objective_is_followed_too(tmp_path: Path) -> None:
    """Its value stands beside the metrics it is made of, under the key `objective`."""
    experiment = search_of(tmp_path, "{mask_iou: 3, depth_delta1: 1}")
    rows = said(experiment, "trials", "--json")

    assert [row["number"] for row in rows] == [0, 2, 1, 3]
    assert [row["objective"] for row in rows] == pytest.approx([0.9, 0.7, 0.6, 0.0])
    assert open_study(experiment).metric_names == ["0.75 mask_iou + 0.25 depth_delta1"]
    assert re.search("objective 0.9000 .* trial 0,", said(experiment, "status"))


@pytest.mark.parametrize("key", ["objective", "objectives"])
def test_objective_of_a_search_cannot_be_changed(searched: Experiment, refused: Callable[..., str], key: str) -> None:
    """Its trials were stopped by the first one."""
    sentence = refused("search", "--resume", "first", "--storage", searched.storage, "--set", f"{key}=score")

    assert "The objective of 'first' is '-depth_rmse', by which its trials were stopped" in sentence
    with pytest.raises(InputError, match="cannot be changed"):
        searched.extend([(key, "score")])
