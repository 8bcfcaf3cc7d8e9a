"""ResUNet with one encoder and two decoders, for mask and depth, and a shallow variant.

A U-Net (Ronneberger et al. 2015) whose encoder stages have a shortcut (He et al. 2016). As published, the deep one has
11,033,922 parameters at width 32, and the lite one 2,634,882 at width 64. Both predict a linear depth.
Shapes: B images, H and W height and width in pixels, W0 the width (channels of the first stage).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.models.blocks import DoubleConv, enlarge, shortcut_1x1
from trainable.models.prediction import Heads
from trainable.models.sizes import require_sides


class ResUNet(nn.Module):
    """Predicts mask and depth from two images of the same size.

    Args:
        width: channels W0 of the first stage; the next stages have 2, 4, 8 and 16 times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enc1 = _ResBlock(6, width)
        self.enc2 = _ResBlock(width, 2 * width)
        self.enc3 = _ResBlock(2 * width, 4 * width)
        self.enc4 = _ResBlock(4 * width, 8 * width)
        self.bottleneck = DoubleConv(8 * width, 16 * width, bias=True)
        self.mask_decoder = _Decoder(width)
        self.depth_decoder = _Decoder(width)
        self.mask_head = nn.Conv2d(width, 1, kernel_size=1)
        self.depth_head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, bg: Tensor, fg_bg: Tensor) -> Heads:
        """Predict mask and depth, (B, 1, H, W) each.

        Args:
            bg: (B, 3, H, W) float in 0..1, the background alone.
            fg_bg: (B, 3, H, W) float in 0..1, the same background with a foreground object.

        Raises:
            InputError: if H or W is not a multiple of 16.
        """
        require_sides(bg, multiple=16, family="resunet")
        skip1 = self.enc1(torch.cat([bg, fg_bg], dim=1))  # (B, W0, H, W)
        skip2 = self.enc2(F.max_pool2d(skip1, 2))  # (B, 2 W0, H/2, W/2)
        skip3 = self.enc3(F.max_pool2d(skip2, 2))  # (B, 4 W0, H/4, W/4)
        skip4 = self.enc4(F.max_pool2d(skip3, 2))  # (B, 8 W0, H/8, W/8)
        deepest = self.bottleneck(F.max_pool2d(skip4, 2))  # (B, 16 W0, H/16, W/16)
        return Heads(
            mask=self.mask_head(self.mask_decoder(deepest, skip4, skip3, skip2, skip1)),
            depth=self.depth_head(self.depth_decoder(deepest, skip4, skip3, skip2, skip1)),
        )


class ResUNetLite(nn.Module):
    """The same with two stages instead of four, and a smaller receptive field.

    Args:
        width: channels W0 of the first stage; the next stages have 2 and 4 times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enc1 = _ResBlock(6, width)
        self.enc2 = _ResBlock(width, 2 * width)
        self.bottleneck = DoubleConv(2 * width, 4 * width, bias=True)
        self.mask_decoder = _LiteDecoder(width)
        self.depth_decoder = _LiteDecoder(width)
        self.mask_head = nn.Conv2d(width, 1, kernel_size=1)
        self.depth_head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, bg: Tensor, fg_bg: Tensor) -> Heads:
        """Predict mask and depth, (B, 1, H, W) each, from two (B, 3, H, W) float images in 0..1.

        Raises:
            InputError: if H or W is not a multiple of 4.
        """
        require_sides(bg, multiple=4, family="resunet-lite")
        skip1 = self.enc1(torch.cat([bg, fg_bg], dim=1))  # (B, W0, H, W)
        skip2 = self.enc2(F.max_pool2d(skip1, 2))  # (B, 2 W0, H/2, W/2)
        deepest = self.bottleneck(F.max_pool2d(skip2, 2))  # (B, 4 W0, H/4, W/4)
        return Heads(
            mask=self.mask_head(self.mask_decoder(deepest, skip2, skip1)),
            depth=self.depth_head(self.depth_decoder(deepest, skip2, skip1)),
        )


class _ResBlock(nn.Module):
    """A double convolution with a 1 x 1 shortcut, and ReLU after the sum."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.main = DoubleConv(channels_in, channels_out, bias=True)
        self.shortcut = shortcut_1x1(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.shortcut(x))


class _UpBlock(nn.Module):
    """Doubles the size, concatenates the encoder output, and convolves twice."""

    def __init__(self, channels_in: int, channels_skip: int, channels_out: int) -> None:
        super().__init__()
        self.conv = DoubleConv(channels_in + channels_skip, channels_out, bias=True)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.conv(torch.cat([enlarge(x), skip], dim=1))
        return joined


class _Decoder(nn.Module):
    """From (B, 16 W0, H/16, W/16) and the four encoder outputs to (B, W0, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up4 = _UpBlock(16 * width, 8 * width, 8 * width)
        self.up3 = _UpBlock(8 * width, 4 * width, 4 * width)
        self.up2 = _UpBlock(4 * width, 2 * width, 2 * width)
        self.up1 = _UpBlock(2 * width, width, width)

    def forward(self, deepest: Tensor, skip4: Tensor, skip3: Tensor, skip2: Tensor, skip1: Tensor) -> Tensor:
        x = self.up4(deepest, skip4)
        x = self.up3(x, skip3)
        x = self.up2(x, skip2)
        full: Tensor = self.up1(x, skip1)
        return full


class _LiteDecoder(nn.Module):
    """From (B, 4 W0, H/4, W/4) and the two encoder outputs to (B, W0, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up2 = _UpBlock(4 * width, 2 * width, 2 * width)
        self.up1 = _UpBlock(2 * width, width, width)

    def forward(self, deepest: Tensor, skip2: Tensor, skip1: Tensor) -> Tensor:
        full: Tensor = self.up1(self.up2(deepest, skip2), skip1)
        return full
