"""The spec: valid files, and one helpful sentence for each invalid value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from search.spec.default_space import DEFAULT_SPACE
from search.spec.domains import Choices, Per, Range
from search.spec.spec import check_spec, load_spec
from search.spec.template import as_text, summary_lines


def load(path: Path, text: str, *overrides: tuple[str, str]) -> Any:
    path.write_text(text)
    return load_spec(path, overrides, data_path="set")


BAD = {
    "optimizer: {learning_rate: 1}": r"'optimizer.learning_rate' is not known; use one of name, lr",
    "optimiser: {lr: 1}": r"section 'optimiser' is not known; use one of data, model",
    "budget: {trial: 3}": r"'budget.trial' is not known",
    "model: 3": r"section 'model' is 3, but must have keys",
    "loss: {mask: 3}": r"'loss.mask' is 3, but must have keys such as 'bce'",
    "optimizer: {lr: fast}": r"'optimizer.lr' is 'fast', but must be a valid number",
    "data: {image_size: '96'}": r"'data.image_size' is '96', but must be a valid integer",
    "data: {image_size: 50}": r"'data.image_size' is 50, but must be a multiple of 16",
    "data: {image_size: [64, 50]}": r"'data.image_size' is \[64, 50\], but must be a multiple of 16, or",
    "data: {image_size: [64]}": r"'data.image_size' is \[64\], but must be a side, or the two sides \[height, width\]",
    "optimizer: {lr: null}": r"'optimizer.lr' is None, but must be a valid number",
    "optimizer: {lr: [0.1, 0.2]}": r"'optimizer.lr' is \[0.1, 0.2\], but must be a valid number",
    "budget: {trials: 0}": r"'budget.trials' is 0, but must be greater than or equal to 1",
    "search: {seed: 4294967296}": r"'search.seed' is 4294967296, but must be less than",
    "scheduler: {grace_epochs: 10}": r"must have grace_epochs at most max_epochs, which is 9",
    "scheduler: {reduction_factor: .inf}": r"'scheduler.reduction_factor' is inf, but must be a finite number",
    "scheduler: {reduction_factor: 1.1}": r"'scheduler.reduction_factor' is 1.1, but must be greater than or equal to",
    "budget: {hours: .inf}": r"'budget.hours' is inf, but must be a finite number",
    "resources: {gpus_per_trial: -1}": r"'resources.gpus_per_trial' is -1, but must be .auto. or a number of at least",
    "resources: {concurrent: few}": r"'resources.concurrent' is 'few', but must be 'auto' or an integer",
    "model: {width: {choices: []}}": r"choices of 'model.width' are \[\], but must be a list of at least one value",
    "model: {width: {choices: 8}}": r"choices of 'model.width' are 8, but must be a list",
    "model: {width: {choices: [8, 8]}}": r"choices of 'model.width' are \[8, 8\], but must differ",
    "model: {width: {choices: [8, big]}}": r"'model.width' is 'big', but must be a valid integer",
    "model: {width: {choices: [[8], [9]]}}": r"choices of 'model.width' are .* but must be plain values",
    "model: {family: {choices: [resunet, unet]}}": r"'model.family' is 'unet', but must be one of .*resunet",
    "model: {family: unet}": r"'model.family' is 'unet', but must be one of .*resunet",
    "optimizer: {lr: {low: 1, high: 0.1}}": r"range of 'optimizer.lr' has low 1 above high 0.1.*swap them",
    "optimizer: {lr: {low: 0, high: 1, log: true}}": r"'optimizer.lr' has log: true and low 0.*low above 0",
    "optimizer: {lr: {low: .nan, high: 1}}": r"'optimizer.lr.low' is nan, but must be a finite number",
    "optimizer: {lr: {low: 0.1, high: .inf}}": r"'optimizer.lr.high' is inf, but must be a finite number",
    "optimizer: {lr: {low: 0.1, high: x}}": r"'optimizer.lr.high' is 'x', but must be a finite number",
    "optimizer: {lr: {low: 0.1, high: 1, log: 3}}": r"'optimizer.lr.log' is 3, but must be true or false",
    "optimizer: {lr: {low: 0.1, high: 1, step: 2}}": r"key 'step' of the range 'optimizer.lr' is not known; use one of",
    "optimizer: {lr: {low: 0.1, hihg: 1}}": r"key 'hihg' of the range 'optimizer.lr' .* \(did you mean 'high'\?\)",
    "optimizer: {lr: {low: 0.1}}": r"The range of 'optimizer.lr' has no 'high'; add it in",
    "optimizer: {lr: {lwo: 0.1}}": r"must be a value, \{low, high, log\} or \{choices\}",
    "optimizer: {lr: .nan}": r"'optimizer.lr' is nan, but must be a finite number",
    "optimizer: {lr: {choices: [.nan, 1]}}": r"'optimizer.lr' is nan, but must be a finite number",
    "policy: {name: {low: 0, high: 1}}": r"'policy.name' is a range, but must be a value or \{choices\}",
    "optimizer: {nesterov: {low: 0, high: 1}}": r"'optimizer.nesterov' is a range",
    "data: {batch_size: {low: 0, high: 8}}": r"'data.batch_size' is 0, but must be greater than or equal to 1",
    "model: {width: {low: 8, high: 15.5}}": r"'model.width' is 15.5, but must be a valid integer",
    "data: {image_size: {choices: [32, 64]}}": r"'data.image_size' is .* but must be a single value",
    "data: {fit: {choices: [crop, pad]}}": r"'data.fit' is .* but must be a single value",
    "data: {fit: area}": r"'data.fit' is 'area', but must be 'stretch', 'crop' or 'pad'",
    "data: {resize: crop}": r"'data.resize' is 'crop', but must be 'area', 'bilinear' or 'lanczos'",
    "data: {split: {train: 0.9}}": r"'data.split' is .* but must add up to 1, not to 1.2",
    "loss: {mask: {bce: 0, dice: 0, l1: 0}}": r"must give the mask head at least one loss with a weight above 0",
    "optimizer: {name: lion}": r"'optimizer.name' is 'lion', but must be 'sgd', 'adam' or 'adamw'",
    "optimizer: {lr: {per: optimizer.nam, sgd: 1}}": r"'optimizer.lr.per' is 'optimizer.nam', but must be the name of",
    "optimizer: {lr: {per: optimizer.name, sgd: 0.1}}": r"'optimizer.lr' has no domain for optimizer.name: adam, adamw",
    "optimizer: {lr: {per: optimizer.name}}": r"'optimizer.lr' is .* must have a domain for each value",
    "optimizer: {lr: {per: optimizer.name, sgd: {per: x, y: 1}, adamw: 1.0}}": r"'per' within a 'per'",
    "optimizer: {momentum: {low: 0.5, high: 0.9}, lr: {per: optimizer.momentum, 0.5: 0.1, 0.9: 1.0}}": (
        r"must be a leaf of a single value or"
    ),
    "optimizer: {lr: {per: policy.onecycle.anneal, cos: 0.1}}": r"must be a leaf of .* that every trial has",
    "optimizer:\n  lr: [1\n": r"no valid YAML at line 3, column 1 of the spec '.*spec.yaml'",
    "data:\n\tsplit_by: sample": r"no valid YAML at line 2, column 1 of",
    "model: \x01": r"no valid YAML in the spec '.*spec.yaml'",
    "model: !!python/object:os.system {}": r"no valid YAML at line 1, column 8",
    "model: {width: 2026-13-41}": r"no valid YAML in the spec",
    "resunet": r"must hold sections such as 'data:'",
    "search: {start_from: [a b]}": r"'search.start_from' is .* must contain 'recipes', 'portfolio', .*, not 'a b'",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", BAD)
def test_invalid_values_are_named(tmp_path: Path, text: str) -> None:
    """A spec is written by hand: each error says which key, what it holds and what it may hold."""
    with pytest.raises(InputError, match=BAD[text]) as caught:
        load(tmp_path / "spec.yaml", text)

    assert "spec.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    """A wrong path, a directory, an image: the commonest slips of a command line."""
    (tmp_path / "picture").write_bytes(b"\xff\xd8\xff")
    for path in (tmp_path / "nowhere.yaml", tmp_path, tmp_path / "picture"):
        with pytest.raises(InputError, match=rf"The spec '{path}' cannot be read .*; give a YAML file\."):
            load_spec(path, data_path="set")


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("optimizer.lr", "fast", r"'optimizer.lr' is 'fast'.* in '.*spec.yaml' or the command line"),
        ("optimizer.rate", "1", r"'optimizer.rate' is not known"),
        ("lr", "1", r"has no section; write --set SECTION.KEY=VALUE"),
        ("model.width.low", "1", r"is below a plain value"),
        ("optimizer.lr", "{low: 1", r"no valid YAML at line 1, column \d+ of --set optimizer.lr"),
    ],
)
def test_invalid_values_of_the_command_line_are_named(tmp_path: Path, key: str, text: str, sentence: str) -> None:
    """The value may come from the file or from --set: the sentence must not send people to the wrong one."""
    with pytest.raises(InputError, match=sentence):
        load(tmp_path / "spec.yaml", "model: {width: 8}", (key, text))


def test_missing_data_set_is_reported(tmp_path: Path) -> None:
    """It is the one thing without a default."""
    with pytest.raises(InputError, match=r"data set is missing; give --data, or set data.path"):
        load_spec()
    with pytest.raises(InputError, match=r"'data.path' is 3, but must be a directory"):
        check_spec({"data": {"path": 3}}, source="the spec")


def test_keys_missing_in_a_file_keep_their_defaults(tmp_path: Path) -> None:
    """A short spec is a whole one: the default space stays searched, one leaf is fixed."""
    spec = load(tmp_path / "spec.yaml", "model: {width: 8}\nbudget: {trials: 3}\n")
    found: Any = spec.space

    assert found["model.width"] == 8
    assert found["optimizer.name"] == Choices(("sgd", "adam", "adamw"))
    assert isinstance(found["optimizer.lr"], Per)
    assert found["data.image_size"] == 96
    assert spec.plan.budget.trials == 3
    assert spec.plan.scheduler.max_epochs == 9
    assert spec.data_path == "set"


def test_images_may_be_rectangles(tmp_path: Path) -> None:
    """In a file and in --set; trials get both sides, and the summary names them."""
    written = load(tmp_path / "spec.yaml", "data: {image_size: [64, 96]}\n")
    given: Any = load_spec(None, [("data.image_size", "[64, 96]")], data_path="set")

    assert written.space == given.space
    assert given.space["data.image_size"] == [64, 96]
    assert "set at 64 x 96 px" in next(summary_lines(given))
    again = load(tmp_path / "again.yaml", as_text(given))
    assert again.space == given.space


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_empty_file_equals_the_defaults(tmp_path: Path, text: str) -> None:
    """Commenting everything out must not be an error."""
    assert load(tmp_path / "spec.yaml", text) == load_spec(data_path="set")


def test_command_line_overrides_the_file(tmp_path: Path) -> None:
    """A file is varied without being copied."""
    spec = load(
        tmp_path / "spec.yaml",
        "data: {path: other}\noptimizer: {lr: 0.5}\nbudget: {trials: 3}\n",
        ("optimizer.lr", "1e-3"),
        ("budget.trials", "4"),
        ("model.width", "{choices: [2, 4]}"),
    )
    found: Any = spec.space

    assert found["optimizer.lr"] == 0.001
    assert found["model.width"] == Choices((2, 4))
    assert (spec.plan.budget.trials, spec.data_path) == (4, "set")


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1.0e-3", ".1e-2", "+1e-3", "0.001"])
def test_numbers_are_parsed_in_common_notations(tmp_path: Path, number: str) -> None:
    """YAML 1.1 takes 1e-3 for a string, which nobody expects."""
    spec = load(tmp_path / "spec.yaml", f"optimizer: {{lr: {number}}}")

    assert spec.space["optimizer.lr"] == 0.001


def test_integer_bounds_of_a_float_give_a_float_range(tmp_path: Path) -> None:
    """{low: 0, high: 1} of a weight is not the two values 0 and 1; of a count it is whole numbers."""
    spec = load(tmp_path / "spec.yaml", "policy: {warmup: {low: 0, high: 0.5}}\ndata: {batch_size: {low: 2, high: 8}}")
    found: Any = spec.space

    assert isinstance(found["policy.warmup"].low, float)
    assert found["data.batch_size"] == Range(2, 8)
    assert isinstance(found["data.batch_size"].low, int)


bounds = st.floats(1e-6, 10.0).flatmap(lambda low: st.floats(low, 10.0).map(lambda high: (low, high)))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(bounds, st.booleans(), st.lists(st.integers(1, 64), min_size=1, unique=True), st.integers(1, 50))
def test_spec_survives_a_yaml_round_trip(rates: tuple[float, float], log: bool, widths: list[int], trials: int) -> None:
    """The stored spec of a search is read again on resume, and must define the same search."""
    spec = check_spec(
        {
            "optimizer": {"lr": {"low": rates[0], "high": rates[1], "log": log}},
            "model": {"width": {"choices": widths}},
            "budget": {"trials": trials},
        },
        source="the test",
        data_path="set",
    )

    assert check_spec(spec.as_plain(), source="the test") == spec


def test_conditions_survive_a_yaml_round_trip() -> None:
    """A domain for each value of a switch: true and false must not become words."""
    per = {"per": "optimizer.nesterov", True: 0.1, False: {"low": 0.1, "high": 0.2}}
    spec = check_spec(
        {"optimizer": {"nesterov": {"choices": [True, False]}, "lr": per}}, source="the test", data_path="set"
    )

    assert check_spec(spec.as_plain(), source="the test") == spec


def test_a_list_for_each_value_survives_being_written() -> None:
    """A normalisation for each family is one value each: the search that is resumed must read the same."""
    per = {"per": "model.family", "pair": [0.5, 0.5, 0.5], "sepunet": [0.0, 0.0, 0.0]}
    model = {"family": {"choices": ["pair", "sepunet"]}, "normalise": {"bg_mean": per}}
    spec = check_spec({"model": model}, source="the test", data_path="set")

    assert check_spec(spec.as_plain(), source="the test") == spec


def test_retraining_may_have_its_own_epochs() -> None:
    """Only the numbers that are given differ, and they are checked as in a file."""
    spec = load_spec(data_path="set")

    assert spec.with_retraining(4).plan.retrain.epochs == 4
    assert spec.with_retraining(4).space == spec.space
    with pytest.raises(InputError, match=r"'retrain.epochs' is 0.*--epochs"):
        spec.with_retraining(0)
    assert spec.with_retraining(cpus=2).plan.retrain == spec.plan.retrain.model_copy(update={"cpus": 2})
    assert spec.with_retraining() == spec
    with pytest.raises(InputError, match=r"'retrain.cpus' is 0.*--cpus"):
        spec.with_retraining(cpus=0)


@pytest.mark.parametrize("workers", ["auto", 2, [1, 4]])
def test_retraining_workers_survive_the_spec_file(workers: Any) -> None:
    """They survive the file of the spec."""
    spec = check_spec({"retrain": {"workers": workers}}, source="the test", data_path="set")
    assert check_spec(yaml.safe_load(as_text(spec)), source="the test") == spec
    assert spec.plan.retrain.workers == (tuple(workers) if isinstance(workers, list) else workers)


@pytest.mark.parametrize("workers", [0, "all", [2], [2, 1], [0, 2], 1.5, True])
def test_invalid_retraining_workers_are_refused(workers: Any) -> None:
    with pytest.raises(InputError, match=r"'retrain\.workers'.* must be 'auto', an integer of at least 1, or a pair"):
        check_spec({"retrain": {"workers": workers}}, source="the test", data_path="set")


def test_validation_does_not_change_its_input() -> None:
    """The demo's spec and the default space are values that others read."""
    given_values = {"data": {"path": "set"}, "model": {"width": {"choices": [4, 8]}}}
    before = repr((given_values, DEFAULT_SPACE))
    check_spec(given_values, source="the test")

    assert repr((given_values, DEFAULT_SPACE)) == before
