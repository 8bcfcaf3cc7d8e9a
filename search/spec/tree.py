"""Nested mappings and their leaves, which a dotted key names: the form of a spec, a space and a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def leaves(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of everything that is no mapping, in order."""
    for name, node in tree.items():
        if isinstance(node, Mapping):
            yield from leaves(node, (*prefix, name))
        else:
            yield (*prefix, name), node


def replace_leaf(tree: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy in which the leaf at `path` is `value`."""
    first, *rest = path
    return {**tree, first: replace_leaf(tree.get(first, {}), rest, value) if rest else value}


def put_leaf(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the leaf at `path` in `tree` itself, with the sections on the way."""
    *sections, last = path
    for name in sections:
        tree = tree.setdefault(name, {})
    tree[last] = value


def at(tree: Mapping[str, Any], key: str) -> Any:
    """What lies at a dotted key; None where nothing does."""
    node: Any = tree
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node
