"""The YAML file a user writes: what to search, with how much, and on what.

Any leaf of the sections data, model, loss, optimizer and policy is a value, a range `{low, high, log}`, a list
`{choices}`, or one of these for each value of another leaf, `{per: KEY, VALUE: …}`. What a file leaves out is as in
`DEFAULT_SPACE`, and where that is silent, as in `TrialConfig`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.errors import InputError
from search.default_space import DEFAULT_SPACE
from search.domains import Choices, Domain, Per, Range, as_floats, parse_leaf, representatives
from search.plan import Plan
from trainable.config import TrialConfig, build
from trainable.config.text import parse_yaml, read_yaml


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """A spec that was checked: every domain's bounds and choices are values that a trial accepts."""

    data_path: str
    space: Mapping[str, Any]
    """Nested: sections of `TrialConfig` down to leaves, each a plain value or a `Domain`."""
    plan: Plan

    def anywhere(self) -> SearchSpec:
        """The same with an absolute path to the data, so that it means the same from every directory."""
        return replace(self, data_path=str(Path(self.data_path).absolute()))

    def with_retraining(self, epochs: int) -> SearchSpec:
        """The same with a retraining of so many epochs.

        Raises:
            InputError: if the number is not positive.
        """
        values = self.as_plain()
        values["retrain"]["epochs"] = epochs
        return check_spec(values, source="--epochs")

    def as_plain(self) -> dict[str, Any]:
        """The whole spec as YAML and JSON can hold it; `load_spec` reads it back as it is."""
        tree = _plain(self.space)
        return {"data": {"path": self.data_path, **tree.pop("data")}, **tree, **self.plan.model_dump()}


def load_spec(
    path: Path | None = None, overrides: Sequence[tuple[str, str]] = (), *, data_path: str | None = None
) -> SearchSpec:
    """Read and check a spec.

    Args:
        path: a YAML file; None takes the defaults.
        overrides: (dotted key, YAML text) pairs, which win over the file.
        data_path: the data set, which wins over `data.path`.

    Raises:
        InputError: at the first key or value that does not fit, naming it and where it came from.
    """
    given = read_yaml(path, "spec") if path else {}
    for key, text in overrides:
        _insert(given, key, text)
    sources = [f"'{path}'"] if path else []
    source = " or ".join([*sources, "the command line"] if overrides else sources) or "the spec"
    return check_spec(given, source=source, data_path=data_path)


def check_spec(given: Mapping[str, Any], *, source: str, data_path: str | None = None) -> SearchSpec:
    """A spec from nested plain values; `source` is where they came from, for the errors.

    Raises:
        InputError: at the first key or value that does not fit.
    """
    schema = TrialConfig().model_dump()
    sections = [name for name, section in schema.items() if isinstance(section, dict)]
    for name, values in given.items():
        if name not in (*sections, *Plan.model_fields):
            known = ", ".join((*sections, *Plan.model_fields))
            raise InputError(f"The section '{name}' is not known; use one of {known} in {source}.")
        if not isinstance(values, Mapping):
            raise InputError(f"The section '{name}' is {values!r}, but must hold keys; correct it in {source}.")
    values = copy.deepcopy(dict(given))
    data = dict(values.get("data", {}))
    data_path = data_path or data.pop("path", None)
    data.pop("path", None)
    if data_path is None:
        raise InputError("The data set is missing; give --data, or set data.path in the spec.")
    if not isinstance(data_path, str):
        raise InputError(f"The value of 'data.path' is {data_path!r}, but must be a directory; correct it in {source}.")
    values["data"] = data
    plan_values = {name: values.pop(name) for name in Plan.model_fields if name in values}
    plan = build(Plan, plan_values, source=source)
    tree = {name: schema[name] for name in sections}
    space = _merge(_merge(tree, DEFAULT_SPACE, (), source="the defaults"), values, (), source=source)
    space = _typed(space, tree)
    _check_ranges(space, tree, source)
    _check_fixed(space, source)
    _check_values(space, source)
    _check_conditions(space, source)
    return SearchSpec(data_path=data_path, space=space, plan=plan)


def leaves(space: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value or `Domain`) of every leaf, in order."""
    for name, node in space.items():
        if isinstance(node, Mapping):
            yield from leaves(node, (*prefix, name))
        else:
            yield (*prefix, name), node


def replace_leaf(space: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of nested mappings in which the leaf at `path` is `value`."""
    first, *rest = path
    return {**space, first: replace_leaf(space.get(first, {}), rest, value) if rest else value}


def at(values: Mapping[str, Any], key: str) -> Any:
    """What lies at a dotted key of nested mappings; None where nothing does."""
    node: Any = values
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _merge(
    tree: Mapping[str, Any], given: Mapping[str, Any], prefix: tuple[str, ...], *, source: str
) -> dict[str, Any]:
    """`tree` with the leaves that `given` names replaced; `tree` says which keys there are."""
    merged = dict(tree)
    for name, value in given.items():
        key = ".".join((*prefix, str(name)))
        if name not in tree:
            known = ", ".join(str(known) for known in tree)
            raise InputError(f"The key '{key}' is not known; use one of {known} in {source}.")
        if not isinstance(tree[name], Mapping):
            merged[name] = parse_leaf(key, value, source=source)
        elif isinstance(value, Mapping):
            merged[name] = _merge(tree[name], value, (*prefix, str(name)), source=source)
        else:
            raise InputError(
                f"The value of '{key}' is {value!r}, but must hold keys such as '{next(iter(tree[name]))}'; "
                f"correct it in {source}."
            )
    return merged


def _typed(space: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`space` with whole numbers as floats where the field is one: a range of 0 to 1 means all between them."""
    typed: dict[str, Any] = {}
    for name, node in space.items():
        if isinstance(node, Mapping):
            typed[name] = _typed(node, defaults[name])
        else:
            typed[name] = as_floats(node) if isinstance(defaults[name], float) else node
    return typed


def _check_ranges(space: Mapping[str, Any], defaults: Mapping[str, Any], source: str) -> None:
    """Only what is a number has a range."""
    default_of = dict(leaves(defaults))
    for path, leaf in leaves(space):
        cases = list(leaf.domains.values()) if isinstance(leaf, Per) else [leaf]
        if isinstance(default_of[path], bool | str) and any(isinstance(case, Range) for case in cases):
            raise InputError(
                f"The value of '{'.'.join(path)}' is a range, but must be a value or {{choices}}, for it is no number; "
                f"correct it in {source}."
            )


def _check_fixed(space: Mapping[str, Any], source: str) -> None:
    """What the metrics are taken on is the same for every trial; otherwise scores could not be compared."""
    for path, leaf in leaves(space):
        if isinstance(leaf, Domain) and path[:2] in {("data", "image_size"), ("data", "split_by"), ("data", "split")}:
            raise InputError(
                f"The value of '{'.'.join(path)}' is {leaf.as_plain()}, but must be a single value, for scores on "
                f"other pictures cannot be compared; correct it in {source}."
            )


def _check_conditions(space: Mapping[str, Any], source: str) -> None:
    """Every `per` names a leaf of its own standing, and has a domain for each of its values."""
    nodes = {".".join(path): leaf for path, leaf in leaves(space)}
    for key, leaf in nodes.items():
        if not isinstance(leaf, Per):
            continue
        if leaf.key not in nodes or isinstance(nodes[leaf.key], Per):
            raise InputError(
                f"The value of '{key}.per' is '{leaf.key}', but must be the name of another leaf such as "
                f"optimizer.name; correct it in {source}."
            )
        other = nodes[leaf.key]
        if isinstance(other, Range) or _is_optional(leaf.key, key, nodes):
            raise InputError(
                f"The value of '{key}.per' is '{leaf.key}', but must be a leaf of a single value or {{choices}} that "
                f"every trial has, such as optimizer.name; correct it in {source}."
            )
        values = representatives(other) if isinstance(other, Domain) else [other]
        missing = [str(value) for value in values if str(value) not in leaf.domains]
        if missing:
            raise InputError(
                f"The value of '{key}' has no domain for {leaf.key}: {', '.join(missing)}; add it in {source}."
            )


def _is_optional(key: str, seen_from: str, nodes: Mapping[str, Any]) -> bool:
    """Whether a leaf is missing in some trials that have the other: it belongs to one of its section's names."""
    section, *inner = key.split(".")
    part = [section, *inner[:1]]
    return len(inner) > 1 and f"{section}.name" in nodes and seen_from.split(".")[:2] != part


def _check_values(space: Mapping[str, Any], source: str) -> None:
    """Build a trial from every bound and choice of every domain, with the others at a value of theirs."""
    _check_trial(settled(space, {}), source)
    nodes = {".".join(path): leaf for path, leaf in leaves(space)}
    for key, leaf in nodes.items():
        if isinstance(leaf, Per):
            for case in _values(nodes.get(leaf.key)):
                for value in representatives(_domain(leaf, case)):
                    _check_trial(settled(space, {leaf.key: case, key: value}), source)
        elif isinstance(leaf, Domain):
            for value in representatives(leaf):
                _check_trial(settled(space, {key: value}), source)


def settled(space: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial of `space`: those `chosen` by dotted key, and the largest or last of every other domain."""
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


def _domain(leaf: Per, case: Any) -> Range | Choices:
    """The leaf's domain for a value of the other leaf; its first one where `_check_conditions` has yet to complain."""
    return leaf.domains.get(str(case), next(iter(leaf.domains.values())))


def _largest(domain: Domain) -> Any:
    candidates = representatives(domain)
    numbers = [value for value in candidates if isinstance(value, int | float)]
    return max(numbers, default=candidates[-1])


def _values(leaf: Any) -> list[Any]:
    return representatives(leaf) if isinstance(leaf, Domain) else [leaf]


def _check_trial(values: Mapping[str, Any], source: str) -> None:
    from trainable.models import check_model  # imports torch, which nothing else here needs

    check_model(build(TrialConfig, values, source=source).model, source)


def _plain(space: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, node in space.items():
        if isinstance(node, Mapping):
            plain[name] = _plain(node)
        else:
            plain[name] = node.as_plain() if isinstance(node, Domain) else node
    return plain


def _insert(values: dict[str, Any], key: str, text: str) -> None:
    """Set the leaf at a dotted key, making the mappings on the way."""
    *sections, leaf = key.split(".")
    if not sections:
        raise InputError(f"The key '{key}' of --set names no section; write --set SECTION.KEY=VALUE.")
    node = values
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise InputError(f"The key '{key}' of --set lies below a value; remove that from the spec.")
        node = child
    node[leaf] = parse_yaml(text, f"--set {key}")
