"""A short description of a configuration: its network, losses, optimizer and policy."""

from __future__ import annotations

from dataclasses import dataclass

from trainable.config import LossConfig, OptimizerConfig, PolicyConfig, TrialConfig


@dataclass(frozen=True, kw_only=True)
class Description:
    """The main choices of a configuration, in words."""

    family: str
    width: int
    losses: str
    optimizer: str
    policy: str

    def __str__(self) -> str:
        return f"{self.family} of width {self.width}; {self.losses}; {self.optimizer}; {self.policy} policy"


def describe(config: TrialConfig) -> Description:
    """Describe a configuration."""
    policy = _policy(config.policy)
    if config.depth_policy is not None:
        policy = f"{policy} (mask), {_policy(config.depth_policy)} (depth)"
    return Description(
        family=config.model.family,
        width=config.model.width,
        losses=_losses(config.loss),
        optimizer=_optimizer(config.optimizer),
        policy=policy,
    )


def _losses(config: LossConfig) -> str:
    """The losses by head, such as '2 bce mask, ssim depth'; a prefix such as 'sqrt:' names how they are combined."""
    heads = []
    for head in ("mask", "depth"):
        weights = getattr(config, head).model_dump()
        shown = " + ".join(f"{_times(weight)}{name}" for name, weight in weights.items() if weight)
        heads.append(f"{shown} {head}")
    combined = "" if config.combine == "sum" else f"{config.combine}: "
    return combined + ", ".join(heads)


def _times(weight: float) -> str:
    return "" if weight == 1 else f"{weight:.3g} "


def _optimizer(config: OptimizerConfig) -> str:
    named = f"{config.name} lr {config.lr:.3g}"
    if config.name == "sgd" and config.momentum:
        named += f", {'nesterov' if config.nesterov else 'momentum'} {config.momentum:g}"
    elif config.name != "sgd" and config.momentum != OptimizerConfig().momentum:
        named += f", beta1 {config.momentum:g}"
    named += f", decay {config.weight_decay:g}" if config.weight_decay else ""
    return named + (f", {config.steps_per_batch} steps a batch" if config.steps_per_batch > 1 else "")


def _policy(config: PolicyConfig) -> str:
    named = f"constant, then {config.name}" if config.hold and config.name != "constant" else config.name
    return f"{named} with plateau drops" if config.name == "cyclic" and config.cyclic.plateau else named
