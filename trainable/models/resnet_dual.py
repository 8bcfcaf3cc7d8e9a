"""A residual encoder with a stem for each image, and two decoders; that of the depth is twice as wide.

As published, at width 32 with dropout 0.2: 3,165,170 parameters. Blocks are those of He et al. 2016, with dropout. The
published dropout was active in evaluation too, an error that is corrected here. The depth is linear.
Shapes: B images, H and W height and width in pixels, W0 the width (channels of the stems).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.models.blocks import shortcut_1x1
from trainable.models.prediction import Heads
from trainable.models.sizes import require_sides


class ResNetDual(nn.Module):
    """Predicts mask and depth from two images of the same size.

    Args:
        width: channels W0 of each stem; the stages of the encoder have 2, 4 and 8 times as many.
        dropout: dropout probability after the activation of each stem, and twice in each block.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.bg_stem = _stem(width, dropout)
        self.bg_layer = _layer(width, width, dropout, stride=1)
        self.fg_bg_stem = _stem(width, dropout)
        self.fg_bg_layer = _layer(width, width, dropout, stride=1)
        self.layer3 = _layer(2 * width, 4 * width, dropout, stride=2)
        self.layer4 = _layer(4 * width, 8 * width, dropout, stride=2)
        self.mask_decoder = _Decoder(width, features=2 * width)
        self.depth_decoder = _Decoder(width, features=4 * width)

    def forward(self, bg: Tensor, fg_bg: Tensor) -> Heads:
        """Predict mask and depth, (B, 1, H, W) each, from two (B, 3, H, W) float images in 0..1.

        Raises:
            InputError: if H or W is not a multiple of 4.
        """
        require_sides(bg, multiple=4, family="resnet-dual")
        stems = [self.bg_layer(self.bg_stem(bg)), self.fg_bg_layer(self.fg_bg_stem(fg_bg))]
        skip1 = torch.cat(stems, dim=1)  # (B, 2 W0, H, W)
        skip2 = self.layer3(skip1)  # (B, 4 W0, H/2, W/2)
        deepest = self.layer4(skip2)  # (B, 8 W0, H/4, W/4)
        return Heads(
            mask=self.mask_decoder(deepest, skip2, skip1),
            depth=self.depth_decoder(deepest, skip2, skip1),
        )


def _stem(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


def _layer(channels_in: int, channels_out: int, dropout: float, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _ResBlock(channels_in, channels_out, dropout, stride=stride),
        _ResBlock(channels_out, channels_out, dropout, stride=1),
    )


class _ResBlock(nn.Module):
    """Two convolutions with dropout, a shortcut, and ReLU after the sum."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float, *, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.Dropout(dropout),
        )
        same = channels_in == channels_out and stride == 1
        self.shortcut = nn.Identity() if same else shortcut_1x1(channels_in, channels_out, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.shortcut(x))


class _Decoder(nn.Module):
    """From (B, 8 W0, H/4, W/4) and the two encoder outputs to (B, 1, H, W), through `features` channels."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        half, quarter = features // 2, max(1, features // 4)
        self.narrow = nn.Conv2d(8 * width, features, kernel_size=1)
        self.up1 = _Up(features, channels_skip=4 * width, channels_out=half)
        self.up2 = _Up(half, channels_skip=2 * width, channels_out=quarter)
        self.head = nn.Conv2d(quarter, 1, kernel_size=3, padding=1)

    def forward(self, deepest: Tensor, skip2: Tensor, skip1: Tensor) -> Tensor:
        x = self.up1(self.narrow(deepest), skip2)
        full: Tensor = self.head(self.up2(x, skip1))
        return full


class _Up(nn.Module):
    """Doubles the size, concatenates the encoder output, and convolves twice without normalisation."""

    def __init__(self, channels_in: int, *, channels_skip: int, channels_out: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(channels_in, channels_in, kernel_size=2, stride=2)
        self.conv = nn.Sequential(
            nn.Conv2d(channels_in + channels_skip, channels_out, kernel_size=3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.conv(torch.cat([self.enlarge(x), skip], dim=1))
        return joined
