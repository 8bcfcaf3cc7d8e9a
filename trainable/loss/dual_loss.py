"""The training loss: weighted losses of both heads, their combination, and penalties on the parameters.

Shapes: B images of H x W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainable.config.loss import check_losses
from trainable.loss.losses import all_losses, all_on_logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainable.config import LossConfig
    from trainable.models.prediction import Prediction

HEADS = ("mask", "depth")


class DualLoss(nn.Module):
    """The training loss of a configuration. Losses with weight 0 are not computed.

    With 'uncertainty' it has two trainable parameters, the logarithms s of the variances of the heads; the loss L of a
    head becomes exp(-s) L + s (Kendall et al. 2018).

    Raises:
        ConfigError: if a loss with a weight is neither built in nor of a plugin of this process.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self._config = config
        self._weights = {head: _above_zero(getattr(config, head).model_dump()) for head in HEADS}
        self._losses, self._on_logits = all_losses(), all_on_logits()
        check_losses(config, self._losses, "the configuration")
        if config.combine == "uncertainty":
            self.log_variance = nn.Parameter(torch.zeros(len(HEADS)))

    def forward(
        self,
        prediction: Prediction,
        mask: Tensor,
        depth: Tensor,
        valid: Tensor | None = None,
        inside: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the total loss, and its unweighted parts with names like 'mask_bce' and 'depth_l1'.

        Args:
            prediction: result of a network.
            mask: (B, 1, H, W) float in 0..1.
            depth: (B, 1, H, W) float in 0..1.
            valid: (B, 1, H, W) bool, where the depth was measured; None for everywhere. The losses of the depth leave
                the other pixels out.
            inside: (B, 1, H, W) bool, False in the border of padded images, which the losses of the mask leave out;
                None if there is none.
        """
        parts: dict[str, Tensor] = {}
        totals = []
        for head, logits, activated, target, pixels in (
            ("mask", prediction.mask_logits, prediction.mask, mask, inside),
            ("depth", prediction.depth_logits, prediction.depth, depth, valid),
        ):
            total = torch.zeros((), device=target.device)
            for name, weight in self._weights[head].items():
                output = logits if name in self._on_logits else activated
                parts[f"{head}_{name}"] = part = self._losses[name](output, target, self._config, pixels)
                total = total + weight * part
            totals.append(total)
        return self._combined(torch.stack(totals)), {name: part.detach() for name, part in parts.items()}

    def penalty(self, network: nn.Module) -> Tensor | float:
        """Penalties on the trainable parameters of `network`; 0 if none is configured."""
        weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        cost: Tensor | float = 0.0
        if self._config.norm_sum:
            cost = cost + self._config.norm_sum * torch.stack([weight.norm() for weight in weights]).sum()
        if self._config.l1_sum:
            cost = cost + self._config.l1_sum * torch.stack([weight.abs().sum() for weight in weights]).sum()
        return cost

    def of_heads(self, parts: Mapping[str, float]) -> list[float]:
        """The weighted sum of the losses of each head, from unweighted parts with the names of `forward`."""
        return [sum(weight * parts[f"{head}_{name}"] for name, weight in self._weights[head].items()) for head in HEADS]

    def _combined(self, heads: Tensor) -> Tensor:
        """Combine the losses of the heads, (2,), into a scalar."""
        match self._config.combine:
            case "sqrt":
                return (heads + self._config.sqrt_eps).sqrt().sum()
            case "uncertainty":
                return (torch.exp(-self.log_variance) * heads + self.log_variance).sum()
        return heads.sum()


def _above_zero(weights: dict[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight > 0}
