"""Checks of a whole spec: values that trials do not accept, and invalid `per` conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search.spec.domains import Choices, Domain, Per, Range, representatives
from search.spec.tree import at, leaves, replace_leaf
from trainable.config import ConfigError, ModelConfig, Problem, TrialConfig, build

_NOT_SEARCHABLE = {("data", "image_size"), ("data", "split_by"), ("data", "split")}
"""Keys that must not be searched, since scores on different images cannot be compared."""


def problems_of_values(space: Mapping[str, Any], source: str) -> Iterator[Problem]:
    """Problems of single leaves: values that trials do not accept, and keys that must not be searched.

    Args:
        space: nested values and domains, with the sections and types of `TrialConfig`.
        source: their origin, for error messages.
    """
    default_of = dict(leaves(TrialConfig().model_dump()))
    for path, leaf in leaves(space):
        key = ".".join(path)
        cases = list(leaf.domains.values()) if isinstance(leaf, Per) else [leaf]
        if isinstance(default_of[path], bool | str) and any(isinstance(case, Range) for case in cases):
            sentence = f"The value of '{key}' is a range, but must be a value or {{choices}}, as it is not a number; "
            yield Problem(key=key, sentence=f"{sentence}correct it in {source}.")
        elif isinstance(leaf, Domain) and path[:2] in _NOT_SEARCHABLE:
            sentence = f"The value of '{key}' is {leaf.as_plain()}, but must be a single value, as scores on other "
            yield Problem(key=key, sentence=f"{sentence}images cannot be compared; correct it in {source}.")
    seen = set()
    for values in _trials(space):
        for problem in _problems_of_trial(values, source):
            if problem.sentence not in seen:
                seen.add(problem.sentence)
                yield problem


def problems_of_conditions(space: Mapping[str, Any], source: str) -> Iterator[Problem]:
    """Problems of `per` leaves: the other leaf must be valid, and each of its values must have a domain."""
    nodes = {".".join(path): leaf for path, leaf in leaves(space)}
    for key, leaf in nodes.items():
        if not isinstance(leaf, Per):
            continue
        if wanted := _required_reference(key, leaf, nodes):
            sentence = f"The value of '{key}.per' is '{leaf.key}', but must be {wanted}; correct it in {source}."
            yield Problem(key=f"{key}.per", sentence=sentence)
        elif missing := _missing_cases(leaf, nodes):
            sentence = f"The value of '{key}' has no domain for {leaf.key}: {', '.join(missing)}; add it in {source}."
            yield Problem(key=key, sentence=sentence)
    left_out = {key: 0.0 for key, leaf in nodes.items() if _may_be_zero(leaf) and key.startswith("loss.")}
    yield from _problems_of_trial(largest_values(space, left_out), source)


def largest_values(space: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial: those `chosen` by dotted key, and the largest or last value of every other domain."""
    values = dict(space)
    for path, leaf in sorted(leaves(space), key=lambda item: isinstance(item[1], Per)):
        key = ".".join(path)
        if key in chosen:
            values = replace_leaf(values, path, chosen[key])
        elif isinstance(leaf, Per):
            values = replace_leaf(values, path, _largest(_domain(leaf, at(values, leaf.key))))
        elif isinstance(leaf, Domain):
            values = replace_leaf(values, path, _largest(leaf))
    return values


def _trials(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The values of one trial for every bound and choice of every domain."""
    yield largest_values(space, {})
    nodes = {".".join(path): leaf for path, leaf in leaves(space)}
    for key, leaf in nodes.items():
        if isinstance(leaf, Per):
            decides = nodes.get(leaf.key)
            for case in representatives(decides) if isinstance(decides, Domain) else [decides]:
                for value in representatives(_domain(leaf, case)):
                    yield largest_values(space, {leaf.key: case, key: value})
        elif isinstance(leaf, Domain):
            for value in representatives(leaf):
                yield largest_values(space, {key: value})


def _problems_of_trial(values: Mapping[str, Any], source: str) -> Iterator[Problem]:
    from trainable.models import check_model  # imports torch, which nothing else here needs

    found: list[Problem] = []
    try:
        build(TrialConfig, values, source=source)
    except ConfigError as error:
        found += error.problems
    if not any(problem.key.startswith("model") for problem in found):
        try:
            check_model(build(ModelConfig, values["model"], source=source), source)
        except ConfigError as error:
            found += error.problems
    yield from found


def _required_reference(key: str, leaf: Per, nodes: Mapping[str, Any]) -> str:
    """What the key of a `per` must be; '' if it is valid."""
    if leaf.key not in nodes or isinstance(nodes[leaf.key], Per):
        return "the name of another leaf such as optimizer.name"
    if isinstance(nodes[leaf.key], Range) or _is_optional(leaf.key, key, nodes):
        return "a leaf of a single value or {choices} that every trial has, such as optimizer.name"
    return ""


def _missing_cases(leaf: Per, nodes: Mapping[str, Any]) -> list[str]:
    """Values of the other leaf without a domain."""
    other = nodes[leaf.key]
    values = representatives(other) if isinstance(other, Domain) else [other]
    return [str(value) for value in values if str(value) not in leaf.domains]


def _is_optional(key: str, seen_from: str, nodes: Mapping[str, Any]) -> bool:
    """Whether some trials with the leaf `seen_from` lack the leaf `key`, because it belongs to one `name`."""
    section, *inner = key.split(".")
    part = [section, *inner[:1]]
    return len(inner) > 1 and f"{section}.name" in nodes and seen_from.split(".")[:2] != part


def _may_be_zero(leaf: Any) -> bool:
    """Whether a domain contains 0 with a positive probability."""
    match leaf:
        case Range(low=low, high=high, or_zero=or_zero):
            return or_zero or low == high == 0
        case Choices():
            return leaf.has(0)
        case Per(domains=domains):
            return all(_may_be_zero(case) for case in domains.values())
    return False


def _domain(leaf: Per, case: Any) -> Range | Choices:
    """The domain for a value of the other leaf; the first one if it is missing, which is reported elsewhere."""
    return leaf.domains.get(str(case), next(iter(leaf.domains.values())))


def _largest(domain: Domain) -> Any:
    candidates = representatives(domain)
    numbers = [value for value in candidates if isinstance(value, int | float)]
    return max(numbers, default=candidates[-1])
