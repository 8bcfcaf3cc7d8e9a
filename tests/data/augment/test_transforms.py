"""Transforms of albumentations on the images of a sample: aligned, repeatable, and equal to albumentations itself."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest

from data.augment.catalog import Arguments, by_name, is_geometric, usable
from data.augment.cpu import Augmenter
from data.augment.transforms import PHOTOS, ResultError, Transforms
from data.schema import Pixels

SIDE = 48
NEEDED: Mapping[str, Arguments] = {"CropAndPad": {"percent": [-0.2, 0.2]}}
"""Arguments of transforms that do nothing, or cannot be built, without them."""
DROPOUTS = {"CoarseDropout", "Erasing", "GridDropout", "PixelDropout", "XYMasking"}
"""Geometric by their class, but they only hide parts of the photographs."""
GEOMETRIC = [name for name in usable() if is_geometric(name)]
PHOTOMETRIC = [name for name in usable() if not is_geometric(name)]
SEVERAL = {
    "GridDistortion": {"p": 0.7},
    "ElasticTransform": {"alpha": 30, "sigma": 5, "p": 0.5},
    "GaussNoise": {"p": 0.5},
}


def transforms(*names: str, apart: bool = False) -> Transforms:
    """Always applied, with the default arguments of albumentations."""
    return Transforms({name: {**NEEDED.get(name, {}), "p": 1.0} for name in names}, apart=apart)


def pattern(count: int, seed: int = 0) -> Pixels:
    """(count, SIDE, SIDE) smooth images, so that interpolation changes little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), np.uint8)
    return np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for one in coarse])


def same_everywhere(planes: Pixels) -> dict[str, Pixels]:
    """A batch with the same content in all images of a sample."""
    photos = np.repeat(planes[..., None], 3, axis=3)
    return {"bg": photos, "fg_bg": photos.copy(), "mask": planes.copy(), "depth": planes.copy()}


def batch(count: int = 6) -> dict[str, Pixels]:
    """A batch with other content in every image."""
    colours = [np.stack([pattern(count, 3 * image + channel) for channel in range(3)], axis=3) for image in range(2)]
    return {"bg": colours[0], "fg_bg": colours[1], "mask": pattern(count, 6), "depth": pattern(count, 7)}


def changed(by: Transforms, images: Mapping[str, Pixels], *key: int) -> dict[str, Pixels]:
    """A changed copy of a batch."""
    copies = {name: stack.copy() for name, stack in images.items()}
    by.change(copies, *(key or (1, 2, 3)))
    return copies


def equal(left: Mapping[str, Pixels], right: Mapping[str, Pixels]) -> bool:
    return all(np.array_equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", sorted(set(GEOMETRIC) - DROPOUTS))
def test_geometric_transforms_change_the_four_images_alike(name: str) -> None:
    """A mask that is a pixel off its photograph teaches the network to be a pixel off."""
    new = changed(transforms(name), same_everywhere(pattern(4)))
    for plane in (new["bg"][..., 0], new["fg_bg"][..., 2], new["mask"]):
        np.testing.assert_allclose(plane.astype(int), new["depth"].astype(int), atol=1)


def test_a_mask_of_a_photograph_is_still_its_mask() -> None:
    """Thresholds of the photograph, before and after a strong distortion, differ at edges alone."""
    photo = np.where(pattern(8) > 127, 225, 30).astype(np.uint8)
    images = same_everywhere(photo) | {"mask": np.where(photo > 127, 255, 0).astype(np.uint8)}
    new = changed(Transforms({"GridDistortion": {"distort_limit": 0.5, "p": 1.0}}), images)
    assert ((new["fg_bg"][..., 0] > 127) != (new["mask"] > 127)).mean() < 0.001
    assert (new["mask"] != images["mask"]).mean() > 0.05


@pytest.mark.parametrize("name", GEOMETRIC)
def test_depth_has_no_values_that_it_had_not_before(name: str) -> None:
    """Black borders or gaps would be the nearest, or farthest, depth."""
    images = batch() | {"depth": np.full((6, SIDE, SIDE), 200, np.uint8)}
    assert (changed(transforms(name), images)["depth"] == 200).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_photometric_transforms_leave_mask_and_depth(name: str) -> None:
    """They are the truth that the network learns."""
    images = batch()
    new = changed(transforms(name), images)
    assert equal({part: images[part] for part in ("mask", "depth")}, new)


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_photometric_transforms_share_their_draw(name: str) -> None:
    """The light of a scene is the same with and without the figure in it."""
    new = changed(transforms(name), same_everywhere(pattern(2)))
    np.testing.assert_array_equal(new["bg"], new["fg_bg"])


@pytest.mark.parametrize("name", ["GaussNoise", "RandomBrightnessContrast", "RandomRain"])
def test_photometric_transforms_apart_draw_for_each_photograph(name: str) -> None:
    """As the built-in jitter and noise do, so that a difference of the photographs is not always the figure."""
    new = changed(transforms(name, apart=True), same_everywhere(pattern(4)))
    assert all((bg != fg_bg).any() for bg, fg_bg in zip(new["bg"], new["fg_bg"], strict=True))


def test_apart_concerns_photometric_transforms_only() -> None:
    """Photographs that are distorted apart would show two scenes."""
    new = changed(transforms("GridDistortion", apart=True), same_everywhere(pattern(4)))
    np.testing.assert_array_equal(new["bg"], new["fg_bg"])
    np.testing.assert_allclose(new["bg"][..., 0].astype(int), new["mask"].astype(int), atol=1)


FIXED: Mapping[str, Arguments] = {
    "Affine": {"rotate": [20, 20], "translate_percent": [0.1, 0.1], "p": 1.0},
    "OpticalDistortion": {"distort_limit": [0.4, 0.4], "p": 1.0},
    "CLAHE": {"clip_limit": [3.0, 3.0], "p": 1.0},
    "RandomBrightnessContrast": {"brightness_limit": [0.2, 0.2], "contrast_limit": [-0.3, -0.3], "p": 1.0},
}
"""Ranges of one value: nothing is random."""


def test_transforms_agree_with_a_pipeline_of_the_reference() -> None:
    """In their order, with the additional targets as the documentation of albumentations has them."""
    import albumentations

    geometry = {"border_mode": cv2.BORDER_REFLECT_101, "mask_interpolation": cv2.INTER_LINEAR}
    steps = [
        getattr(albumentations, name)(**arguments, **(geometry if is_geometric(name) else {}))
        for name, arguments in FIXED.items()
    ]
    pipeline = albumentations.Compose(steps, additional_targets={"fg_bg": "image", "depth": "mask"})
    images = batch()
    new = changed(Transforms(FIXED), images)
    for sample in range(len(images["bg"])):
        bg, fg_bg, mask, depth = (images[name][sample] for name in ("bg", "fg_bg", "mask", "depth"))
        wanted = pipeline(image=bg, fg_bg=fg_bg, mask=mask, depth=depth)
        for name in images:
            np.testing.assert_array_equal(new[name][sample], wanted["image" if name == "bg" else name])


@pytest.mark.parametrize("name", ["GridDistortion", "ElasticTransform", "ISONoise", "RandomFog"])
def test_random_arguments_agree_with_the_reference(name: str) -> None:
    """A transform of albumentations with the same generators draws the same, sample after sample."""
    import albumentations

    generator = np.random.default_rng((1, 2, 3, 1))
    kind = getattr(albumentations, name)
    alone = kind(p=1.0, **({"border_mode": cv2.BORDER_REFLECT_101} if is_geometric(name) else {}))
    alone.set_random_state(generator, random.Random(int(generator.integers(2**63))))  # noqa: S311
    images = batch()
    new = changed(transforms(name), images, 1, 2, 3)
    for sample in range(len(images["bg"])):
        np.testing.assert_array_equal(new["bg"][sample], alone(image=images["bg"][sample])["image"])


def test_a_transform_is_applied_with_its_probability() -> None:
    """Per sample, not per batch."""
    count, p = 600, 0.3
    images = {name: np.zeros((count, 8, 8, 3), np.uint8) for name in PHOTOS}
    new = changed(Transforms({"InvertImg": {"p": p}}), images)
    share = (new["bg"] > 0).any(axis=(1, 2, 3)).mean()
    assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / count)


def test_probability_0_leaves_a_transform_out() -> None:
    """A search turns a transform off so; the others draw as if it were not there."""
    without, with_it = ({"GaussNoise": {"p": 1.0}}, {"InvertImg": {"p": 0.0}, "GaussNoise": {"p": 1.0}})
    assert equal(changed(Transforms(without), batch()), changed(Transforms(with_it), batch()))


def test_the_key_decides_the_draw() -> None:
    """An epoch can be repeated, and no two batches are augmented alike."""
    images = batch()
    first = changed(Transforms(SEVERAL), images, 0, 1, 0, 2)
    assert equal(first, changed(Transforms(SEVERAL), images, 0, 1, 0, 2))
    for other in ((1, 1, 0, 2), (0, 2, 0, 2), (0, 1, 1, 2), (0, 1, 0, 3)):
        assert not equal(first, changed(Transforms(SEVERAL), images, *other))


def test_earlier_batches_do_not_matter() -> None:
    """A resumed epoch starts in its middle."""
    used, images = Transforms(SEVERAL), batch()
    changed(used, images, 7)
    assert equal(changed(used, images, 8), changed(Transforms(SEVERAL), images, 8))


def test_threads_do_not_disturb_each_other() -> None:
    """Batches are prepared ahead in several threads, from one augmenter."""
    shared, images = Transforms(SEVERAL), batch(3)
    alone = [changed(Transforms(SEVERAL), images, number) for number in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda number: changed(shared, images, number), range(24)))
    assert all(map(equal, alone, together))


@pytest.mark.slow
def test_another_process_draws_the_same() -> None:
    """A trial that is repeated on another node sees the same images."""
    code = (
        "import hashlib, numpy as np\n"
        "from data.augment.transforms import Transforms\n"
        f"transforms = Transforms({SEVERAL!r})\n"
        "photos = np.arange(3 * 48 * 48 * 3, dtype=np.uint32).astype(np.uint8).reshape(3, 48, 48, 3)\n"
        "planes = photos[..., 0].copy()\n"
        "images = {'bg': photos, 'fg_bg': photos.copy(), 'mask': planes, 'depth': planes.copy()}\n"
        "transforms.change(images, 4, 5)\n"
        "digest = hashlib.sha256(b''.join(stack.tobytes() for stack in images.values())).hexdigest()\n"
    )
    here: dict[str, Any] = {}
    exec(code, here)  # noqa: S102  the code above
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}print(digest)"],
        env=os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert ran.stdout.split() == [here["digest"]]


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_validity_mask_has_no_values_between(name: str) -> None:
    """A pixel is valid or not."""
    images = batch() | {"valid": np.where(pattern(6) > 100, 255, 0).astype(np.uint8)}
    assert set(np.unique(changed(transforms(name), images)["valid"])) <= {0, 255}


def test_pixels_from_outside_are_not_valid() -> None:
    """They are reflected in the other images, so that nothing there looks like a border."""
    images = batch() | {"valid": np.full((6, SIDE, SIDE), 255, np.uint8)}
    shift = Transforms({"Affine": {"translate_px": {"x": 12, "y": 0}, "p": 1.0}})
    new = changed(shift, images)
    assert (new["valid"][:, :, :12] == 0).all()
    assert (new["valid"][:, :, 12:] == 255).all()
    np.testing.assert_array_equal(new["depth"][:, :, :12], images["depth"][:, :, 12:0:-1])


def test_a_validity_mask_moves_with_the_depth() -> None:
    """An invalid region stays where its depth is, also for a distortion that is drawn at random."""
    hole = pattern(8) > 170
    depth = np.where(hole, 0, 255).astype(np.uint8)
    images = batch(8) | {"depth": depth, "valid": depth.copy()}
    new = changed(Transforms({"GridDistortion": {"distort_limit": 0.4, "p": 0.5}}), images)
    inside = new["valid"] == 255
    assert (np.abs(new["depth"].astype(int) - 255)[inside] > 200).mean() < 0.01
    assert (new["valid"] != images["valid"]).any()


@pytest.mark.parametrize("name", GEOMETRIC)
def test_invalid_levels_have_no_influence_on_valid_depth(name: str) -> None:
    """Interpolation mixes neighbours: a pixel that reads a hole is not valid."""
    images = batch()
    valid = np.where(pattern(6) > 100, 255, 0).astype(np.uint8)
    black, white = (
        changed(transforms(name), images | {"depth": np.where(valid, images["depth"], level), "valid": valid.copy()})
        for level in (np.uint8(0), np.uint8(255))
    )
    np.testing.assert_array_equal(black["valid"], white["valid"])
    is_valid = black["valid"] == 255
    assert is_valid.any()
    np.testing.assert_array_equal(black["depth"][is_valid], white["depth"][is_valid])


def test_other_images_do_not_depend_on_a_validity_mask() -> None:
    """A data set with one is augmented like a data set without."""
    images = batch()
    with_valid = changed(Transforms(SEVERAL), images | {"valid": images["mask"]})
    assert equal(changed(Transforms(SEVERAL), images), with_valid)


def test_an_image_of_another_shape_is_refused() -> None:
    """It would be cut or broadcast into the memory of the batch."""
    with pytest.raises(ResultError, match=r"makes images \(\d+, \d+, 3\) uint8, which were \(48, 48, 3\) uint8"):
        changed(Transforms({"Rotate": {"limit": [30, 30], "crop_border": True, "p": 1.0}}), batch())


def test_built_in_transforms_run_first() -> None:
    """They are what a configuration has without a list, and the order must not depend on it."""
    images = batch()
    first = tuple(images[name].copy() for name in ("bg", "fg_bg", "mask", "depth"))
    Augmenter(hflip=1.0, transforms=transforms("GridDistortion")).change(first, 5)
    flipped = {name: np.ascontiguousarray(stack[:, :, ::-1]) for name, stack in images.items()}
    wanted = changed(transforms("GridDistortion"), flipped, 5)
    assert all(np.array_equal(stack, wanted[name]) for name, stack in zip(wanted, first, strict=True))


@pytest.mark.parametrize(
    "plain",
    [
        {"CLAHE": {}, "Blur": {"p": 0.2}},
        {"CLAHE": None, "Blur": {"p": 0.2}},
        ["CLAHE", {"Blur": {"p": 0.2}}],
        [{"CLAHE": {"p": 0.5}}, {"Blur": {"p": 0.2}}],
    ],
)
def test_a_list_and_a_mapping_are_the_same(plain: Any) -> None:
    """In order, with the default probability."""
    assert list(by_name(plain).items()) == [("CLAHE", {"p": 0.5}), ("Blur", {"p": 0.2})]


@pytest.mark.parametrize(
    ("plain", "wanted"),
    [
        (3, "be transforms by name"),
        ("CLAHE", "be transforms by name"),
        (["CLAHE", "CLAHE"], "'CLAHE' is there twice"),
        ({"CLAHE": 0.3}, "arguments such as {p: 0.3} for 'CLAHE', not 0.3"),
        ([{"CLAHE": None, "p": 0.3}], "have entries such as"),
        ([["CLAHE"]], "have entries such as"),
    ],
)
def test_another_form_is_refused(plain: Any, wanted: str) -> None:
    """A slip in the indentation must not become another augmentation."""
    with pytest.raises(ValueError) as caught:
        by_name(plain)
    assert wanted in str(caught.value)
