"""YAML as people write it, and sentences for what is none."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.errors import InputError, without_comma

BOOLEAN, MERGE, STRING, NULL = (f"tag:yaml.org,2002:{name}" for name in ("bool", "merge", "str", "null"))
_WHOLE = re.compile(r"[-+]?\d+")
_DECIMALS = re.compile(r"\d+([eE][-+]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where something stands in a text; both count from 1."""

    line: int
    column: int


class YamlError(InputError):
    """A text that is no YAML; `place` is where that showed, if it is known."""

    def __init__(self, sentence: str, place: Place | None = None) -> None:
        super().__init__(sentence)
        self.place = place


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; an empty one if the file is empty.

    Args:
        path: the file.
        what: what it is, for the errors, such as 'spec'.

    Raises:
        InputError: if it cannot be read, is no YAML (a YamlError), or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or error
        raise InputError(f"The {what} '{path}' cannot be read ({reason}); give a YAML file.") from None
    values = parse_yaml(text, f"the {what} '{path}'")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"The {what} '{path}' must hold sections such as 'data:'; correct it.")
    return values


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; `source` is where it came from, for the errors.

    Raises:
        YamlError: if it is no YAML, a key is there twice, or a number has a decimal comma.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except _CommaError as error:
        found = _place(error.mark)
        said = f"line {found.line}, column {found.column} of {source}" if "\n" in text.strip() else source
        comma = "a decimal comma" if error.meant.startswith(error.written.replace(",", ".")) else "a comma"
        raise YamlError(f"The number '{error.written}' in {said} has {comma}; write {error.meant}.", found) from None
    except yaml.MarkedYAMLError as error:
        place = _place(error.problem_mark) if error.problem_mark else None
        where = f"line {place.line}, column {place.column} of " if place else ""
        raise YamlError(f"There is no valid YAML at {where}{source}: {error.problem}; correct it.", place) from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise YamlError(f"There is no valid YAML in {source}: {reason}; correct it.") from None


def places(text: str) -> dict[tuple[str, ...], tuple[Place, Place]]:
    """Where every key and its value stand in a YAML text that `parse_yaml` reads.

    Returns:
        For each path of keys, as strings, and of places in lists: where the key and where its value begin. An item of
        a list has no key, and so has its own beginning twice.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        found = _walk(loader, root, ()) if root is not None else iter(())
        known: dict[tuple[str, ...], tuple[Place, Place]] = {}
        for path, key, value in found:
            known.setdefault(path, (key, value))
        return known
    finally:
        loader.dispose()


def _walk(
    loader: yaml.SafeLoader, node: yaml.Node, path: tuple[str, ...], above: tuple[yaml.Node, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Place, Place]]:
    """(path, place of the key, place of the value) of all below a node; what a merge ('<<') brings comes last."""
    if node in above:  # an anchor within itself
        return
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield (*path, str(number)), _place(item.start_mark), _place(item.start_mark)
            yield from _walk(loader, item, (*path, str(number)), above)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.tag != MERGE:
            below = (*path, str(loader.construct_object(key, deep=True)))
            yield below, _place(key.start_mark), _place(value.start_mark)
            yield from _walk(loader, value, below, above)
    for key, value in node.value:
        if key.tag == MERGE:
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _walk(loader, merged, path, above)


def _place(mark: yaml.Mark) -> Place:
    return Place(line=mark.line + 1, column=mark.column + 1)


class _CommaError(Exception):
    """A number that is written with a comma: YAML reads text, two items of a list, or two keys of a mapping."""

    def __init__(self, written: str, meant: str, mark: yaml.Mark) -> None:
        super().__init__(written)
        self.written, self.meant, self.mark = written, meant, mark


def _refuse_comma(first: yaml.Node, second: yaml.Node, *, or_two: bool = False) -> None:
    """Raise if two neighbours in a flow are a number with a comma; `or_two` if they may be two numbers as well."""
    written = f"{first.value},{second.value}"
    if _is_comma(first, second) and (meant := without_comma(written)):
        two = f", or put a space after each comma if {first.value} and {second.value} are two values" if or_two else ""
        raise _CommaError(written, f"{meant}{two}", first.start_mark)


def _is_comma(first: yaml.Node, second: yaml.Node) -> bool:
    """Whether two nodes are digits with nothing but a comma between."""
    plain = all(isinstance(node, yaml.ScalarNode) and node.style is None for node in (first, second))
    return (
        plain
        and bool(_WHOLE.fullmatch(first.value) and _DECIMALS.fullmatch(second.value))
        and second.start_mark.index == first.end_mark.index + 1
    )


class _Loader(yaml.SafeLoader):
    """1e-3 is a number and a key 'on' a name, unlike in YAML 1.1; no key is there twice, for the last would win.

    A number with a decimal comma is refused: it would be text, or be read as two.
    """

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Read a value; what is no number for its comma alone is refused."""
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if node.style is None and (meant := without_comma(node.value)):
            raise _CommaError(node.value, meant, node.start_mark)
        return node

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        """Read a list; [0,001] is refused, and [0,5, 0,25], where commas within and between numbers take turns."""
        sequence: yaml.SequenceNode = super().compose_sequence_node(anchor)
        items = sequence.value
        tight = [_is_comma(first, second) for first, second in itertools.pairwise(items)]
        take_turns = len(items) > 3 and all(is_tight == (index % 2 == 0) for index, is_tight in enumerate(tight))
        for first, second in itertools.pairwise(items):
            if take_turns or re.match("0[0-9]", str(second.value)):
                _refuse_comma(first, second, or_two=not str(second.value).startswith("0"))
        return sequence

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping, and look at its keys before those of a merge ('<<'), which may differ, come among them."""
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
                problem = f"the key '{node.value}' is there twice"
                raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
            seen.add(key)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
