"""Results as tables: each has its numbers, a sentence, and the paths of its files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search.cli.tables import show_summary, show_training
from search.study.experiment import Experiment
from search.study.summary import StepCounts, Summary, TrainingSummary
from trainable.recipes import load_recipe

FIGURES = {"score": 0.6, "mask_iou": 0.9, "mask_rmse": 0.1, "depth_delta1": 0.3, "depth_rmse": 0.25}
BASELINES = {
    "mask_threshold": {"mask_iou": 0.8, "mask_rmse": 0.2},
    "depth_mean": {"depth_delta1": 0.2, "depth_rmse": 0.3},
}


def shown(show: Any, *arguments: Any) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    show(console, *arguments)
    return console.export_text()


def summary(**changes: Any) -> Summary:
    config = load_recipe("ramana-dnn").config.model_dump(mode="json")
    trial = {"trial": 12, "recipe": None, "epoch": 8, "score": 0.61, "config": config, "test": FIGURES}
    values = {
        "name": "first",
        "trials": 20,
        "outcomes": {"finished": 8, "stopped": 12, "diverged": 0},
        "epochs": 99,
        "seconds": 12.0,
        "best": trial,
        "recipe": {**trial, "trial": 3, "recipe": "birender-cnn", "test": {**FIGURES, "score": 0.5}},
        "beyond_recipe": {"score": {"value": 0.1, "low": 0.05, "high": 0.15}},
        "retrained": {"metrics": FIGURES, "checkpoint": "retrained", "epochs": 9},
        "baselines": BASELINES,
        **changes,
    }
    return Summary.model_validate(values)


def test_summary_shows_the_best_trial(tmp_path: Path) -> None:
    """Family, losses, optimizer and policy: enough to know what won."""
    text = shown(show_summary, Experiment(storage=tmp_path, name="first"), summary())
    assert "20 trials (8 finished, 12 stopped), 99 epochs" in text
    assert "resnet-dual of width 32; l1 + ssim + edge mask" in text
    assert "adam lr 0.001" in text


def test_summary_shows_the_gain_over_the_best_recipe(tmp_path: Path) -> None:
    """That is what searching was for."""
    text = shown(show_summary, Experiment(storage=tmp_path, name="first"), summary())
    assert "recipe birender-cnn" in text
    assert "trial 12 minus the recipe birender-cnn" in text
    assert "score +0.1000 (+0.0500 to +0.1500)" in text
    assert "not clearly better" not in text
    assert "probability" not in text
    unclear = summary(beyond_recipe={"score": {"value": 0.01, "low": -0.02, "high": 0.04, "probability": 0.934}})
    text = shown(show_summary, Experiment(storage=tmp_path, name="first"), unclear)
    assert "not clearly better" in text
    assert "trial 12 is better than the recipe on other backgrounds of this kind with a probability of 93 %" in text


@pytest.mark.parametrize(("objective", "sign"), [("score", 1), ("-depth_rmse", -1)])
@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.03, -0.01, "excludes 0: the trial is worse than the recipe"),
        (-0.03, 0.01, "contains 0: the trial is not clearly better"),
        (0.01, 0.03, ""),
    ],
)
def test_summary_says_that_a_trial_is_worse_than_the_recipe(
    tmp_path: Path, objective: str, sign: int, low: float, high: float, said: str
) -> None:
    """A wrong sentence: an interval wholly on the bad side, which is the upper one of an error, contained 0."""
    name = objective.removeprefix("-")
    ends = sorted((sign * low, sign * high))
    beyond = {name: {"value": sum(ends) / 2, "low": ends[0], "high": ends[1]}}
    found = summary(objective=objective, beyond_recipe=beyond)
    text = shown(show_summary, Experiment(storage=tmp_path, name="first"), found)

    assert (f"the {name}'s interval {said}" in text) == bool(said)
    assert ("interval excludes 0" in text, "interval contains 0" in text) == ("excludes" in said, "contains" in said)


def test_a_gain_without_an_interval_is_shown_without_one(tmp_path: Path) -> None:
    """Test images of a single room have none."""
    alone = summary(beyond_recipe={"score": {"value": 0.01, "low": None, "high": None}})
    assert "score +0.0100\n" in shown(show_summary, Experiment(storage=tmp_path, name="first"), alone)


def test_summary_shows_that_no_trial_beat_a_recipe(tmp_path: Path) -> None:
    """A gain of 0 with an interval of 0 would look like a measurement."""
    recipe = summary().recipe
    assert recipe is not None
    same = summary(recipe={**recipe.model_dump(), "trial": 12})
    assert "no trial is better than the recipe birender-cnn" in shown(
        show_summary, Experiment(storage=tmp_path, name="first"), same
    )


def test_summary_without_recipes_does_not_mention_them(tmp_path: Path) -> None:
    """The demo has none."""
    text = shown(show_summary, Experiment(storage=tmp_path, name="first"), summary(recipe=None, beyond_recipe=None))
    assert "beyond" not in text
    assert "the recipe" not in text


def test_training_shows_baselines_with_its_metrics(tmp_path: Path) -> None:
    """With the project's own metric, if it had one."""
    result = TrainingSummary(
        name="mine",
        complete=True,
        recipe="monimoyd-unet",
        faithful=True,
        notes=[],
        config={},
        epoch=4,
        epochs=5,
        optimizer_steps=StepCounts(fewest=300, most=300),
        threads=1,
        metrics=FIGURES,
        published={"iou75_mask": 0.75},
        baselines=BASELINES,
        checkpoint="best",
        seconds=3.0,
        versions={},
        data="set",
        data_fingerprint="f",
    )
    text = shown(show_training, tmp_path, result)
    assert "recipe monimoyd-unet, faithful, 5 epochs" in text
    assert "validation picked epoch 4" in text
    assert "iou75_mask" in text
    assert "0.7500" in text
    assert "mask_iou" in text


def test_note_when_the_retrained_network_is_worse_than_its_trial(tmp_path: Path) -> None:
    """It is exported by default, but the weights of the trial are available."""
    retrained = {"metrics": {**FIGURES, "score": FIGURES["score"] - 0.1}, "checkpoint": "retrained", "epochs": 9}
    worse = shown(show_summary, Experiment(storage=tmp_path, name="first"), summary(retrained=retrained))
    equal = shown(show_summary, Experiment(storage=tmp_path, name="first"), summary())

    assert "is below trial 12 on the test images" in worse
    assert "is below trial" not in equal


def test_summary_is_told_by_the_objective(tmp_path: Path) -> None:
    """Which of two networks is better, and whether clearly: of an error, the smaller one is."""
    network = {"metrics": {**FIGURES, "depth_rmse": 0.28}, "checkpoint": "retrained", "epochs": 9}
    beyond = {"depth_rmse": {"value": -0.05, "low": -0.1, "high": 0.01}, "score": {"value": 0.1, "low": 0, "high": 1}}
    changes: dict[str, Any] = {"objective": "-depth_rmse", "retrained": network, "beyond_recipe": beyond}
    best = summary().best
    assert best is not None
    found = summary(**changes, best=best.model_copy(update={"value": 0.2}).model_dump())
    text = shown(show_summary, Experiment(storage=tmp_path, name="first"), found)

    assert "best trial 12 with validation depth_rmse 0.2000 at epoch 8" in text
    assert text.index("depth_rmse  ") < text.index("score  ")
    assert "the depth_rmse's interval contains 0" in text
    assert "is below trial 12 on the test images: depth_rmse 0.2800 against 0.2500" in " ".join(text.split())
    beyond["depth_rmse"]["high"] = -0.01
    clear = shown(show_summary, Experiment(storage=tmp_path, name="first"), summary(**changes))
    assert "contains 0" not in clear
    weighted = summary(objective={"mask_iou": 3, "depth_delta1": 1}, beyond_recipe=None)
    text = shown(show_summary, Experiment(storage=tmp_path, name="first"), weighted)
    assert "validation objective 0.6100 (0.75 mask_iou + 0.25 depth_delta1)" in text
