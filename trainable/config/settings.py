"""Settings of a configuration by dotted key, such as 'optimizer.lr', and their nested form in YAML and JSON."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TypeAlias

Scalar = bool | int | float | str | None
"""A value that can be searched."""
Value: TypeAlias = "Scalar | Sequence[Value] | Mapping[str, Value]"
"""A value of a configuration; what YAML and JSON hold."""
Settings: TypeAlias = Mapping[str, Value]
"""Values by dotted key."""


def flatten(nested: Mapping[str, Value], leaves: Container[str] = ()) -> dict[str, Value]:
    """Nested values by dotted key, in order.

    Args:
        nested: sections within sections.
        leaves: dotted keys whose mappings are values, not sections.
    """
    return dict(_leaves(nested, leaves, ""))


def nest(settings: Settings) -> dict[str, Value]:
    """The inverse of `flatten`."""
    sections: dict[str, dict[str, Value]] = {"": {}}
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        if section not in sections:
            _add_section(sections, section)
        sections[section][name] = value
    return sections[""]


def at(nested: Mapping[str, Value], key: str) -> Value:
    """The nested value at a dotted key; None if there is none."""
    node: Value = nested
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _leaves(nested: Mapping[str, Value], leaves: Container[str], prefix: str) -> Iterator[tuple[str, Value]]:
    for name, value in nested.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key not in leaves:
            yield from _leaves(value, leaves, f"{key}.")
        else:
            yield key, value


def _add_section(sections: dict[str, dict[str, Value]], key: str) -> None:
    """Add the section at a dotted key to the one that contains it, which is added if it is missing."""
    above, _, name = key.rpartition(".")
    if above not in sections:
        _add_section(sections, above)
    sections[above][name] = sections[key] = {}
