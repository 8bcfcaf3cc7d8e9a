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

_FAMILIES = {4: "resunet", 2: "resunet-lite"}
"""Names of the families, by number of stages."""


class ResUNet(nn.Module):
    """Predicts mask and depth from two images of the same size.

    Args:
        width: channels W0 of the first stage; each next stage, and the bottleneck, has twice as many.
        stages: stages of the encoder, S: 4, or 2 for the variant with a smaller receptive field.
    """

    def __init__(self, width: int, *, stages: int = 4) -> None:
        super().__init__()
        self._stages, self._family = stages, _FAMILIES[stages]
        channels = [6, *(width * 2**number for number in range(stages))]
        for number in range(1, stages + 1):
            self.add_module(f"enc{number}", _ResBlock(channels[number - 1], channels[number]))
        self.bottleneck = DoubleConv(channels[-1], 2 * channels[-1], bias=True)
        self.mask_decoder = _Decoder(width, stages)
        self.depth_decoder = _Decoder(width, stages)
        self.mask_head = nn.Conv2d(width, 1, kernel_size=1)
        self.depth_head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, bg: Tensor, fg_bg: Tensor) -> Heads:
        """Predict mask and depth, (B, 1, H, W) each.

        Args:
            bg: (B, 3, H, W) float in 0..1, the background alone.
            fg_bg: (B, 3, H, W) float in 0..1, the same background with a foreground object.

        Raises:
            InputError: if H or W is not a multiple of 2^S.
        """
        require_sides(bg, multiple=2**self._stages, family=self._family)
        x = torch.cat([bg, fg_bg], dim=1)
        skips: list[Tensor] = []
        for number in range(1, self._stages + 1):
            skips.append(self.get_submodule(f"enc{number}")(x))  # from (B, W0, H, W), each next one half the size
            x = F.max_pool2d(skips[-1], 2)
        deepest = self.bottleneck(x)  # (B, 2^S W0, H/2^S, W/2^S)
        return Heads(
            mask=self.mask_head(self.mask_decoder(deepest, skips)),
            depth=self.depth_head(self.depth_decoder(deepest, skips)),
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
    """From (B, 2^S W0, H/2^S, W/2^S) and the encoder outputs of S stages to (B, W0, H, W)."""

    def __init__(self, width: int, stages: int) -> None:
        super().__init__()
        for number in range(stages, 0, -1):
            channels = width * 2 ** (number - 1)
            self.add_module(f"up{number}", _UpBlock(2 * channels, channels, channels))

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for number in range(len(skips), 0, -1):
            x = self.get_submodule(f"up{number}")(x, skips[number - 1])
        return x
