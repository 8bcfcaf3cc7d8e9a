"""The cost of a network: its parameters and multiply-adds."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from data.fitting.sizes import sides_of


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, including frozen ones, as in the published counts."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, image_size: int | Sequence[int]) -> int:
    """Multiply-adds of the convolutions and matrix products for one pair of images.

    Biases, normalisation and resizing are not counted. The forward pass runs on a copy on the meta device.

    Args:
        model: a bare model of any family, neither compiled nor wrapped for several workers.
        image_size: side in pixels of square images, or height and width.
    """
    shapes_only = copy.deepcopy(model).to("meta").eval()
    image = torch.empty(1, 3, *sides_of(image_size), device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        shapes_only(image, image)
    return counter.get_total_flops() // 2  # a multiply-add counts as two FLOPs
