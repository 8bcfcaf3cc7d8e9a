"""Faults of transforms are found before a trial, each with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from data.augment.catalog import REFUSED, SET_HERE, usable
from data.augment.faults import faults

SIDE = 64


def fault_of(name: str, **arguments: Any) -> tuple[str, str]:
    """The key of the only fault, and the predicate about it."""
    (found,) = faults({name: {**arguments, "p": 0.5}}, SIDE, SIDE)
    return found.key, found.said


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(usable()) - {"CropAndPad"}))
def test_every_usable_transform_runs_with_its_defaults(name: str) -> None:
    """What is offered by name works; what would not is in the list of the refused."""
    assert faults({name: {"p": 0.5}}, SIDE, SIDE) == []


def test_a_transform_with_a_needed_argument_runs_with_it() -> None:
    """The reason of albumentations is shown without it."""
    assert faults({"CropAndPad": {"percent": [-0.1, 0.1], "p": 1.0}}, SIDE, SIDE) == []
    assert "cannot be None" in fault_of("CropAndPad")[1]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_transforms_exist(name: str) -> None:
    """A name that albumentations dropped would be dead weight in the list."""
    import albumentations

    assert hasattr(albumentations, name)
    assert name not in usable()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RandomCrop", "changes the size"),
        ("Normalize", "must stay uint8"),
        ("ToTensorV2", "must stay uint8"),
        ("FDA", "needs other images"),
        ("Lambda", "needs other images, texts or functions"),
        ("MaskDropout", "needs labelled objects"),
        ("OneOf", "listed here one by one"),
        ("CenterCrop3D", "is for volumes"),
        ("GridElasticDeform", "leaves black gaps"),
    ],
)
def test_a_transform_that_does_not_fit_is_refused_with_its_reason(name: str, reason: str) -> None:
    """A user who knows it from albumentations must learn why it is missing."""
    key, said = fault_of(name)
    assert key == name
    assert reason in said


@pytest.mark.parametrize(
    ("name", "meant"),
    [("GridDistorsion", "GridDistortion"), ("Clahe", "CLAHE"), ("grid_distortion", "GridDistortion")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, meant: str) -> None:
    """A typo must not leave a transform out."""
    assert f"(did you mean '{meant}'?)" in fault_of(name)[1]


@pytest.mark.parametrize("name", ["os", "__version__", "BasicTransform", "DualTransform"])
def test_other_names_of_the_library_are_no_transforms(name: str) -> None:
    """They are attributes of the module too."""
    assert "is no transform of albumentations" in fault_of(name)[1]


@pytest.mark.parametrize(
    ("name", "arguments", "key", "said"),
    [
        ("CLAHE", {"clip": 2}, "CLAHE.clip", "is no argument of CLAHE, which has clip_limit, tile_grid_size, p"),
        ("MedianBlur", {"limit": 3}, "MedianBlur.limit", "is no argument of MedianBlur"),
        ("GridDistortion", {"distort": 1}, "GridDistortion.distort", "(did you mean 'distort_limit'?)"),
        ("GridDistortion", {"distort_limit": "x"}, "GridDistortion.distort_limit", "is 'x', but must be a list or a"),
        ("GridDistortion", {"distort_limit": 3.0}, "GridDistortion.distort_limit", "must be within [-1, 1]"),
        ("GaussNoise", {"std_range": 0.1}, "GaussNoise.std_range", "is 0.1, but must be a list"),
        ("CLAHE", {"tile_grid_size": [0, 0]}, "CLAHE.tile_grid_size", "must be >= 1"),
        ("FancyPCA", {"alpha": -1}, "FancyPCA.alpha", "is -1, but must be greater than or equal to 0"),
        ("Affine", {"scale": {"x": 1}}, "Affine.scale", "must be a plain value or a list"),
        ("Rotate", {"crop_border": True}, "Rotate", "makes images ("),
        ("ToGray", {"num_output_channels": 1}, "ToGray", "makes images (64, 64) uint8, which were (64, 64, 3) uint8"),
        ("Affine", {"fit_output": True, "rotate": [30, 60]}, "Affine", "makes images ("),
    ],
)
def test_wrong_arguments_are_faults(name: str, arguments: dict[str, Any], key: str, said: str) -> None:
    """With the key, the value, and what it must be."""
    found, shown = fault_of(name, **arguments)
    assert found == key
    assert said in shown


@pytest.mark.parametrize("argument", sorted(set(SET_HERE) - {"strict", "mask_drop_value"}))
def test_borders_and_fills_of_targets_are_no_options(argument: str) -> None:
    """A border of 0 would be a depth."""
    key, said = fault_of("GridDistortion", **{argument: 0})
    assert key == f"GridDistortion.{argument}"
    assert "is not an option here" in said


def test_the_probability_is_checked() -> None:
    """It is an argument like the others."""
    (found,) = faults({"CLAHE": {"p": 1.5}}, SIDE, SIDE)
    assert (found.key, found.value) == ("CLAHE.p", 1.5)


def test_all_faults_are_found_at_once() -> None:
    """One run of the check shows them all."""
    found = faults({"CLAHE": {"a": 1, "b": 2, "p": 1}, "Blurr": {"p": 1}, "Blur": {"p": 1}}, SIDE, SIDE)
    assert [each.key for each in found] == ["CLAHE.a", "CLAHE.b", "Blurr"]


def test_sides_of_a_rectangle_must_stay() -> None:
    """A transform that swaps them keeps the size of a square only."""
    assert faults({"Transpose": {"p": 0.5}}, SIDE, SIDE) == []
    assert "makes images (96, 64, 3)" in faults({"Transpose": {"p": 0.5}}, SIDE, 96)[0].said
