"""The commented spec that `twinhead spec` prints, and the summary of a checked one.

The comments are the docstrings of the configuration classes.
"""

from __future__ import annotations

import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic.fields import FieldInfo

from search.spec import spec as spec_module
from search.spec.domains import Domain
from search.spec.sections import Plan
from search.spec.spec import DATA_KEYS, SearchSpec, Subject
from search.spec.study_url import masked
from search.spec.tree import at, leaves
from trainable.config import Section, TrialConfig

WIDTH = 100
"""Columns of a line with a comment."""


def as_text(spec: SearchSpec) -> str:
    """The whole spec as YAML, with comments on its sections and keys."""
    values = {"name": spec.subject.name, **spec.as_plain()}
    purpose, _, forms = (spec_module.__doc__ or "").partition("\n\n")
    lines = [*_comment(purpose, ""), "#", *_comment(forms, "")]
    lines += ["", *_field("name", Subject.model_fields["name"], values["name"], "")]
    for owner in (TrialConfig, Plan):
        for name, field in owner.model_fields.items():
            section = field.annotation
            if isinstance(values.get(name), Mapping) and isinstance(section, type) and issubclass(section, Section):
                lines += ["", *_comment(_first_paragraph(section), ""), f"{name}:"]
                lines += _own_data(values[name]) if name == "data" else []
                lines += _section(section, values[name], "  ")
            elif name in values:
                lines += ["", *_field(name, field, values[name], "")]
    return "\n".join(lines) + "\n"


def describe(spec: SearchSpec) -> dict[str, Any]:
    """The summary of a spec as JSON values."""
    plan = spec.plan
    domains = {".".join(path): leaf.as_plain() for path, leaf in leaves(spec.space) if isinstance(leaf, Domain)}
    return {
        "name": spec.subject.name,
        "data": {
            "path": spec.data_path,
            "samples": spec.subject.samples,
            "image_size": at(spec.space, "data.image_size"),
            "split_by": at(spec.space, "data.split_by"),
        },
        "objectives": plan.objectives,
        "searched": domains,
        "rungs": plan.scheduler.rungs,
        "budget": _set_values(plan.budget),
        "resources": plan.resources.model_dump(),
        "constraints": _set_values(plan.constraints),
        "start_from": plan.search.start_from,
        "study": masked(plan.search.study) if plan.search.study else None,
        "seed": plan.search.seed,
        "retrain": plan.retrain.model_dump(),
    }


def summary_lines(spec: SearchSpec) -> Iterator[str]:
    """The summary of a spec as lines of text."""
    found = describe(spec)
    data, rungs = found["data"], found["rungs"]
    used = f"{data['samples']} training samples" if data["samples"] else "all training samples"
    yield f"data: {data['path']} at {data['image_size']} px, split by {data['split_by']}; trials use {used}"
    yield f"objectives: {', '.join(found['objectives'])}"
    yield f"trials: up to {rungs[-1]} epochs each, compared after epoch {', '.join(str(epoch) for epoch in rungs)}"
    yield f"budget, until the first limit: {_listed(found['budget'])}"
    yield f"each trial: {_listed(found['resources'])}"
    yield f"constraints: {_listed(found['constraints']) or 'none'}"
    yield f"first trials: {', '.join(found['start_from']) or 'none'}; seed {found['seed']}"
    yield f"study: {found['study'] or 'a journal beside the spec'}"
    yield f"searched, {len(found['searched'])} keys:"
    for key, domain in found["searched"].items():
        yield f"  {key}: {_flow(domain)}"


def _own_data(values: Mapping[str, Any]) -> Iterator[str]:
    """The keys of `data` that are not in `TrialConfig`."""
    for key in DATA_KEYS:
        yield from _field(key, Subject.model_fields[key], values[key], "  ")


def _section(section: type[Section], values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _comment(field.description or _first_paragraph(inner), indent)
            yield f"{indent}{name}:"
            yield from _section(inner, values[name], f"{indent}  ")
        else:
            yield from _field(name, field, values[name], indent)


def _field(name: str, field: FieldInfo, value: Any, indent: str) -> Iterator[str]:
    """A leaf with its allowed values; a `per` has one line for each value of the other leaf."""
    yield from _comment(field.description or "", indent)
    wanted = _wanted(field)
    line = f"{indent}{name}:" if _is_per(value) else f"{indent}{name}: {_flow(value)}"
    if wanted and len(line) + len(wanted) + 4 > WIDTH:
        yield from _comment(wanted, indent)
        wanted = ""
    yield f"{line}  # {wanted}" if wanted else line
    if _is_per(value):
        yield from (f"{indent}  {_flow(case)}: {_flow(domain)}" for case, domain in value.items())


def _is_per(value: Any) -> bool:
    return isinstance(value, Mapping) and "per" in value


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


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return str(text).removesuffix("...\n").strip()


def _set_values(section: Section) -> dict[str, Any]:
    return {name: value for name, value in section.model_dump().items() if value is not None}


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
