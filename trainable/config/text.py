"""Reading of YAML, with clear errors for invalid text and for common mistakes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.errors import InputError, without_comma
from trainable.config.settings import Value

BOOLEAN, MERGE, STRING, NULL = (f"tag:yaml.org,2002:{name}" for name in ("bool", "merge", "str", "null"))
_WHOLE = re.compile(r"[-+]?\d+")
_LEADING_COMMA = re.compile(r",\d+([eE][-+]?\d+)?")
_DECIMALS = re.compile(r"\d+([eE][-+]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Line and column in a text, both counted from 1."""

    line: int
    column: int


class YamlError(InputError):
    """Invalid YAML; `place` is where the problem was found, if known."""

    def __init__(self, sentence: str, place: Place | None = None) -> None:
        super().__init__(sentence)
        self.place = place


def read_yaml(path: Path, what: str) -> dict[str, Value]:
    """Read the mapping in a YAML file; empty if the file is empty.

    Args:
        path: the YAML file.
        what: kind of file for error messages, such as 'spec'.

    Raises:
        InputError: if it cannot be read, is invalid YAML (a YamlError), or does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InputError(f"The {what} '{path}' cannot be read ({reason}); give a YAML file.") from None
    values = parse_yaml(text, f"the {what} '{path}'")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"The {what} '{path}' must hold sections such as 'data:'; correct it.")
    return values


def as_json(values: object) -> Any:
    """Copy values as JSON has them, so that those of a program are like those of a file: a tuple becomes a list.

    Raises:
        InputError: if JSON has no such value.
    """
    try:
        return json.loads(json.dumps(values))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The values {values!r:.200} are not those of a YAML file ({error}); use dicts, lists, strings, numbers, "
            "True, False and None."
        ) from None


def parse_yaml(text: str, source: str) -> Any:
    """Parse a YAML text; `source` is its origin, for error messages.

    Raises:
        YamlError: if it is invalid YAML, a key occurs twice, or a number has a decimal comma.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except _CommaError as error:
        raise _with_comma(error, text, source) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        if mark and (found := _LEADING_COMMA.match(text, mark.index)) and (fixed := without_comma(found[0])):
            raise _with_comma(_CommaError(found[0], fixed, mark), text, source) from None
        place = _place(mark) if mark else None
        where = f"line {place.line}, column {place.column} of " if place else ""
        raise YamlError(f"There is no valid YAML at {where}{source}: {error.problem}; correct it.", place) from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise YamlError(f"There is no valid YAML in {source}: {reason}; correct it.") from None


def _with_comma(error: _CommaError, text: str, source: str) -> YamlError:
    place = _place(error.mark)
    where = f"line {place.line}, column {place.column} of {source}" if "\n" in text.strip() else source
    comma = "a decimal comma" if error.fixed.startswith((error.written.replace(",", "."), "0.")) else "a comma"
    return YamlError(f"The number '{error.written}' in {where} has {comma}; write {error.fixed}.", place)


def places(text: str) -> dict[tuple[str, ...], tuple[Place, Place]]:
    """Locate every key and value in a valid YAML text.

    Returns:
        For each path of keys and list indices, as strings: the start of the key and the start of its value. For an item
        of a list, both are the start of the item.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        found = _walk(loader, root, (), set()) if root is not None else iter(())
        known: dict[tuple[str, ...], tuple[Place, Place]] = {}
        for path, key, value in found:
            known.setdefault(path, (key, value))
        return known
    finally:
        loader.dispose()


def _walk(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    path: tuple[str, ...],
    seen: set[tuple[yaml.Node, tuple[str, ...]]],
    *,
    is_merged: bool = False,
) -> Iterator[tuple[tuple[str, ...], Place, Place]]:
    """Yield (path, place of the key, place of the value) of all nodes below `node`, merged ('<<') ones last.

    What is below an alias is left out: aliases of aliases would be more than any memory holds.
    """
    visit = (node, path if is_merged else ())
    if visit in seen:
        return
    seen.add(visit)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield (*path, str(number)), _place(item.start_mark), _place(item.start_mark)
            yield from _walk(loader, item, (*path, str(number)), seen)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.tag != MERGE:
            below = (*path, str(loader.construct_object(key, deep=True)))
            yield below, _place(key.start_mark), _place(value.start_mark)
            yield from _walk(loader, value, below, seen)
    for key, value in node.value:
        if key.tag == MERGE:
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _walk(loader, merged, path, seen, is_merged=True)


def _place(mark: yaml.Mark) -> Place:
    return Place(line=mark.line + 1, column=mark.column + 1)


class _CommaError(Exception):
    """A number with a comma. YAML reads it as text, two items of a list, or two keys of a mapping."""

    def __init__(self, written: str, fixed: str, mark: yaml.Mark) -> None:
        super().__init__(written)
        self.written, self.fixed, self.mark = written, fixed, mark


def _refuse_comma(first: yaml.Node, second: yaml.Node, *, or_two: bool = False) -> None:
    """Raise if two adjacent nodes are a number with a comma; `or_two` if they may also be two numbers."""
    if not _is_comma(first, second):  # before they are printed: each alias would print a whole tree
        return
    written = f"{first.value},{second.value}"
    if fixed := without_comma(written):
        two = f", or put a space after each comma if {first.value} and {second.value} are two values" if or_two else ""
        raise _CommaError(written, f"{fixed}{two}", first.start_mark)


def _is_comma(first: yaml.Node, second: yaml.Node) -> bool:
    """Whether two nodes are digits that are separated only by a comma."""
    plain = all(isinstance(node, yaml.ScalarNode) and node.style is None for node in (first, second))
    return (
        plain
        and bool(_WHOLE.fullmatch(first.value) and _DECIMALS.fullmatch(second.value))
        and second.start_mark.index == first.end_mark.index + 1
    )


class _Loader(yaml.SafeLoader):
    """Safe loader that differs from YAML 1.1: 1e-3 is a number, and a key 'on' is a string.

    It refuses duplicate keys, of which the last would win, and numbers with a decimal comma, which would be read as
    text or as two numbers.
    """

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Refuse a scalar that is not a number only because of its comma."""
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if node.style is None and (fixed := without_comma(node.value)):
            raise _CommaError(node.value, fixed, node.start_mark)
        return node

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        """Refuse [0,001], and [0,5, 0,25], where commas within and between numbers alternate."""
        sequence: yaml.SequenceNode = super().compose_sequence_node(anchor)
        items = sequence.value
        tight = [_is_comma(first, second) for first, second in itertools.pairwise(items)]
        alternate = len(items) > 3 and all(is_tight == (index % 2 == 0) for index, is_tight in enumerate(tight))
        for (first, second), is_tight in zip(itertools.pairwise(items), tight, strict=True):
            if is_tight and (alternate or re.match("0[0-9]", second.value)):
                _refuse_comma(first, second, or_two=not second.value.startswith("0"))
        return sequence

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse duplicate keys. This runs before keys of a merge ('<<') are added, which may be overridden."""
        mapping: yaml.MappingNode = super().compose_mapping_node(anchor)
        for (_, before), (node, value) in itertools.pairwise(mapping.value):
            if value.tag == NULL and value.start_mark.index == value.end_mark.index:
                _refuse_comma(before, node)
        seen = set()
        for node, _ in mapping.value:
            if not isinstance(node, yaml.ScalarNode) or node.tag == MERGE:
                continue
            if node.tag == BOOLEAN and node.value.lower() not in {"true", "false"}:
                node.tag = STRING
            key = self.construct_object(node)
            if key in seen:
                problem = f"the key '{node.value}' occurs twice"
                raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
            seen.add(key)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
