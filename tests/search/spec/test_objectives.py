"""The objectives of a spec: their directions, and the positions of errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from click.testing import CliRunner

from data.errors import InputError
from search.cli.main import cli
from search.spec.objectives import known_costs, known_objectives, parse_objectives
from search.spec.spec import check_spec, load_spec
from search.spec.template import summary_lines
from search.strategy.proposer import KNOWN
from search.strategy.space import define_space
from trainable.config import ConfigError, TrialConfig
from trainable.config.settings import flatten
from trainable.metrics.names import METRICS


def objectives_of(text: str) -> list[str]:
    return load_spec(data_path="set", overrides=[("objectives", text)]).plan.objectives


def test_score_is_the_default_objective() -> None:
    """Whoever does not ask for trade-offs has the search that there always was."""
    assert load_spec(data_path="set").plan.objectives == ["score"]


def test_several_objectives_survive_a_round_trip() -> None:
    """The stored spec of a search is read again on resume."""
    spec = load_spec(data_path="set", overrides=[("objectives", "[score, -macs, -depth_rmse]")])

    assert spec.plan.objectives == ["score", "-macs", "-depth_rmse"]
    assert objectives_of("score,-macs, -depth_rmse") == spec.plan.objectives
    assert check_spec(spec.as_plain(), source="the test") == spec


def test_every_metric_can_be_an_objective_in_its_better_direction() -> None:
    """An error is to be small; were a metric to be added the wrong way round, a search would make networks worse."""
    known = known_objectives()

    assert set(METRICS) < set(known)
    assert {name for name, text in known.items() if text.startswith("-")} == {
        *("mask_rmse", "mask_mae", "depth_rmse", "depth_mae", "parameters", "macs", "ms_per_picture")
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[score, flops]", r"'objectives.1' is 'flops', but must be one of score, .*-macs"),
        ("[score, macs]", r"'objectives.1' is 'macs', but must be '-macs', since smaller is better"),
        ("[score, -mask_iou]", r"must be 'mask_iou', since larger is better"),
        ("[score, -macs, -macs]", r"must name '-macs' once"),
        ("[-macs, score]", r"must have a metric such as 'score' first, which decides on .*; '-macs' is a cost"),
        ("[]", r"must hold 1 to 3 objectives"),
        ("[score, -macs, mask_iou, depth_delta1]", r"must hold 1 to 3 objectives"),
        ("{score: -macs}", r"'objectives' is {'score': '-macs'}, but must be a valid list"),
    ],
)
def test_invalid_objectives_are_refused(text: str, sentence: str) -> None:
    """A slip in a sign would be noticed hours later, by its result."""
    with pytest.raises(ConfigError, match=sentence):
        objectives_of(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "objectives"),
    [
        ("mask_iou", ["mask_iou"]),
        ("-depth_rmse", ["-depth_rmse"]),
        ("{mask_iou: 0.7, depth_delta1: 0.3}", [{"mask_iou": 0.7, "depth_delta1": 0.3}]),
    ],
)
def test_a_single_objective_is_short_for_a_list_of_one(text: str, objectives: list[Any]) -> None:
    """There is one setting, under which a spec is stored; the later --set wins."""
    spec = load_spec(data_path="set", overrides=[("objectives", "[score, -macs]"), ("objective", text)])

    assert spec.plan.objectives == objectives
    assert spec == load_spec(data_path="set", overrides=[("objective", "score"), ("objectives", f"[{text}]")])
    assert check_spec(spec.as_plain(), source="the test") == spec
    assert yaml.safe_load(yaml.safe_dump(spec.as_plain()))["objectives"] == objectives


def test_any_metric_may_be_first_before_costs() -> None:
    """A trade-off between the depth and the size of a network needs no score."""
    spec = load_spec(data_path="set", overrides=[("objectives", "[-depth_rmse, -macs]")])

    assert (spec.plan.objective.key, spec.plan.objective.mode) == ("depth_rmse", "min")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mask_io", r"'objective' is 'mask_io', but must be one of score, .*did you mean 'mask_iou'"),
        ("depth_rms", r"did you mean '-depth_rmse'"),
        ("depth_rmse", r"'objective' is 'depth_rmse', but must be '-depth_rmse', since smaller is better"),
        ("val_loss", r"must be a metric, not a loss, since trials that weight losses differently cannot be compared"),
        ("dice", r"must be a metric, not a loss, since .*: one of score"),
        ("-macs", r"'objective' is '-macs', but must have a metric .*'-macs' is a cost"),
        ("3", r"'objective' is 3, but must be one of score, .* or weights such as {mask_iou: 0.7"),
        ("{mask_iou: 1, -depth_rmse: 1}", r"not '-depth_rmse', whose scale is another; use '-depth_rmse' alone"),
        ("{mask_iou: 0, depth_delta1: 1}", r"must have positive weights, not 0 for 'mask_iou'"),
        ("{mask_iou: .inf}", r"must have positive weights, not inf for 'mask_iou'"),
        ("{mask_iou: 1, macs: 1}", r"must weight one of score, mask_iou, .*'macs' is none of them"),
        ("{}", r"must have the weight of a metric"),
    ],
)
def test_invalid_single_objectives_are_refused(text: str, sentence: str) -> None:
    """The message names the key that was written."""
    with pytest.raises(ConfigError, match=sentence):
        load_spec(data_path="set", overrides=[("objective", text)])


def test_objective_and_objectives_are_not_both_set(tmp_path: Path) -> None:
    """Which of them counted would be a guess."""
    file = tmp_path / "spec.yaml"
    file.write_text("data: {path: set}\nobjectives: [score, -macs]\nobjective: mask_iou\n")
    result = CliRunner().invoke(cli, ["spec", "--check", str(file)])

    assert result.exit_code == 2
    assert result.stderr.startswith(f"{file}:3:1: The keys 'objective' and 'objectives' are the same setting; keep one")
    assert CliRunner().invoke(cli, ["spec", "--check", str(file), "--set", "objective=mask_iou"]).exit_code == 0


def test_weights_are_shown_as_written() -> None:
    """`spec --check` says what would be searched for."""
    result = CliRunner().invoke(cli, ["spec", "--set", "objective={mask_iou: 0.7, depth_delta1: 0.3}"])

    assert "objectives: [{mask_iou: 0.7, depth_delta1: 0.3}]" in result.stdout
    spec = load_spec(data_path="set", overrides=[("objective", "{mask_iou: 0.7, depth_delta1: 0.3}")])
    assert "objectives: {mask_iou: 0.7, depth_delta1: 0.3}" in list(summary_lines(spec))
    assert parse_objectives("{mask_iou: 0.7, depth_delta1: 0.3},-macs") == [*spec.plan.objectives, "-macs"]


def test_objective_errors_name_their_position(tmp_path: Path) -> None:
    """Editors jump to FILE:LINE:COLUMN."""
    file = tmp_path / "spec.yaml"
    file.write_text("data: {path: set}\nobjectives:\n  - score\n  - macs\n")
    result = CliRunner().invoke(cli, ["spec", "--check", str(file)])

    assert result.exit_code == 2
    assert result.stderr.startswith(f"{file}:4:5: The value of 'objectives.1'")


def test_objectives_are_printed_with_what_they_mean() -> None:
    """The printed spec is the reference."""
    result = CliRunner().invoke(cli, ["spec", "--set", "objectives=[score, -macs]"])

    assert yaml.safe_load(result.stdout)["objectives"] == ["score", "-macs"]
    assert "# The objectives of the search" in result.stdout


def test_objectives_of_a_command_line() -> None:
    """They are checked as those of a spec are."""
    assert parse_objectives("score, -macs") == ["score", "-macs"]
    with pytest.raises(InputError, match=r"--objectives is 'macs', but must be '-macs'"):
        parse_objectives("score,macs")
    with pytest.raises(InputError, match=r"no valid YAML .* of the objectives '\[score'"):
        parse_objectives("[score")


@pytest.mark.slow
def test_known_costs_of_a_trial_are_computed_by_the_space() -> None:
    """The searcher need not model what can be computed; without such an objective, a trial gets no attribute."""
    told, values = drawn_under("[score, -macs, -parameters]")
    exact = known_costs(["-macs", "-parameters"], flatten(values))

    assert told == pytest.approx({name: math.log(value) for name, value in exact.items()})
    assert drawn_under("[score, mask_iou]")[0] == {}


def drawn_under(objectives: str) -> tuple[dict[str, float], dict[str, Any]]:
    """The known costs of a trial, and its configuration."""
    spec = load_spec(data_path="set", overrides=[("objectives", objectives)])
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    values = define_space(spec)(trial)
    return trial.user_attrs.get(KNOWN, {}), values


def test_known_costs_of_a_configuration() -> None:
    """Of the figures that are measured, nothing is."""
    assert set(known_costs(["score", "-macs", "-ms_per_picture"], flatten(TrialConfig().model_dump()))) == {"macs"}
