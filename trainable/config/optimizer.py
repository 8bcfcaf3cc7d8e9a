"""The optimizer."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainable.config.section import Positive, Section, Weight


class OptimizerConfig(Section):
    """The optimizer."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: Positive = 2e-3
    """Peak learning rate, which a policy multiplies by a factor in (0, 1]."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; first beta of Adam and AdamW."""
    nesterov: bool = False
    """Nesterov's momentum, for SGD."""
    weight_decay: Weight = 1e-4
    """Factor of the L2 penalty weight_decay / 2 * norm^2 in the loss of SGD and Adam; decoupled in AdamW."""
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Maximum norm of the gradient over all parameters; 0 for no clipping."""
    steps_per_batch: Annotated[int, Field(ge=1, le=8)] = 1
    """Optimizer steps per gradient; 2 is a published error."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("have a momentum above 0 when nesterov is true")
        return self
