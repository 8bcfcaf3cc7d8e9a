"""Evaluation of a checkpoint and of the baselines, compared with a numpy reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.dataset.dataset import Dataset
from data.errors import InputError
from data.images import resize
from data.schema import Sample
from data.splits.splits import rows
from trainable.config import TrialConfig, build
from trainable.evaluation.evaluate import (
    baseline_images,
    evaluate_baselines_on,
    evaluate_checkpoint,
    evaluate_images,
    evaluate_published,
    fit_baselines_on,
)
from trainable.evaluation.measured import measure_result
from trainable.job import TrialData
from trainable.loop import checkpoint
from trainable.loop.loaders import background_ids
from trainable.metrics.names import METRICS
from trainable.metrics.objective import SCORE, Objective
from trainable.metrics.per_image import figures
from trainable.metrics.published import PUBLISHED_METRICS
from trainable.models.network import Network
from trainable.models.prediction import Prediction
from trainable.recipes import RECIPES, Evaluation, load_recipe

CPU = torch.device("cpu")
SIZE = 16
CONFIG = build(
    TrialConfig,
    {
        "data": {"image_size": SIZE, "split_by": "sample", "split": {"train": 0.4, "val": 0.2, "test": 0.4}},
        "model": {"width": 4, "precision": "fp32"},
    },
    source="the test",
)


@pytest.fixture(scope="module")
def saved(save_warmed: Callable[[TrialConfig], Path]) -> Path:
    """A checkpoint of `CONFIG`."""
    return save_warmed(CONFIG)


def samples_of(part: str, data: TrialData) -> list[Sample]:
    dataset = Dataset.open(Path(data.path))
    return list(dataset.read(rows(dataset.ids, part, "sample", CONFIG.data.shares)))


def planes(samples: list[Sample], name: str) -> np.ndarray:
    """(N, H, W) or (N, H, W, 3) float32 in 0..1."""
    return np.stack([resize(getattr(sample, name), SIZE) for sample in samples]).astype(np.float32) / 255


@pytest.mark.slow
def test_evaluation_agrees_with_a_manual_computation(trial_data: TrialData, saved: Path) -> None:
    """The exported metrics belong to this network, this part and its image size."""
    samples = samples_of("test", trial_data)
    assert len(samples) > 5
    model, _ = checkpoint.load_model(saved)
    photos = [torch.from_numpy(planes(samples, name)).permute(0, 3, 1, 2) for name in ("bg", "fg_bg")]
    with torch.no_grad():
        prediction = model(*photos)
    probability = torch.sigmoid(prediction.mask_logits)[:, 0].double().numpy()
    depth = prediction.depth[:, 0].double().numpy()
    mask, truth = planes(samples, "mask") > 0.5, planes(samples, "depth").astype(np.float64)
    found = probability > 0.5
    ious = [(left & right).sum() / (left | right).sum() for left, right in zip(found, mask, strict=True)]
    near, far = np.clip(depth, 0.1, 1), np.clip(truth, 0.1, 1)
    delta1 = (np.maximum(near / far, far / near) < 1.25).mean()
    assert 0.01 < np.mean(ious) < 0.9
    assert 0.01 < delta1 < 0.9

    measured = evaluate_checkpoint(saved, trial_data, "test", device=CPU)
    assert measured["mask_iou"] == pytest.approx(np.mean(ious), rel=1e-5)
    assert measured["mask_mae"] == pytest.approx(np.abs(probability - mask).mean(), rel=1e-5)
    assert measured["depth_rmse"] == pytest.approx(np.sqrt(((depth - truth) ** 2).mean()), rel=1e-5)
    assert measured["depth_delta1"] == pytest.approx(delta1, rel=1e-5)
    assert measured["score"] == pytest.approx((np.mean(ious) + delta1) / 2, rel=1e-5)


def test_each_part_is_evaluated_separately(trial_data: TrialData, saved: Path) -> None:
    """A test score computed on val would be the score that the search has optimised."""
    val, test, both = (evaluate_checkpoint(saved, trial_data, part, device=CPU) for part in ("val", "test", "val+test"))
    assert val["score"] != test["score"]
    counts = [len(samples_of(part, trial_data)) for part in ("val", "test")]
    pooled = np.average([val["depth_mae"], test["depth_mae"]], weights=counts)
    assert both["depth_mae"] == pytest.approx(pooled)


def test_image_grid_is_written_to_the_given_path(trial_data: TrialData, saved: Path, tmp_path: Path) -> None:
    """Metrics do not show a mask that is upside down."""
    evaluate_checkpoint(saved, trial_data, "test", device=CPU, grid=tmp_path / "grid.png")
    grid = cv2.imread(str(tmp_path / "grid.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
    assert grid.shape[1] > grid.shape[0] > 4 * 100  # six columns, four rows


def test_per_image_metrics_aggregate_to_the_whole(trial_data: TrialData, saved: Path) -> None:
    """The intervals of a comparison contain the metrics that a training reports, also the published ones."""
    table = evaluate_images(saved, trial_data, "val+test", device=CPU)
    samples = [*samples_of("val", trial_data), *samples_of("test", trial_data)]
    assert table.bg_ids == tuple(sample.bg_id for sample in samples)
    found = figures(table)
    whole = evaluate_checkpoint(saved, trial_data, "val+test", device=CPU)
    assert {name: found[name] for name in METRICS} == pytest.approx(whole, rel=1e-12)
    for metric, names in PUBLISHED_METRICS.items():
        own = evaluate_published(saved, trial_data, "val+test", metric, Evaluation(), device=CPU)
        assert own == pytest.approx({name: found[name] for name in names}, rel=1e-12)


def test_per_image_metrics_are_in_storage_order(trial_data: TrialData, saved: Path) -> None:
    """The measurements of an image do not depend on the other images of its batch."""
    both, test = (evaluate_images(saved, trial_data, part, device=CPU) for part in ("val+test", "test"))
    assert len(test.bg_ids) < len(both.bg_ids)
    assert both.bg_ids[-len(test.bg_ids) :] == test.bg_ids
    assert np.allclose(both.columns()[-len(test.bg_ids) :], test.columns(), rtol=1e-4)
    assert len(np.unique(test.states[:, 1])) == len(test.bg_ids)  # else any order would do


def test_networks_are_compared_on_unchanged_images(
    trial_data: TrialData, saved: Path, save_warmed: Callable[[TrialConfig], Path]
) -> None:
    """A published error augmented the test images; a comparison uses the same images for all networks."""
    values = CONFIG.model_dump()
    values["data"]["augment"]["in_evaluation"] = True
    changed = save_warmed(build(TrialConfig, values, source="the test"))
    tables = [evaluate_images(directory, trial_data, "test", device=CPU) for directory in (saved, changed)]
    assert np.array_equal(tables[0].columns(), tables[1].columns())


@pytest.mark.parametrize("objective", [SCORE, Objective.of({"mask_iou": 0.7, "depth_delta1": 0.3})])
def test_result_of_a_search_is_measured_on_unchanged_images(
    trial_data: TrialData,
    saved: Path,
    save_warmed: Callable[[TrialConfig], Path],
    tmp_path: Path,
    objective: Objective,
) -> None:
    """Each metric has its interval on the same images; augmented ones would make a wrong difference."""
    values = CONFIG.model_dump()
    values["data"]["augment"] |= {"in_evaluation": True, "jitter": 0.5}
    changed = save_warmed(build(TrialConfig, values, source="the test"))
    outputs = [str(tmp_path / name) for name in ("grid.png", "baselines.npz", "retrained.npz", "best.npz")]
    found = measure_result([str(changed), str(saved)], trial_data, outputs, objective, CPU)

    plain = objective.with_value(evaluate_checkpoint(saved, trial_data, "test", device=CPU))
    augmented = evaluate_checkpoint(changed, trial_data, "test", device=CPU)
    assert tuple(found.retrained) == tuple(dict.fromkeys((*METRICS, objective.key)))
    assert found.retrained == pytest.approx(plain, rel=1e-12)
    assert found.retrained == pytest.approx({name: found.best[name] for name in plain}, rel=1e-12)
    assert augmented["score"] != plain["score"]
    for name, value in found.retrained.items():
        assert found.retrained_intervals[name]["value"] == pytest.approx(value, rel=1e-12)
    assert cv2.imread(outputs[0]) is not None


def test_evaluation_with_dropout_is_reproducible(
    trial_data: TrialData, save_warmed: Callable[[TrialConfig], Path]
) -> None:
    """Dropout in evaluation is a published error; its metrics must be repeatable all the same."""
    values = CONFIG.model_dump() | {
        "model": {"family": "resnet-dual", "width": 4, "dropout": 0.2, "eval_mode": "dropout", "precision": "fp32"}
    }
    dropping = save_warmed(build(TrialConfig, values, source="the test"))
    torch.manual_seed(0)
    once = evaluate_images(dropping, trial_data, "test", device=CPU)
    torch.manual_seed(1)
    assert np.array_equal(evaluate_images(dropping, trial_data, "test", device=CPU).columns(), once.columns())
    by_whole = evaluate_checkpoint(dropping, trial_data, "test", device=CPU)
    assert figures(once)["score"] == pytest.approx(by_whole["score"], rel=1e-12)


def test_published_metrics_use_training_batches(
    trial_data: TrialData, save_warmed: Callable[[TrialConfig], Path]
) -> None:
    """The published errors: raw outputs, and a mean over batches."""
    values = CONFIG.model_dump()
    values["data"]["batch_size"] = 4
    directory = save_warmed(build(TrialConfig, values, source="the test"))
    samples = samples_of("test", trial_data)
    model, _ = checkpoint.load_model(directory)
    photos = [torch.from_numpy(planes(samples, name)).permute(0, 3, 1, 2) for name in ("bg", "fg_bg")]
    with torch.no_grad():
        logits = model(*photos).mask_logits[:, 0].numpy()
    squares = ((logits - planes(samples, "mask")) ** 2).mean(axis=(1, 2))
    batches = np.array_split(squares, -(-len(samples) // 4))
    expected = np.mean([np.sqrt(batch.mean()) for batch in batches])
    batchwise = Evaluation(on="logits", average="batches")
    published = evaluate_published(directory, trial_data, "test", "delta-rms", batchwise, device=CPU)
    assert published["soft_mask_rmse"] == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(np.sqrt(squares.mean()), rel=1e-4)


def cramp(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let networks run out of memory with more than `most` samples."""
    forward = Network.forward

    def cramped(self: Network, bg: torch.Tensor, fg_bg: torch.Tensor) -> Prediction:
        if len(bg) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, bg, fg_bg)

    monkeypatch.setattr(Network, "forward", cramped)


def test_final_evaluation_out_of_memory_continues_with_smaller_batches(
    trial_data: TrialData, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost result: a search ends with an evaluation, whose batches are larger than those of its trainings."""
    whole = evaluate_images(saved, trial_data, "test", device=CPU)
    published = evaluate_published(saved, trial_data, "test", "delta-rms", Evaluation(), device=CPU)
    cramp(monkeypatch, most=2)
    with pytest.warns(RuntimeWarning, match="Evaluation ran out of memory"):
        found = evaluate_images(saved, trial_data, "test", device=CPU)
    with pytest.warns(RuntimeWarning, match="Evaluation ran out of memory"):
        found_published = evaluate_published(saved, trial_data, "test", "delta-rms", Evaluation(), device=CPU)

    assert found.bg_ids == whole.bg_ids
    np.testing.assert_allclose(found.columns(), whole.columns(), rtol=1e-4, atol=1e-6)
    assert found_published == pytest.approx(published, rel=1e-5)


def test_average_over_batches_is_not_measured_with_smaller_ones(
    trial_data: TrialData, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong metric: the batch size is part of such an average."""
    cramp(monkeypatch, most=2)
    with pytest.raises(torch.OutOfMemoryError):
        evaluate_published(saved, trial_data, "test", "delta-rms", Evaluation(average="batches"), device=CPU)


def test_recipes_are_measured_by_their_projects_metrics(trial_data: TrialData, saved: Path) -> None:
    """Two of the projects published no metric."""
    own = {"birender": ("ssim90_mask", "ssim50_depth"), "monimoyd": ("iou75_mask",), "raguram": (), "divyansh": ()}
    for name in RECIPES:
        metric, project = load_recipe(name).metric, name.partition("-")[0]
        found = evaluate_published(saved, trial_data, "test", metric, Evaluation(), device=CPU)
        assert tuple(found) == own.get(project, PUBLISHED_METRICS["delta-rms"])


def test_data_with_another_fingerprint_is_refused(trial_data: TrialData, saved: Path) -> None:
    """The metrics would otherwise be reported for the wrong data set."""
    other = TrialData(path=trial_data.path, fingerprint="f" * 64)
    with pytest.raises(InputError, match="has the fingerprint"):
        evaluate_checkpoint(saved, other, "test", device=CPU)


def test_baselines_are_fitted_on_train_and_measured_on_the_part(trial_data: TrialData) -> None:
    """Baselines must not be fitted to the part that they are evaluated on."""
    measured = evaluate_baselines_on(CONFIG.data, trial_data, "test")
    train, test = (samples_of(part, trial_data) for part in ("train", "test"))
    error = planes(train, "depth").mean(axis=0) - planes(test, "depth")
    assert measured["depth_mean"]["depth_mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)

    def ious(samples: list[Sample], cut: float) -> float:
        difference = np.abs(planes(samples, "fg_bg") - planes(samples, "bg")).mean(axis=3) * 255
        found, mask = difference > cut - 0.1, planes(samples, "mask") * 255 > 127
        return float(np.mean([(f & m).sum() / (f | m).sum() for f, m in zip(found, mask, strict=True)]))

    threshold = measured["mask_threshold"]["threshold"]
    assert measured["mask_threshold"]["mask_iou"] == pytest.approx(ious(test, threshold), rel=1e-5)
    assert ious(train, threshold) == pytest.approx(max(ious(train, cut / 3) for cut in range(300)), rel=1e-5)


def test_both_baselines_are_measured_on_each_image(trial_data: TrialData) -> None:
    """Over all images, the metrics are those of the two baselines; networks are compared with them image by image."""
    fitted = fit_baselines_on(CONFIG.data, trial_data)
    table = baseline_images(CONFIG.data, trial_data, "test", fitted)
    known = evaluate_baselines_on(CONFIG.data, trial_data, "test", fitted)
    both = {**known["mask_threshold"], **known["depth_mean"]}
    both.pop("threshold")

    assert table.bg_ids == background_ids(CONFIG.data, trial_data, "test")
    assert {name: figures(table)[name] for name in both} == pytest.approx(both)
