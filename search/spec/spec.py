"""The spec of a search: a YAML file with the data set, the search space, the budget and the resources.

A leaf of the sections data, model, loss, optimizer and policy is a value, a range `{low, high, log}`, a list
`{choices}`, or one of these for each value of another leaf, `{per: KEY, VALUE: …}`. With `or_zero: true`, a range
includes 0, with a probability of one half. The keys of a policy are searched only in trials with that policy, and those
of a loss only if the loss has a weight. Keys that are left out have the values that `twinhead spec` prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from data.augment.catalog import by_name
from data.dataset.storage import Location
from data.errors import InputError, did_you_mean
from search.spec.checks import largest_settings, problems_of_conditions, problems_of_values
from search.spec.constraints import problems_of_limits
from search.spec.default_space import TRANSFORMS, default_space, defaults_with, is_argument, names_of_sections
from search.spec.domains import Leaf, Leaves, as_floats, as_plain, parse_leaf, representatives
from search.spec.locate import with_locations
from search.spec.sampler import problems_of_sampler
from search.spec.sections import NAME, Plan
from search.spec.study_url import problems_of_study
from search.spec.trackers import problems_of_logging
from trainable.config import ConfigError, Problem, Section, TrialConfig, build
from trainable.config.settings import Settings, Value, nest
from trainable.config.text import as_json, parse_yaml, read_yaml
from trainable.plugins.active import are_active
from trainable.plugins.listed import load_plugins_of, records_in


def _directory_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("be up to 100 letters, digits, '.', '_' and '-', starting with a letter or digit")
    return name


class Subject(Section):
    """The name of a search and its data."""

    name: Annotated[str, AfterValidator(_directory_name)] | None = None
    """Name of the search and of its directory in the storage; default: the name of the file."""
    path: Annotated[str, Field(min_length=1)]
    """The data set: a directory, or a URL such as s3://bucket/prefix."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """Number of training samples for the trials, chosen by search.seed, in whole backgrounds if the split is by
    background; default: all. Validation and retraining always use all samples."""


DATA_KEYS = ("path", "samples")
"""Keys of the section `data` that are not in `TrialConfig`."""
OBJECTIVE_KEYS = ("objective", "objectives")
"""The first one is short for a list of one."""
PLAIN_KEYS = ("name", *OBJECTIVE_KEYS, "plugins")
"""Top-level keys that are not sections."""


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """A checked spec: all bounds and choices are valid values of a trial."""

    subject: Subject
    space: Leaves
    """A plain value or a `Domain` for each key of `defaults`."""
    plan: Plan

    @property
    def data_path(self) -> str:
        """Directory or URL of the data set."""
        return self.subject.path

    @property
    def defaults(self) -> Settings:
        """The default of each leaf, of built-in parts and of those of plugins."""
        return defaults_with(self.plan.plugins, filter(is_argument, self.space))

    def with_absolute_path(self) -> SearchSpec:
        """A copy with an absolute path of the data set, which is valid in every working directory."""
        path = str(Location.parse(self.data_path).absolute())
        return replace(self, subject=self.subject.model_copy(update={"path": path}))

    def with_retraining(self, epochs: int | None = None, cpus: int | None = None) -> SearchSpec:
        """A copy with other epochs and CPUs of the retraining; None keeps a value.

        Raises:
            ConfigError: if a number is not positive.
        """
        changes = {key: value for key, value in (("epochs", epochs), ("cpus", cpus)) if value is not None}
        source = " or ".join(f"--{key}" for key in changes) or "the spec"
        retrain = self.plan.retrain.model_dump() | changes
        return replace(self, plan=build(Plan, self.plan.model_dump() | {"retrain": retrain}, source=source))

    def largest_trial(self, chosen: Settings | None = None) -> TrialConfig:
        """The trial with the largest value of every numeric domain and the last of every other.

        Args:
            chosen: values by dotted key, instead of the largest.
        """
        shared = {"epochs": self.plan.scheduler.max_epochs, "seed": self.plan.search.seed}
        return build(TrialConfig, nest(largest_settings(self.space, chosen or {}) | shared), source="the spec")

    def largest_trials(self) -> Iterator[TrialConfig]:
        """The largest trial of each family of the space."""
        for family in representatives(self.space["model.family"]):
            yield self.largest_trial({"model.family": family})

    def as_plain(self) -> dict[str, Value]:
        """The spec as plain values for YAML and JSON, which `check_spec` accepts."""
        subject = self.subject.model_dump()
        name = {"name": subject["name"]} if subject["name"] else {}
        space = {key: as_plain(leaf) for key, leaf in self.space.items()}
        return {**name, **nest({f"data.{key}": subject[key] for key in DATA_KEYS} | space), **self.plan.model_dump()}


def load_spec(
    path: Path | Mapping[str, Value] | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    *,
    data_path: str | None = None,
    name: str | None = None,
    is_stored: bool = False,
) -> SearchSpec:
    """Read and check a spec.

    Args:
        path: a YAML file, or its values; None for the defaults.
        overrides: (dotted key, YAML text) pairs, which override the file.
        data_path: the data set; overrides `data.path`.
        name: of the search; overrides `name`.
        is_stored: whether it is that of an experiment, whose plugins are not run; those of others are loaded.

    Raises:
        InputError: if the file cannot be read; ConfigError with all wrong keys and values. Problems in the file have
            their location, FILE:LINE:COLUMN.
    """
    file = path if isinstance(path, Path) else None
    sources = [f"'{file}'"] if file else []
    source = " or ".join([*sources, "the command line"] if overrides and not isinstance(path, Mapping) else sources)
    source = source or "the spec"
    try:
        plain = read_yaml(file, "spec") if file else as_json(path or {})
        for key, text in overrides:
            _insert(plain, key, text)
        if not is_stored:
            plain = load_plugins_of(plain, file.parent if file else Path(), source)
        return check_spec(plain, source=source, data_path=data_path, name=name)
    except InputError as error:
        raise with_locations(error, file, overridden=[key for key, _ in overrides]) from None


def check_spec(
    plain: Mapping[str, Value], *, source: str, data_path: str | None = None, name: str | None = None
) -> SearchSpec:
    """Check nested plain values, and convert them to a spec.

    Args:
        plain: the values of a YAML file.
        source: their origin, for error messages.
        data_path: the data set; overrides `data.path`.
        name: of the search; overrides `name`.

    Raises:
        ConfigError: with all wrong keys and values that can be found at once.
    """
    problems: list[Problem] = []
    own = records_in(plain, source)
    plain, arguments = _with_transforms_by_name(plain, source, problems)
    defaults = defaults_with(own, arguments)
    names = names_of_sections(defaults)
    values = _sections(plain, [*names[""], *Plan.model_fields], source, problems)
    subject = _subject(values, source, data_path, name, problems)
    plan = _plan(values, source, problems)
    problems += problems_of_sampler(plan.search.sampler, len(plan.objectives), source)
    problems += problems_of_study(plan.search.study, source)
    problems += problems_of_logging(plan.logging, source)
    searched = default_space({name: name in each.with_dropout for each in own for name in each.families})
    leaves = {**defaults, **searched, **_leaves(values, "", names, defaults, source, problems)}
    # {0, 1} is a continuous range where the field is a float.
    space = {key: as_floats(leaf) if isinstance(defaults[key], float) else leaf for key, leaf in leaves.items()}
    problems += problems_of_values(space, defaults, own, source)
    if not problems:
        problems += problems_of_conditions(space, own, source)
    if not problems:
        problems += problems_of_limits(space, plan.constraints, source) if are_active(own) else []
    if problems or subject is None:
        raise ConfigError(problems)
    return SearchSpec(subject=subject, space=space, plan=plan)


def _with_transforms_by_name(
    plain: Mapping[str, Value], source: str, problems: list[Problem]
) -> tuple[Mapping[str, Value], list[str]]:
    """The values with the arguments of each transform of albumentations by its name, and the dotted keys of these."""
    data = plain.get("data")
    augment = data.get("augment") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(augment, Mapping) or "transforms" not in augment:
        return plain, []
    transforms: dict[str, dict[str, Value]] = {}
    try:
        transforms = by_name(augment["transforms"])
    except ValueError as error:
        said = f"is {augment['transforms']!r}, but must {error}"
        sentence = f"The value of '{TRANSFORMS}' {said}; correct it in {source}."
        problems.append(Problem(key=TRANSFORMS, sentence=sentence))
    arguments = [f"{TRANSFORMS}.{name}.{argument}" for name, given in transforms.items() for argument in given]
    return {**plain, "data": {**data, "augment": {**augment, "transforms": transforms}}}, arguments


def _sections(
    plain: Mapping[str, Value], known: Sequence[str], source: str, problems: list[Problem]
) -> dict[str, Value]:
    """The known sections and plain keys; the others are added to `problems`."""
    values: dict[str, Value] = {}
    for key, section in plain.items():
        if key in PLAIN_KEYS:
            values[key] = section
        elif key not in known:
            meant = did_you_mean(str(key), known)
            sentence = f"The section '{key}' is not known; use one of {', '.join(known)} in {source}{meant}."
            problems.append(Problem(key=str(key), sentence=sentence, is_key=True))
        elif not isinstance(section, Mapping):
            sentence = f"The section '{key}' is {section!r}, but must have keys; correct it in {source}."
            problems.append(Problem(key=str(key), sentence=sentence))
        else:
            values[key] = section
    return values


def _plan(values: dict[str, Value], source: str, problems: list[Problem]) -> Plan:
    """Remove the keys of `Plan` from `values`; the default plan if they have problems."""
    if set(OBJECTIVE_KEYS) <= values.keys():
        sentence = f"The keys 'objective' and 'objectives' are the same setting; keep one of them in {source}."
        problems.append(Problem(key="objective", sentence=sentence, is_key=True))
    is_single = "objective" in values
    if is_single:
        values["objectives"] = [values.pop("objective")]
    try:
        return build(Plan, {key: values.pop(key) for key in Plan.model_fields if key in values}, source=source)
    except ConfigError as error:
        problems += [_about_objective(each) if is_single else each for each in error.problems]
        return Plan()


def _about_objective(problem: Problem) -> Problem:
    """A problem of the only objective, which the spec names `objective`."""
    if problem.key not in ("objectives", "objectives.0"):
        return problem
    value = problem.value[0] if problem.key == "objectives" and isinstance(problem.value, list) else problem.value
    sentence = problem.sentence.replace(f"'{problem.key}' is {problem.value!r}", f"'objective' is {value!r}", 1)
    return replace(problem, key="objective", sentence=sentence, value=value)


def _subject(
    values: dict[str, Value], source: str, data_path: str | None, name: str | None, problems: list[Problem]
) -> Subject | None:
    """Remove the keys of `Subject` from `values`; None if they have problems."""
    data = values.get("data", {})
    assert isinstance(data, Mapping)  # noqa: S101  by `_sections`
    own = {key: data[key] for key in DATA_KEYS if key in data}
    values["data"] = {key: value for key, value in data.items() if key not in DATA_KEYS}
    own |= {"path": data_path} if data_path is not None else {}
    named = name or values.get("name")
    values.pop("name", None)
    if own.get("path") is None:
        problems.append(
            Problem(key="data.path", sentence="The data set is missing; give --data, or set data.path in the spec.")
        )
        own["path"] = "nowhere"
    elif not isinstance(own["path"], str):
        sentence = f"The value of 'data.path' is {own['path']!r}, but must be a directory; correct it in {source}."
        problems.append(Problem(key="data.path", sentence=sentence))
        own["path"] = "nowhere"
    try:
        return build(Subject, {"name": named, **own}, source=source)
    except ConfigError as error:
        for problem in error.problems:
            key = f"data.{problem.key}" if problem.key in DATA_KEYS else problem.key
            sentence = problem.sentence.replace(f"'{problem.key}'", f"'{key}'", 1)
            problems.append(replace(problem, key=key, sentence=sentence))
        return None


def _leaves(
    section: Mapping[str, Value],
    prefix: str,
    names: Mapping[str, Sequence[str]],
    defaults: Settings,
    source: str,
    problems: list[Problem],
) -> dict[str, Leaf]:
    """The leaves in a section of a spec by dotted key; keys that are not in `names` are problems."""
    leaves: dict[str, Leaf] = {}
    for name, value in section.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if name not in names[prefix]:
            known = [*(DATA_KEYS if prefix == "data" else ()), *names[prefix]]
            meant = did_you_mean(str(name), known)
            sentence = f"The key '{key}' is not known; use one of {', '.join(known)} in {source}{meant}."
            problems.append(Problem(key=key, sentence=sentence, is_key=True))
        elif key in defaults:
            try:
                leaves[key] = parse_leaf(key, value, source=source)
            except ConfigError as error:
                problems += error.problems
        elif isinstance(value, Mapping):
            leaves |= _leaves(value, key, names, defaults, source, problems)
        else:
            wanted = f"must have keys such as '{names[key][0]}'"
            sentence = f"The value of '{key}' is {value!r}, but {wanted}; correct it in {source}."
            problems.append(Problem(key=key, sentence=sentence))
    return leaves


def _insert(values: dict[str, Value], key: str, text: str) -> None:
    """Set the leaf at a dotted key, and create missing mappings."""
    *sections, leaf = key.split(".")
    if (top := key.partition(".")[0]) in OBJECTIVE_KEYS:
        values.pop(next(other for other in OBJECTIVE_KEYS if other != top), None)
    if not sections and leaf not in PLAIN_KEYS:
        raise InputError(f"The key '{key}' of --set has no section; write --set SECTION.KEY=VALUE.")
    node = values
    for section in sections:
        child = node.setdefault(section, {})
        if section == "transforms" and is_argument(key):
            with suppress(ValueError):  # it is reported when the spec is checked
                child = node[section] = by_name(child)
        if not isinstance(child, dict):
            raise InputError(f"The key '{key}' of --set is below a plain value; remove that value from the spec.")
        node = child
    node[leaf] = parse_yaml(text, f"--set {key}")
