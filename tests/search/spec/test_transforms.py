"""Transforms of albumentations in a spec: their arguments are leaves, and errors are found when it is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from search.spec.domains import Range
from search.spec.spec import SearchSpec, check_spec, load_spec
from search.spec.template import as_text
from search.strategy.space import default_parameters, define_space
from search.strategy.warm_start import find_starts
from tests.search.conftest import Said
from trainable.config import ConfigError, TrialConfig, build

PREFIX = "data.augment.transforms"
SEARCHED = {
    "OpticalDistortion": {"p": {"per": "optimizer.name", "sgd": 0.1, "adam": 0.2, "adamw": {"low": 0.1, "high": 0.2}}},
    "GridDistortion": {"p": {"low": 0.1, "high": 1, "or_zero": True}, "distort_limit": {"low": 0.1, "high": 0.4}},
    "CLAHE": {"clip_limit": {"choices": [2, 4]}},
}


def spec_of(transforms: object, **sections: Any) -> SearchSpec:
    plain = {"data": {"augment": {"transforms": transforms}}, **sections}
    return check_spec(plain, source="the test", data_path="set")


def draws(spec: SearchSpec, count: int) -> list[dict[str, Any]]:
    """The transforms of random trials, which are all valid."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = define_space(spec)
    values = [space(study.ask()) for _ in range(count)]
    configs = [build(TrialConfig, each, source="the test") for each in values]
    return [config.data.augment.transforms for config in configs]


def test_arguments_are_leaves() -> None:
    """They are searched, fixed and shown by their dotted keys, like all others."""
    space = spec_of(SEARCHED).space
    assert space[f"{PREFIX}.GridDistortion.distort_limit"] == Range(0.1, 0.4)
    assert space[f"{PREFIX}.CLAHE.p"] == 0.5


def test_integer_bounds_of_a_float_are_a_range_of_floats() -> None:
    """{0, 1} would otherwise be two values."""
    space = spec_of({"GridDistortion": {"p": {"low": 0, "high": 1}, "distort_limit": {"low": 0, "high": 1}}}).space
    for name in ("p", "distort_limit"):
        domain = space[f"{PREFIX}.GridDistortion.{name}"]
        assert isinstance(domain, Range)
        assert isinstance(domain.low, float)


def test_trials_have_the_transforms_in_the_order_of_the_spec() -> None:
    """Whatever is searched, and whatever depends on another leaf."""
    assert all(list(drawn) == list(SEARCHED) for drawn in draws(spec_of(SEARCHED), 30))


def test_arguments_of_a_transform_that_is_left_out_are_not_searched() -> None:
    """The surrogate would be fitted to noise."""
    drawn = [transforms["GridDistortion"] for transforms in draws(spec_of(SEARCHED), 60)]
    without = [arguments for arguments in drawn if not arguments["p"]]
    assert 15 < len(without) < 45
    assert all("distort_limit" not in arguments for arguments in without)
    assert all("distort_limit" in arguments for arguments in drawn if arguments["p"])


def test_a_list_is_the_same_spec_as_a_mapping() -> None:
    """A list is shorter without arguments."""
    assert spec_of(["CLAHE", {"Blur": {"p": 0.2}}]) == spec_of({"CLAHE": {}, "Blur": {"p": 0.2}})


def test_without_transforms_the_space_is_as_before() -> None:
    """The printed spec has an empty mapping."""
    assert spec_of({}) == check_spec({}, source="the test", data_path="set")


@pytest.mark.parametrize("transforms", [SEARCHED, ["CLAHE"], {}])
def test_a_printed_spec_is_the_same_spec(transforms: object) -> None:
    """As it is stored with the experiment, and as a user sees it."""
    spec = spec_of(transforms)
    assert check_spec(spec.as_plain(), source="its own values") == spec
    printed = yaml.safe_load(as_text(spec))
    assert check_spec(printed, source="its text") == spec


@pytest.mark.parametrize(
    ("overrides", "p"),
    [
        ([(f"{PREFIX}.CLAHE.p", "0.3")], 0.3),
        ([(f"{PREFIX}.CLAHE", "{p: 0.4}")], 0.4),
        ([(PREFIX, "[CLAHE]")], 0.5),
        ([(PREFIX, "{CLAHE: {p: 0.6}}")], 0.6),
    ],
)
@pytest.mark.parametrize("text", ["[CLAHE, Blur]", "{CLAHE: , Blur: {p: 0.2}}", "{}"])
def test_the_command_line_overrides_arguments(
    overrides: list[tuple[str, str]], p: float, text: str, tmp_path: Path
) -> None:
    """Whichever form the file has."""
    file = tmp_path / "spec.yaml"
    file.write_text(f"data:\n  path: set\n  augment:\n    transforms: {text}\n")
    assert load_spec(file, overrides).space[f"{PREFIX}.CLAHE.p"] == p


@pytest.mark.parametrize("command", ["spec --check spec.yaml", "search spec.yaml", "search spec.yaml --dry-run"])
def test_an_unknown_transform_is_an_error_of_every_command(
    twinhead: Callable[..., Said], tmp_path: Path, command: str
) -> None:
    """Before anything is written, with its position and the nearest name."""
    (tmp_path / "spec.yaml").write_text(
        "data:\n  path: nowhere\n  augment:\n    transforms:\n      GridDistorsion: {p: 0.3}\n"
    )
    said = twinhead(*command.split())

    assert (said.code, said.out) == (2, "")
    assert said.err.removeprefix("twinhead: ") == (
        "spec.yaml:5:7: The key 'data.augment.transforms.GridDistorsion' is no transform of albumentations 2.0.8 (did "
        "you mean 'GridDistortion'?); correct it in 'spec.yaml'.\n"
    )
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("{CLAHE: {clip: 2}}", (4, 26), "The key 'data.augment.transforms.CLAHE.clip' is no argument of CLAHE"),
        ("[Blur, CLAHE: {clip: 2}]", (4, 32), "The key 'data.augment.transforms.CLAHE.clip' is no argument of CLAHE"),
        ("{CLAHE: {p: 2}}", (4, 29), "is 2.0, but must be less than or equal to 1"),
        ("{CLAHE: {p: {low: 0.5, high: 2}}}", (4, 46), "is 2.0, but must be less than or equal to 1"),
        ("{Resize: {height: 3}}", (4, 18), "changes the size of the images"),
        ("[CLAHE, CLAHE]", (4, 17), "have each transform once, and 'CLAHE' is there twice"),
        ("{Rotate: {border_mode: 0}}", (4, 27), "is not an option here"),
        ("{Affine: {scale: {x: 1}}}", (4, 34), "must be a value, {low, high, log} or {choices}"),
        ("5", (4, 17), "is 5, but must be transforms by name"),
        ("{Rotate: {crop_border: true}}", (4, 26), "makes images"),
    ],
)
def test_errors_have_their_position(text: str, place: tuple[int, int], said: str, tmp_path: Path) -> None:
    """Editors jump to FILE:LINE:COLUMN."""
    file = tmp_path / "spec.yaml"
    file.write_text(f"data:\n  path: set\n  augment:\n    transforms: {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_spec(file)
    (problem,) = caught.value.problems
    assert said in problem.sentence
    assert problem.place
    assert (problem.place.line, problem.place.column) == place


def test_a_misspelt_section_is_refused() -> None:
    """The section is a key of `augment` like the others."""
    with pytest.raises(ConfigError, match=r"use one of hflip, .*, transforms in .* \(did you mean 'transforms'\?\)"):
        check_spec({"data": {"augment": {"transform": {}}}}, source="the test", data_path="set")


def test_the_default_trial_has_no_transforms() -> None:
    """It is the configuration without a spec, as far as the space holds it."""
    parameters = default_parameters(spec_of(SEARCHED))
    assert parameters[f"{PREFIX}.GridDistortion.p?"] is False


def test_a_recipe_starts_a_search_of_transforms_that_may_be_left_out() -> None:
    """No recipe has any, so a space that always has one holds no recipe."""
    by_choice = {"GridDistortion": {"p": {"low": 0.1, "high": 0.5, "or_zero": True}, "distort_limit": 0.3}}
    starts, outside = find_starts(spec_of(by_choice), ["ramana-dnn"], Path("nowhere"))
    assert (len(starts), outside) == (1, {})
    assert starts[0].parameters[f"{PREFIX}.GridDistortion.p?"] is False

    _, outside = find_starts(spec_of({"GridDistortion": {"p": 0.3}}), ["ramana-dnn"], Path("nowhere"))
    assert outside == {"ramana-dnn": f"its {PREFIX}.GridDistortion.p is 0.0, and the space has 0.3"}
