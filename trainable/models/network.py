"""The network of a trial: the body of a model family, with input normalisation and output activations.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from trainable.models.prediction import Heads, Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainable.config import ModelConfig


class Network(nn.Module):
    """Predicts mask and depth from two images.

    Args:
        body: module of any family; `forward(bg, fg_bg)` takes (B, 3, H, W) floats and returns `Heads` of that size.
        config: normalisation, activations, and the layers that stay in training mode during evaluation.
    """

    bg_mean: Tensor
    bg_std: Tensor
    fg_bg_mean: Tensor
    fg_bg_std: Tensor

    def __init__(self, body: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        self.body = body
        self._config = config
        inputs = config.normalise
        for name in ("bg_mean", "bg_std", "fg_bg_mean", "fg_bg_std"):
            # Not persistent, because the configuration contains them.
            self.register_buffer(name, torch.tensor(getattr(inputs, name)).view(1, 3, 1, 1), persistent=False)
        self._normalises = inputs != type(inputs)()

    def forward(self, bg: Tensor, fg_bg: Tensor, inside: Tensor | None = None) -> Prediction:
        """Predict mask and depth, (B, 1, H, W) each, from two (B, 3, H, W) float images in 0..1.

        Args:
            bg: the backgrounds.
            fg_bg: the same with a foreground object.
            inside: (B, 1, H, W) bool, False in the border of padded images, which has no influence on the range of
                'minmax'; None if there is none.

        Raises:
            InputError: if the family does not support images of that size.
        """
        if self._normalises:
            bg = (bg - self.bg_mean) / self.bg_std
            fg_bg = (fg_bg - self.fg_bg_mean) / self.fg_bg_std
        heads = Heads(*self.body(bg, fg_bg))
        return Prediction.of(
            heads.mask,
            heads.depth,
            mask_activation=self._config.mask_activation,
            depth_activation=self._config.depth_activation,
            inside=inside,
        )

    def on(self, device: torch.device) -> Self:
        """Move to `device` in the channels-last memory format, as batches are.

        On one thread of an AMD EPYC, a training step at 64 px in bf16 was 1.12 to 1.25 times as fast as with channels
        first, and 1.85 times with separable convolutions (`tests/benchmarks/step.py --parts`). In fp32 it was 1.09 to
        1.28 times as fast. On a GPU it was not measured.
        """
        return self.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, or the evaluation mode except for layers that `eval_mode` keeps in training."""
        super().train(mode or self._config.eval_mode == "train")
        if not mode and self._config.eval_mode == "dropout":
            for layer in self.modules():
                if isinstance(layer, nn.Dropout):
                    layer.train()
        return self

    def parts(self) -> Sequence[Sequence[nn.Parameter]]:
        """Parameters by part with its own policy: the mask network and the depth network, or all in one part."""
        networks = getattr(self.body, "networks", None)
        return [list(part.parameters()) for part in networks()] if networks else [list(self.parameters())]
