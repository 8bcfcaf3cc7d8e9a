"""The Pareto front of a search: its trials, its table and chart, and its errors."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from optuna.trial import TrialState, create_trial
from rich.console import Console

from data.errors import InputError
from search.cli.main import cli
from search.cli.tables import show_front
from search.results.front import front_of, front_rows, shown
from search.results.front_chart import as_svg, as_text
from search.spec.objectives import known_costs
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.summary import FrontRow, Summary
from search.study.trials import trial_records
from trainable.config import DataConfig, ModelConfig, TrialConfig
from trainable.config.settings import flatten
from trainable.loop.checkpoint import save
from trainable.loop.checkpoint_files import Origin
from trainable.models import build_model

WIDTHS_AND_SCORES = [(2, 0.3), (4, 0.5), (8, 0.4), (8, 0.7), (2, 0.2)]
"""Of the trials, by number: the first, second and fourth are on the front."""
SVG = "{http://www.w3.org/2000/svg}"


def search_of(storage: Path, trials: Sequence[tuple[int, float]], objectives: str = "[score, -macs]") -> Experiment:
    """A search whose trials have networks of a width, and a score in their second epoch."""
    experiment = Experiment(storage=storage, name="first")
    experiment.create(load_spec(data_path="nowhere", overrides=[("objectives", objectives)]))
    study = open_study(experiment)
    for number, (width, score) in enumerate(trials):
        config = TrialConfig(model=ModelConfig(family="debug", width=width), data=DataConfig(image_size=32))
        kept = experiment.trials / f"{number:05d}" / "checkpoint_000001"
        metrics = {"score": score, "mask_iou": score, "depth_rmse": 0.1 + score * (width == 4)}
        save(kept, build_model(config.model), Origin(config=config, data_fingerprint="f", epoch=2), metrics)
        attributes: dict[str, Any] = {
            "outcome": "trained",
            "config": config.model_dump(),
            "recipe": "birender-cnn" if number == 1 else "",
            "epoch:1": {"metrics": metrics | {"score": 0.99}, "checkpoint": None},
            "epoch:2": {"metrics": metrics, "checkpoint": experiment.relative(kept)},
        }
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.0, user_attrs=attributes))
    return experiment


@pytest.fixture
def searched(tmp_path: Path) -> Experiment:
    return search_of(tmp_path, WIDTHS_AND_SCORES)


def on_front(experiment: Experiment, objectives: Sequence[str] | None = None) -> list[int]:
    return [point.trial.number for point in front_of(experiment, objectives) if point.on_front]


def said(experiment: Experiment, *arguments: object) -> Result:
    words = ["front", experiment.name, "--storage", experiment.storage, *arguments]
    return CliRunner().invoke(cli, [str(word) for word in words])


def tree_of(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314  our own


def test_front_holds_the_trials_that_nothing_dominates(searched: Experiment) -> None:
    """The best by score comes first; a network as large as another one and worse is not shown."""
    assert on_front(searched) == [3, 1, 0]


def test_front_uses_the_epoch_of_the_kept_checkpoint(searched: Experiment) -> None:
    """A better score without its checkpoint cannot be exported; the costs of a network are exact."""
    rows = front_rows(searched, trial_records(open_study(searched)), ["score", "-macs"])
    width_8 = TrialConfig(model=ModelConfig(family="debug", width=8), data=DataConfig(image_size=32))

    assert [row.epoch for row in rows] == [2, 2, 2]
    assert rows[0].objectives == {"score": 0.7, **known_costs(["-macs"], flatten(width_8.model_dump()))}
    assert rows[0].checkpoint == "trials/00003/checkpoint_000001"
    assert rows[1].recipe == "birender-cnn"
    assert [FrontRow.model_validate(json.loads(json.dumps(row.model_dump()))) for row in rows] == rows


def test_front_accepts_other_objectives(searched: Experiment) -> None:
    """A search of one objective has trade-offs as well; with one, the front is its best trial."""
    assert on_front(searched, ["score", "-depth_rmse"]) == [3]
    assert on_front(searched, ["score", "-macs", "-depth_rmse"]) == [3, 1, 0]
    assert on_front(searched, ["score"]) == [3]


def test_trials_with_unloadable_weights_are_skipped(searched: Experiment) -> None:
    """Exported networks must load; without a damaged trial, another one may be on the front."""
    (searched.trials / "00003" / "checkpoint_000001" / "model.safetensors").write_bytes(b"broken")
    shutil.rmtree(searched.trials / "00001" / "checkpoint_000001")

    assert on_front(searched) == [2, 0]


def test_trials_with_non_finite_metrics_are_left_out(tmp_path: Path) -> None:
    """NaN is beaten by nothing, and would be on every front."""
    experiment = search_of(tmp_path, [(2, 0.3), (4, float("nan"))])

    assert on_front(experiment) == [0]


def test_front_command_prints_json(searched: Experiment) -> None:
    """A program reads the same as a person does."""
    found = json.loads(said(searched, "--json").stdout)

    assert (found["objectives"], found["trials"], found["svg"]) == (["score", "-macs"], 5, None)
    assert [row["trial"] for row in found["front"]] == [3, 1, 0]


def test_front_command_prints_a_table(searched: Experiment) -> None:
    """A chart, the table, and how to take one of the trials."""
    shown_lines = said(searched).stdout.splitlines()

    assert shown_lines[0] == "on the front: 3 of 5 trials with a network"
    assert sum(line.count("●") for line in shown_lines) == 3
    assert any("birender-cnn" in line and "trials/00001" in line for line in shown_lines)
    assert any("twinhead best first --trial" in line for line in shown_lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--objectives", "score,macs"], "'macs', but must be '-macs'"),
        (["--objectives", "score,-ms_per_picture"], "did not measure 'ms_per_picture'; search with --set objectives="),
        (["--objectives", "score,mask_delta1"], "did not measure 'mask_delta1'; give depth_rmse, macs, mask_iou"),
        (["--objectives", "score", "--svg", "a.svg"], "nothing to draw of one objective"),
        (["--svg", "nowhere/a.svg"], "cannot be written to 'nowhere/a.svg'"),
    ],
)
def test_unusable_arguments_are_named(searched: Experiment, arguments: list[str], sentence: str) -> None:
    """One sentence says what to give instead."""
    error = said(searched, *arguments).exception

    assert isinstance(error, InputError)
    assert sentence in str(error)


def test_missing_search_and_search_without_trials_are_named(tmp_path: Path) -> None:
    """The first can be resumed; for the second, the error lists the existing names."""
    experiment = search_of(tmp_path, [])

    with pytest.raises(
        InputError, match="no trial with a network yet; continue it with 'twinhead search --resume first"
    ):
        front_of(experiment)
    with pytest.raises(InputError, match=r"no search 'second' in .*; there are first"):
        front_of(Experiment(storage=tmp_path, name="second"))


def test_the_chart_has_every_trial(searched: Experiment, tmp_path: Path) -> None:
    """A dot a trial with its figures, the front's larger and named, and one stair."""
    file = tmp_path / "front.svg"
    said(searched, "--svg", file)
    root = tree_of(file.read_text())
    circles = list(root.iter(f"{SVG}circle"))

    assert sorted(str(circle.get("r")) for circle in circles) == ["3.5", "3.5", "5.5", "5.5", "5.5"]
    assert {(text.text or "") for text in root.iter(f"{SVG}text")} >= {
        "3",
        "1",
        "0",
        "Trade-offs of the search 'first'",
    }
    assert len(list(root.iter(f"{SVG}path"))) == 1
    assert any("trial 1 (birender-cnn), epoch 2: score 0.5" in (title.text or "") for title in root.iter(f"{SVG}title"))


def test_step_line_of_the_front_dominates_all_trials(searched: Experiment) -> None:
    """It is the best score at every cost: no dot lies beyond it."""
    root = tree_of(as_svg(front_of(searched), ["score", "-macs"], "a search"))
    spots = [(float(c.get("cx", 0)), float(c.get("cy", 0)), c.get("r")) for c in root.iter(f"{SVG}circle")]
    front = [(x, y) for x, y, radius in spots if radius == "5.5"]

    for x, y, radius in spots:
        if radius == "3.5":
            assert any(cheaper <= x and higher <= y for cheaper, higher in front)


@pytest.mark.parametrize("objectives", [["score", "-macs", "-depth_rmse"], ["score", "mask_iou"]])
@pytest.mark.parametrize("trials", [WIDTHS_AND_SCORES, [(4, 0.5)]])
def test_chart_is_valid_for_any_front(tmp_path: Path, trials: list[tuple[int, float]], objectives: list[str]) -> None:
    """Three objectives are two panels; a single trial has no range to scale by."""
    points = front_of(search_of(tmp_path, trials), objectives)
    root = tree_of(as_svg(points, objectives, "<a> & 'b'"))

    assert len(list(root.iter(f"{SVG}circle"))) == len(trials) * (len(objectives) - 1)
    assert sum(line.count("●") for line in as_text(points, objectives)) == sum(point.on_front for point in points)


def test_ticks_between_close_scores_are_evenly_spaced(tmp_path: Path) -> None:
    """With three digits, several had the same label, or one that another place on the axis has."""
    points = front_of(search_of(tmp_path, [(4, 0.8912), (8, 0.8918)]))
    root = tree_of(as_svg(points, ["score", "-macs"], "a search"))
    ticks = [float(each.text or "") for each in root.iter(f"{SVG}text") if each.get("text-anchor") == "end"]
    steps = {round(above - below, 6) for below, above in itertools.pairwise(ticks)}

    assert len(ticks) > 2
    assert steps == {0.0002}


def test_ends_of_an_axis_are_told_apart(tmp_path: Path) -> None:
    """Close scores had the same label at both ends."""
    points = front_of(search_of(tmp_path, [(4, 0.8912), (8, 0.8914)]))
    labels = [line.partition("│")[0].strip() for line in as_text(points, ["score", "-macs"])]

    assert [label for label in labels if label.startswith("0.")] == ["0.8914", "0.8912"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.12346, "0.1235"), (458_752, "458.8 k"), (1.4871e9, "1.487 G"), (2, "2")]
)
def test_numbers_are_formatted_briefly(value: float, text: str) -> None:
    """Nine digits of multiply-adds cannot be compared by eye."""
    assert shown(value) == text


def test_summary_shows_the_front(searched: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    """At the end of a search it is printed from the summary alone."""
    rows = front_rows(searched, trial_records(open_study(searched)), ["score", "-macs"])
    searched.write_summary(Summary(name=searched.name, front=rows))
    show_front(Console(width=120), searched, searched.summary().front)

    assert "debug of width 8" in capsys.readouterr().out
