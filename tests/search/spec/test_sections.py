"""Sections of a spec that are not searched: name, samples, budget, limits; and the positions of errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import InputError
from search.spec.spec import check_spec, load_spec


def test_a_search_is_named_in_its_file(tmp_path: Path) -> None:
    """The file says everything; a flag wins."""
    file = tmp_path / "spec.yaml"
    file.write_text("name: first\ndata: {path: set}\n")

    assert load_spec(file).subject.name == "first"
    assert load_spec(file, name="second").subject.name == "second"
    assert load_spec(file, [("name", "third")]).subject.name == "third"
    assert check_spec(load_spec(file).as_plain(), source="the test") == load_spec(file)


@pytest.mark.parametrize("name", ["a/b", "..", "-x", "", "a b"])
def test_name_that_is_not_a_directory_name_is_refused(name: str) -> None:
    """It would lie outside of the storage, or be taken for an option."""
    with pytest.raises(InputError, match=r"'name' is .* must be up to 100 letters"):
        check_spec({"name": name, "data": {"path": "set"}}, source="the test")


def test_url_of_a_data_set_is_kept() -> None:
    """s3://bucket is no directory below this one."""
    assert load_spec(data_path="s3://bucket/set").with_absolute_path().data_path == "s3://bucket/set"
    assert Path(load_spec(data_path="set").with_absolute_path().data_path).is_absolute()


def test_budgets_and_limits_are_read(tmp_path: Path) -> None:
    """As people write them: 2e6 is a number, and what is left out sets no limit."""
    file = tmp_path / "spec.yaml"
    file.write_text(
        "data: {path: set, samples: 100}\nbudget: {gpu_hours: 1.5, patience: 4}\n"
        "constraints: {parameters: 2e6, ms_per_picture: 5}\n"
    )
    spec = load_spec(file)

    assert (spec.subject.samples, spec.plan.budget.gpu_hours, spec.plan.budget.patience) == (100, 1.5, 4)
    assert spec.plan.constraints.model_dump() == {"parameters": 2e6, "macs": None, "ms_per_picture": 5}
    assert spec.plan.budget.hours is None
    assert check_spec(spec.as_plain(), source="the test") == spec


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"budget": {"patience": 0}}, "'budget.patience' is 0, but must be greater than or equal to 1"),
        ({"budget": {"gpu_hours": 0}}, "'budget.gpu_hours' is 0, but must be greater than 0"),
        ({"constraints": {"macs": float("inf")}}, "'constraints.macs' is inf, but must be a finite number"),
        ({"constraints": {"flops": 1}}, "'constraints.flops' is not known"),
        (
            {"constraints": {"parameters": 10}},
            r"'constraints.parameters' is 10, but every network .* has the fewest, \d",
        ),
        ({"constraints": {"macs": 10}}, r"'constraints.macs' is 10, but every network of the space has more multiply"),
        ({"loss": {"mask": {"bce": 0.0}}}, r"must give the mask head at least one loss"),
        (
            {"optimizer": {"lr": {"low": -1, "high": 1, "or_zero": True}}},
            "or_zero: true and low -1, but it already contains 0",
        ),
        ({"optimizer": {"lr": {"low": 1, "high": 2, "or_zero": 1}}}, "'optimizer.lr.or_zero' is 1, but must be true"),
    ],
)
def test_invalid_values_are_named(section: dict[str, object], sentence: str) -> None:
    """A limit that no network keeps to would draw for ever; a head without a loss would fail in the first step."""
    with pytest.raises(InputError, match=sentence):
        check_spec({**section, "data": {"path": "set"}}, source="the test")


def test_error_message_starts_with_its_position(tmp_path: Path) -> None:
    """`twinhead search` finds what the check finds, and says it the same way."""
    file = tmp_path / "spec.yaml"
    file.write_text("data: {path: set}\noptimizer:\n  lr: {choices: [0.1, fast]}\n")
    with pytest.raises(InputError, match=rf"^{file}:3:23: The value of 'optimizer.lr' is 'fast'"):
        load_spec(file)


def test_command_line_errors_do_not_name_the_file(tmp_path: Path) -> None:
    """The file's line is right, and was overridden."""
    file = tmp_path / "spec.yaml"
    file.write_text("data: {path: set}\noptimizer:\n  lr: 0.1\n")
    with pytest.raises(InputError, match=r"^The value of 'optimizer.lr' is 'fast'"):
        load_spec(file, [("optimizer.lr", "fast")])


def test_errors_in_merged_yaml_name_the_original_position(tmp_path: Path) -> None:
    """An anchor is written once and used twice; the error is where it was written."""
    file = tmp_path / "spec.yaml"
    file.write_text("data: {path: set}\noptimizer: &o\n  lr: 0\nmodel: {width: 8}\n")
    with pytest.raises(InputError, match=rf"^{file}:3:7: "):
        load_spec(file)
