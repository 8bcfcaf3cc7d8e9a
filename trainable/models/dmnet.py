"""DMNet in three variants: a trunk and two branches at full resolution, without pooling and biases.

As published, at width 16 without dropout: 242,976 parameters (cnn), 427,168 (cnn-v1) and 385,376 (resnet). They accept
images of any size, have a small receptive field, and predict a linear depth.
Shapes: B images, H and W height and width in pixels, W0 the width (channels of the first stage).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from trainable.models.blocks import shortcut_1x1
from trainable.models.prediction import Heads


class DMNet(nn.Module):
    """A trunk, a 1 x 1 convolution that reduces its channels, and a branch with a 1 x 1 head for each output.

    Args:
        trunk: from (B, 6, H, W), background first, to features.
        combine: reduces the channels for the branches.
        mask_branch: from the output of `combine` to (B, `channels`, H, W).
        depth_branch: the same for the depth.
        channels: output channels of the branches.
    """

    def __init__(
        self, trunk: nn.Module, combine: nn.Module, *, mask_branch: nn.Module, depth_branch: nn.Module, channels: int
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.combine = combine
        self.mask_branch = mask_branch
        self.depth_branch = depth_branch
        self.mask_head = nn.Conv2d(channels, 1, kernel_size=1, bias=False)
        self.depth_head = nn.Conv2d(channels, 1, kernel_size=1, bias=False)

    def forward(self, bg: Tensor, fg_bg: Tensor) -> Heads:
        """Predict mask and depth, (B, 1, H, W) each, from two (B, 3, H, W) float images in 0..1."""
        features = self.combine(self.trunk(torch.cat([bg, fg_bg], dim=1)))
        return Heads(
            mask=self.mask_head(self.mask_branch(features)),
            depth=self.depth_head(self.depth_branch(features)),
        )


def dmnet_cnn(width: int, dropout: float) -> DMNet:
    """Plain convolutions; `dropout` is the dropout probability after each ReLU."""
    return DMNet(
        _cnn_trunk(width, dropout),
        nn.Conv2d(4 * width, width, kernel_size=1, bias=False),
        mask_branch=_units((width, 2 * width, 4 * width, 8 * width), dropout),
        depth_branch=_units((width, 2 * width, 4 * width, 8 * width), dropout),
        channels=8 * width,
    )


def dmnet_cnn_v1(width: int, dropout: float) -> DMNet:
    """The same with longer branches, whose last convolution has neither normalisation nor ReLU."""
    return DMNet(
        _cnn_trunk(width, dropout),
        nn.Conv2d(4 * width, width, kernel_size=1, bias=False),
        mask_branch=_long_branch(width, dropout),
        depth_branch=_long_branch(width, dropout),
        channels=8 * width,
    )


def dmnet_resnet(width: int, dropout: float) -> DMNet:
    """Residual blocks instead of all convolutions but the first; `dropout` as above."""
    return DMNet(
        nn.Sequential(
            _unit(6, width, dropout),
            _ResBlock(width, 2 * width, dropout),
            _ResBlock(2 * width, 3 * width, dropout),
            _ResBlock(3 * width, 4 * width, dropout),
        ),
        nn.Conv2d(4 * width, 2 * width, kernel_size=1, bias=False),
        mask_branch=_residual_branch(width, dropout),
        depth_branch=_residual_branch(width, dropout),
        channels=4 * width,
    )


def _cnn_trunk(width: int, dropout: float) -> nn.Sequential:
    return _units((6, width, 2 * width, 3 * width, 4 * width), dropout)


def _long_branch(width: int, dropout: float) -> nn.Sequential:
    units = _units((width, 2 * width, 4 * width, 6 * width), dropout)
    return nn.Sequential(*units, nn.Conv2d(6 * width, 8 * width, kernel_size=3, padding=1, bias=False))


def _residual_branch(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        _ResBlock(2 * width, 4 * width, dropout),
        _ResBlock(4 * width, 4 * width, dropout),
    )


def _units(channels: tuple[int, ...], dropout: float) -> nn.Sequential:
    """A sequence of units with these numbers of channels."""
    return nn.Sequential(*(_unit(before, after, dropout) for before, after in itertools.pairwise(channels)))


def _unit(channels_in: int, channels_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


class _ResBlock(nn.Module):
    """Two units and a shortcut, as published: ReLU before the sum, and none after it."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float) -> None:
        super().__init__()
        self.main = _units((channels_in, channels_out, channels_out), dropout)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else shortcut_1x1(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.main(x) + self.shortcut(x)
        return total
