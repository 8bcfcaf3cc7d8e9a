"""The training loss: weights of the losses of each head, their combination, and penalties on the parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from data.errors import did_you_mean
from trainable.config.section import ConfigError, Positive, Problem, Section, Share, Weight


class HeadLoss(Section):
    """Weights of the losses of a head, named as in `trainable.loss.losses.LOSSES`; 0 for none.

    Other names are those of losses of plugins. They are checked by `check_losses` where a loss is needed, so that the
    results of a search can be read without its plugins.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Weight]

    bce: Weight = 0.0
    weighted_bce: Weight = 0.0
    l1: Weight = 0.0
    smooth_l1: Weight = 0.0
    huber: Weight = 0.0
    mse: Weight = 0.0
    rmse: Weight = 0.0
    dice: Weight = 0.0
    tversky: Weight = 0.0
    ssim: Weight = 0.0
    edge: Weight = 0.0
    inverse_huber: Weight = 0.0


class MaskLoss(HeadLoss):
    """Weights of the losses of the mask."""

    bce: Weight = 1.0


class DepthLoss(HeadLoss):
    """Weights of the losses of the depth."""

    l1: Weight = 1.0


class SsimConfig(Section):
    """Structural similarity of the loss 'ssim' (Wang et al. 2004), with a Gaussian window of sigma 1.5."""

    window: Annotated[int, Field(ge=3, le=31)] = 11
    """Side of the window in pixels; odd."""
    form: Literal["halved", "clamped", "plain"] = "halved"
    """Loss of the similarity S: clamp((1 - S) / 2, 0, 1), clamp(1 - S, 0, 1) / 2, or 1 - S; mean over pixels."""
    border: Literal["reflect", "zero"] = "reflect"
    """Padding outside of the image."""
    minmax: bool = False
    """Scale each predicted image to 0..1 first, as in the published loss of 'monimoyd-unet'."""

    @model_validator(mode="after")
    def _has_a_middle(self) -> Self:
        if self.window % 2 == 0:
            raise ValueError(f"have an odd window, not {self.window}")
        return self


class LossConfig(Section):
    """The training loss: the combination of the weighted sums of both heads, and the penalties."""

    mask: MaskLoss = MaskLoss()
    depth: DepthLoss = DepthLoss()
    combine: Literal["sum", "sqrt", "uncertainty"] = "sum"
    """Combination of the losses of the heads: their sum, the sum of their square roots, or their sum with learned
    weights (homoscedastic uncertainty, Kendall et al. 2018)."""
    sqrt_eps: Weight = 1e-6
    """Added under the square roots, whose slope at 0 is infinite."""
    ssim: SsimConfig = SsimConfig()
    positive_weight: Positive = 2.0
    """Weight of foreground pixels in 'weighted_bce'; that of background pixels is 1."""
    tversky_alpha: Share = 0.3
    """Weight of false positives in 'tversky' (Salehi et al. 2017); that of false negatives is 1 - tversky_alpha."""
    huber_delta: Positive = 0.1
    """Error above which 'huber' is linear."""
    norm_sum: Weight = 0.0
    """Weight of the sum of the L2 norms, not squared, of all parameter tensors: a published penalty."""
    l1_sum: Weight = 0.0
    """Weight of the sum of the absolute values of all parameters."""

    @model_validator(mode="after")
    def _trains_both_heads(self) -> Self:
        for head, weights in (("mask", self.mask), ("depth", self.depth)):
            if not any(weights.model_dump().values()):
                raise ValueError(f"give the {head} head at least one loss with a weight above 0")
        return self


def check_losses(config: LossConfig, own: Collection[str], source: str) -> None:
    """Check the names of the losses that are not built in.

    Args:
        config: of the training loss.
        own: names of the losses of plugins; built-in ones may be among them.
        source: origin of the configuration, for error messages.

    Raises:
        ConfigError: for each loss that has a weight and an unknown name.
    """
    known = [*HeadLoss.model_fields, *(name for name in own if name not in HeadLoss.model_fields)]
    unknown = [
        (f"loss.{head}.{name}", name)
        for head, weights in (("mask", config.mask), ("depth", config.depth))
        for name, weight in (weights.model_extra or {}).items()
        if weight and name not in own
    ]
    problems = [
        Problem(
            key=key,
            sentence=f"The key '{key}' is not known; remove it from {source}, or use one of {', '.join(known)}"
            f"{did_you_mean(name, known)}.",
            is_key=True,
        )
        for key, name in unknown
    ]
    if problems:
        raise ConfigError(problems)
