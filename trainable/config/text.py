"""YAML as people write it, and sentences for what is none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.errors import InputError

BOOLEAN, MERGE, STRING = (f"tag:yaml.org,2002:{name}" for name in ("bool", "merge", "str"))


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
        text = path.read_text()
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
        YamlError: if it is no YAML, or a key is there twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
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


class _Loader(yaml.SafeLoader):
    """1e-3 is a number and a key 'on' a name, unlike in YAML 1.1; no key is there twice, for the last would win."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping, and look at its keys before those of a merge ('<<'), which may differ, come among them."""
        mapping: yaml.MappingNode = super().compose_mapping_node(anchor)
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
