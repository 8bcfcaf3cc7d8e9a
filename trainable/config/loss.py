"""What is minimised: weights of each head's losses, how the two heads are combined, and penalties on the weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainable.config.section import Positive, Section, Share, Weight


class HeadLoss(Section):
    """Weights of a head's losses, by their names in `trainable.losses.LOSSES`; 0 leaves one out."""

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
    """Weights of the mask's losses."""

    bce: Weight = 1.0


class DepthLoss(HeadLoss):
    """Weights of the depth's losses."""

    l1: Weight = 1.0


class SsimConfig(Section):
    """Which structural similarity the loss 'ssim' is made of (Wang et al. 2004); a Gaussian window of sigma 1.5."""

    window: Annotated[int, Field(ge=3, le=31)] = 11
    """Side of the window in pixels, odd."""
    form: Literal["halved", "clamped", "plain"] = "halved"
    """Of the similarity S: clamp((1 - S) / 2, 0, 1), clamp(1 - S, 0, 1) / 2, or 1 - S; mean over pixels."""
    border: Literal["reflect", "zero"] = "reflect"
    """What the window sees outside of the image."""
    minmax: bool = False
    """Stretch each predicted image over 0..1 first: the published loss of 'monimoyd-unet'."""

    @model_validator(mode="after")
    def _has_a_middle(self) -> Self:
        if self.window % 2 == 0:
            raise ValueError(f"have an odd window, not {self.window}")
        return self


class LossConfig(Section):
    """The loss: each head's weighted sum, the two combined, and the penalties."""

    mask: MaskLoss = MaskLoss()
    depth: DepthLoss = DepthLoss()
    combine: Literal["sum", "sqrt", "uncertainty"] = "sum"
    """Of the two heads' losses: their sum, the sum of their square roots, or their sum with learned weights
    (homoscedastic uncertainty, Kendall et al. 2018)."""
    sqrt_eps: Weight = 1e-6
    """Added under the roots, whose slope at 0 is infinite."""
    ssim: SsimConfig = SsimConfig()
    positive_weight: Positive = 2.0
    """Weight of foreground pixels in 'weighted_bce'; background has 1."""
    tversky_alpha: Share = 0.3
    """Weight of false positives in 'tversky' (Salehi et al. 2017); false negatives have 1 less this."""
    huber_delta: Positive = 0.1
    """Error from which 'huber' is linear."""
    norm_sum: Weight = 0.0
    """Times the sum of every parameter tensor's L2 norm, not squared: a published penalty."""
    l1_sum: Weight = 0.0
    """Times the sum of all parameters' absolute values."""

    @model_validator(mode="after")
    def _trains_both_heads(self) -> Self:
        for head, weights in (("mask", self.mask), ("depth", self.depth)):
            if not any(weights.model_dump().values()):
                raise ValueError(f"give the {head} head at least one loss with a weight above 0")
        return self
