"""How the learning rate changes over a run.

Durations are shares of the policy's horizon: the run, unless a horizon is given in epochs or batches, as published
recipes have it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainable.config.section import Section, Share, Weight

Momentum = Annotated[float, Field(ge=0, lt=1)]


class StepPolicy(Section):
    """Multiply by `factor` after every `every` of the horizon, stepped per epoch."""

    every: Annotated[float, Field(gt=0, le=1)] = 0.33
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.3


class PlateauPolicy(Section):
    """Multiply by `factor` after more than `patience` of the horizon without an improvement, stepped per epoch."""

    patience: Share = 0.1
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.3
    threshold: Weight = 1e-3
    """Smallest improvement that counts: absolute for the score, relative for a loss."""
    watch: Literal["score", "val_loss", "train_loss"] = "score"
    """The validation score, the validation loss, or the training loss."""


class CyclicPolicy(Section):
    """Up and down between `floor` and 1 in triangles (Smith 2017)."""

    period: Annotated[float, Field(gt=0, le=1)] = 0.33
    """Share of the horizon that one cycle takes, up and down."""
    floor: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Lowest factor."""
    halve: bool = True
    """Halve each next cycle's height ('triangular2')."""
    cadence: Literal["batch", "epoch"] = "batch"
    """How often it is stepped."""
    cycle_momentum: bool = False
    """Move the momentum against the learning rate, from `max_momentum` to `base_momentum` and back."""
    base_momentum: Momentum = 0.8
    max_momentum: Momentum = 0.9
    plateau: PlateauPolicy | None = None
    """A published error, which a recipe can set and a spec cannot: a plateau rule on the same learning rate. Its drop
    lasts until the cycle next sets the rate: for one epoch or one batch."""


class OneCyclePolicy(Section):
    """Rise from 1 / `div` to 1, then fall to 1 / (`div` × `final_div`), stepped per batch (Smith & Topin 2018)."""

    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the horizon that rises."""
    div: Annotated[float, Field(ge=1)] = 25.0
    final_div: Annotated[float, Field(ge=1)] = 1000.0
    anneal: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = False
    """Move the momentum against the learning rate, from `max_momentum` to `base_momentum` and back."""
    base_momentum: Momentum = 0.85
    max_momentum: Momentum = 0.95


class CosinePolicy(Section):
    """Fall along half a cosine from 1 to `floor`, stepped per batch (Loshchilov & Hutter 2017, without restarts)."""

    floor: Share = 0.0


POLICY_NAMES = Literal["constant", "step", "plateau", "cyclic", "onecycle", "cosine"]


class PolicyConfig(Section):
    """How the learning rate changes; only the named policy's own part is used."""

    name: POLICY_NAMES = "onecycle"
    horizon_epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs that the shares are of; the run's when no horizon is given."""
    horizon_batches: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps that the shares are of, in place of epochs."""
    warmup: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the horizon over which the learning rate first rises linearly to what the policy says."""
    hold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the horizon for which the learning rate stays at its peak before the policy begins."""
    step: StepPolicy = StepPolicy()
    plateau: PlateauPolicy = PlateauPolicy()
    cyclic: CyclicPolicy = CyclicPolicy()
    onecycle: OneCyclePolicy = OneCyclePolicy()
    cosine: CosinePolicy = CosinePolicy()

    @model_validator(mode="after")
    def _has_one_horizon(self) -> Self:
        if self.horizon_epochs is not None and self.horizon_batches is not None:
            raise ValueError("have horizon_epochs or horizon_batches, not both")
        return self

    @property
    def watched(self) -> str | None:
        """What the plateau rule in use watches; None where there is no such rule."""
        rules = {"plateau": self.plateau, "cyclic": self.cyclic.plateau}
        rule = rules.get(self.name)
        return rule.watch if rule else None
