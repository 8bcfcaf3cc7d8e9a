"""The configuration of one trial, typed and validated on construction.

A share is a fraction in [0, 1] of the whole run, so that a configuration has the same meaning at 9 epochs and at 90.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from trainable.config.data import Augmentation, DataConfig, Erasing, Split, Stage
from trainable.config.loss import LossConfig, SsimConfig
from trainable.config.model import ModelConfig, Normalisation
from trainable.config.optimizer import OptimizerConfig
from trainable.config.policy import POLICY_NAMES, PolicyConfig
from trainable.config.section import ConfigError, Problem, Section, build

__all__ = [
    "POLICY_NAMES",
    "Augmentation",
    "ConfigError",
    "DataConfig",
    "Erasing",
    "LossConfig",
    "ModelConfig",
    "Normalisation",
    "OptimizerConfig",
    "PolicyConfig",
    "Problem",
    "Section",
    "Split",
    "SsimConfig",
    "Stage",
    "TrialConfig",
    "build",
]


class TrialConfig(Section):
    """The configuration of a trial. With the same data and machine, it determines the training curve."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    policy: PolicyConfig = PolicyConfig()
    depth_policy: PolicyConfig | None = None
    """Policy of the separate depth network of the family 'pair'; `policy` by default."""
    epochs: Annotated[int, Field(ge=1)] = 9
    """Length of the whole run; a scheduler may stop it earlier."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _has_a_network_for_the_depth_policy(self) -> Self:
        if self.depth_policy is not None and self.model.family != "pair":
            raise ValueError(f"have no depth_policy with the family '{self.model.family}', whose heads share layers")
        return self
