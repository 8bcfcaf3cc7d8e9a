"""What comes out of a network: what its heads give, and the mask and depth that their activations make of it.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import torch

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_RANGE = 1e-6
"""An image's depths that differ by less than this are stretched no further: a constant image becomes 0."""


class Heads(NamedTuple):
    """What every family's `forward(bg, fg_bg)` returns, at the size of its inputs and before any activation."""

    mask: Tensor
    """(B, 1, H, W)"""
    depth: Tensor
    """(B, 1, H, W)"""


class Prediction(NamedTuple):
    """What a built network returns, (B, 1, H, W) float32 each."""

    mask: Tensor
    """Probability that a pixel is foreground; with a linear activation, the head's output."""
    depth: Tensor
    """To be compared with 0..1, far is 1; with a linear activation it is not clamped."""
    mask_logits: Tensor
    """The mask's head before its activation: log-odds, for the losses that apply the sigmoid themselves."""
    depth_logits: Tensor
    """The depth's head before its activation, likewise."""

    @classmethod
    def of(
        cls,
        mask_logits: Tensor,
        depth_logits: Tensor,
        *,
        mask_activation: Literal["sigmoid", "linear"] = "sigmoid",
        depth_activation: Literal["linear", "sigmoid", "minmax"] = "linear",
    ) -> Self:
        """Apply the activations to what the heads gave, (B, 1, H, W) of any floating type, in float32."""
        mask_logits, depth_logits = mask_logits.float(), depth_logits.float()
        mask = torch.sigmoid(mask_logits) if mask_activation == "sigmoid" else mask_logits
        match depth_activation:
            case "sigmoid":
                depth = torch.sigmoid(depth_logits)
            case "minmax":
                depth = stretch(depth_logits)
            case _:
                depth = depth_logits
        return cls(mask, depth, mask_logits, depth_logits)


def stretch(images: Tensor) -> Tensor:
    """Each of (B, 1, H, W) images by itself, from its smallest to its largest value, to 0..1."""
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    high = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp(min=SMALLEST_RANGE)
