"""Device of the augmentation: as configured, and the faster one by default."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter
from data.errors import InputError
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.loaders import evaluation_loader, training_loaders
from trainable.loop.state import DistributedContext

ALONE = DistributedContext(device=torch.device("cpu"))


def config(**data: Any) -> TrialConfig:
    values = {"data": {"image_size": 16, "batch_size": 8, **data}, "model": {"family": "debug", "width": 2}}
    return build(TrialConfig, values, source="the test")


@pytest.mark.parametrize(("where", "kind"), [("auto", Augmenter), ("cpu", Augmenter), ("device", DeviceAugmenter)])
def test_augmentation_runs_where_configured(where: str, kind: type, trial_data: TrialData) -> None:
    """Both devices use the configured strengths and the same random draws: the first batch is alike."""
    asked = {"augment": {"hflip": 0.5, "rotate": 20.0, "erase": {"p": 0.5}, "in_evaluation": True}}
    loaders = [*training_loaders(config(augment_on=where, **asked), trial_data, ALONE)[:1]]
    loaders += [evaluation_loader(config(augment_on=where, **asked), trial_data, "val", ALONE)]
    for loader in loaders:
        assert type(loader.augmenter) is kind
        assert loader.augmenter.rotate == 20.0
        assert loader.augmenter.erase is not None
        assert loader.augmenter.erase.p == 0.5
    first = next(loaders[0].epoch(1))
    (on_cpu, *_) = training_loaders(config(augment_on="cpu", **asked), trial_data, ALONE)
    assert (first.mask.int() - next(on_cpu.epoch(1)).mask.int()).abs().max() <= 1


def test_unknown_augmentation_device_is_refused() -> None:
    """A typo must not become the default."""
    with pytest.raises(InputError, match=r"data\.augment_on"):
        config(augment_on="gpu")
