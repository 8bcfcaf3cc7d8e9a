"""What a network must keep to, as far as that is known before it is trained: its parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from search.spec.costs import SHOWN, cost
from search.spec.domains import Choices, Domain, Per, Range, representatives
from search.spec.tree import at
from trainable.config import Problem

if TYPE_CHECKING:
    from search.spec.sections import ConstraintsConfig


def violations(values: Mapping[str, Any], limits: ConstraintsConfig) -> dict[str, float]:
    """By how much a trial breaks each limit that is known before it starts.

    Args:
        values: of a `TrialConfig`, nested.
        limits: of the spec.

    Returns:
        For each limit that there is, the excess as a share of the limit: above 0 where it is broken.
    """
    asked = {name: limit for name in SHOWN if (limit := getattr(limits, name)) is not None}
    return {name: cost(name, values) / limit - 1 for name, limit in asked.items()}


def broken(values: Mapping[str, Any], limits: ConstraintsConfig) -> str:
    """Which limits a trial breaks, in words without a full stop; '' if it keeps to all that are known before."""
    return " and ".join(
        f"it has {cost(name, values):,} {SHOWN[name]}, and constraints.{name} is {getattr(limits, name):,.12g}"
        for name, excess in violations(values, limits).items()
        if excess > 0
    )


def problems_of_limits(space: Mapping[str, Any], limits: ConstraintsConfig, source: str) -> Iterator[Problem]:
    """That no network of a space keeps to the limits; nothing where one does."""
    asked = {name: limit for name in SHOWN if (limit := getattr(limits, name)) is not None}
    networks = list(_smallest_networks(space)) if asked else []
    if not asked or any(not broken(values, limits) for values in networks):
        return
    alone = False
    for name, limit in asked.items():
        fewest, least = min(((cost(name, values), values["model"]) for values in networks), key=itemgetter(0))
        if fewest > limit:
            alone = True
            sentence = (
                f"The value of 'constraints.{name}' is {limit:,.12g}, but no network of the space has so few "
                f"{SHOWN[name]}: '{least['family']}' of width {least['width']} has the fewest, {fewest:,}; raise it, "
                f"or search smaller families or widths, in {source}."
            )
            yield Problem(key=f"constraints.{name}", sentence=sentence)
    if not alone:
        sentence = "No network of the space keeps to constraints.parameters and constraints.macs at once; raise one of "
        yield Problem(key="constraints", sentence=f"{sentence}them, or search smaller families or widths, in {source}.")


def widths_of(space: Mapping[str, Any], family: str) -> list[int]:
    """Every width that a space has for a family, ascending."""
    width = at(space, "model.width")
    leaf = width.for_value(family) if isinstance(width, Per) and width.key == "model.family" else width
    if isinstance(leaf, Range):
        return list(range(int(leaf.low), int(leaf.high) + 1))
    values = representatives(leaf) if isinstance(leaf, Domain) else [leaf]
    return sorted(value for value in values if isinstance(value, int))


def _smallest_networks(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each family, the one of the smallest width."""
    family = at(space, "model.family")
    for name in family.values if isinstance(family, Choices) else (family,):
        model = {"family": name, "width": widths_of(space, str(name))[0]}
        yield {"model": model, "data": {"image_size": at(space, "data.image_size")}}
