"""Training, metrics and predictions with cropped and padded images: the border counts nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.dataset.dataset import write_dataset
from data.fitting.fit import GREY, Fit, Fitting
from data.images import decode_sample, encode_sample
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from data.schema import PADDING, VALID, Batch, EncodedSample, Pixels
from tests.trainable.evaluation.whole import predict_whole
from trainable import trial
from trainable.config import LossConfig, TrialConfig, build
from trainable.evaluation.arrays import predict_arrays
from trainable.evaluation.evaluate import evaluate_images
from trainable.evaluation.predictor import Predictor
from trainable.job import TrialData
from trainable.loop.checkpoint import load_model
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext
from trainable.loss.dual_loss import DualLoss
from trainable.metrics.baselines import evaluate_baselines, fit_baselines
from trainable.metrics.pooled import MetricSums
from trainable.metrics.published import PublishedMetrics, image_columns
from trainable.models.network import Network
from trainable.models.prediction import Prediction

TOP, BOTTOM, SIDE = 8, 24, 32
"""An image of 16 x 32 pixels in a padded one of 32 x 32."""


def config(fit: Fit, **data: Any) -> TrialConfig:
    augment = {"rotate": 10.0, "zoom": 0.2, "hflip": 0.5}
    values = {
        "data": {"image_size": SIDE, "fit": fit, "batch_size": 8, "augment": augment} | data,
        "model": {"family": "debug", "width": 2, "precision": "fp32"},
        "epochs": 1,
    }
    return build(TrialConfig, values, source="the test")


def planes(images: int = 4) -> tuple[Prediction, Batch]:
    """A prediction, and a padded batch, both with noise everywhere, also in the border; the last has a hole."""
    rng = np.random.default_rng(0)
    photos = [torch.from_numpy(rng.integers(0, 256, (images, 3, SIDE, SIDE), np.uint8)) for _ in range(2)]
    mask, depth = (torch.from_numpy(rng.integers(0, 256, (images, 1, SIDE, SIDE), np.uint8)) for _ in range(2))
    outputs = [torch.from_numpy(rng.random((images, 1, SIDE, SIDE), np.float32)) for _ in range(2)]
    valid = torch.full((images, 1, SIDE, SIDE), PADDING, dtype=torch.uint8)
    valid[:, :, TOP:BOTTOM] = VALID
    valid[-1, :, TOP : TOP + 6, :9] = 0
    prediction = Prediction(outputs[0], outputs[1], outputs[0], outputs[1])
    return prediction, Batch(bg=photos[0], fg_bg=photos[1], mask=mask, depth=depth, valid=valid)


def without_border(prediction: Prediction, batch: Batch) -> tuple[Prediction, Batch]:
    rows = slice(TOP, BOTTOM)
    return Prediction(*(plane[:, :, rows] for plane in prediction)), Batch(
        **{name: getattr(batch, name)[:, :, rows].contiguous() for name in ("bg", "fg_bg", "mask", "depth", "valid")}
    )


def test_metrics_are_those_without_the_border() -> None:
    """Of mask and depth, as every trial reports them and as published, to rounding."""
    found = []
    for prediction, batch in (planes(), without_border(*planes())):
        sums, published = MetricSums(), PublishedMetrics()
        regions = batch.is_valid(), batch.is_inside()
        sums.update(prediction, batch.mask, batch.depth, *regions)
        published.update(prediction, batch.mask, batch.depth, *regions)
        columns = image_columns(prediction.mask, prediction.depth, batch.mask, batch.depth, *regions)
        found.append((sums.compute() | published.compute(), columns))

    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    torch.testing.assert_close(found[0][1], found[1][1])


def test_baselines_are_those_without_the_border() -> None:
    """A threshold of 0 would call the border an object."""
    found = []
    for _, batch in (planes(), without_border(*planes())):
        baselines = fit_baselines([batch])
        found.append((baselines.cut, evaluate_baselines(baselines, [batch])))

    assert found[0][0] == found[1][0]
    for name in found[0][1]:
        assert found[0][1][name] == pytest.approx(found[1][1][name], rel=1e-9)


def test_losses_do_not_see_the_border() -> None:
    """Neither that of the mask nor that of the depth; no gradient comes from there."""
    everything = {"l1": 1.0, "ssim": 1.0, "edge": 1.0}
    values = {"mask": everything | {"bce": 1.0, "dice": 1.0}, "depth": everything, "ssim": {"window": 5}}
    loss = DualLoss(build(LossConfig, values, source="the test"))
    prediction, batch = planes()
    outputs = [plane.clone().requires_grad_() for plane in prediction[:2]]
    mask, depth = batch.targets()

    def total(mask_truth: torch.Tensor, depth_truth: torch.Tensor) -> torch.Tensor:
        predicted = Prediction(*outputs, *outputs)
        return loss(predicted, mask_truth, depth_truth, batch.is_valid(), batch.is_inside())[0]

    value = total(mask, depth)
    value.backward()

    inside = batch.is_inside()
    assert inside is not None
    assert torch.equal(total(torch.where(inside, mask, 0.3), torch.where(inside, depth, 0.9)), value)
    for output in outputs:
        assert output.grad is not None
        assert (output.grad[~inside] == 0).all()
        assert (output.grad[inside] != 0).any()


def wide_scenes() -> Iterator[EncodedSample]:
    """Scenes of 24 x 48 pixels, and tall ones."""
    for number, encoded in enumerate(render(SceneSet(seed=3, backgrounds=12, per_background=2, size=48), processes=1)):
        sample = decode_sample(encoded)
        cut = (slice(12, 36), slice(None)) if number // 2 % 2 else (slice(None), slice(8, 40))
        images = {name: np.ascontiguousarray(getattr(sample, name)[cut]) for name in ("bg", "fg_bg", "mask", "depth")}
        yield encode_sample(replace(sample, **images))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    path = tmp_path_factory.mktemp("wide") / "set"
    info = write_dataset(wide_scenes(), path, source={})
    return TrialData(path=str(path), fingerprint=info.fingerprint)


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_trials_train_on_fitted_images(wide: TrialData, tmp_path: Path, fit: Fit, augment_on: str) -> None:
    """From a data set of several aspect ratios to a checkpoint that measures single images."""
    ends: list[EpochEnd] = []

    def report(end: EpochEnd, training: Any, _: object) -> None:
        ends.append(end)
        training.save(tmp_path / "network", end.metrics)

    trial.run(
        config(fit, augment_on=augment_on), wide, context=DistributedContext(device=torch.device("cpu")), report=report
    )

    assert 0 <= ends[-1].metrics["score"] <= 1
    assert ends[-1].metrics["train_loss"] > 0
    table = evaluate_images(tmp_path / "network", wide, "all", device=torch.device("cpu"))
    pixels = table.states[:, 2]
    assert set(pixels) == ({SIDE**2} if fit == "crop" else {16 * 32, 32 * 21})


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_predictions_are_of_whole_photographs(save_warmed: Any, fit: Fit) -> None:
    """At their size; what the border of the network's image holds is cut off."""
    saved = save_warmed(config(fit))
    photos = [np.random.default_rng(seed).integers(0, 256, (40, 100, 3), np.uint8) for seed in (0, 1)]
    predictor = Predictor(saved)

    [(mask, depth)] = predict_whole(predictor, photos[:1], photos[1:])

    assert mask.shape == depth.shape == (40, 100)
    fitted: list[Pixels] = [predictor.shrink(photo) for photo in photos]
    [(small, _)] = predictor.predict_small(*(photo[None] for photo in fitted))
    inner = small if fit == "stretch" else small[9:22]
    np.testing.assert_array_equal(mask, Fitting(SIDES_OF_INNER[fit]).restore(inner, (40, 100)))
    if fit != "stretch":
        assert (fitted[0][:9] == GREY).all()
        assert (fitted[0][9:22] != GREY).any()
    model, origin = load_model(saved)
    in_memory = predict_arrays(model.on(predictor.device), origin.config, *photos)
    np.testing.assert_allclose(in_memory.mask * 255, mask, atol=1.5)


def stretched(fit: Fit) -> TrialConfig:
    values = config(fit).model_dump()
    values["model"]["depth_activation"] = "minmax"
    return build(TrialConfig, values, source="the test")


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_predicted_depth_is_stretched_over_whole_photographs(save_warmed: Any, fit: Fit) -> None:
    """Also where photographs of two aspect ratios are in one batch, and their borders differ."""
    saved = save_warmed(stretched(fit))
    sides = [(40, 100), (100, 40)]
    pairs = [[np.random.default_rng(seed).integers(0, 256, (*own, 3), np.uint8) for own in sides] for seed in (0, 1)]
    predictor = Predictor(saved)
    small = [np.stack([predictor.shrink(photo) for photo in photos]) for photos in pairs]

    planes = predictor.predict_small(*small, predictor.fitting.borders(sides))

    for (_, depth), own in zip(planes, sides, strict=True):
        inner = predictor.fitting.inner(own).of(depth)
        assert (inner.min(), inner.max()) == (0, 255)
    found = predict_whole(predictor, *pairs)
    model, origin = load_model(saved)
    for number, (_, depth) in enumerate(planes):
        np.testing.assert_array_equal(found[number][1], predictor.fitting.restore(depth, sides[number]))
        in_memory = predict_arrays(model.on(predictor.device), origin.config, *(photos[number] for photos in pairs))
        np.testing.assert_allclose(in_memory.depth * 255, found[number][1], atol=1.5)
    plain = Predictor(save_warmed(config(fit)))
    assert plain.fitting.borders(sides) is not None
    assert Fitting((SIDE, SIDE)).borders(sides) is None


def test_networks_know_the_border_in_training_and_evaluation(
    wide: TrialData, save_warmed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The depth of 'minmax' would be stretched over it, in the loss and in all metrics."""
    forward, known = Network.forward, set()

    def recording(self: Network, bg: torch.Tensor, fg_bg: torch.Tensor, inside: Any = None) -> Prediction:
        known.add((self.training, inside is not None and not bool(inside.all())))
        return forward(self, bg, fg_bg, inside)

    monkeypatch.setattr(Network, "forward", recording)
    context = DistributedContext(device=torch.device("cpu"))
    trial.run(stretched("pad"), wide, context=context, report=lambda *_: None)
    assert known == {(True, True), (False, True)}
    monkeypatch.setattr(Network, "forward", forward)
    saved = save_warmed(stretched("pad"))
    known.clear()
    monkeypatch.setattr(Network, "forward", recording)
    evaluate_images(saved, wide, "all", device=torch.device("cpu"))
    assert known == {(False, True)}


SIDES_OF_INNER = {"stretch": (SIDE, SIDE), "crop": (13, SIDE), "pad": (13, SIDE)}
