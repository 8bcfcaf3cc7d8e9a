"""YAML as people write it, and sentences for what is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from data.errors import InputError

BOOLEAN, MERGE, STRING = (f"tag:yaml.org,2002:{name}" for name in ("bool", "merge", "str"))


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; an empty one if the file is empty.

    Args:
        path: the file.
        what: what it is, for the errors, such as 'spec'.

    Raises:
        InputError: if it cannot be read, is no YAML, or holds no mapping.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The {what} '{path}' cannot be read ({error}); give a YAML file.") from None
    values = parse_yaml(text, f"the {what} '{path}'")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"The {what} '{path}' must hold sections such as 'data:'; correct it.")
    return values


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; `source` is where it came from, for the errors.

    Raises:
        InputError: if it is no YAML, or a key is there twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1} of " if mark else ""
        raise InputError(f"There is no valid YAML at {place}{source}: {error.problem}; correct it.") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"There is no valid YAML in {source}: {reason}; correct it.") from None


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
