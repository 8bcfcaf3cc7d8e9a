"""A minimal network with the interface of the others, for tests and debugging.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.models.prediction import Heads


class DebugNet(nn.Module):
    """One shared convolution and one for each head, for images of any size.

    Args:
        width: channels of the shared convolution.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(6, width, kernel_size=3, padding=1)
        self.mask_head = nn.Conv2d(width, 1, kernel_size=1)
        self.depth_head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, bg: Tensor, fg_bg: Tensor) -> Heads:
        """Predict mask and depth, (B, 1, H, W) each, from two (B, 3, H, W) float images in 0..1."""
        features = F.relu(self.stem(torch.cat([bg, fg_bg], dim=1)))
        return Heads(mask=self.mask_head(features), depth=self.depth_head(features))
