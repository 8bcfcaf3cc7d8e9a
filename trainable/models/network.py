"""A family's body between its inputs' normalisation and its heads' activations: what a trial trains.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from trainable.models.prediction import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainable.config import ModelConfig
    from trainable.models.prediction import Heads


class Network(nn.Module):
    """Two images in, mask and depth out, as the configuration has them.

    Args:
        body: of any family: `forward(bg, fg_bg)` takes (B, 3, H, W) floats, and returns `Heads` of that size.
        config: the normalisation, the activations, and what stays as in training during evaluation.
    """

    bg_mean: Tensor
    bg_std: Tensor
    fg_bg_mean: Tensor
    fg_bg_std: Tensor

    def __init__(self, body: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        self.body = body
        self._config = config
        given = config.normalise
        for name in ("bg_mean", "bg_std", "fg_bg_mean", "fg_bg_std"):
            # Not among the weights: the configuration has them.
            self.register_buffer(name, torch.tensor(getattr(given, name)).view(1, 3, 1, 1), persistent=False)
        self._normalises = given != type(given)()

    def forward(self, bg: Tensor, fg_bg: Tensor) -> Prediction:
        """Mask and depth of `fg_bg`, (B, 1, H, W) each, from two (B, 3, H, W) floats in 0..1.

        Raises:
            InputError: if the family cannot take images of that size.
        """
        if self._normalises:
            bg = (bg - self.bg_mean) / self.bg_std
            fg_bg = (fg_bg - self.fg_bg_mean) / self.fg_bg_std
        heads: Heads = self.body(bg, fg_bg)
        return Prediction.of(
            heads.mask,
            heads.depth,
            mask_activation=self._config.mask_activation,
            depth_activation=self._config.depth_activation,
        )

    def on(self, device: torch.device) -> Self:
        """Move to `device`, with channels last in memory, which batches have too.

        On one thread of an AMD EPYC, a training step at 64 px in bf16 was 1.12 to 1.25 times as fast as with channels
        first, 1.85 times with separable convolutions (`tests/benchmarks/step.py --parts`): faster in every family, so
        that it is not measured anew on each machine. In fp32 it was 1.09 to 1.28 times. On a GPU it was not measured.
        """
        return self.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or to evaluation as far as the configuration goes along."""
        super().train(mode or self._config.eval_mode == "train")
        if not mode and self._config.eval_mode == "dropout":
            for layer in self.modules():
                if isinstance(layer, nn.Dropout):
                    layer.train()
        return self

    def parts(self) -> Sequence[Sequence[nn.Parameter]]:
        """The parameters that are trained apart: those of the mask's and of the depth's network, or all together."""
        apart = getattr(self.body, "networks", None)
        return [list(part.parameters()) for part in apart()] if apart else [list(self.parameters())]
