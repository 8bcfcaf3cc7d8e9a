"""A network for photographs in memory: several at a time, of any sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data.errors import InputError
from data.schema import Batch, Pixels
from tests.trainable.evaluation.whole import predict_whole
from trainable.config import ModelConfig, TrialConfig, build
from trainable.evaluation.grid import predict
from trainable.evaluation.predictor import Predictor
from trainable.loop.state import device_named
from trainable.models import Prediction


def config(**model: object) -> TrialConfig:
    values = {"data": {"image_size": 32}, "model": {"family": "debug", "width": 4, "precision": "fp32", **model}}
    return build(TrialConfig, values, source="the test")


def photos(*sizes: tuple[int, int], seed: int) -> list[Pixels]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def test_photographs_of_any_sizes_in_batches(
    save_warmed: Callable[[TrialConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prediction has the size of its photographs, and does not depend on the others."""
    monkeypatch.setattr("trainable.evaluation.predictor.MAX_BATCH_SIZE", 2)
    saved, sizes = save_warmed(config()), [(40, 70), (32, 32), (70, 40), (33, 20), (64, 64)]
    bgs, fg_bgs = photos(*sizes, seed=0), photos(*sizes, seed=1)

    found = predict_whole(Predictor(saved), bgs, fg_bgs)

    for planes, bg, fg_bg in zip(found, bgs, fg_bgs, strict=True):
        [alone] = predict_whole(Predictor(saved), [bg], [fg_bg])
        for plane, expected in zip(planes, alone, strict=True):
            assert plane.shape == bg.shape[:2]
            np.testing.assert_allclose(plane.astype(int), expected.astype(int), atol=1)
    assert len({planes[0].tobytes() for planes in found}) == len(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("eval_mode", ["dropout", "train"])
def test_layers_in_training_mode_do_not_mix_pairs(save_warmed: Callable[[TrialConfig], Path], eval_mode: str) -> None:
    """As published, some networks keep layers in training mode: the prediction of a pair is still its own."""
    saved = save_warmed(config(family="resnet-dual", dropout=0.2, eval_mode=eval_mode))
    bgs, fg_bgs = photos(*[(32, 32)] * 3, seed=0), photos(*[(32, 32)] * 3, seed=1)
    together = predict_whole(Predictor(saved), bgs, fg_bgs)

    torch.manual_seed(1)
    alone = predict_whole(Predictor(saved), bgs[2:], fg_bgs[2:])

    np.testing.assert_array_equal(together[2], alone[0])


def test_out_of_memory_halves_the_batch(
    save_warmed: Callable[[TrialConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small GPU predicts fewer pairs at a time."""
    predictor = Predictor(save_warmed(config()))
    bgs, fg_bgs = photos(*[(32, 32)] * 3, seed=0), photos(*[(32, 32)] * 3, seed=1)
    expected = predict_whole(predictor, bgs, fg_bgs)
    sizes = []

    def limited(model: nn.Module, batch: Batch, config: ModelConfig) -> Prediction:
        sizes.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return predict(model, batch, config)

    monkeypatch.setattr("trainable.evaluation.grid.predict", limited)
    found = predict_whole(predictor, bgs, fg_bgs)

    assert sizes == [3, 1, 2, 1, 1]
    np.testing.assert_allclose(np.array(found, int), np.array(expected, int), atol=1)


def test_networks_with_other_weights_or_settings_have_another_identity(
    save_warmed: Callable[[TrialConfig], Path],
) -> None:
    """A prediction of one is not kept for the other."""
    first, second, wider = (save_warmed(config(width=width)) for width in (4, 4, 8))
    sigmoid = save_warmed(config(depth_activation="sigmoid"))

    assert Predictor(first).identity == Predictor(second).identity
    assert len({Predictor(saved).identity for saved in (first, wider, sigmoid)}) == 3


@pytest.mark.parametrize("name", ["gpu", "cuda:9", "meta"])
def test_missing_device_is_refused(name: str) -> None:
    """The sentence says which there are."""
    with pytest.raises(InputError, match=f"'--device' is '{name}', but this machine has cpu"):
        device_named(name)
    assert device_named("cpu") == torch.device("cpu")
