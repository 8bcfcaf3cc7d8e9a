"""The learning-rate policy.

Durations are shares of the horizon of the policy: the run, or a number of epochs or batches, as in published recipes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainable.config.section import Section, Share, Weight

Momentum = Annotated[float, Field(ge=0, lt=1)]


class StepPolicy(Section):
    """Multiply by `factor` after each share `every` of the horizon, stepped per epoch."""

    every: Annotated[float, Field(gt=0, le=1)] = 0.33
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.3


class PlateauPolicy(Section):
    """Multiply by `factor` after more than `patience` of the horizon without an improvement, stepped per epoch."""

    patience: Share = 0.1
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.3
    threshold: Weight = 1e-3
    """Minimum improvement: absolute for 'score', relative for a loss."""
    watch: Literal["score", "val_loss", "train_loss"] = "score"
    """Metric to watch: 'score', which is the objective of the search on validation, the validation loss, or the
    training loss. With a `depth_policy`, the training loss is that of the policy's own network, mask or depth."""


class CyclicPolicy(Section):
    """Triangular cycles between `floor` and 1 (Smith 2017)."""

    period: Annotated[float, Field(gt=0, le=1)] = 0.33
    """Length of one cycle, as a share of the horizon."""
    floor: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Minimum factor."""
    halve: bool = True
    """Halve the height with each cycle ('triangular2')."""
    cadence: Literal["batch", "epoch"] = "batch"
    """Whether it is stepped per batch or per epoch."""
    cycle_momentum: bool = False
    """Cycle the momentum inversely to the learning rate, from `max_momentum` to `base_momentum` and back."""
    base_momentum: Momentum = 0.8
    max_momentum: Momentum = 0.9
    plateau: PlateauPolicy | None = None
    """A published error, for recipes only: a plateau rule on the same learning rate, whose reduction lasts until the
    cycle next sets the rate, for one epoch or one batch."""


class OneCyclePolicy(Section):
    """Rise from 1 / `div` to 1, then fall to 1 / (`div` × `final_div`), stepped per batch (Smith & Topin 2018)."""

    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Length of the rise, as a share of the horizon."""
    div: Annotated[float, Field(ge=1)] = 25.0
    final_div: Annotated[float, Field(ge=1)] = 1000.0
    anneal: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = False
    """Cycle the momentum inversely to the learning rate, from `max_momentum` to `base_momentum` and back."""
    base_momentum: Momentum = 0.85
    max_momentum: Momentum = 0.95


class CosinePolicy(Section):
    """Fall along half a cosine from 1 to `floor`, stepped per batch (Loshchilov & Hutter 2017, without restarts)."""

    floor: Share = 0.0


POLICY_NAMES = Literal["constant", "step", "plateau", "cyclic", "onecycle", "cosine"]


class PolicyConfig(Section):
    """The learning-rate policy; only the section of the named policy is used."""

    name: POLICY_NAMES = "onecycle"
    horizon_epochs: Annotated[int, Field(ge=1)] | None = None
    """Horizon in epochs; the whole run if no horizon is given."""
    horizon_batches: Annotated[int, Field(ge=1)] | None = None
    """Horizon in optimizer steps, instead of epochs."""
    warmup: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Length of the linear warm-up, as a share of the horizon."""
    hold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Length of the initial hold at the peak learning rate, as a share of the horizon."""
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
        """Metric that the plateau rule watches; None without such a rule."""
        rules = {"plateau": self.plateau, "cyclic": self.cyclic.plateau}
        rule = rules.get(self.name)
        return rule.watch if rule else None
