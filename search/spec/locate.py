"""Locations of the problems of a spec in its file: FILE:LINE:COLUMN, the format of editors and terminals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data.errors import InputError, without_comma
from trainable.config import ConfigError, Problem
from trainable.config.settings import at
from trainable.config.text import Place, YamlError, parse_yaml, places

_LONE_PAIR = re.compile(r"\[\s*(\d+,\d+)\s*\]")
Places = Mapping[tuple[str, ...], tuple[Place, Place]]


def with_locations(error: InputError, file: Path | None, *, overridden: Sequence[str] = ()) -> InputError:
    """Add the location of each problem to an error.

    Args:
        error: from checking a spec.
        file: of the spec; None if it was not read from a file.
        overridden: dotted keys whose values did not come from the file.

    Returns:
        An error of the same kind; `error` itself if there are no locations.
    """
    if file is None or not file.is_file():
        return error
    if isinstance(error, YamlError):
        return ConfigError([Problem(key="", sentence=str(error), file=str(file), place=error.place)])
    if not isinstance(error, ConfigError):
        return error
    text = file.read_text(encoding="utf-8")
    known, spec = _with_names_in_lists(places(text)), parse_yaml(text, f"the spec '{file}'")
    found = []
    for problem in error.problems:
        elsewhere = any(_is_within(key, problem.key) or _is_within(problem.key, key) for key in overridden)
        place = None if elsewhere else _place(problem, known, spec)
        sentence = _with_comma_hint(problem.sentence, text, place) if place else problem.sentence
        found.append(replace(problem, sentence=sentence, file=str(file), place=place))
    return ConfigError(sorted(found, key=_order))


def _with_names_in_lists(known: Places) -> Places:
    """Also by paths without the indices of lists: the transforms of a list are checked by their names."""
    by_name = {tuple(part for part in path if not part.isdigit()): places for path, places in known.items()}
    return {**by_name, **known}


def _with_comma_hint(sentence: str, text: str, place: Place) -> str:
    """A hint if the wrong value is in a list of two integers such as [0,5], which may be one number."""
    line = text.splitlines()[place.line - 1] if text.strip() else ""
    pair = next((match[1] for match in _LONE_PAIR.finditer(line) if match.end() >= place.column), "")
    meant = without_comma(pair)
    if meant is None:
        return sentence
    return f"{sentence.removesuffix('.')}; if {pair} is one number, write {meant}, with a decimal point."


def _order(problem: Problem) -> tuple[bool, int, int]:
    """Order by location in the file; problems without one come last."""
    place = problem.place
    return place is None, place.line if place else 0, place.column if place else 0


def _place(problem: Problem, known: Places, spec: object) -> Place | None:
    """The location of the offending value or key, or of the nearest section in the file that contains it."""
    path = tuple(problem.key.split("."))
    if path in known:
        key, value = known[path]
        return key if problem.is_key else _within(problem, known, path, spec) or value
    while path and path not in known:
        path = path[:-1]
    return known[path][0] if path else Place(line=1, column=1)


def _within(problem: Problem, known: Places, path: tuple[str, ...], spec: object) -> Place | None:
    """The location of the wrong bound or choice of a domain; None if the key has no domain."""
    inside = at(spec, problem.key) if isinstance(spec, Mapping) else None
    if problem.value is None or not isinstance(inside, Mapping):
        return None
    for below, (_, value) in known.items():
        if len(below) > len(path) and below[: len(path)] == path:
            held: object = inside
            for name in below[len(path) :]:
                held = _step(held, name)
            if held == problem.value and isinstance(held, bool) == isinstance(problem.value, bool):
                return value
    return None


def _step(node: object, name: str) -> object:
    if isinstance(node, Mapping):
        return next((value for key, value in node.items() if str(key) == name), None)
    return node[int(name)] if isinstance(node, Sequence) and not isinstance(node, str) else None


def _is_within(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")
