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


def test_transforms_of_albumentations_run_on_the_cpu(trial_data: TrialData) -> None:
    """Also where the built-in transforms alone would run on a GPU, so that the order is the same everywhere."""
    augment = {"transforms": {"GridDistortion": {"p": 1.0}}, "hflip": 0.0}
    (loader, *_) = training_loaders(config(augment=augment), trial_data, ALONE)
    on_gpu = DistributedContext(device=torch.device("meta"))
    (elsewhere, *_) = training_loaders(config(augment=augment), trial_data, on_gpu)
    (plain, *_) = training_loaders(config(augment={"hflip": 0.0}), trial_data, ALONE)

    assert isinstance(loader.augmenter, Augmenter)
    assert isinstance(elsewhere.augmenter, Augmenter)
    assert (next(loader.epoch(1)).depth != next(plain.epoch(1)).depth).any()
    for first, again in zip(loader.epoch(1), loader.epoch(1), strict=True):
        assert torch.equal(first.fg_bg, again.fg_bg)


def test_transforms_of_albumentations_have_no_form_on_the_device() -> None:
    """Half of an augmentation on each side would be another augmentation."""
    with pytest.raises(InputError) as caught:
        config(augment={"transforms": ["CLAHE"]}, augment_on="device")
    assert str(caught.value) == (
        "The value of 'data.augment_on' is 'device', but must be auto or cpu with data.augment.transforms, which run "
        "on the CPU only; correct it in the test."
    )


@pytest.mark.parametrize("apart", [False, True])
def test_transforms_are_drawn_apart_on_request(apart: bool, trial_data: TrialData) -> None:
    """Inverted are both photographs of a sample or none of them, unless they are drawn apart."""
    augment = {"transforms": {"InvertImg": {"p": 0.5}}, "transforms_apart": apart, "hflip": 0.0}
    (loader, *_) = training_loaders(config(augment=augment), trial_data, ALONE)
    (plain, *_) = training_loaders(config(augment={"hflip": 0.0}), trial_data, ALONE)
    differ = False
    for new, old in zip(loader.epoch(1), plain.epoch(1), strict=True):
        inverted = [(getattr(new, name) != getattr(old, name)).any(dim=(1, 2, 3)) for name in ("bg", "fg_bg")]
        differ = differ or not torch.equal(*inverted)
    assert differ == apart
