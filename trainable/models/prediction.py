"""What comes out of a network.

Shapes: B pictures, H and W height and width in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Prediction(NamedTuple):
    """What every family's `forward(bg, fg_bg)` returns, at the size of its inputs."""

    mask_logits: Tensor
    """(B, 1, H, W): log-odds that a pixel is foreground; their sigmoid is the probability."""
    depth: Tensor
    """(B, 1, H, W): depth as the head gives it, to be compared with 0..1, far is 1; a linear head is not clamped."""
