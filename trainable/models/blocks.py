"""Layers that several families have in common, for (B, C, H, W) features; they keep height and width."""

from __future__ import annotations

from torch import nn


class DoubleConv(nn.Sequential):
    """Twice a 3 x 3 convolution, batch normalisation and ReLU.

    Args:
        channels_in: channels of its input.
        channels_out: channels after either convolution.
        bias: whether the convolutions have one; the batch normalisation after them makes it redundant.
    """

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=bias),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=bias),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


def shortcut_1x1(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    """What a residual block adds its input through where the shape changes: a 1 x 1 convolution, normalised."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm2d(channels_out),
    )
