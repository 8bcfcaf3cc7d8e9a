"""Which leaves of a configuration have an effect: a policy's own under that policy, a loss's window with that loss.

What has none is not searched: its parameter is absent, and no model learns from noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from search.spec.tree import at

Condition = Callable[[Mapping[str, Any]], bool]


def _above_0(*keys: str) -> Condition:
    """At least one of these leaves is above 0."""
    return lambda values: any((at(values, key) or 0) > 0 for key in keys)


def _is(key: str, *wanted: Any) -> Condition:
    return lambda values: at(values, key) in wanted


def _loss(name: str) -> Condition:
    return _above_0(f"loss.mask.{name}", f"loss.depth.{name}")


CONDITIONS: dict[str, Condition] = {
    "loss.ssim": _loss("ssim"),
    "loss.positive_weight": _loss("weighted_bce"),
    "loss.tversky_alpha": _loss("tversky"),
    "loss.huber_delta": _loss("huber"),
    "loss.sqrt_eps": _is("loss.combine", "sqrt"),
    "optimizer.nesterov": _is("optimizer.name", "sgd"),
    "policy.cyclic.base_momentum": _is("policy.cyclic.cycle_momentum", True),
    "policy.cyclic.max_momentum": _is("policy.cyclic.cycle_momentum", True),
    "policy.onecycle.base_momentum": _is("policy.onecycle.cycle_momentum", True),
    "policy.onecycle.max_momentum": _is("policy.onecycle.cycle_momentum", True),
    "data.augment.rotate_p": _above_0("data.augment.rotate"),
    "data.augment.noise_low": _above_0("data.augment.noise"),
    "data.augment.noise_p": _above_0("data.augment.noise"),
    **{
        f"data.augment.erase.{name}": _above_0("data.augment.erase.p")
        for name in ("count", "area_low", "area_high", "ratio_low", "ratio_high", "fill", "bg_scale", "crosses_border")
    },
}
"""For a leaf, or all leaves of a section, what the rest of the configuration must be like for them to matter."""


def exists(values: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether a leaf has a meaning in this trial: not if it belongs to another name than its section has."""
    section = values.get(path[0], {})
    return len(path) < 3 or "name" not in section or section["name"] == path[1]


def matters(values: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether a leaf that has a meaning has an effect too, given the leaves that decide on it."""
    condition = condition_of(path)
    return condition is None or condition(values)


def condition_of(path: tuple[str, ...]) -> Condition | None:
    """The condition of a leaf or of a section that it is in; None if it always matters."""
    keys = (".".join(path[:length]) for length in range(2, len(path) + 1))
    return next((CONDITIONS[key] for key in keys if key in CONDITIONS), None)
