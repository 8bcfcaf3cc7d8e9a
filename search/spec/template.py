"""The commented spec that `twinhead spec` prints, and the summary of a checked one.

The comments are the docstrings of the configuration classes.
"""

from __future__ import annotations

import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, cast, get_args, get_origin

import annotated_types
import yaml
from pydantic.fields import FieldInfo

from data.fitting.sizes import size_text
from data.quantities import counted
from search.spec import spec as spec_module
from search.spec.conditions import is_present
from search.spec.default_space import TRANSFORMS, is_argument
from search.spec.domains import Domain, Per, as_plain, representatives
from search.spec.sections import Plan
from search.spec.spec import DATA_KEYS, SearchSpec, Subject
from search.spec.study_url import masked
from trainable.config import Section, TrialConfig
from trainable.config.settings import Settings, Value, at, flatten, nest
from trainable.metrics.objective import Objective
from trainable.plugins.active import SHOWN

WIDTH = 100
"""Columns of a line with a comment."""


def as_text(spec: SearchSpec) -> str:
    """The whole spec as YAML, with comments on its sections and keys."""
    values = {
        **{f"data.{key}": getattr(spec.subject, key) for key in DATA_KEYS},
        **{key: as_plain(leaf) for key, leaf in spec.space.items()},
        **flatten(spec.plan.model_dump(), leaves=("search.sampler",)),
    }
    purpose, _, forms = (spec_module.__doc__ or "").partition("\n\n")
    lines = [*_comment(purpose, ""), "#", *_comment(forms, "")]
    lines += ["", *_field("name", Subject.model_fields["name"], spec.subject.name, "")]
    for owner in (TrialConfig, Plan):
        for name, field in owner.model_fields.items():
            if section := _subsection(field):
                lines += ["", *_comment(_first_paragraph(section), ""), f"{name}:"]
                own = {key: Subject.model_fields[key] for key in (DATA_KEYS if name == "data" else ())}
                lines += _section(own | section.model_fields, f"{name}.", values, "  ")
            elif name in values:
                lines += ["", *_field(name, field, values[name], "")]
    return "\n".join(lines) + "\n"


def describe(spec: SearchSpec) -> dict[str, Value]:
    """The summary of a spec as JSON values."""
    plan = spec.plan
    return {
        "name": spec.subject.name,
        "data": {
            "path": spec.data_path,
            "samples": spec.subject.samples,
            "image_size": as_plain(spec.space["data.image_size"]),
            "split_by": as_plain(spec.space["data.split_by"]),
        },
        "objectives": plan.objectives,
        "plugins": {record.file: record.sha256 for record in plan.plugins},
        "searched": _searched(spec),
        "sampler": plan.search.sampler,
        "scheduler": plan.scheduler.name,
        "rungs": plan.scheduler.rungs,
        "budget": _set_values(plan.budget),
        "resources": plan.resources.model_dump(),
        "constraints": _set_values(plan.constraints),
        "start_from": plan.search.start_from,
        "study": masked(plan.search.study) if plan.search.study else None,
        "seed": plan.search.seed,
        "retrain": plan.retrain.model_dump(),
        "logging": plan.logging.model_dump(),
    }


def summary_lines(spec: SearchSpec, within: str = "") -> Iterator[str]:
    """The summary of a spec as lines of text; `within` says how many first trials its space contains."""
    plan, subject, searched = spec.plan, spec.subject, _searched(spec)
    image_size, split_by = (spec.space[f"data.{key}"] for key in ("image_size", "split_by"))
    rungs = plan.scheduler.rungs
    used = counted(subject.samples, "training sample") if subject.samples else "all training samples"
    yield f"data: {spec.data_path} at {size_text(cast('int', image_size))} px, split by {split_by}; trials use {used}"
    yield f"objectives: {', '.join(str(Objective.of(each)) for each in plan.objectives)}"
    if plan.plugins:
        yield f"plugins: {', '.join(f'{record.file} (SHA-256 {record.sha256[:SHOWN]}…)' for record in plan.plugins)}"
    yield f"trials: up to {counted(rungs[-1], 'epoch')} each, compared after epoch {' and '.join(map(str, rungs))}"
    yield f"proposed by {_flow(plan.search.sampler)}, stopped by {plan.scheduler.name}"
    yield f"budget, until the first limit: {_listed(_set_values(plan.budget))}"
    yield f"each trial: {_listed(plan.resources.model_dump())}"
    yield f"constraints: {_listed(_set_values(plan.constraints)) or 'none'}"
    first = [", ".join(plan.search.start_from) or "none", within, f"seed {plan.search.seed}"]
    yield f"first trials: {'; '.join(part for part in first if part)}"
    yield f"study: {masked(plan.search.study) if plan.search.study else 'a journal beside the spec'}"
    if logging := _set_values(plan.logging):
        yield f"logged: {_listed(logging)}"
    yield f"searched, {counted(len(searched), 'key')}:"
    for key, domain in searched.items():
        yield f"  {key}: {_flow(domain)}"


def _searched(spec: SearchSpec) -> dict[str, Value]:
    """The domains of the keys that can be present in a trial, for the values that those before them can have."""
    space = spec.space
    found: dict[str, Value] = {}
    for key, leaf in space.items():
        name = f"{key.partition('.')[0]}.name"
        if not isinstance(leaf, Domain) or not any(
            is_present({name: one}, key) for one in representatives(space.get(name))
        ):
            continue
        if isinstance(leaf, Per):
            cases = {str(value) for value in representatives(space[leaf.key])}
            leaf = Per(leaf.key, {case: domain for case, domain in leaf.domains.items() if case in cases})
        found[key] = leaf.as_plain()
    return found


def _section(fields: Mapping[str, FieldInfo], prefix: str, values: Settings, indent: str) -> Iterator[str]:
    """The fields of a section; `prefix` is its dotted key with a dot."""
    for name, field in fields.items():
        if section := _subsection(field):
            yield from _comment(field.description or _first_paragraph(section), indent)
            yield f"{indent}{name}:"
            yield from _section(section.model_fields, f"{prefix}{name}.", values, f"{indent}  ")
        elif f"{prefix}{name}" == TRANSFORMS:
            yield from _comment(field.description or "", indent)
            yield from _transforms(name, values, indent)
        else:
            yield from _field(name, field, values[f"{prefix}{name}"], indent)
    own = (key.removeprefix(prefix) for key in values if key.startswith(prefix))
    for name in [name for name in own if "." not in name and name not in fields]:
        yield from _field(
            name, FieldInfo(annotation=float, description="Of a plugin."), values[f"{prefix}{name}"], indent
        )


def _transforms(name: str, values: Settings, indent: str) -> Iterator[str]:
    """The transforms of albumentations, one a line."""
    listed = at(nest({key: value for key, value in values.items() if is_argument(key)}), TRANSFORMS)
    if not isinstance(listed, Mapping):
        yield f"{indent}{name}: {{}}"
        return
    yield f"{indent}{name}:"
    yield from (f"{indent}  {transform}: {_flow(arguments)}" for transform, arguments in listed.items())


def _subsection(field: FieldInfo) -> type[Section] | None:
    """The class of a field that is always a section."""
    inner = field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, Section) else None


def _field(name: str, field: FieldInfo, value: Value, indent: str) -> Iterator[str]:
    """A leaf with its allowed values; a `per` has one line for each value of the other leaf."""
    yield from _comment(field.description or "", indent)
    wanted = _wanted(field)
    domains = value if isinstance(value, Mapping) and "per" in value else {}
    line = f"{indent}{name}:" if domains else f"{indent}{name}: {_flow(value)}"
    if wanted and len(line) + len(wanted) + 4 > WIDTH:
        yield from _comment(wanted, indent)
        wanted = ""
    yield f"{line}  # {wanted}" if wanted else line
    yield from (f"{indent}  {_flow(case)}: {_flow(domain)}" for case, domain in domains.items())


def _wanted(field: FieldInfo) -> str:
    """The names or bounds that a field allows, in words; '' if it has none."""
    if names := _names(field.annotation):
        return f"one of {', '.join(names)}"
    bounds = {type(bound): bound for bound in _bounds(field.annotation, field.metadata)}
    low, above = bounds.get(annotated_types.Ge), bounds.get(annotated_types.Gt)
    high, below = bounds.get(annotated_types.Le), bounds.get(annotated_types.Lt)
    said = []
    if low and high:
        said.append(f"{low.ge:g} to {high.le:g}")
    else:
        said += [f"at least {low.ge:g}"] if low else []
        said += [f"above {above.gt:g}"] if above else []
        said += [f"at most {high.le:g}"] if high else []
    said += [f"below {below.lt:.10g}"] if below else []
    if step := bounds.get(annotated_types.MultipleOf):
        said.append(f"a multiple of {step.multiple_of:g}")
    return ", ".join(said)


def _bounds(annotation: Any, metadata: list[Any]) -> list[Any]:
    """The bounds of a field, also within a union and within a `FieldInfo`."""
    inner = [bound for one in metadata for bound in (one.metadata if isinstance(one, FieldInfo) else [one])]
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            inner += _bounds(part, list(getattr(part, "__metadata__", ())))
    return inner


def _names(annotation: Any) -> list[str]:
    return [str(name) for name in get_args(annotation)] if get_origin(annotation) is Literal else []


def _first_paragraph(section: type[Section]) -> str:
    return (section.__doc__ or "").partition("\n\n")[0]


def _comment(text: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(" ".join(text.split()), WIDTH - len(indent) - 2, break_on_hyphens=False):
        yield f"{indent}# {line}"


def _flow(value: Value) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return str(text).removesuffix("...\n").strip()


def _set_values(section: Section) -> dict[str, Value]:
    return {name: value for name, value in section.model_dump().items() if value is not None}


def _listed(values: Settings) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
