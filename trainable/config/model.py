"""The network, from the normalisation of its inputs to the activation of its outputs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainable.config.section import Positive, Section

Means = Annotated[list[float], Field(min_length=3, max_length=3)]
Deviations = Annotated[list[Positive], Field(min_length=3, max_length=3)]


class Normalisation(Section):
    """Mean and standard deviation of the input channels in 0..1: (image - mean) / std."""

    bg_mean: Means = Field(default=[0.0, 0.0, 0.0])
    bg_std: Deviations = Field(default=[1.0, 1.0, 1.0])
    fg_bg_mean: Means = Field(default=[0.0, 0.0, 0.0])
    fg_bg_std: Deviations = Field(default=[1.0, 1.0, 1.0])


class ModelConfig(Section):
    """The network."""

    family: str = "resunet"
    """Name of a model family; plugins add others."""
    width: Annotated[int, Field(ge=1, le=1024)] = 16
    """Channels of the first stage; those of the other stages are multiples of it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability in training; above 0 only for families that were published with dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the forward pass; 'auto' uses bf16 if it is measured to be faster, once for each network of a search
    and kind of machine."""
    normalise: Normalisation = Normalisation()
    """Normalisation of the inputs; none by default."""
    mask_activation: Literal["sigmoid", "linear"] = "sigmoid"
    """Activation of the mask head; 'linear' uses its output unchanged."""
    depth_activation: Literal["linear", "sigmoid", "minmax"] = "linear"
    """Activation of the depth head; 'minmax' scales each image to 0..1."""
    eval_mode: Literal["eval", "dropout", "train"] = "eval"
    """Layers that stay in training mode during evaluation: none or, as published errors, dropout or all layers."""
    shared_decoder: bool = False
    """A published error, only for 'sepunet': one decoder that runs twice instead of one for each head."""
