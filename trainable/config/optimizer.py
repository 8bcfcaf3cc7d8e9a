"""How the weights move."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainable.config.section import Positive, Section, Weight


class OptimizerConfig(Section):
    """How the weights move."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: Positive = 2e-3
    """Peak learning rate: each policy scales it by a factor in (0, 1]."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD; Adam's and AdamW's first beta."""
    nesterov: bool = False
    """Nesterov's momentum, for SGD."""
    weight_decay: Weight = 1e-4
    """Of SGD and Adam, half the factor of the squared L2 norm in the loss; AdamW's is decoupled."""
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Largest norm of the gradient over all parameters; 0 does not clip."""
    steps_per_batch: Annotated[int, Field(ge=1, le=8)] = 1
    """Steps taken with each gradient; 2 is a published error."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("have a momentum above 0 when nesterov is true")
        return self
