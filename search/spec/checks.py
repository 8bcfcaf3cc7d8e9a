"""Checks of a whole spec: values that trials do not accept, and invalid `per` conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from search.spec.domains import Choices, Domain, Leaf, Leaves, Per, Range, representatives
from trainable.config import ConfigError, Problem, TrialConfig, build
from trainable.config.settings import Settings, Value, nest
from trainable.families import check_model
from trainable.plugins.active import PluginRecord

_NOT_SEARCHABLE = ("data.image_size", "data.fit", "data.split")
"""Beginnings of keys that must not be searched, since scores on different images cannot be compared."""


def problems_of_values(
    space: Leaves, defaults: Settings, own: Sequence[PluginRecord], source: str
) -> Iterator[Problem]:
    """Problems of single leaves: values that trials do not accept, and keys that must not be searched.

    Args:
        space: a leaf for each key of `TrialConfig`.
        defaults: of `TrialConfig`, by the same keys.
        own: the plugins of the spec.
        source: origin of the space, for error messages.
    """
    for key, leaf in space.items():
        cases = list(leaf.domains.values()) if isinstance(leaf, Per) else [leaf]
        if isinstance(defaults[key], bool | str) and any(isinstance(case, Range) for case in cases):
            sentence = f"The value of '{key}' is a range, but must be a value or {{choices}}, as it is not a number; "
            yield Problem(key=key, sentence=f"{sentence}correct it in {source}.")
        elif isinstance(leaf, Domain) and key.startswith(_NOT_SEARCHABLE):
            sentence = f"The value of '{key}' is {leaf.as_plain()}, but must be a single value, as scores on other "
            yield Problem(key=key, sentence=f"{sentence}images cannot be compared; correct it in {source}.")
    seen = set()
    for settings in _trials(space):
        for problem in _problems_of_trial(settings, own, source):
            if problem.sentence not in seen:
                seen.add(problem.sentence)
                yield problem


def problems_of_conditions(space: Leaves, own: Sequence[PluginRecord], source: str) -> Iterator[Problem]:
    """Problems of `per` leaves: the other leaf must be valid, and each of its values must have a domain."""
    for key, leaf in space.items():
        if not isinstance(leaf, Per):
            continue
        if wanted := _required_reference(key, leaf, space):
            sentence = f"The value of '{key}.per' is '{leaf.key}', but must be {wanted}; correct it in {source}."
            yield Problem(key=f"{key}.per", sentence=sentence)
        elif missing := [str(v) for v in representatives(space[leaf.key]) if leaf.for_value(v) is None]:
            sentence = f"The value of '{key}' has no domain for {leaf.key}: {', '.join(missing)}; add it in {source}."
            yield Problem(key=key, sentence=sentence)
    left_out = {key: 0.0 for key, leaf in space.items() if key.startswith("loss.") and _may_be_zero(leaf)}
    yield from _problems_of_trial(largest_settings(space, left_out), own, source)


def largest_settings(space: Leaves, chosen: Settings) -> dict[str, Value]:
    """The settings of a trial: those `chosen`, and the largest or last value of every other leaf."""
    settings = {key: chosen[key] if key in chosen else _largest(leaf) for key, leaf in space.items()}
    for key, leaf in space.items():
        if isinstance(leaf, Per) and key not in chosen:
            settings[key] = _largest(_domain(leaf, settings.get(leaf.key)))
    return settings


def _trials(space: Leaves) -> Iterator[dict[str, Value]]:
    """The settings of one trial for every bound and choice of every domain."""
    yield largest_settings(space, {})
    for key, leaf in space.items():
        if isinstance(leaf, Per):
            for case in representatives(space.get(leaf.key)):
                for value in representatives(_domain(leaf, case)):
                    yield largest_settings(space, {leaf.key: case, key: value})
        elif isinstance(leaf, Domain):
            for value in representatives(leaf):
                yield largest_settings(space, {key: value})


def _problems_of_trial(settings: Settings, own: Sequence[PluginRecord], source: str) -> Iterator[Problem]:
    values = nest(settings)
    families = {name: name in plugin.with_dropout for plugin in own for name in plugin.families}
    found: list[Problem] = []
    try:
        build(TrialConfig, values, source=source)
    except ConfigError as error:
        found += error.problems
    if not any(problem.key.startswith("model") for problem in found):
        try:
            check_model(build(TrialConfig, {"model": values["model"]}, source=source).model, source, families)
        except ConfigError as error:
            found += error.problems
    yield from found


def _required_reference(key: str, leaf: Per, space: Leaves) -> str:
    """What the key of a `per` must be; '' if it is valid."""
    if leaf.key not in space or isinstance(space[leaf.key], Per):
        return "the name of another leaf such as optimizer.name"
    if isinstance(space[leaf.key], Range) or _is_optional(leaf.key, key, space):
        return "a leaf of a single value or {choices} that every trial has, such as optimizer.name"
    return ""


def _is_optional(key: str, seen_from: str, space: Leaves) -> bool:
    """Whether some trials with the leaf `seen_from` lack the leaf `key`, because it belongs to one `name`."""
    section, *inner = key.split(".")
    part = [section, *inner[:1]]
    return len(inner) > 1 and f"{section}.name" in space and seen_from.split(".")[:2] != part


def _may_be_zero(leaf: Leaf) -> bool:
    """Whether a domain contains 0 with a positive probability."""
    match leaf:
        case Range(low=low, high=high, or_zero=or_zero):
            return or_zero or low == high == 0
        case Choices():
            return leaf.has(0)
        case Per(domains=domains):
            return all(_may_be_zero(case) for case in domains.values())
    return False


def _domain(leaf: Per, case: Value) -> Range | Choices:
    """The domain for a value of the other leaf; the first one if it is missing, which is reported elsewhere."""
    return leaf.for_value(case) or next(iter(leaf.domains.values()))


def _largest(leaf: Leaf) -> Value:
    values = representatives(leaf)
    numbers = [value for value in values if isinstance(value, int | float)]
    return max(numbers, default=values[-1])
