"""Two separate networks whose only input is fg_bg: a full-resolution network for the mask, a U-Net for the depth.

As published, with width 32 and dropout 0.05 in the mask network: 114,624 and 7,763,041 parameters. The depth network is
the U-Net of Buda et al. 2019 (Ronneberger et al. 2015 with batch normalisation), on a normalised image.
Shapes: B images, H and W height and width in pixels, W0 the width (channels of the first stage).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.models.blocks import DoubleConv
from trainable.models.prediction import Heads
from trainable.models.sizes import require_sides

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE_MEAN = (0.49737222, 0.49328762, 0.46562814)
IMAGE_STD = (0.21714624, 0.21749634, 0.23051126)
"""Channel statistics of the published images in 0..1, for the normalisation in the depth network only."""


class Pair(nn.Module):
    """Predicts mask and depth from one image, with two networks that share no layers.

    Args:
        width: channels W0 of the first stage of each network.
        dropout: dropout probability after each unit of the mask network.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.mask_net = _MaskNet(width, dropout)
        self.depth_net = _DepthNet(width)

    def forward(self, bg: Tensor, fg_bg: Tensor) -> Heads:
        """Predict mask and depth, (B, 1, H, W) each.

        Args:
            bg: (B, 3, H, W), unused, as in the published networks.
            fg_bg: (B, 3, H, W) float in 0..1.

        Raises:
            InputError: if H or W is not a multiple of 16.
        """
        require_sides(bg, multiple=16, family="pair")
        return Heads(mask=self.mask_net(fg_bg), depth=self.depth_net(fg_bg))

    def networks(self) -> Sequence[nn.Module]:
        """The mask network and the depth network, which can have separate policies."""
        return self.mask_net, self.depth_net


class _MaskNet(nn.Module):
    """Residual convolutions at full size, (B, 3, H, W) to (B, 1, H, W) logits."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = _unit(3, width, 3, dropout)
        self.residual2 = _unit(width, width, 3, dropout)
        self.residual3 = _unit(width, width, 3, dropout)
        self.wide3x3 = _unit(width, 2 * width, 3, dropout)
        self.wide1x1 = _unit(width, 2 * width, 1, dropout)
        self.residual6 = _unit(2 * width, 2 * width, 3, dropout)
        self.unused7 = _unit(2 * width, 2 * width, 3, dropout)
        self.head = nn.Conv2d(2 * width, 1, kernel_size=1, bias=False)
        # It gets no gradient, and DistributedDataParallel refuses trainable parameters without one.
        self.unused7.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)  # (B, W0, H, W)
        x = x + self.residual2(x)
        x = x + self.residual3(x)
        x = self.wide3x3(x) + self.wide1x1(x)  # (B, 2 W0, H, W)
        x = x + self.residual6(x)
        with torch.no_grad():
            self.unused7(x)  # unused, as published; computed to keep the published cost
        logits: Tensor = self.head(x)
        return logits


def _unit(channels_in: int, channels_out: int, kernel: int, dropout: float) -> nn.Sequential:
    """Convolution, ReLU, then batch normalisation: the published order, not the usual one."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=kernel, padding=kernel // 2),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(channels_out),
        nn.Dropout(dropout),
    )


class _DepthNet(nn.Module):
    """U-Net with transposed convolutions, (B, 3, H, W) to (B, 1, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, values in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.enc1 = DoubleConv(3, width, bias=False)
        self.enc2 = DoubleConv(width, 2 * width, bias=False)
        self.enc3 = DoubleConv(2 * width, 4 * width, bias=False)
        self.enc4 = DoubleConv(4 * width, 8 * width, bias=False)
        self.bottleneck = DoubleConv(8 * width, 16 * width, bias=False)
        self.up4 = _Up(8 * width)
        self.up3 = _Up(4 * width)
        self.up2 = _Up(2 * width)
        self.up1 = _Up(width)
        self.head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        skip1 = self.enc1((x - self.mean) / self.std)  # (B, W0, H, W)
        skip2 = self.enc2(F.max_pool2d(skip1, 2))  # (B, 2 W0, H/2, W/2)
        skip3 = self.enc3(F.max_pool2d(skip2, 2))  # (B, 4 W0, H/4, W/4)
        skip4 = self.enc4(F.max_pool2d(skip3, 2))  # (B, 8 W0, H/8, W/8)
        x = self.bottleneck(F.max_pool2d(skip4, 2))  # (B, 16 W0, H/16, W/16)
        x = self.up4(x, skip4)
        x = self.up3(x, skip3)
        x = self.up2(x, skip2)
        depth: Tensor = self.head(self.up1(x, skip1))
        return depth


class _Up(nn.Module):
    """Doubles the size from 2 C to C channels, and concatenates the encoder features with C channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(2 * channels, channels, kernel_size=2, stride=2)
        self.conv = DoubleConv(2 * channels, channels, bias=False)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.conv(torch.cat([self.enlarge(x), skip], dim=1))
        return joined
