"""What a network costs: its parameters, and the multiply-adds of one image."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameter_count(model: nn.Module) -> int:
    """Numbers in all of the model's parameters, those that never change among them, as published counts have it."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, image_size: int) -> int:
    """Multiply-adds of the convolutions and matrix products, for one pair of images.

    Biases, norms and resizing are not counted. Nothing is computed: the model's shapes are followed on
    the meta device, and the model is left as it is.

    Args:
        model: of any family, bare (neither compiled nor wrapped for several workers).
        image_size: side in pixels of the square images.
    """
    shapes_only = copy.deepcopy(model).to("meta").eval()
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        shapes_only(image, image)
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two
