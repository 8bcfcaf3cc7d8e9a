"""Limits on a network that can be checked before it is trained: parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from search.spec.costs import COSTS, cost
from search.spec.domains import Choices, Domain, Per, Range, representatives
from search.spec.tree import at
from trainable.config import Problem

if TYPE_CHECKING:
    from search.spec.sections import ConstraintsConfig


def violations(values: Mapping[str, Any], limits: ConstraintsConfig) -> dict[str, float]:
    """The excess of a trial over each limit that is known before it starts.

    Args:
        values: nested values of a `TrialConfig`.
        limits: of the spec.

    Returns:
        For each limit that is set, the excess as a share of the limit: above 0 if the limit is exceeded.
    """
    return {name: cost(name, values) / limit - 1 for name, limit in _cost_limits(limits).items()}


def broken_limits(values: Mapping[str, Any], limits: ConstraintsConfig) -> str:
    """The limits that a trial exceeds, as a clause without a full stop; '' if it is within all of them."""
    return " and ".join(
        f"it has {cost(name, values):,} {COSTS[name]}, and constraints.{name} is {getattr(limits, name):,.12g}"
        for name, excess in violations(values, limits).items()
        if excess > 0
    )


def problems_of_limits(space: Mapping[str, Any], limits: ConstraintsConfig, source: str) -> Iterator[Problem]:
    """Problems if no network of a space is within the limits."""
    known = _cost_limits(limits)
    networks = list(_smallest_networks(space)) if known else []
    if not known or any(not broken_limits(values, limits) for values in networks):
        return
    is_reported = False
    for name, limit in known.items():
        fewest, least = min(((cost(name, values), values["model"]) for values in networks), key=itemgetter(0))
        if fewest > limit:
            is_reported = True
            sentence = (
                f"The value of 'constraints.{name}' is {limit:,.12g}, but every network of the space has more "
                f"{COSTS[name]}: '{least['family']}' of width {least['width']} has the fewest, {fewest:,}; raise it, "
                f"or search smaller families or widths, in {source}."
            )
            yield Problem(key=f"constraints.{name}", sentence=sentence)
    if not is_reported:
        sentence = "No network of the space is within both constraints.parameters and constraints.macs; raise one of "
        yield Problem(key="constraints", sentence=f"{sentence}them, or search smaller families or widths, in {source}.")


def widths_of(space: Mapping[str, Any], family: str) -> list[int]:
    """All widths of a family in a space, ascending."""
    width = at(space, "model.width")
    leaf = width.for_value(family) if isinstance(width, Per) and width.key == "model.family" else width
    if isinstance(leaf, Range):
        return list(range(int(leaf.low), int(leaf.high) + 1))
    values = representatives(leaf) if isinstance(leaf, Domain) else [leaf]
    return sorted(value for value in values if isinstance(value, int))


def _cost_limits(limits: ConstraintsConfig) -> dict[str, float]:
    """The limits on costs that are set."""
    return {name: limit for name in COSTS if (limit := getattr(limits, name)) is not None}


def _smallest_networks(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """For each family, the values of the network with the smallest width."""
    family = at(space, "model.family")
    for name in family.values if isinstance(family, Choices) else (family,):
        model = {"family": name, "width": widths_of(space, str(name))[0]}
        yield {"model": model, "data": {"image_size": at(space, "data.image_size")}}
