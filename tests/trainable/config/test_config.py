"""The configuration: invalid values are refused on construction, with an error that a user can act on."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from data.errors import InputError
from trainable.config import ConfigError, DataConfig, OptimizerConfig, TrialConfig, build


def nested(key: str, value: object) -> dict[str, Any]:
    """{'optimizer': {'lr': 0.1}} of 'optimizer.lr' and 0.1."""
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def trial(values: dict[str, Any]) -> TrialConfig:
    return build(TrialConfig, values, source="spec.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.image_size", 100),
        ("data.image_size", 0),
        ("data.image_size", 4096),
        ("data.batch_size", 0),
        ("data.split_by", "room"),
        ("data.augment.hflip", 1.1),
        ("data.augment.rotate", 46.0),
        ("data.augment.zoom", 1.0),
        ("data.augment.jitter", -0.1),
        ("data.augment.noise", 0.6),
        ("model.width", 0),
        ("model.precision", "fp16"),
        ("loss.mask.bce", -1.0),
        ("optimizer.name", "lion"),
        ("optimizer.lr", 0.0),
        ("optimizer.momentum", 1.0),
        ("optimizer.weight_decay", -1e-4),
        ("optimizer.clip_norm", -1.0),
        ("policy.name", "exponential"),
        ("policy.warmup", 0.6),
        ("policy.step.every", 0.0),
        ("policy.step.factor", 1.0),
        ("policy.plateau.patience", 1.5),
        ("policy.cyclic.floor", 0.0),
        ("policy.onecycle.pct_start", 1.0),
        ("policy.onecycle.div", 0.5),
        ("policy.cosine.floor", -0.1),
        ("epochs", 0),
        ("seed", -1),
    ],
)
def test_values_out_of_bounds_are_refused(key: str, value: object) -> None:
    """It is found before the search starts; the error names the key, the value and the file."""
    with pytest.raises(InputError) as caught:
        trial(nested(key, value))
    sentence = str(caught.value)
    assert f"The value of '{key}' is {value!r}, but must " in sentence
    assert "; correct it in spec.yaml" in sentence


@pytest.mark.parametrize(
    "key", ["optimizer.lr", "optimizer.weight_decay", "optimizer.clip_norm", "loss.depth.ssim", "data.augment.rotate"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_are_finite(key: str, value: float) -> None:
    """YAML has .nan and .inf, and a NaN compares as within any bound."""
    with pytest.raises(InputError, match=key):
        trial(nested(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.lr", "0.1"),
        ("data.batch_size", "16"),
        ("data.batch_size", 16.0),
        ("epochs", True),
        ("optimizer.nesterov", "yes"),
        ("optimizer.nesterov", 1),
        ("model.family", 3),
        ("data", 3),
    ],
)
def test_types_are_strict(key: str, value: object) -> None:
    """A silently converted value is a typo that costs a night of training."""
    with pytest.raises(InputError, match=f"'{key}'"):
        trial(nested(key, value))


def test_a_whole_number_is_a_number() -> None:
    """People write `lr: 1`."""
    config = trial({"optimizer": {"lr": 1}})
    assert config.optimizer.lr == 1.0


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("batchsize", "data, "),
        ("optimizer.beta", "name, lr, "),
        ("policy.onecycle.divisor", "pct_start, div, final_div, "),
        ("data.augment.flip", "hflip, vflip, "),
    ],
)
def test_unknown_keys_are_refused(key: str, known: str) -> None:
    """A misspelt key would silently keep the default; the list of known keys shows the intended one."""
    with pytest.raises(InputError) as caught:
        trial(nested(key, 1))
    said = str(caught.value)
    assert said.startswith(f"The key '{key}' is not known; remove it from spec.yaml, or use one of ")
    assert known in said


def test_error_does_not_print_a_whole_section() -> None:
    """The problem would get lost among six hundred characters."""
    with pytest.raises(InputError) as caught:
        trial({"loss": {"mask": dict.fromkeys(("bce", "dice", "l1", "ssim", "edge", "mse", "rmse", "huber"), 0.0)}})
    assert str(caught.value).startswith("The section 'loss' must give the mask head at least one loss")


def test_nesterov_needs_momentum() -> None:
    """torch would raise in the trial; AdamW does not look at it."""
    values = {"name": "sgd", "nesterov": True, "momentum": 0.0}
    with pytest.raises(InputError, match=r"'optimizer' is .* momentum above 0"):
        trial({"optimizer": values})
    assert build(OptimizerConfig, values | {"momentum": 0.5}, source="here").nesterov
    assert build(OptimizerConfig, values | {"name": "adamw"}, source="here").nesterov


@pytest.mark.parametrize(
    ("head", "weights"), [("mask", {"bce": 0}), ("depth", {"l1": 0.0}), ("mask", {"bce": 0, "dice": 0, "l1": 0})]
)
def test_both_heads_are_trained(head: str, weights: dict[str, float]) -> None:
    """A head without a loss keeps its random weights but counts in the score."""
    with pytest.raises(InputError, match=f"the {head} head at least one loss"):
        trial({"loss": {head: weights}})


def test_shares_add_up_to_1() -> None:
    """The remaining samples would be unused."""
    with pytest.raises(InputError, match=r"'data\.split' is .* add up to 1, not to 0\.9"):
        trial({"data": {"split": {"train": 0.6, "val": 0.15, "test": 0.15}}})
    config = build(DataConfig, {"split": {"train": 0.7, "val": 0.2, "test": 0.1}}, source="here")
    assert config.shares == (0.7, 0.2, 0.1)


def test_a_configuration_cannot_be_changed() -> None:
    """A validated configuration is shared, so it must not change."""
    config = TrialConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 3  # type: ignore[misc]


def test_json_round_trip() -> None:
    """Checkpoints and the search's storage keep configurations as JSON."""
    config = trial(
        {
            "data": {"batch_size": 7, "augment": {"rotate": 12.5}},
            "optimizer": {"name": "sgd", "lr": 0.1 + 0.2, "nesterov": True},
            "policy": {"name": "plateau", "plateau": {"patience": 1 / 3}},
            "seed": 2**40,
        }
    )
    again = trial(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config
    assert again != TrialConfig()
    assert trial({}) == TrialConfig()


def test_transforms_have_errors_with_key_value_and_advice() -> None:
    """One sentence for each, all at once."""
    transforms = {"CLAHE": {"clip": 1}, "Blur": {"p": 2}, "Resize": {}}
    with pytest.raises(ConfigError) as caught:
        trial({"data": {"augment": {"transforms": transforms}}})
    assert [problem.sentence for problem in caught.value.problems] == [
        "The key 'data.augment.transforms.CLAHE.clip' is no argument of CLAHE, which has clip_limit, tile_grid_size, "
        "p; correct it in spec.yaml.",
        "The value of 'data.augment.transforms.Blur.p' is 2, but must be less than or equal to 1; correct it in "
        "spec.yaml.",
        "The key 'data.augment.transforms.Resize' changes the size of the images, which data.image_size gives; remove "
        "it from spec.yaml.",
    ]


def test_transforms_must_fit_the_smallest_stage() -> None:
    """A run that stops at its second stage has lost the first."""
    values = {"image_size": 64, "augment": {"transforms": {"CoarseDropout": {"hole_height_range": [20, 30]}}}}
    assert "CoarseDropout" in trial({"data": values}).data.augment.transforms
    with pytest.raises(ConfigError, match=r"'data\.augment\.transforms\.CoarseDropout'"):
        trial({"data": {**values, "progression": [{"share": 0.5, "scale": 0.25}]}})


def test_a_list_of_transforms_becomes_a_mapping() -> None:
    """What is stored with a trial has one form."""
    config = trial({"data": {"augment": {"transforms": ["CLAHE", {"Blur": {"p": 0.1}}]}}})
    assert config.model_dump()["data"]["augment"]["transforms"] == {"CLAHE": {"p": 0.5}, "Blur": {"p": 0.1}}
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.slow
def test_albumentations_is_imported_for_transforms_only() -> None:
    """It takes longer to import than all the rest of a configuration."""
    code = (
        "import sys\n"
        "from search.spec.spec import check_spec\n"
        "for transforms in ({}, ['CLAHE']):\n"
        "    check_spec({'data': {'augment': {'transforms': transforms}}}, source='the test', data_path='set')\n"
        "    print('albumentations' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert ran.stdout.split() == ["False", "True"]
