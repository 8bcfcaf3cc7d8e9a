"""Where in a spec's file that lies which an error is about: FILE:LINE:COLUMN, as editors and terminals read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data.errors import InputError
from search.spec.tree import at
from trainable.config import ConfigError, Problem
from trainable.config.text import Place, YamlError, parse_yaml, places

Places = Mapping[tuple[str, ...], tuple[Place, Place]]


def placed(error: InputError, file: Path | None, *, given_elsewhere: Sequence[str] = ()) -> InputError:
    """`error` with the place of each of its problems before the problem's sentence.

    Args:
        error: what was said of a spec.
        file: which the spec was read from; None if it was not read from one.
        given_elsewhere: dotted keys that did not come from the file, whatever stands there.

    Returns:
        An error of the same kind; as it is, where nothing is known of a place.
    """
    if file is None or not file.is_file():
        return error
    if isinstance(error, YamlError):
        return ConfigError([Problem(key="", sentence=str(error), file=str(file), place=error.place)])
    if not isinstance(error, ConfigError):
        return error
    text = file.read_text(encoding="utf-8")
    known, given = places(text), parse_yaml(text, f"the spec '{file}'")
    found = []
    for problem in error.problems:
        elsewhere = any(_is_within(key, problem.key) or _is_within(problem.key, key) for key in given_elsewhere)
        place = None if elsewhere else _place(problem, known, given)
        found.append(replace(problem, file=str(file), place=place))
    return ConfigError(sorted(found, key=_order))


def _order(problem: Problem) -> tuple[bool, int, int]:
    """As they are met in the file; those from elsewhere come last."""
    place = problem.place
    return place is None, place.line if place else 0, place.column if place else 0


def _place(problem: Problem, known: Places, given: object) -> Place | None:
    """Of the offending value or key, or the nearest key above it that the file has; None if there is none."""
    path = tuple(problem.key.split("."))
    if path in known:
        key, value = known[path]
        return key if problem.is_key else _within(problem, known, path, given) or value
    while path and path not in known:
        path = path[:-1]
    return known[path][0] if path else Place(line=1, column=1)


def _within(problem: Problem, known: Places, path: tuple[str, ...], given: object) -> Place | None:
    """Of the bound or choice that is wrong, where the key holds a domain."""
    inside = at(given, problem.key) if isinstance(given, Mapping) else None
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
