"""Blocks that several families share, for (B, C, H, W) features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DoubleConv(nn.Sequential):
    """Two 3 x 3 convolutions, each with batch normalisation and ReLU.

    Args:
        channels_in: channels of the input.
        channels_out: channels after each convolution.
        bias: whether the convolutions have a bias, which batch normalisation makes redundant.
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


class StridedConv1x1(nn.Conv2d):
    """A 1 x 1 convolution with a stride, without bias.

    With fewer than 8 input channels on a CPU, it convolves the pixels that the stride leaves, which is the same: the
    backward pass of oneDNN, for processors with AVX2 but without AVX-512, gives wrong gradients for such a convolution
    of features in `channels_last`, or does not end (torch 2.13).
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W) features."""
        if self.in_channels >= 8 or x.device.type != "cpu":
            return super().forward(x)
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight)


def shortcut_1x1(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    """The shortcut of a residual block that changes the shape: a 1 x 1 convolution with batch normalisation."""
    return nn.Sequential(
        StridedConv1x1(channels_in, channels_out, stride=stride),
        nn.BatchNorm2d(channels_out),
    )


def enlarge(x: Tensor) -> Tensor:
    """Double the height and width of (B, C, H, W) features, bilinear with aligned corners, for a concatenation.

    The gradient of a concatenation is a slice of channels, which is not contiguous, and torch's backward pass is slow
    for it: with 64 channels at 64 x 64 of 8 images in bf16, it took 10.2 ms on one thread of an AMD EPYC. Copying the
    gradient takes 0.1 ms, and the backward pass then 0.7 ms.
    """
    larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    if larger.requires_grad:
        last = larger.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        larger.register_hook(lambda gradient: gradient.contiguous(memory_format=layout))  # type: ignore[no-untyped-call]
    return larger
