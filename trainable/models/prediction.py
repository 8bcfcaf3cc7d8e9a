"""The outputs of a network: its heads, and mask and depth after their activations.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import torch

if TYPE_CHECKING:
    from torch import Tensor

MIN_RANGE = 1e-6
"""Minimum range of values that is scaled to 0..1; a constant image becomes 0."""


class Heads(NamedTuple):
    """The result of a family's `forward(bg, fg_bg)`, with the size of its inputs, before any activation."""

    mask: Tensor
    """(B, 1, H, W)"""
    depth: Tensor
    """(B, 1, H, W)"""


class Prediction(NamedTuple):
    """The result of a `Network`, (B, 1, H, W) float32 each."""

    mask: Tensor
    """Probability of foreground; with a linear activation, the output of the head."""
    depth: Tensor
    """Depth in 0..1, far is 1; with a linear activation it is not clamped."""
    mask_logits: Tensor
    """Output of the mask head before its activation, for losses that apply the sigmoid themselves."""
    depth_logits: Tensor
    """Output of the depth head before its activation."""

    @classmethod
    def of(
        cls,
        mask_logits: Tensor,
        depth_logits: Tensor,
        *,
        mask_activation: Literal["sigmoid", "linear"] = "sigmoid",
        depth_activation: Literal["linear", "sigmoid", "minmax"] = "linear",
        inside: Tensor | None = None,
    ) -> Self:
        """Apply the activations to the outputs of the heads, (B, 1, H, W) of any floating type, in float32.

        With 'minmax', the range of values is that of the pixels `inside`, as in `Network.forward`.
        """
        mask_logits, depth_logits = mask_logits.float(), depth_logits.float()
        mask = torch.sigmoid(mask_logits) if mask_activation == "sigmoid" else mask_logits
        match depth_activation:
            case "sigmoid":
                depth = torch.sigmoid(depth_logits)
            case "minmax":
                depth = stretch(depth_logits, inside)
                depth = depth if inside is None else depth.clamp(0, 1)  # the border has other values
            case _:
                depth = depth_logits
        return cls(mask, depth, mask_logits, depth_logits)


def only_valid(pixels: Tensor, valid: Tensor | None) -> Tensor:
    """`pixels` with 0 where they are not `valid`, of the same shape (bool), also where they are not finite."""
    return pixels if valid is None else pixels.masked_fill(~valid, 0)


def stretch(images: Tensor, valid: Tensor | None = None) -> Tensor:
    """Scale each of (B, 1, H, W) images from its own range of values, or that of its valid pixels, to 0..1."""
    lowest, highest = images, images
    if valid is not None:
        is_left_out = ~valid & valid.any(dim=(1, 2, 3), keepdim=True)
        lowest, highest = images.masked_fill(is_left_out, math.inf), images.masked_fill(is_left_out, -math.inf)
    low = lowest.amin(dim=(1, 2, 3), keepdim=True)
    high = highest.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp(min=MIN_RANGE)
