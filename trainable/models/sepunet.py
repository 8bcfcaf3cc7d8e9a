"""A small U-Net of depthwise separable convolutions on grey images, with one encoder and two decoders.

U-Net: Ronneberger et al. 2015; separable convolutions: Howard et al. 2017. At width 32 it has the published 747,926
parameters; the published program ran and counted one decoder twice, so that both heads had the same features. The depth
is linear, predicted at half the size and enlarged.
Shapes: B images, H and W height and width in pixels, W0 the width (channels of the first stage).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.models.blocks import enlarge
from trainable.models.prediction import Heads
from trainable.models.sizes import require_sides


class SepUNet(nn.Module):
    """Predicts mask and depth from two images of the same size.

    Args:
        width: channels W0 of the first stage; the next stages have 2, 4, 8 and 8 times as many.
        shared_decoder: run one decoder twice, as the published program did (513,206 parameters at width 32).
    """

    def __init__(self, width: int, *, shared_decoder: bool = False) -> None:
        super().__init__()
        self.inc = _DoubleConv(2, width, width)
        self.down1 = _DoubleConv(width, 2 * width, 2 * width)
        self.down2 = _DoubleConv(2 * width, 4 * width, 4 * width)
        self.down3 = _DoubleConv(4 * width, 8 * width, 8 * width)
        self.down4 = _DoubleConv(8 * width, 8 * width, 8 * width)
        self.mask_decoder = _Decoder(width)
        self.depth_decoder = None if shared_decoder else _Decoder(width)
        self.mask_head = _separable(width, 1)
        self.depth_head = _separable(width, 1, stride=2)

    def forward(self, bg: Tensor, fg_bg: Tensor) -> Heads:
        """Predict mask and depth, (B, 1, H, W) each, from two (B, 3, H, W) float images in 0..1.

        Raises:
            InputError: if H or W is below 16.
        """
        require_sides(bg, smallest=16, family="sepunet")
        skip1 = self.inc(torch.cat([_grey(fg_bg), _grey(bg)], dim=1))  # (B, W0, H, W)
        skip2 = self.down1(F.max_pool2d(skip1, 2))  # (B, 2 W0, H/2, W/2)
        skip3 = self.down2(F.max_pool2d(skip2, 2))  # (B, 4 W0, H/4, W/4)
        skip4 = self.down3(F.max_pool2d(skip3, 2))  # (B, 8 W0, H/8, W/8)
        deepest = self.down4(F.max_pool2d(skip4, 2))  # (B, 8 W0, H/16, W/16)
        depth_decoder = self.depth_decoder or self.mask_decoder
        depth = _halved(self.depth_head, depth_decoder(deepest, skip4, skip3, skip2, skip1))  # (B, 1, H/2, W/2)
        return Heads(
            mask=self.mask_head(self.mask_decoder(deepest, skip4, skip3, skip2, skip1)),
            depth=F.interpolate(depth, size=bg.shape[-2:], mode="bilinear", align_corners=False),
        )


def _grey(image: Tensor) -> Tensor:
    """Luma of (B, 3, H, W) with the weights of ITU-R BT.601, (B, 1, H, W)."""
    return 0.299 * image[:, 0:1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:3]


def _separable(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Sequential:
    """A depthwise 3 x 3 convolution, then a 1 x 1 convolution."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, kernel_size=3, stride=stride, padding=1, groups=channels_in),
        nn.Conv2d(channels_in, channels_out, kernel_size=1),
    )


def _halved(head: nn.Sequential, x: Tensor) -> Tensor:
    """Apply `head`, whose first convolution has stride 2, to (B, C, H, W): (B, 1, H/2, W/2), rounded up.

    That convolution runs in float32, because its backward pass in bf16 has no fast kernel on a CPU: it takes 9.2 ms
    instead of 0.65 ms with 32 channels of 8 images at 64 px, on one thread of an AMD EPYC.
    """
    depthwise, pointwise = head
    if x.dtype == torch.bfloat16:
        with torch.autocast(x.device.type, enabled=False):
            features = depthwise(x.float())
    else:
        features = depthwise(x)
    halved: Tensor = pointwise(features)
    return halved


class _DoubleConv(nn.Sequential):
    """Two separable convolutions, each with batch normalisation and ReLU."""

    def __init__(self, channels_in: int, channels_between: int, channels_out: int) -> None:
        super().__init__(
            _separable(channels_in, channels_between),
            nn.BatchNorm2d(channels_between),
            nn.ReLU(inplace=True),
            _separable(channels_between, channels_out),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class _Decoder(nn.Module):
    """From (B, 8 W0, H/16, W/16) and the four other encoder outputs to (B, W0, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up1 = _DoubleConv(16 * width, 8 * width, 4 * width)
        self.up2 = _DoubleConv(8 * width, 4 * width, 2 * width)
        self.up3 = _DoubleConv(4 * width, 2 * width, width)
        self.up4 = _DoubleConv(2 * width, width, width)

    def forward(self, deepest: Tensor, skip4: Tensor, skip3: Tensor, skip2: Tensor, skip1: Tensor) -> Tensor:
        x = self.up1(_join(deepest, skip4))
        x = self.up2(_join(x, skip3))
        x = self.up3(_join(x, skip2))
        full: Tensor = self.up4(_join(x, skip1))
        return full


def _join(x: Tensor, skip: Tensor) -> Tensor:
    """Concatenate `skip` and `x` at twice its size, zero-padded if halving had rounded down."""
    larger = enlarge(x)
    rows, columns = skip.shape[-2] - larger.shape[-2], skip.shape[-1] - larger.shape[-1]
    if rows or columns:
        larger = F.pad(larger, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
    return torch.cat([skip, larger], dim=1)
