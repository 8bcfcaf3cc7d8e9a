"""Conditions under which a leaf of a configuration has an effect, such as a loss's parameters with that loss.

A leaf without an effect is not searched: its parameter is absent, so that the surrogate is not fitted to noise.
"""

from __future__ import annotations

from collections.abc import Callable

from search.spec.default_space import is_argument
from trainable.config.settings import Scalar, Settings

Condition = Callable[[Settings], bool]


def _above_0(*keys: str) -> Condition:
    """At least one of these leaves is above 0."""

    def holds(settings: Settings) -> bool:
        values = [settings.get(key) for key in keys]
        return any(isinstance(value, int | float) and value > 0 for value in values)

    return holds


def _is(key: str, wanted: Scalar) -> Condition:
    return lambda settings: settings.get(key) == wanted


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
    "data.augment.noise_per_channel": _above_0("data.augment.noise"),
    **{
        f"data.augment.erase.{name}": _above_0("data.augment.erase.p")
        for name in ("count", "area_low", "area_high", "ratio_low", "ratio_high", "fill", "bg_scale", "crosses_border")
    },
}
"""For a leaf, or all leaves of a section, the condition on the configuration under which they have an effect."""


def is_present(settings: Settings, key: str) -> bool:
    """Whether a leaf is present in a trial; not if its subsection is for another `name` than the section has."""
    section, *inner = key.split(".")
    return len(inner) < 2 or settings.get(f"{section}.name") in (None, inner[0])


def has_effect(settings: Settings, key: str) -> bool:
    """Whether a leaf that is present has an effect, given the leaves that it depends on."""
    condition = condition_of(key)
    return condition is None or condition(settings)


def condition_of(key: str) -> Condition | None:
    """The condition of a leaf, or of a section that contains it; None if it always has an effect."""
    if is_argument(key):
        transform, _, argument = key.rpartition(".")
        return None if argument == "p" else _above_0(f"{transform}.p")
    while key:
        if key in CONDITIONS:
            return CONDITIONS[key]
        key = key.rpartition(".")[0]
    return None
