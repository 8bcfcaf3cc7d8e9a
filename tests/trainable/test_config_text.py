"""The YAML that people write: what it means to us where YAML's own rules would surprise them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError
from trainable.config.text import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lr: 1e-3", {"lr": 0.001}),
        ("evaluation: {on: logits}", {"evaluation": {"on": "logits"}}),
        ("{nesterov: on, true: 1, False: 2}", {"nesterov": True, True: 1, False: 2}),
        ("sgd: &sgd {lr: 0.1}\nours: {<<: *sgd, lr: 0.2}", {"sgd": {"lr": 0.1}, "ours": {"lr": 0.2}}),
        ("deep: {a: &a {<<: {x: 1}, x: 2}}\nb: {<<: *a, y: 3}", {"deep": {"a": {"x": 2}}, "b": {"x": 2, "y": 3}}),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: Any) -> None:
    """1e-3 is text and 'on' is true in YAML 1.1; and what a merge brings may be replaced."""
    assert parse_yaml(text, "a test") == value


@pytest.mark.parametrize("text", ["lr: 1\nname: sgd\nlr: 2", "{a: 1, 'lr': 1, lr: 2}", "b: [{lr: 1, lr: 1}]"])
def test_a_key_is_there_once(text: str) -> None:
    """YAML's readers take the last one without a word, and the first was meant as well."""
    with pytest.raises(InputError, match=r"at line \d, column \d+ of a test: the key 'lr' is there twice"):
        parse_yaml(text, "a test")


def test_a_key_is_a_plain_value() -> None:
    """A list as a key is a slip of brackets, and no reason for a traceback."""
    with pytest.raises(InputError, match="found unhashable key"):
        parse_yaml("{[a]: 1}", "a test")


def test_a_file_holds_sections(tmp_path: Path) -> None:
    """An empty file leaves everything to the defaults; a list says nothing that could be used."""
    file = tmp_path / "some.yaml"
    file.write_text("# nothing yet\n")
    assert read_yaml(file, "spec") == {}

    file.write_text("- 1\n")
    with pytest.raises(InputError, match=r"The spec '.*some.yaml' must hold sections"):
        read_yaml(file, "spec")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With what it was taken for."""
    with pytest.raises(InputError, match=r"The spec '.*none.yaml' cannot be read \(.*No such file"):
        read_yaml(tmp_path / "none.yaml", "spec")
