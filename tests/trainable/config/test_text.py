"""YAML as users write it, where YAML's own rules would surprise them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError
from trainable.config.text import Place, YamlError, parse_yaml, places, read_yaml


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
def test_values_are_parsed_as_they_look(text: str, value: Any) -> None:
    """1e-3 is text and 'on' is true in YAML 1.1; and what a merge brings may be replaced."""
    assert parse_yaml(text, "a test") == value


@pytest.mark.parametrize("text", ["lr: 1\nname: sgd\nlr: 2", "{a: 1, 'lr': 1, lr: 2}", "b: [{lr: 1, lr: 1}]"])
def test_duplicate_key_is_refused(text: str) -> None:
    """YAML parsers silently keep the last one."""
    with pytest.raises(InputError, match=r"at line \d, column \d+ of a test: the key 'lr' occurs twice"):
        parse_yaml(text, "a test")


def test_compound_key_is_refused() -> None:
    """A list as a key is a typo, and must not end in a traceback."""
    with pytest.raises(InputError, match="found unhashable key"):
        parse_yaml("{[a]: 1}", "a test")


def test_a_file_holds_sections(tmp_path: Path) -> None:
    """An empty file means defaults only; a list cannot be used."""
    file = tmp_path / "some.yaml"
    file.write_text("# nothing yet\n")
    assert read_yaml(file, "spec") == {}

    file.write_text("- 1\n")
    with pytest.raises(InputError, match=r"The spec '.*some.yaml' must hold sections"):
        read_yaml(file, "spec")


def test_missing_file_is_named(tmp_path: Path) -> None:
    """The error names the kind of file."""
    with pytest.raises(InputError, match=r"The spec '.*none.yaml' cannot be read \(.*No such file"):
        read_yaml(tmp_path / "none.yaml", "spec")


def test_positions_of_keys_and_values_are_recorded() -> None:
    """For editors: lines and columns count from 1, in all styles; items of lists have places too."""
    found = places("# first\nmodel:\n  width: {choices: [8,\n    16]}\non: 1\n")

    assert found["model", "width"] == (Place(line=3, column=3), Place(line=3, column=10))
    assert found["model", "width", "choices", "1"][1] == Place(line=4, column=5)
    assert found["on",] == (Place(line=5, column=1), Place(line=5, column=5))


def test_merged_values_have_their_original_position() -> None:
    """An override has its own place; an anchor within itself ends the recursion."""
    found = places("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: &c [*c]\nd: &d {<<: *d}\n")

    assert found["b", "x"][1] == Place(line=2, column=16)
    assert found["b", "y"][1] == Place(line=1, column=17)


@pytest.mark.parametrize("node", ["[{}]", "{{x: [{}]}}", "{{x: [{}], 5}}", "{{<<: {{x: [{}]}}}}"])
def test_aliases_of_aliases_take_no_time(node: str) -> None:
    """Lists of lists, nine times nine items deep in a few hundred bytes: each check took more than any memory holds."""
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} {node.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, 20)]
    text = "\n".join(lines)

    assert len(parse_yaml(text, "a test")) == 20
    assert places(text)["a19",] == (Place(line=20, column=1), Place(line=20, column=6))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,001", "'0,001' in --set k has a decimal comma; write 0.001."),
        ("-1,5e-3", "'-1,5e-3' in --set k has a decimal comma; write -1.5e-3."),
        ("{lr: 0,001}", "'0,001' in --set k has a decimal comma; write 0.001."),
        ("{low: 1, high: 0,1}", "'0,1' in --set k has a decimal comma; write 0.1."),
        ("{choices: [0,001, 0,01]}", "'0,001' in --set k has a decimal comma; write 0.001."),
        ("[0,5, 0,25]", "'0,5' in --set k has a decimal comma; write 0.5, or put a space after each comma if 0 and 5"),
        ("1,000", "'1,000' in --set k has a comma; write 1000, or 1.000 with a decimal point."),
        ("400,000,000", "'400,000,000' in --set k has a comma; write 400000000."),
        ("5,", "'5,' in --set k has a decimal comma; write 5.0."),
        (",5e-2", "',5e-2' in --set k has a decimal comma; write 0.5e-2."),
        ("a: 1\nlr: ,01\n", "',01' in line 2, column 5 of --set k has a decimal comma; write 0.01."),
        ("a: 1\nb:\n  c: 0,5\n", "'0,5' in line 3, column 6 of --set k has a decimal comma; write 0.5."),
    ],
)
def test_a_number_with_a_comma_is_refused(text: str, said: str) -> None:
    """YAML reads it as text, two items or two keys, and many countries use the decimal comma."""
    with pytest.raises(YamlError) as caught:
        parse_yaml(text, "--set k")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0,1]", [0, 1]),
        ("[8,16,32]", [8, 16, 32]),
        ("[0, 1,2]", [0, 1, 2]),
        ("{a: 1, 5}", {"a": 1, 5: None}),
        ("'0,5'", "0,5"),
        ("2024,1,2", "2024,1,2"),
        ("score,-macs", "score,-macs"),
    ],
)
def test_commas_between_values_are_kept(text: str, value: object) -> None:
    """A list without spaces is a list."""
    assert parse_yaml(text, "--set k") == value
