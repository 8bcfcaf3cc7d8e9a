"""Exported checkpoints: their files, their model card, and that no other files are lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from optuna.trial import create_trial

from data.errors import InputError
from search.report.repeat import described
from search.results.export import baseline_metrics, copy_export, export_checkpoint, metrics_table, verdict
from search.results.model_card import Facts, facts_of_trial, training_section
from search.spec.spec import load_spec
from search.study.trials import TrialRecord
from trainable.config import DataConfig, ModelConfig, TrialConfig
from trainable.loop.checkpoint import load_model, save
from trainable.loop.checkpoint_files import DamagedCheckpointError, Origin
from trainable.metrics.objective import Objective
from trainable.models import build_model

CONFIGURATION = TrialConfig(model=ModelConfig(family="debug", width=2), data=DataConfig(image_size=32))
METRICS = {"score": 0.5, "mask_iou": 0.4, "mask_rmse": 0.3, "depth_delta1": 0.6, "depth_rmse": 0.2}
BASELINES = {"mask_threshold": {"mask_iou": 0.25, "mask_rmse": 0.5}, "depth_mean": {"depth_delta1": 0.75}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As a trial leaves it: with the state that only going on needs."""
    directory = tmp_path / "checkpoint"
    origin = Origin(config=CONFIGURATION, data_fingerprint="abc", epoch=7)
    save(directory, build_model(CONFIGURATION.model), origin, METRICS, state={"epoch": 7})
    return directory


def handed(checkpoint: Path, destination: Path) -> Path:
    export_checkpoint(checkpoint, destination, metrics={"val": METRICS, "baselines": BASELINES}, title="first: trial 3")
    return destination


def test_export_holds_the_required_files_only(checkpoint: Path, tmp_path: Path) -> None:
    """The optimizer's state is twice the weights, and of no use to anybody else."""
    out = handed(checkpoint, tmp_path / "deep" / "out")
    model, origin = load_model(out)

    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "config.json",
        "metrics.json",
        "checksums.json",
        "README.md",
    }
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (origin.config, origin.epoch, origin.data_fingerprint) == (CONFIGURATION, 7, "abc")
    for name, weights in load_model(checkpoint)[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], weights)


def test_metrics_are_complete(checkpoint: Path, tmp_path: Path) -> None:
    """The card shows some figures; the file has all."""
    out = handed(checkpoint, tmp_path / "out")

    assert json.loads((out / "metrics.json").read_text()) == {"val": METRICS, "baselines": BASELINES}


def test_model_card_describes_the_network(checkpoint: Path, tmp_path: Path) -> None:
    """It is all that comes with the weights: their use, their metrics with baselines, and their origin."""
    card = (handed(checkpoint, tmp_path / "out") / "README.md").read_text()
    unwrapped = " ".join(card.split())

    assert card.startswith("# first: trial 3\n")
    assert "twinhead predict . --bg bg.jpg --fg-bg fg_bg.jpg --out out/" in card
    assert "| metric | without a network | this network, validation |" in card
    assert "| mask_iou | 0.2500 | 0.4000 |" in card
    assert "| depth_rmse | – | 0.2000 |" in card
    assert "`abc`" in card
    assert "32 × 32" in card
    assert "7 of 9 epochs" in unwrapped
    assert "pictures.png" not in card


def test_model_card_names_data_recipe_and_seeds(checkpoint: Path, tmp_path: Path) -> None:
    """What a reader must know to judge the metrics, and to repeat them."""
    facts = Facts(
        data="classroom",
        samples={"train": 1200, "val": 30, "test": 40},
        trained_on="train+val",
        recipe="is that of trial 3 of the search `first`, the recipe birender-cnn",
        seeds={"search": 5},
    )
    export_checkpoint(checkpoint, tmp_path / "out", metrics={"test": METRICS}, title="first", facts=facts)
    card = " ".join((tmp_path / "out/README.md").read_text().split())

    assert "Data set `classroom`, with the fingerprint `abc`" in card
    assert "by the hash of the background id" in card
    assert "0.7, 0.15, 0.15 (1,200 train, 30 val, 40 test images)" in card
    assert "trained on the training + validation images, at 32 × 32 pixels" in card
    assert "Recipe: debug of width 2; " in card
    assert "The configuration is that of trial 3 of the search `first`, the recipe birender-cnn." in card
    assert "Seeds: training 0, search 5; the split is a hash" in card
    stored = CONFIGURATION.model_copy(update={"data": CONFIGURATION.data.model_copy(update={"split_by": "stored"})})
    origin = Origin(config=stored, data_fingerprint="abc", epoch=7)
    assert "the split is a hash" not in " ".join(training_section(origin, facts).split())
    assert card.index("## Intended use") < card.index("## Metrics") < card.index("## Limits")


@pytest.mark.parametrize(
    ("attributes", "origin"),
    [
        ({"recipe": "birender-cnn"}, "the recipe birender-cnn"),
        ({"proposed_by": "portfolio"}, "from the portfolio"),
        ({"proposed_by": "earlier search"}, "from an earlier search"),
        ({"proposed_by": "default"}, "the default configuration"),
        ({"proposed_by": "model"}, "proposed by the search"),
    ],
)
def test_model_card_and_report_name_the_origin(attributes: dict[str, str], origin: str) -> None:
    """A first trial is no proposal of the search: what won was known before."""
    trial = TrialRecord.of(create_trial(value=0.5, user_attrs={"config": CONFIGURATION.model_dump(), **attributes}))
    facts = facts_of_trial(load_spec(data_path="set"), "first", trial, samples={})

    assert facts.recipe == f"is that of trial {trial.number} of the search `first`, {origin}"
    assert described(trial).startswith(f"Trial {trial.number}, {origin}: ")


def test_model_card_shows_intervals(checkpoint: Path, tmp_path: Path) -> None:
    """A metric of few rooms alone says too much; a single room has no interval."""
    intervals = {"score": {"value": 0.5, "low": 0.45, "high": 0.56}, "mask_iou": {"low": None, "high": None}}
    metrics = {"test": METRICS, "baselines": BASELINES, "intervals": intervals}
    export_checkpoint(checkpoint, tmp_path / "out", metrics=metrics, title="first")
    card = (tmp_path / "out/README.md").read_text()

    assert "| 0.5000 (0.4500 to 0.5600) |" in card
    assert "| mask_iou | 0.2500 | 0.4000 |" in card
    assert "In brackets are 95 % intervals over backgrounds." in card


def test_model_card_without_baselines_does_not_describe_them(checkpoint: Path, tmp_path: Path) -> None:
    """A trial's own weights were measured on validation alone."""
    export_checkpoint(checkpoint, tmp_path / "out", metrics={"val": METRICS}, title="first: trial 3")
    card = (tmp_path / "out/README.md").read_text()

    assert "without a network" not in card.lower()
    assert "`mask_iou` is the mean over images" in card
    assert (
        "Without a network, the mask is a threshold" in (handed(checkpoint, tmp_path / "b") / "README.md").read_text()
    )


def test_model_card_names_metrics_below_the_baselines(checkpoint: Path, tmp_path: Path) -> None:
    """On the whole, in the mask, in the depth: a table alone lets it be overlooked."""
    better = {name: value + 1 for name, value in METRICS.items()}
    worse = {name: value - 1 for name, value in METRICS.items()}

    assert verdict(better, BASELINES) == []
    assert [said.split(" is no better")[0] for said in verdict(worse, BASELINES)] == [
        "overall, the network",
        "the mask",
        "the depth",
    ]

    export_checkpoint(checkpoint, tmp_path / "out", metrics={"val": worse, "baselines": BASELINES}, title="first")
    card = (tmp_path / "out/README.md").read_text()
    assert "Note: overall, the network is no better than the baselines: score" in card


def test_a_damaged_checkpoint_is_not_given_new_checksums(checkpoint: Path, tmp_path: Path) -> None:
    """They would say that the wrong bytes are right."""
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")

    with pytest.raises(DamagedCheckpointError, match=r"model\.safetensors' is truncated or altered"):
        handed(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_edited_model_card_is_accepted(checkpoint: Path, tmp_path: Path) -> None:
    """It is text for people: who adds a line to it has not damaged the network."""
    out = handed(checkpoint, tmp_path / "out")
    (out / "README.md").write_text("Better than the one before.\n")

    assert load_model(out)[1].epoch == 7


def test_model_card_shows_images_if_present(checkpoint: Path, tmp_path: Path) -> None:
    """A card without its image would have a broken link."""
    (checkpoint / "pictures.png").write_bytes(b"picture")
    out = handed(checkpoint, tmp_path / "out")

    assert (out / "pictures.png").read_bytes() == b"picture"
    assert "](pictures.png)" in (out / "README.md").read_text()


def test_earlier_export_is_replaced(checkpoint: Path, tmp_path: Path) -> None:
    """A second retraining replaces the first export atomically."""
    (checkpoint / "pictures.png").write_bytes(b"picture")
    handed(checkpoint, tmp_path / "out")
    (checkpoint / "pictures.png").unlink()
    out = handed(checkpoint, tmp_path / "out")

    assert not (out / "pictures.png").exists()
    copy_export(out, tmp_path / "copy")
    copy_export(out, tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {path.name for path in out.iterdir()}


@pytest.mark.parametrize("give", ["export_checkpoint", "copy_export"])
def test_other_files_are_kept(checkpoint: Path, tmp_path: Path, give: str) -> None:
    """`--out ~` must not cost anybody their home."""
    made = handed(checkpoint, tmp_path / "made")
    home = tmp_path / "home"
    (home / "letters").mkdir(parents=True)
    (home / "letters" / "a.txt").write_text("dear")
    for place in (home, home / "letters" / "a.txt"):
        with pytest.raises(InputError, match=r"(other files in '.*'|a.txt' is a file); give --out an empty or a new "):
            handed(checkpoint, place) if give == "export_checkpoint" else copy_export(made, place)

    assert [path.name for path in home.rglob("*")] == ["letters", "a.txt"]


def test_current_directory_is_not_replaced(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell would stand in a directory that is no more."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    with pytest.raises(InputError, match=r"'\.' is the working directory; give --out a directory below it"):
        handed(checkpoint, Path())
    assert handed(checkpoint, Path("best")).is_dir()


def test_unwritable_destination_is_named(checkpoint: Path, tmp_path: Path) -> None:
    """Below a file nothing can be made."""
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match=r"Nothing can be written to '.*file/out'.*; give another directory"):
        handed(checkpoint, tmp_path / "file" / "out")


def test_baseline_metrics_combine_both_heads() -> None:
    """The score to beat is that of the threshold's mask with the mean's depth."""
    both = baseline_metrics(BASELINES)

    assert both["score"] == pytest.approx((0.25 + 0.75) / 2)
    assert both["mask_rmse"] == 0.5


def test_table_has_one_row_per_metric() -> None:
    """What a column lacks is a dash, not a zero."""
    table = metrics_table({"a": {"score": 0.5}, "b": {}}).splitlines()

    assert table[:3] == ["| metric | a | b |", "|---|---|---|", "| score | 0.5000 | – |"]
    assert len(table) == 7


def test_verdict_compares_the_objective() -> None:
    """An error is better if it is smaller; a weighted mean is computed for the baselines as well."""
    baselines = {"mask_threshold": {"mask_iou": 0.5}, "depth_mean": {"depth_delta1": 0.5, "depth_rmse": 0.2}}
    metrics = {"score": 0.6, "mask_iou": 0.6, "depth_delta1": 0.6, "depth_rmse": 0.3}
    weighted = Objective.of({"mask_iou": 1, "depth_delta1": 3})

    [sentence] = verdict(metrics, baselines, Objective.of("-depth_rmse"))
    assert sentence == "by the objective, the network is no better than the baselines: depth_rmse 0.3000 against 0.2000"
    assert verdict(metrics | {"depth_rmse": 0.1}, baselines, Objective.of("-depth_rmse")) == []
    assert baseline_metrics(baselines, weighted)["objective"] == 0.5
    assert verdict(weighted.with_value(metrics), baselines, weighted) == []
    error = {"mask_threshold": {"mask_iou": 0.5, "mask_err": 0.2}, "depth_mean": {"depth_delta1": 0.5}}
    assert verdict({"mask_err": 0.1}, error, Objective.of("-mask_err")) == []
    assert len(verdict({"mask_err": 0.3}, error, Objective.of("-mask_err"))) == 1  # of a plugin
