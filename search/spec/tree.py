"""Nested mappings with dotted keys: specs, search spaces and configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def leaves(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) pairs of all values that are not mappings, in order."""
    for name, node in tree.items():
        if isinstance(node, Mapping):
            yield from leaves(node, (*prefix, name))
        else:
            yield (*prefix, name), node


def replace_leaf(tree: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy with the leaf at `path` replaced by `value`."""
    first, *rest = path
    return {**tree, first: replace_leaf(tree.get(first, {}), rest, value) if rest else value}


def put_leaf(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the leaf at `path` in place, and create missing sections."""
    *sections, last = path
    for name in sections:
        tree = tree.setdefault(name, {})
    tree[last] = value


def at(tree: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None if there is none."""
    node: Any = tree
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node
