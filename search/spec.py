"""The YAML file a user writes: what to search, with how much, and on what.

Any leaf of the sections data, model, loss, optimizer and policy is a value, a range `{low, high, log}`, a list
`{choices}`, or one of these for each value of another leaf, `{per: KEY, VALUE: …}`. What a file leaves out is as in
`DEFAULT_SPACE`, and where that is silent, as in `TrialConfig`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from data.errors import InputError
from search.domains import Domain, Per, as_floats, parse_leaf, representatives
from trainable.config import Section, TrialConfig, build

WEIGHT = {"low": 0.05, "high": 2.0, "log": True}

DEFAULT_SPACE: dict[str, Any] = {
    "model": {"width": {"choices": [8, 16, 32]}},
    "loss": {
        "mask": {"bce": WEIGHT, "dice": WEIGHT, "l1": WEIGHT},
        "depth": {"l1": WEIGHT, "ssim": WEIGHT, "edge": WEIGHT},
    },
    "optimizer": {
        "name": {"choices": ["sgd", "adamw"]},
        "lr": {
            "per": "optimizer.name",
            "sgd": {"low": 1e-2, "high": 1.0, "log": True},
            "adamw": {"low": 3e-4, "high": 2e-2, "log": True},
        },
        "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    },
    "policy": {
        "name": {"choices": ["constant", "step", "plateau", "cyclic", "onecycle", "cosine"]},
        "warmup": {"low": 0.0, "high": 0.2},
        "step": {"every": {"low": 0.1, "high": 0.5}, "factor": {"low": 0.1, "high": 0.7}},
        "plateau": {"patience": {"low": 0.0, "high": 0.3}, "factor": {"low": 0.1, "high": 0.7}},
        "cyclic": {"period": {"low": 0.2, "high": 1.0}, "floor": {"low": 1e-3, "high": 0.1, "log": True}},
        "onecycle": {"pct_start": {"low": 0.1, "high": 0.5}, "div": {"low": 3.0, "high": 30.0, "log": True}},
        "cosine": {"floor": {"low": 0.0, "high": 0.1}},
    },
}
"""What is searched unless a spec says otherwise."""


class SchedulerConfig(Section):
    """How long trials run, and when ASHA stops them."""

    max_epochs: Annotated[int, Field(ge=1)] = 9
    """Epochs of a whole trial."""
    grace_epochs: Annotated[int, Field(ge=1)] = 1
    """No trial is stopped before it ran so many epochs."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3
    """Of the trials that reach a rung, one in so many goes on; the next rung is so many times as far."""

    @model_validator(mode="after")
    def _grace_fits(self) -> SchedulerConfig:
        if self.grace_epochs > self.max_epochs:
            raise ValueError(f"have grace_epochs at most max_epochs, which is {self.max_epochs}")
        return self


class BudgetConfig(Section):
    """When the search ends, whichever comes first."""

    trials: Annotated[int, Field(ge=1)] = 20
    hours: Annotated[float, Field(gt=0)] | None = None
    """Wall time of the search, without the retraining; trials that run then are stopped."""


class ResourcesConfig(Section):
    """What each trial may use."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that share a trial."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """A fraction lets several trials share a GPU; 'auto' is one GPU a worker where the cluster has any."""
    concurrent: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Trials at a time; 'auto' is as many as fit."""


class SearchConfig(Section):
    """How configurations are proposed."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of the proposals and of every trial's weights and order of samples."""
    start_from: list[Literal["default"]] = Field(default=["default"])
    """Configurations to try first: 'default' is that of `TrialConfig`, as far as it lies within the space."""


class RetrainConfig(Section):
    """What happens to the best configuration."""

    enabled: bool = True
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs of the retraining; as many as a whole trial when left out."""


class Plan(Section):
    """The sections that are never searched."""

    scheduler: SchedulerConfig = SchedulerConfig()
    budget: BudgetConfig = BudgetConfig()
    resources: ResourcesConfig = ResourcesConfig()
    search: SearchConfig = SearchConfig()
    retrain: RetrainConfig = RetrainConfig()


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """A spec that was checked: every domain's bounds and choices are values that a trial accepts."""

    data_path: str
    space: Mapping[str, Any]
    """Nested: sections of `TrialConfig` down to leaves, each a plain value or a `Domain`."""
    plan: Plan

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
    given = _read(path) if path else {}
    source = f"'{path}'" if path else "the spec"
    for key, text in overrides:
        _insert(given, key, text)
    if overrides and not path:
        source = "--set"
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
    if not isinstance(data_path, str):
        raise InputError("The data set is missing; give --data, or set data.path in the spec.")
    values["data"] = data
    plan_values = {name: values.pop(name) for name in Plan.model_fields if name in values}
    plan = build(Plan, plan_values, source=source)
    tree = {name: schema[name] for name in sections}
    space = _merge(_merge(tree, DEFAULT_SPACE, (), source="the defaults"), values, (), source=source)
    space = _typed(space, tree)
    _check_fixed(space, source)
    _check_conditions(space, source)
    _check_values(space, source)
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
        values = representatives(other) if isinstance(other, Domain) else [other]
        missing = [str(value) for value in values if str(value) not in leaf.domains]
        if missing:
            raise InputError(
                f"The value of '{key}' has no domain for {leaf.key}: {', '.join(missing)}; add it in {source}."
            )


def _check_values(space: Mapping[str, Any], source: str) -> None:
    """Build a trial from every bound and choice of every domain, with the others at a value of theirs."""
    domains = [(path, leaf) for path, leaf in leaves(space) if isinstance(leaf, Domain)]
    sample = dict(space)
    for path, domain in domains:
        sample = replace_leaf(sample, path, representatives(domain)[-1])
    build(TrialConfig, sample, source=source)
    for path, domain in domains:
        for value in representatives(domain):
            build(TrialConfig, replace_leaf(sample, path, value), source=source)


def _plain(space: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, node in space.items():
        if isinstance(node, Mapping):
            plain[name] = _plain(node)
        else:
            plain[name] = node.as_plain() if isinstance(node, Domain) else node
    return plain


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, which YAML 1.1 takes for a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The spec '{path}' cannot be read ({error}); give a YAML file.") from None
    values = _parse(text, f"the spec '{path}'")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"The spec '{path}' must hold sections such as 'data:'; correct it.")
    return values


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1} of " if mark else ""
        raise InputError(f"There is no valid YAML at {place}{source}: {error.problem}; correct it.") from None


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
    node[leaf] = _parse(text, f"--set {key}")
