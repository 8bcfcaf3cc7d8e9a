"""`twinhead spec`: it prints the defaults, and every error has its position."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from search.cli.spec import spec
from search.spec.spec import load_spec
from trainable.config.settings import flatten

BAD = """\
data: {path: set, image_size: 50, samples: 0}
model:
  family: unet
  width: {choices: [8, big]}
optimizer:
  lr: fast
  learning_rate: 3
  weight_decay: {low: 1, high: 0}
optimiser: {}
budget: {patience: 0}
constraints:
  parameters: -1
"""


DOCS = Path(__file__).parents[3] / "docs"


def said(*arguments: object) -> Result:
    return CliRunner().invoke(spec, [str(argument) for argument in arguments])


def problems_of(tmp_path: Path, text: str) -> list[dict[str, Any]]:
    """Position and key of each problem in a file; the sentences are tested elsewhere."""
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    result = said("--check", file, "--json")
    assert result.exit_code == 2
    found: list[dict[str, Any]] = json.loads(result.stdout)["problems"]
    return found


def test_printed_spec_holds_the_defaults(tmp_path: Path) -> None:
    """People start from it, and change what they came to change: the rest must mean what it meant without a file."""
    file = tmp_path / "a.yaml"
    file.write_text(said().stdout)
    checked = said("--check", file)

    assert (checked.exit_code, checked.stderr) == (0, "")
    assert checked.stdout.startswith(f"{file}: ok\n")
    assert load_spec(file, data_path="set") == load_spec(data_path="set")


def test_every_key_is_printed() -> None:
    """What is not there cannot be found: the printed spec is the reference."""
    printed = yaml.safe_load(said().stdout)
    everything = load_spec(data_path="DATA").as_plain()

    assert set(flatten(everything)) | {"name"} == set(flatten(printed))


def test_comments_are_the_field_descriptions() -> None:
    """A second copy would soon say something else than the field."""
    text = said().stdout

    assert (
        "  # Peak learning rate, which a policy multiplies by a factor in (0, 1].\n  lr:  # above 0\n    per:" in text
    )
    assert "  combine: {choices: [sum, sqrt, uncertainty]}  # one of sum, sqrt, uncertainty\n" in text
    assert "    hflip: 0.5  # 0 to 1\n" in text
    assert max(len(line) for line in text.splitlines() if line.lstrip().startswith("#")) <= 100


def test_command_line_flags_are_printed(tmp_path: Path) -> None:
    """A command line becomes a file."""
    file = tmp_path / "a.yaml"
    result = said("--data", "classroom", "--set", "policy.name=cosine", "--set", "name=first")
    file.write_text(result.stdout)
    found = load_spec(file)

    assert (found.data_path, found.subject.name) == ("classroom", "first")
    assert found == load_spec(None, [("policy.name", "cosine"), ("name", "first")], data_path="classroom")


def test_every_error_has_its_position(tmp_path: Path) -> None:
    """One run of the check is enough to correct a file: line and column of each wrong key, value, bound and choice."""
    found = [(problem["line"], problem["column"], problem["key"]) for problem in problems_of(tmp_path, BAD)]

    assert found == [
        (1, 31, "data.image_size"),
        (1, 44, "data.samples"),
        (3, 11, "model.family"),
        (4, 24, "model.width"),
        (6, 7, "optimizer.lr"),
        (7, 3, "optimizer.learning_rate"),
        (8, 23, "optimizer.weight_decay.low"),
        (9, 1, "optimiser"),
        (10, 20, "budget.patience"),
        (12, 15, "constraints.parameters"),
    ]


def test_errors_start_with_their_position(tmp_path: Path) -> None:
    """As compilers have it: terminals and editors jump there."""
    file = tmp_path / "spec.yaml"
    file.write_text("data: {path: set}\nbudget:\n  trials: 0\n")
    result = said("--check", file)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"{file}:3:11: The value of 'budget.trials' is 0, but must be greater than or equal to 1; "
        f"correct it in '{file}'.\n"
    )


@pytest.mark.parametrize(
    ("text", "line", "column", "sentence"),
    [
        ("data: {path: set}\nmodel: {width: [8\n", 3, 1, "no valid YAML"),
        ("data: {path: set}\nmodel: {width: 8, width: 9}\n", 2, 19, "'width' occurs twice"),
        ("data: {image_size: 64}\n", 1, 1, "data set is missing"),
        ("budget: {trials: 3}\n", 1, 1, "data set is missing"),
        ("data: {path: set}\nscheduler:\n  grace_epochs: 20\n", 3, 3, "grace_epochs at most max_epochs"),
        ("data: {path: set}\nsearch: {start_from: [recipes, a b]}\n", 2, 22, "not 'a b'"),
        ("data:\n  path: set\n  progression:\n  - {share: 0.5, scale: 2}\n", 4, 25, "less than or equal to 1"),
        ("data: {path: set}\nname: a/b\n", 2, 7, "up to 100 letters"),
    ],
)
def test_positions_of_unusual_errors(tmp_path: Path, text: str, line: int, column: int, sentence: str) -> None:
    """Of what is no YAML, missing, in a list, or wrong only beside another value: as near as can be."""
    [problem] = problems_of(tmp_path, text)

    assert sentence in problem["sentence"]
    assert (problem["line"], problem["column"]) == (line, column)


def test_missing_file_is_named() -> None:
    """It has no lines, but a sentence all the same."""
    result = said("--check", "nowhere.yaml")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("The spec 'nowhere.yaml' cannot be read")


def test_check_describes_the_search_space(tmp_path: Path) -> None:
    """Before hours of training, one look at what they will be spent on."""
    file = tmp_path / "spec.yaml"
    file.write_text(
        "name: small\ndata: {path: set, samples: 200}\nmodel: {family: resunet, width: 8}\n"
        "budget: {trials: 7, hours: 2, patience: 5}\nconstraints: {parameters: 2e6}\n"
    )
    found = json.loads(said("--check", file, "--json").stdout)

    assert (found["ok"], found["name"], found["data"]["samples"], found["rungs"]) == (True, "small", 200, [3, 9])
    assert found["budget"] == {"trials": 7, "hours": 2, "patience": 5}
    assert found["constraints"] == {"parameters": 2e6}
    assert "model.width" not in found["searched"]
    assert found["searched"]["optimizer.name"] == {"choices": ["sgd", "adam", "adamw"]}


def test_check_counts_the_first_trials_within_the_space(tmp_path: Path) -> None:
    """The example of the documentation keeps the portfolio and the recipes: people copy it."""
    example = re.findall(
        r"```yaml\n(# spec.yaml.*?)```", (DOCS / "search.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    file = tmp_path / "spec.yaml"
    file.write_text(*example)
    outside = json.loads(said("--check", file, "--json").stdout)["outside"]

    assert "\nfirst trials: portfolio, recipes; 13 of 16 are within the space; seed 0\n" in said("--check", file).stdout
    assert len(outside) == 3
    assert all("constraints.parameters is 5,000,000" in reason for reason in outside.values())

    file.write_text("data: {path: set}\nsearch: {start_from: [earlier]}\n")
    assert "\nfirst trials: earlier; seed 0\n" in said("--check", file).stdout  # whose storage is not known


def test_check_lists_only_what_can_be_in_a_trial(tmp_path: Path) -> None:
    """Not the settings of other policies, and not the widths of other families."""
    file = tmp_path / "spec.yaml"
    file.write_text("data: {path: set}\nmodel: {family: {choices: [resunet, pair]}}\npolicy: {name: cosine}\n")
    searched = json.loads(said("--check", file, "--json").stdout)["searched"]

    assert [key for key in searched if key.startswith("policy.")] == ["policy.warmup", "policy.cosine.floor"]
    assert list(searched["model.width"]) == ["per", "resunet", "pair"]


def test_an_unknown_key_is_answered_with_the_valid_ones(tmp_path: Path) -> None:
    """All of them, also those of `data` that are never searched, and the one that was probably meant."""
    found = problems_of(tmp_path, "data: {path: set, sampels: 3}\noptimiser: {}\nbudget: {trails: 3}\n")
    sentences = {problem["key"]: problem["sentence"] for problem in found}

    assert "use one of path, samples, image_size" in sentences["data.sampels"]
    assert sentences["data.sampels"].endswith("(did you mean 'samples'?).")
    assert sentences["optimiser"].endswith("(did you mean 'optimizer'?).")
    assert sentences["budget.trails"].endswith("(did you mean 'trials'?).")


@pytest.mark.parametrize("value", ["[0,5]", "{choices: [0,5]}"])
def test_a_lone_decimal_comma_in_a_list_is_named(tmp_path: Path, value: str) -> None:
    """YAML reads two integers, of which the problem of one alone would be shown; [0,1] may also be two choices."""
    [problem] = problems_of(tmp_path, f"data: {{path: set}}\nmodel:\n  dropout: {value}\n")

    assert problem["sentence"].endswith("; if 0,5 is one number, write 0.5, with a decimal point.")
    assert problem["line"] == 3
