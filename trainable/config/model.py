"""The network, from its inputs' normalisation to its outputs' activation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainable.config.section import Positive, Section

Means = Annotated[list[float], Field(min_length=3, max_length=3)]
Deviations = Annotated[list[Positive], Field(min_length=3, max_length=3)]


class Normalisation(Section):
    """What is subtracted from the channels of either image, in 0..1, and what they are then divided by."""

    bg_mean: Means = Field(default=[0.0, 0.0, 0.0])
    bg_std: Deviations = Field(default=[1.0, 1.0, 1.0])
    fg_bg_mean: Means = Field(default=[0.0, 0.0, 0.0])
    fg_bg_std: Deviations = Field(default=[1.0, 1.0, 1.0])


class ModelConfig(Section):
    """The network."""

    family: str = "resunet"
    """A key of `trainable.models.MODELS`."""
    width: Annotated[int, Field(ge=1, le=1024)] = 16
    """Channels of the first stage; the others are multiples of it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a value is dropped in training; only families that had dropout as published take one above 0."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; 'auto' takes bf16 where it is measured to be faster, once for each network of a
    search on a kind of machine."""
    normalise: Normalisation = Normalisation()
    """Of the inputs; nothing is changed by default."""
    mask_activation: Literal["sigmoid", "linear"] = "sigmoid"
    """From the mask head's output to the mask; 'linear' takes the output as it is."""
    depth_activation: Literal["linear", "sigmoid", "minmax"] = "linear"
    """From the depth head's output to the depth; 'minmax' stretches each image's over 0..1."""
    eval_mode: Literal["eval", "dropout", "train"] = "eval"
    """What stays as in training during evaluation: nothing, or, as published errors, dropout, or all layers."""
    shared_decoder: bool = False
    """A published error, of 'sepunet' alone: one decoder, run twice, in place of one for each head."""
