"""Commands as users run them, each in its own process, on Ray: from the search to the exported network."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from data.dataset.dataset import Dataset
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import RETRAINING_SECONDS, trial_records
from tests.commands import SMALL, records, run, twinhead
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.checkpoint import load_model
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext
from trainable.metrics.per_image import ImageFigures, figures
from trainable.trial import run as run_alone

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("shared_cluster")]
API_KEY = "5ec7e7" * 6 + "5ec7"


@pytest.fixture(scope="module")
def searched(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, dict[str, Any]]:
    """A finished search, which MLflow records, and the JSON that it printed."""
    storage = tmp_path_factory.mktemp("storage")
    mlflow = ("--set", f"logging.mlflow=sqlite:///{storage}/mlflow.db")
    options = (*SMALL, *mlflow, "--set", "scheduler.max_epochs=3", "--trials", "5", "--json")
    summary = json.loads(
        twinhead("search", "--data", str(drawn), "--name", "first", "--storage", str(storage), *options)
    )
    return Experiment(storage=storage, name="first"), summary


def test_search_stores_its_summary_and_files(searched: tuple[Experiment, dict[str, Any]]) -> None:
    """The printed summary equals the stored one, and every file that it names exists."""
    experiment, summary = searched

    assert summary == json.loads(experiment.summary_file.read_text())
    assert summary["trials"] == 5
    assert sum(summary["outcomes"].values()) == 5
    assert summary["epochs"] == sum(len(trial.epochs) for trial in records(experiment))
    assert experiment.spec().plan.budget.trials == 5
    assert (experiment.root / summary["retrained"]["checkpoint"] / "model.safetensors").is_file()
    assert {"mask_iou", "threshold"} <= summary["baselines"]["mask_threshold"].keys()
    assert "depth_delta1" in summary["baselines"]["depth_mean"]
    assert summary["versions"]["ray"]
    assert summary["data_fingerprint"]
    assert 0 < summary["optimizer_steps"]["fewest"] <= summary["optimizer_steps"]["most"]
    assert "set scheduler.max_epochs to" in summary["optimizer_steps"]["warning"]
    assert summary["retrained"]["optimizer_steps"]["fewest"] >= summary["optimizer_steps"]["fewest"]
    tables = {name: figures(ImageFigures.load(experiment.measured(name))) for name in ("retrained", "best")}
    assert tables["retrained"]["score"] == pytest.approx(summary["retrained"]["metrics"]["score"], abs=1e-6)
    assert tables["best"]["score"] == summary["best"]["test"]["score"]


def test_best_trial_is_the_best_reported_score_with_that_epochs_weights(
    searched: tuple[Experiment, dict[str, Any]],
) -> None:
    """The last row of a trial is not its best: the exported weights are those that were measured."""
    experiment, summary = searched
    scores = {trial.number: [record.score for record in trial.epochs] for trial in records(experiment)}

    best = max(scores, key=lambda number: max(scores[number]))
    assert summary["best"]["trial"] == best
    assert summary["best"]["score"] == max(scores[best])
    _, origin = load_model(experiment.root / summary["best"]["checkpoint"])
    assert origin.epoch == summary["best"]["epoch"]


def test_precision_is_decided_once_and_used_by_everything_from_a_trial(
    searched: tuple[Experiment, dict[str, Any]],
) -> None:
    """A retraining in another arithmetic than its trial would not be the configuration that won."""
    experiment, summary = searched
    decided = {
        key.split(" | ")[-1]: kept["precision"] for key, kept in json.loads(experiment.measurements.read_text()).items()
    }

    for trial in records(experiment):
        width = trial.config["model"]["width"]
        assert trial.precision == decided[f"debug {width} at 32 by 8"]
        assert trial.config_as_run["model"]["precision"] == trial.precision
        assert trial.machine
    best = records(experiment)[summary["best"]["trial"]].precision
    assert summary["best"]["config"]["model"]["precision"] == best
    for place in (experiment.root / summary["best"]["checkpoint"], experiment.best, experiment.retrained):
        assert load_model(place)[1].config.model.precision == best


def test_summary_records_the_threads_of_the_retraining(searched: tuple[Experiment, dict[str, Any]]) -> None:
    """With as many, it can be repeated to the last digit."""
    _, summary = searched

    assert 1 <= summary["retrained"]["threads"] <= len(os.sched_getaffinity(0))


def test_finished_trials_keep_the_weights_of_their_best_epoch_alone(
    searched: tuple[Experiment, dict[str, Any]],
) -> None:
    """A search of thousands of trials must not fill the disk with states that nobody resumes."""
    experiment, _ = searched

    for trial in records(experiment):
        kept = list((experiment.trials / f"{trial.number:05d}").glob("checkpoint_*"))
        best = trial.best_kept(experiment)
        assert best is not None
        assert [experiment.root / str(best.checkpoint)] == kept
        assert best.score == max(record.score for record in trial.epochs)
        assert not (kept[0] / "state.pt").exists()
        assert (kept[0] / "pictures.png").is_file()


def test_trials_log_scalars_and_images_for_tensorboard(searched: tuple[Experiment, dict[str, Any]]) -> None:
    """People watch a search in TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    experiment, summary = searched
    events = EventAccumulator(str(experiment.trials / f"{summary['best']['trial']:05d}"))
    events.Reload()

    assert {"score", "lr", "mask/mask_iou", "depth/depth_delta1", "train/train_loss"} <= set(events.Tags()["scalars"])
    assert max(event.value for event in events.Scalars("score")) == pytest.approx(summary["best"]["score"], abs=1e-6)
    assert events.Tags()["images"] == ["pictures"]


def test_mlflow_records_every_trial(searched: tuple[Experiment, dict[str, Any]]) -> None:
    """Its settings, its whole curve, and its end."""
    experiment, _ = searched
    with closing(sqlite3.connect(experiment.root.parent / "mlflow.db")) as database:
        runs = database.execute("select name, status, run_uuid from runs order by name").fetchall()
        curves = [
            database.execute("select value from metrics where run_uuid = ? and key = 'score' order by step", [run[2]])
            for run in runs
        ]
        scores = [[value for (value,) in curve.fetchall()] for curve in curves]
        [[width]] = database.execute(
            "select value from params where run_uuid = ? and key = 'model.width'", [runs[0][2]]
        ).fetchall()

    assert [run[:2] for run in runs] == [(f"first-{number:05d}", "FINISHED") for number in range(5)]
    assert scores == [[record.score for record in trial.epochs] for trial in records(experiment)]
    assert width == str(records(experiment)[0].config["model"]["width"])


def test_best_evaluate_and_predict_work_on_the_exported_network(
    searched: tuple[Experiment, dict[str, Any]], drawn: Path, tmp_path: Path
) -> None:
    """`evaluate` on the exported network gives the metrics of the summary."""
    from data.dataset.dataset import Dataset
    from data.images import decode_photo, encode_png

    experiment, summary = searched
    out = tmp_path / "best"
    twinhead("best", "first", "--storage", str(experiment.storage), "--out", str(out))
    measured = json.loads(twinhead("evaluate", str(out), str(drawn), "--split", "test", "--json"))
    sample = next(Dataset.open(drawn).read([0]))
    for name, pixels in (("bg", sample.bg), ("fg_bg", sample.fg_bg)):
        (tmp_path / f"{name}.png").write_bytes(encode_png(pixels))
    pictures = ("--bg", str(tmp_path / "bg.png"), "--fg-bg", str(tmp_path / "fg_bg.png"))
    twinhead("predict", str(out), *pictures, "--out", str(tmp_path / "out"))

    assert {path.name for path in out.iterdir()} == {
        "checksums.json",
        "model.safetensors",
        "config.json",
        "metrics.json",
        "README.md",
        "pictures.png",
    }
    assert measured["metrics"] == pytest.approx(summary["retrained"]["metrics"], abs=1e-6)
    assert measured["baselines"] == summary["baselines"]
    assert measured["same_data"]
    overlay = (tmp_path / "out" / "overlay.png").read_bytes()
    assert decode_photo(overlay, "overlay").shape == sample.fg_bg.shape


def test_best_exports_the_weights_of_any_trial(searched: tuple[Experiment, dict[str, Any]], tmp_path: Path) -> None:
    """Any trial can be exported, not only the best."""
    experiment, _ = searched
    out = tmp_path / "third"

    twinhead("best", "first", "--trial", "3", "--storage", str(experiment.storage), "--out", str(out))

    validation = json.loads((out / "metrics.json").read_text())["val"]
    assert validation["score"] == max(record.score for record in records(experiment)[3].epochs)


def test_report_uses_what_the_retraining_measured(searched: tuple[Experiment, dict[str, Any]], tmp_path: Path) -> None:
    """Nothing is measured again, and the file has the scores of the summary, where and when each trial ran."""
    experiment, summary = searched
    done = run("report", "first", "--storage", str(experiment.storage), "--out", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()

    assert done.returncode == 0
    assert "measuring" not in done.stderr
    assert f"Retrained, it scores {summary['retrained']['metrics']['score']:.3f}" in page
    assert "note:" not in done.stderr
    assert socket.gethostname() in page


def test_retrain_replaces_the_retrained_network(searched: tuple[Experiment, dict[str, Any]]) -> None:
    """A finished search can be retrained for longer."""
    experiment, summary = searched

    again = json.loads(twinhead("retrain", "first", "--epochs", "5", "--storage", str(experiment.storage), "--json"))

    assert again["retrained"]["epochs"] == 5
    assert load_model(experiment.retrained)[1].epoch == 5
    assert again["best"]["score"] == summary["best"]["score"]


def test_repeated_search_gives_the_same_trials(
    searched: tuple[Experiment, dict[str, Any]], drawn: Path, tmp_path: Path
) -> None:
    """One at a time, the same seed, data and precision give the same configurations and the same curves.

    The precision is given: a search measures which one is faster.
    """
    options = (*SMALL, "--set", "scheduler.max_epochs=3", "--trials", "4", "--set", "resources.concurrent=1")
    options = (*options, "--set", "model.precision=fp32")
    curves = []
    for name in ("one", "two"):
        retrain = ("--set", "retrain.enabled=false")
        twinhead("search", "--data", str(drawn), "--name", name, "--storage", str(tmp_path), *options, *retrain)
        experiment = Experiment(storage=tmp_path, name=name)
        curves.append([(trial.config, [record.score for record in trial.epochs]) for trial in records(experiment)])

    assert curves[0] == curves[1]


def test_sampler_and_scheduler_can_be_chosen(drawn: Path, tmp_path: Path) -> None:
    """TPE proposes and Ray's ASHA stops, on the same study, which a larger budget continues after a limit ended it."""
    chosen = ("--set", "search.sampler=tpe", "--set", "scheduler.name=asha", "--set", "scheduler.grace_epochs=1")
    options = (*SMALL, *chosen, "--set", "scheduler.max_epochs=3", "--set", "budget.patience=1", "--json")
    where = ("--storage", str(tmp_path))
    first = json.loads(twinhead("search", "--data", str(drawn), "--name", "chosen", *where, *options, "--trials", "30"))
    experiment = Experiment(storage=tmp_path, name="chosen")
    before = records(experiment)
    more = len(before) + 2
    twinhead("search", "--resume", "chosen", *where, "--trials", str(more), "--set", "budget.patience=30")
    after = records(experiment)

    assert (first["ended_by"], first["limit"], first["trials"] < 30) == ("patience", 1, True)
    assert first["retrained"]["metrics"]["score"] > 0  # which the limit does not end
    assert 0 < open_study(experiment).user_attrs[RETRAINING_SECONDS] < experiment.summary().seconds
    assert [trial.config for trial in after[: len(before)]] == [trial.config for trial in before]
    assert [trial.state.name for trial in after] == ["COMPLETE"] * more
    assert {1, 3} <= {trial.last_epoch for trial in after}  # an interrupted one may be compared at 2
    assert experiment.summary().ended_by == "trials"


def test_trial_can_be_reproduced_without_the_search(searched: tuple[Experiment, dict[str, Any]], drawn: Path) -> None:
    """Its configuration, which holds the seed, and the data decide its curve: in another process, without Ray too."""
    experiment, _ = searched
    remembered = max(records(experiment), key=lambda trial: len(trial.epochs))
    scores: list[float] = []

    def report(end: EpochEnd, *_: Any) -> None:
        scores.append(end.metrics["score"])

    data = TrialData(path=str(drawn), fingerprint=Dataset.open(drawn).info.fingerprint)
    config = build(TrialConfig, remembered.config, source="the study")
    run_alone(config, data, context=DistributedContext(device=torch.device("cpu")), report=report)

    assert scores == [record.score for record in remembered.epochs]


@pytest.fixture(scope="module")
def wild(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, dict[str, Any]]:
    """A finished search for another objective, some of whose trials diverge, and the JSON that it printed."""
    storage = tmp_path_factory.mktemp("storage")
    options = ("--set", "objective=-depth_rmse", "--set", "scheduler.max_epochs=3", "--trials", "6", "--json")
    rates = ("--set", "optimizer.lr={choices: [0.002, 1e+30]}", "--set", "optimizer.clip_norm=0")
    policy = ("--set", "policy.name=constant", "--set", "optimizer.name=sgd")
    where = ("--data", str(drawn), "--name", "wild", "--storage", str(storage))
    summary = json.loads(twinhead("search", *where, *SMALL, *rates, *policy, *options))
    return Experiment(storage=storage, name="wild"), summary


def test_diverging_trial_gets_the_worst_score_and_the_search_continues(
    wild: tuple[Experiment, dict[str, Any]],
) -> None:
    """One absurd learning rate must neither end a search nor get a good score."""
    experiment, summary = wild
    diverged = [trial for trial in records(experiment) if trial.outcome == "diverged"]

    assert summary["outcomes"]["diverged"] == len(diverged) >= 1
    assert summary["best"]["config"]["optimizer"]["lr"] == 0.002
    assert all(record.score == 0 for trial in diverged for record in trial.epochs)
    assert "step" in diverged[0].reason


def test_search_for_another_objective_finds_its_best_trial(wild: tuple[Experiment, dict[str, Any]]) -> None:
    """The smallest error of the depth wins, whatever the score: its trial, its epoch, its weights, and on test."""
    experiment, summary = wild
    study = open_study(experiment)
    trials = trial_records(study, experiment.objective)
    errors = {
        (record.metrics["depth_rmse"], trial.number, record.epoch)
        for trial in trials
        for record in trial.epochs
        if trial.outcome == "trained"
    }
    error, number, epoch = min(errors)
    best = summary["best"]

    assert summary["objective"] == "-depth_rmse"
    assert (best["value"], best["trial"], best["epoch"]) == (error, number, epoch)
    assert best["metrics"]["depth_rmse"] == error
    assert load_model(experiment.root / best["checkpoint"])[1].epoch == epoch
    assert (study.best_trial.number, study.best_value) == (number, error)
    assert {"depth_rmse", "score"} <= summary["retrained"]["metrics"].keys() & best["test"].keys()
    for trial in trials:
        kept = [path.name for path in (experiment.trials / f"{trial.number:05d}").glob("checkpoint_*")]
        least = min((record for record in trial.epochs if record.checkpoint), key=lambda each: -each.rank, default=None)
        assert kept == ([Path(str(least.checkpoint)).name] if least else [])


@pytest.fixture(scope="module")
def grouped(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, dict[str, Any]]:
    """A finished search whose trial has two workers, which W&B records offline, and the JSON that it printed."""
    storage = tmp_path_factory.mktemp("storage")
    options = [*SMALL, "--set", "resources.workers=2", "--set", "scheduler.max_epochs=2", "--trials", "1", "--json"]
    options += ["--set", "logging.wandb=team/depth", "--storage", str(storage)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_API_KEY", API_KEY)
        summary = json.loads(twinhead("search", "--data", str(drawn), "--name", "groups", *options))
    return Experiment(storage=storage, name="groups"), summary


def test_trials_that_need_several_workers_run_as_groups(
    grouped: tuple[Experiment, dict[str, Any]], drawn: Path, tmp_path: Path
) -> None:
    """Two processes share a trial, and its metrics are those of the whole split."""
    experiment, summary = grouped
    out = tmp_path / "best"
    twinhead("best", "groups", "--storage", str(experiment.storage), "--out", str(out))
    measured = json.loads(twinhead("evaluate", str(out), str(drawn), "--json"))

    assert summary["outcomes"]["finished"] == 1
    assert measured["metrics"] == pytest.approx(summary["retrained"]["metrics"], abs=1e-6)


def test_wandb_records_every_trial_offline(grouped: tuple[Experiment, dict[str, Any]]) -> None:
    """Files that 'wandb sync' sends later, and the API key in none of them."""
    experiment, _ = grouped
    files = sorted((experiment.root / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda file: file.name)
    runs = [[*wandb_records(file)] for file in files]
    started = [record.run for run in runs for record in run if record.WhichOneof("record_type") == "run"]
    scores = [
        [
            json.loads(item.value_json)
            for record in run
            if record.WhichOneof("record_type") == "history"
            for item in record.history.item
            if "score" in {item.key, *item.nested_key}
        ]
        for run in runs
    ]

    assert [run.display_name for run in started] == ["groups-00000"]
    assert {(run.entity, run.project, run.run_group) for run in started} == {("team", "depth", "groups")}
    assert scores == [[record.score for record in trial.epochs] for trial in records(experiment)]
    held = [path for path in experiment.root.rglob("*") if path.is_file() and API_KEY.encode() in path.read_bytes()]
    assert held == []


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of a W&B file: blocks of 32 KiB with pieces of records, each after its checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, block, header, whole, last = file.read_bytes(), 2**15, struct.Struct("<IHB"), 1, 4
    at, record = 7, b""
    while at + header.size <= len(content):
        if (left := block - at % block) < header.size:
            at += left
            continue
        _, size, kind = header.unpack_from(content, at)
        at += header.size
        record += content[at : at + size]
        at += size
        if kind in {whole, last}:
            yield Record.FromString(record)
            record = b""


def test_a_name_in_use_and_a_search_that_runs_are_refused(
    searched: tuple[Experiment, dict[str, Any]], drawn: Path
) -> None:
    """Two searches must never write to one directory."""
    experiment, _ = searched
    again = run("search", "--data", str(drawn), "--name", "first", "--storage", str(experiment.storage))

    assert again.returncode == 2
    assert "'first' is in use" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


@pytest.mark.skipif("TWINHEAD_REAL" not in os.environ, reason="TWINHEAD_REAL does not name a folder of real images")
def test_import_and_search_on_real_images(tmp_path: Path) -> None:
    """Import, inspect, search: the README's lines on photographs."""
    real = Path(os.environ["TWINHEAD_REAL"]) / "nyu_composed"
    imported = json.loads(twinhead("import", str(real), str(tmp_path / "classroom"), "--json"))
    sheet = tmp_path / "sheet.png"
    twinhead("inspect", str(tmp_path / "classroom"), "--out", str(sheet))
    options = (*SMALL, "--set", "scheduler.max_epochs=2", "--trials", "3", "--json")
    summary = json.loads(
        twinhead(
            "search", "--data", str(tmp_path / "classroom"), "--name", "real", "--storage", str(tmp_path), *options
        )
    )

    assert imported["counts"] == {"samples": 600, "backgrounds": 150, "foregrounds": 199}
    assert imported["depth_polarity"] == "far-bright"
    assert sheet.stat().st_size > 10_000
    assert summary["baselines"]["mask_threshold"]["mask_iou"] > 0.8


def test_summary_measures_the_gain_over_a_recipe(drawn: Path, tmp_path: Path) -> None:
    """Measured on the same test images, after the same number of epochs, with an interval."""
    space = ("model.family=sepunet", "model.width=32", "data.image_size=32", "scheduler.max_epochs=2")
    options = [part for text in (*space, "search.start_from=[monimoyd-unet, birender-cnn]") for part in ("--set", text)]
    summary = json.loads(
        twinhead(
            "search",
            "--data",
            str(drawn),
            "--name",
            "s",
            "--storage",
            str(tmp_path),
            *options,
            "--trials",
            "3",
            "--json",
        )
    )
    trials = {trial.number: trial for trial in records(Experiment(storage=tmp_path, name="s"))}
    recipe, best, beyond = summary["recipe"], summary["best"], summary["beyond_recipe"]

    assert (recipe["recipe"], recipe["trial"], len(trials[0].epochs)) == ("monimoyd-unet", 0, 2)
    assert recipe["config"]["data"]["augment"]["jitter"] == 0.075
    assert list(summary["recipes_outside"]) == ["birender-cnn"]
    for metric, found in beyond.items():
        assert found["value"] == pytest.approx(best["test"][metric] - recipe["test"][metric])
        assert found["low"] <= found["value"] <= found["high"]
        assert 0 <= found["probability"] <= 1
    assert [trials[number].recipe for number in (1, 2)] == ["", ""]
