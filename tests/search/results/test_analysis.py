"""Analysis of a search: importance of parameters, trials near the best one, and all trials in a table."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from data.errors import InputError
from search.api.searches import Search
from search.cli.main import cli
from search.results.analysis import analyse
from search.results.trials_table import parse_condition, trial_rows
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from trainable.plugins.load import use_plugins

LR = FloatDistribution(1e-3, 1.0, log=True)
FAMILY = CategoricalDistribution(["resunet", "pair"])
SHIFT = FloatDistribution(0.0, 1.0)


def trial(number: int, **changes: float) -> optuna.trial.FrozenTrial:
    """The score falls off from lr 0.1, and depends on nothing else; 'shift' is there under 'pair' alone."""
    lr = 10 ** -(number % 20 / 10)
    params: dict[str, Any] = {"optimizer.lr": lr, "model.family": "pair" if number % 3 else "resunet"}
    distributions: dict[str, Any] = {"optimizer.lr": LR, "model.family": FAMILY}
    if number % 3:
        params["shift"], distributions["shift"] = number * 7 % 40 / 40, SHIFT
    score = 0.8 - abs(number % 20 - 10) / 20
    metrics = {"score": score, "mask_iou": 1 - score, "depth_rmse": score / 2, "seconds": 2.0, "time_data": 0.1}
    metrics |= changes
    config = {"model": {"width": 4 + number % 2}}
    attributes = {"outcome": "trained", "config": config, "epoch:1": {"metrics": metrics, "checkpoint": None}}
    return create_trial(
        state=TrialState.COMPLETE, value=score, params=params, distributions=distributions, user_attrs=attributes
    )


@pytest.fixture
def searched(tmp_path: Path) -> Experiment:
    return search_of(tmp_path, 40)


def search_of(directory: Path, count: int) -> Experiment:
    experiment = Experiment(storage=directory, name="first")
    experiment.create(load_spec(data_path="nowhere"))
    study = open_study(experiment)
    for number in range(count):
        study.add_trial(trial(number))
    return experiment


def test_parameter_that_determines_the_score_is_most_important(searched: Experiment) -> None:
    """Readers fix the parameters that are not listed, so it must be listed."""
    analysis = analyse(searched)

    assert next(iter(analysis.importance)) == "optimizer.lr"
    assert analysis.importance["optimizer.lr"] > 0.8
    assert sum(analysis.importance.values()) == pytest.approx(1)
    assert (analysis.trials, analysis.good, analysis.best) == (40, 5, 10)


def test_trials_that_are_not_trained_have_no_importance(searched: Experiment) -> None:
    """Their value is no measurement: what a limit excludes would be what the objective depends on."""
    before = analyse(searched, neighbours=40)
    study = open_study(searched)
    for number in range(20):
        excluded = trial(number + 10)
        excluded.params["model.family"] = "resunet"
        excluded.value = 0.0
        excluded.user_attrs = {**excluded.user_attrs, "outcome": "constraint"}
        study.add_trial(excluded)

    assert analyse(searched, neighbours=40) == before


def test_most_similar_trials_are_listed_first(searched: Experiment) -> None:
    """How flat the optimum is shows in what lies beside it, in the parameters' own scales."""
    near = analyse(searched, neighbours=40).neighbours
    distances = [row.distance for row in near]
    [other] = [row for row in near if row.number == 12]  # resunet: the best is a pair, and has a shift

    assert len(near) == 39
    assert distances == sorted(distances)
    assert other.distance == pytest.approx((1 + 1 + 0.2 / 3) / 3)
    assert other.below == pytest.approx(0.1)
    assert other.differs["model.family"] == ("pair", "resunet")


def test_trials_are_sorted_and_filtered(searched: Experiment) -> None:
    """Of hundreds of trials nobody reads more than those that answer a question."""
    rows = trial_rows(searched, keep=[parse_condition("model.family=resunet"), parse_condition("score>0.5")])

    scores = [row.metrics["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row.params["model.family"] for row in rows} == {"resunet"}
    assert all(score > 0.5 for score in scores)
    assert {row.number % 2 for row in trial_rows(searched, keep=[parse_condition("model.width=5")])} == {1}
    assert trial_rows(searched, sort="mask_iou")[0].number == 0
    assert [row.number for row in trial_rows(searched, sort="number")] == list(range(40))

    assert len(trial_rows(searched, keep=[parse_condition("outcome=stopped")])) == 40
    assert not trial_rows(searched, keep=[parse_condition("outcome=finished")])

    switched = replace(rows[0], params={"optimizer.nesterov": True})
    said = {text: parse_condition(f"optimizer.nesterov={text}").holds(switched) for text in ("true", "True", "false")}
    assert said == {"true": True, "True": True, "false": False}  # also as in a spec

    errors = [row.metrics["depth_rmse"] for row in trial_rows(searched, sort="depth_rmse")]
    assert errors == sorted(errors)

    rates = [row.number_of("optimizer.lr") or 0.0 for row in trial_rows(searched, sort="optimizer.lr")]
    assert rates == sorted(rates, reverse=True) != []


def test_both_commands_print_tables_and_json(searched: Experiment) -> None:
    """Tables for people, and the same as JSON for programs."""
    where = ["--storage", str(searched.storage)]
    table = CliRunner().invoke(cli, ["trials", "first", "--top", "3", *where])
    listed = json.loads(CliRunner().invoke(cli, ["trials", "first", "--top", "3", "--json", *where]).output)
    shown = CliRunner().invoke(cli, ["importance", "first", *where])
    analysis = json.loads(CliRunner().invoke(cli, ["importance", "first", "--json", *where]).output)

    assert [row["number"] for row in listed] == [10, 30, 9]
    assert {row["outcome"] for row in listed} == {"stopped"}
    assert "0.8" in table.output
    assert table.output.count(" stopped ") == 3
    assert re.search(r"optimizer\.lr +0\.\d+ +0\.\d+ to [01]\.\d+ +40 ", shown.output)
    assert analysis["best"] == 10
    assert analysis["figures"]["optimizer.lr"].keys() == {"share", "low", "high", "trials"}
    assert analysis["sections"]["model"]["trials"] == 40


def test_parameters_of_too_few_trials_are_named(tmp_path: Path) -> None:
    """Instead of getting a share, or being left out silently."""
    search_of(tmp_path, 12)
    where = ["--storage", str(tmp_path)]
    shown = CliRunner().invoke(cli, ["importance", "first", *where]).output
    analysis = json.loads(CliRunner().invoke(cli, ["importance", "first", "--json", *where]).output)

    assert "too few trials for a figure, fewer than 10: shift (8)" in shown
    assert analysis["too_few"] == {"shift": 8}
    assert "shift" not in analysis["importance"]


@pytest.mark.parametrize(
    "text", ["score", "=3", "score=", "", "score>=0.5", "score<=0.5", "recipe!=pair", "score==0.5"]
)
def test_invalid_filter_is_refused(text: str) -> None:
    """Otherwise it would keep everything, or nothing."""
    with pytest.raises(InputError, match="--where"):
        parse_condition(text)


def test_a_value_that_no_trial_has_is_named(searched: Experiment) -> None:
    """With those that there are: a misspelt one filters everything."""
    where = ["--storage", str(searched.storage), "--where", "model.family=resnet", "--where", "outcome=stopped"]
    shown = CliRunner().invoke(cli, ["trials", "first", *where])
    nothing = CliRunner().invoke(cli, ["trials", "first", *where, "--json"])

    assert shown.output == "there is no such trial; model.family is pair, resunet, not resnet\n"
    assert json.loads(nothing.output) == []


def test_unanswerable_queries_are_refused(tmp_path: Path) -> None:
    """A handful of trials has no best share, and a missing search no trials."""
    few = search_of(tmp_path, 4)

    with pytest.raises(InputError, match="4 trials"):
        analyse(few)
    with pytest.raises(InputError, match="none"):
        trial_rows(Experiment(storage=tmp_path, name="none"))
    with pytest.raises(InputError, match="--sort"):
        trial_rows(few, sort="speed")
    with pytest.raises(InputError, match=r"key 'model\.famly' of --where"):
        trial_rows(few, keep=[parse_condition("model.famly=resunet")])
    with pytest.raises(InputError, match="compares with 'much'"):
        trial_rows(few, keep=[parse_condition("score>much")])


def test_trials_are_sorted_in_the_direction_of_a_plugins_metric(own_plugin: Path, tmp_path: Path) -> None:
    """A wrong order: the built-in errors are not the only metrics of which smaller is better."""
    own_plugin.write_text(own_plugin.read_text().replace('"mask_f1", mask_f1)', '"mask_err", mask_f1, better="lower")'))
    experiment = Experiment(storage=tmp_path / "artifacts", name="first")
    experiment.create(load_spec(data_path="nowhere", overrides=[("plugins", f"[{own_plugin}]")]))
    use_plugins([])
    study = open_study(experiment)
    for number, error in enumerate((0.3, 0.1, 0.2)):
        study.add_trial(trial(number, mask_err=error, mask_rmse=error, macs=error))

    for sort in ("mask_err", "mask_rmse", "macs"):
        assert [row.number for row in trial_rows(experiment, sort=sort)] == [1, 2, 0]


def test_trial_whose_value_is_not_a_number_is_last(tmp_path: Path) -> None:
    """A wrong order: as a key of a sort, NaN leaves the trials as they are, and the first one is taken for the best."""
    experiment = search_of(tmp_path, 0)
    study = open_study(experiment)
    for number, error in enumerate((math.nan, 0.5, 0.1, math.nan, 0.3)):
        study.add_trial(trial(number, depth_rmse=error, score=error))

    assert [row.number for row in trial_rows(experiment, sort="depth_rmse")] == [2, 4, 1, 0, 3]
    assert [row.number for row in trial_rows(experiment)] == [1, 4, 2, 0, 3]
    assert Search(experiment, ()).best.number == 1


def test_search_without_a_finite_value_has_no_best_trial(tmp_path: Path) -> None:
    """A trial without a result was returned as the best one, when it is the first in the table."""
    experiment = search_of(tmp_path, 0)
    open_study(experiment).add_trial(trial(0, score=math.nan))

    with pytest.raises(InputError, match="has no trial with a result yet"):
        _ = Search(experiment, ()).best
