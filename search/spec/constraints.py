"""Limits on a network that can be checked before it is trained: parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING

from search.spec.costs import COSTS, cost
from search.spec.domains import Leaves, Per, Range, as_plain, representatives
from trainable.config import Problem
from trainable.config.settings import Settings, Value

if TYPE_CHECKING:
    from search.spec.sections import ConstraintsConfig


def violations(settings: Settings, limits: ConstraintsConfig) -> dict[str, float]:
    """The excess of a trial over each limit that is known before it starts.

    Args:
        settings: of the trial; see `costs.cost`.
        limits: of the spec.

    Returns:
        For each limit that is set, the excess as a share of the limit: above 0 if the limit is exceeded.
    """
    return {name: cost(name, settings) / limit - 1 for name, limit in _cost_limits(limits).items()}


def broken_limits(settings: Settings, limits: ConstraintsConfig) -> str:
    """The limits that a trial exceeds, as a clause without a full stop; '' if it is within all of them."""
    return " and ".join(
        f"it has {cost(name, settings):,} {COSTS[name]}, and constraints.{name} is {getattr(limits, name):,.12g}"
        for name, excess in violations(settings, limits).items()
        if excess > 0
    )


def problems_of_limits(space: Leaves, limits: ConstraintsConfig, source: str) -> Iterator[Problem]:
    """Problems if no network of a space is within the limits."""
    known = _cost_limits(limits)
    networks = list(_smallest_networks(space)) if known else []
    if not known or any(not broken_limits(network, limits) for network in networks):
        return
    is_reported = False
    for name, limit in known.items():
        fewest, least = min(((cost(name, network), network) for network in networks), key=itemgetter(0))
        if fewest > limit:
            is_reported = True
            sentence = (
                f"The value of 'constraints.{name}' is {limit:,.12g}, but every network of the space has more "
                f"{COSTS[name]}: '{least['model.family']}' of width {least['model.width']} has the fewest, {fewest:,}; "
                f"raise it, or search smaller families or widths, in {source}."
            )
            yield Problem(key=f"constraints.{name}", sentence=sentence)
    if not is_reported:
        sentence = "No network of the space is within both constraints.parameters and constraints.macs; raise one of "
        yield Problem(key="constraints", sentence=f"{sentence}them, or search smaller families or widths, in {source}.")


def widths_of(space: Leaves, family: str) -> list[int]:
    """All widths of a family in a space, ascending."""
    width = space["model.width"]
    leaf = width.for_value(family) if isinstance(width, Per) and width.key == "model.family" else width
    if isinstance(leaf, Range):
        return list(range(int(leaf.low), int(leaf.high) + 1))
    return sorted(value for value in representatives(leaf) if isinstance(value, int))


def _cost_limits(limits: ConstraintsConfig) -> dict[str, float]:
    """The limits on costs that are set."""
    return {name: limit for name in COSTS if (limit := getattr(limits, name)) is not None}


def _smallest_networks(space: Leaves) -> Iterator[dict[str, Value]]:
    """For each family, the settings of the network with the smallest width."""
    image_size = as_plain(space["data.image_size"])
    for family in representatives(space["model.family"]):
        width = widths_of(space, str(family))[0]
        yield {"model.family": family, "model.width": width, "data.image_size": image_size}
