"""The YAML that people write: what it means to us where YAML's own rules would surprise them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError
from trainable.config.text import Place, parse_yaml, places, read_yaml


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


def test_places_are_those_of_keys_and_values() -> None:
    """An editor jumps there: lines and columns count from 1, whatever the style; items of lists have places too."""
    found = places("# first\nmodel:\n  width: {choices: [8,\n    16]}\non: 1\n")

    assert found["model", "width"] == (Place(line=3, column=3), Place(line=3, column=10))
    assert found["model", "width", "choices", "1"][1] == Place(line=4, column=5)
    assert found["on",] == (Place(line=5, column=1), Place(line=5, column=5))


def test_what_a_merge_brings_has_the_place_where_it_was_written() -> None:
    """What replaces it has its own; an anchor within itself ends."""
    found = places("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: &c [*c]\n")

    assert found["b", "x"][1] == Place(line=2, column=16)
    assert found["b", "y"][1] == Place(line=1, column=17)
