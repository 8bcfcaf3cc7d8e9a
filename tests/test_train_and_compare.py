"""`train` and `compare` as users run them: with their own recipes, in separate processes, on Ray."""

from __future__ import annotations

import json
import signal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from search.study.experiment import Experiment
from tests.commands import records, started, twinhead, wait_for, wait_for_epoch
from trainable.loop.checkpoint import load_model

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("shared_cluster")]

RECIPE = """
name: {name}
source: written for a test
metric: none
epochs: {epochs}
data: {{image_size: 32, batch_size: 8, augment: {{hflip: 0.0}}}}
model: {{family: debug, width: {width}}}
optimizer: {{name: sgd, lr: {lr}}}
policy: {{name: step, horizon_epochs: 4, step: {{every: 0.5, factor: 0.1}}}}
corrected:
  - what: Dropout was on in evaluation.
    published: {{model.eval_mode: dropout}}
"""


def recipe(directory: Path, name: str, *, width: int = 2, lr: float = 0.1, epochs: int = 3) -> Path:
    path = directory / f"{name}.yaml"
    path.write_text(RECIPE.format(name=name, width=width, lr=lr, epochs=epochs))
    return path


@pytest.fixture(scope="module")
def compared(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, dict[str, Any]]:
    """A comparison of three recipes, one of which diverges, and the JSON that it printed."""
    place = tmp_path_factory.mktemp("compared")
    files = [recipe(place, "narrow"), recipe(place, "wide", width=6), recipe(place, "wild", lr=1e30)]
    names = ",".join(map(str, files))
    options = ("--set", "data.image_size=32", "--epochs", "2", "--storage", str(place), "--json")
    printed = twinhead("compare", str(drawn), "--recipes", names, *options)
    return Experiment(storage=place, name="compare"), json.loads(printed)


def test_comparison_measures_every_recipe_on_the_same_images(compared: tuple[Experiment, dict[str, Any]]) -> None:
    """Figures of different images or budgets say nothing about recipes."""
    _, comparison = compared
    rows = {row["recipe"]: row for row in comparison["rows"]}

    assert list(rows) == ["narrow", "wide", "wild"]
    assert comparison["samples_seen"] == 2 * comparison["samples"]["train"]
    assert rows["wide"]["parameters"] > rows["narrow"]["parameters"]
    for name in ("narrow", "wide"):
        score = rows[name]["figures"]["score"]
        assert rows[name]["outcome"] == "finished"
        assert score["low"] <= score["value"] <= score["high"]
    assert {column["key"] for column in comparison["columns"]} <= rows["narrow"]["figures"].keys()
    assert "mask_iou" in comparison["baselines"]["mask_threshold"]


def test_diverging_recipe_is_reported(compared: tuple[Experiment, dict[str, Any]]) -> None:
    """It must neither end the comparison nor be left out silently."""
    _, comparison = compared
    row = comparison["rows"][2]

    assert row["outcome"] == "diverged"
    assert "The loss became" in row["reason"]
    assert row["figures"] is None


def test_policies_are_scaled_to_the_epochs_of_a_comparison(compared: tuple[Experiment, dict[str, Any]]) -> None:
    """A step after two of four published epochs is a step after one of two."""
    experiment, comparison = compared
    [narrow] = [trial for trial in records(experiment) if trial.recipe == "narrow"]

    assert [record.metrics["lr"] for record in narrow.epochs] == pytest.approx([0.1, 0.01])
    assert any("scaled to 2 epochs" in note for note in comparison["notes"])


def test_report_is_written_beside_the_comparison(compared: tuple[Experiment, dict[str, Any]]) -> None:
    """One table for reading, one for programs, one to be sent around."""
    experiment, comparison = compared

    class Names(HTMLParser):
        found = ""

        def handle_data(self, data: str) -> None:
            self.found += data

    page = Names()
    page.feed((experiment.root / "comparison.html").read_text())
    assert json.loads((experiment.root / "comparison.json").read_text()) == comparison
    for name in ("narrow", "wide", "wild"):
        assert name in (experiment.root / "comparison.md").read_text()
        assert name in page.found


def test_training_exports_the_best_validation_epoch(drawn: Path, tmp_path: Path) -> None:
    """Without a search, too, test images are measured once, and the weights can be used."""
    file = recipe(tmp_path, "mine")
    printed = twinhead("train", str(file), str(drawn), "--storage", str(tmp_path), "--faithful", "--json")
    summary = json.loads(printed)
    experiment = Experiment(storage=tmp_path, name="mine")
    [trial] = records(experiment)
    scores = [record.score for record in trial.epochs]

    assert summary == json.loads(experiment.summary_file.read_text())
    assert len(scores) == summary["epochs"] == 3
    assert scores[summary["epoch"] - 1] == max(scores)
    assert summary["config"]["model"]["eval_mode"] == "dropout"
    _, origin = load_model(experiment.best)
    assert origin.epoch == summary["epoch"]
    # Two of four published epochs before the step, although the run is shorter.
    assert [record.metrics["lr"] for record in trial.epochs] == pytest.approx([0.1, 0.1, 0.01])


def test_resume_continues_an_interrupted_training(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings take days; finished epochs must not be trained again."""
    monkeypatch.delenv("RAY_ADDRESS")  # what is interrupted runs on a cluster of its own
    file = recipe(tmp_path, "long", epochs=60)
    with started("train", str(file), str(drawn), "--storage", str(tmp_path)) as process:
        experiment = Experiment(storage=tmp_path, name="long")
        wait_for(process, r"train 'long'")
        wait_for_epoch(process, experiment)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=300)[1]
    [before] = records(experiment)
    assert process.returncode == 130
    assert f"twinhead train --resume long --storage {tmp_path}" in said
    assert 1 <= len(before.epochs) < 60

    twinhead("train", "--resume", "long", "--storage", str(tmp_path))

    [after] = records(experiment)
    assert [record.epoch for record in after.epochs] == list(range(1, 61))
    assert after.epochs[: len(before.epochs)] == before.epochs


def test_resume_of_a_finished_comparison_trains_nothing(compared: tuple[Experiment, dict[str, Any]]) -> None:
    """Going on with what is complete shows it again."""
    experiment, comparison = compared
    before = [trial.epochs for trial in records(experiment)]
    again = json.loads(twinhead("compare", "--resume", "compare", "--storage", str(experiment.storage), "--json"))

    assert [trial.epochs for trial in records(experiment)] == before
    assert [row["figures"] for row in again["rows"]] == [row["figures"] for row in comparison["rows"]]
