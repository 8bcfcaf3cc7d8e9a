"""Printed commands: a shell parses them correctly, with any names and paths."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import InputError
from search.cli.tables import show_front, show_summary
from search.commands import cited, shell_command
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.summary import FrontRow
from tests.search.cli.test_tables import FIGURES, shown, summary

ROOT = Path(__file__).parent.parent.parent
STORAGE = "st é [x]"


def commands_in(text: str) -> list[list[str]]:
    """The words of every command in a text: in quotes, in backticks, or at the end of a line."""
    found = re.findall(r"`(twinhead [^`]+)`|'(twinhead [^']+)'|(twinhead [^`\n]+)$", text, re.MULTILINE)
    return [shlex.split(max(each)) for each in found if max(each) and not max(each).startswith("twinhead: ")]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A search in a storage whose name a shell would split, as a user names it."""
    monkeypatch.chdir(tmp_path)
    experiment = Experiment(storage=Path(STORAGE), name="u1")
    experiment.create(load_spec(data_path="set"))
    return experiment


@pytest.mark.parametrize("word", ["st é", "a'b", 'a"b', "$HOME", "a;b", "plain", ""])
def test_shell_command_round_trip(word: str) -> None:
    """By every shell."""
    command = shell_command("twinhead", "trials", "u1", "--storage", word)

    assert shlex.split(command) == ["twinhead", "trials", "u1", "--storage", word]
    assert cited(command)[1:-1] == command


def test_summary_shows_valid_commands(elsewhere: Experiment) -> None:
    """What to look at next, and how to export the better network."""
    retrained = {"metrics": {**FIGURES, "score": 0.1}, "checkpoint": "retrained", "epochs": 9}
    text = shown(show_summary, elsewhere, summary(retrained=retrained))
    found = commands_in(text)

    assert ["twinhead", "trials", "u1", "--storage", STORAGE] in found
    assert ["twinhead", "tensorboard", "u1", "--storage", STORAGE] in found
    assert ["twinhead", "best", "u1", "--trial", "12", "--storage", STORAGE] in found


def test_front_shows_a_valid_command(elsewhere: Experiment) -> None:
    """To take one of its trials."""
    row = FrontRow(
        trial=3, recipe=None, family="debug", width=2, epoch=1, objectives={"score": 0.5}, checkpoint="trials/00003"
    )
    text = shown(show_front, elsewhere, [row])

    assert commands_in(text) == [["twinhead", "best", "u1", "--trial", "3", "--storage", STORAGE]]


def test_errors_show_valid_commands(elsewhere: Experiment, refused: Callable[..., str]) -> None:
    """Of a search that is not finished, has no trial, or is in use."""
    resume = ["twinhead", "search", "--resume", "u1", "--storage", STORAGE]

    assert commands_in(refused("best", "u1", "--storage", STORAGE)) == [resume]
    assert commands_in(refused("front", "u1", "--storage", STORAGE)) == [resume]
    assert commands_in(refused("importance", "u1", "--storage", STORAGE)) == [[*resume, "--trials", "20"]]
    with pytest.raises(InputError) as caught:
        elsewhere.create(load_spec(data_path="set"))
    assert commands_in(str(caught.value)) == [resume]
    with pytest.raises(InputError) as caught:
        elsewhere.summary()
    assert commands_in(str(caught.value)) == [resume]


def test_spec_path_with_spaces_is_quoted_in_the_shown_command(
    elsewhere: Experiment, refused: Callable[..., str]
) -> None:
    """Its other problems are shown there."""
    Path("my spec.yaml").write_text("optimizer: {lr: -1}\nmodel: {width: 0}\ndata: {path: set}\n")

    assert commands_in(refused("search", "my spec.yaml", "--name", "b")) == [
        ["twinhead", "spec", "--check", "my spec.yaml"]
    ]


@pytest.mark.slow
def test_commands_are_built_in_one_module_only() -> None:
    """One that holds a name or a path goes through `shell_command`, which quotes."""
    wrong = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("data", "trainable", "search")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr) and _is_command(node)
    }

    assert wrong == set()


def _is_command(text: ast.JoinedStr) -> bool:
    """Whether a value follows a program's name within an f-string, in the same quotes or line."""
    whole = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in text.values)
    return bool(re.search(r"(twinhead [a-z]+|optuna-dashboard) [^'.;\n]*\{\}", whole))
