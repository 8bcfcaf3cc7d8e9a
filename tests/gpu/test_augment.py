"""The script that checks augmentation on a GPU keeps up with the loader, also where there is no GPU."""

from __future__ import annotations

import pytest
import torch

from data.augment.device import DeviceAugmenter
from tests.gpu.augment import GEOMETRY, Split, _loader


@pytest.mark.slow
def test_its_images_pass_through_the_loader() -> None:
    loader = _loader(Split(), torch.device("cpu"), DeviceAugmenter(**GEOMETRY), prefetch=True)
    assert sum(len(batch.mask) for batch in loader.epoch(1)) == len(Split())
