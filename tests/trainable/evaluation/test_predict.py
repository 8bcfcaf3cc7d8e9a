"""Prediction from files: outputs of the input's size that equal the evaluation's, or one clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from data.errors import InputError
from data.images import decode_photo, encode_jpeg, encode_png
from data.schema import Pixels
from trainable.config import TrialConfig, build
from trainable.evaluation.grid import as_pixels, predict
from trainable.evaluation.predict import predict_files, predict_pixels
from trainable.job import TrialData
from trainable.loop import checkpoint
from trainable.loop.loaders import evaluation_loader, read_part
from trainable.loop.state import DistributedContext
from trainable.models.prediction import Prediction

SIZE = 32
CONFIG = build(
    TrialConfig, {"data": {"image_size": SIZE}, "model": {"width": 4, "precision": "fp32"}}, source="the test"
)


@pytest.fixture(scope="module")
def saved(save_warmed: Callable[[TrialConfig], Path]) -> Path:
    """A checkpoint of `CONFIG`."""
    return save_warmed(CONFIG)


def photo(seed: int, height: int = 40, width: int = 70) -> Pixels:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.uint8)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two photographs that are wider than high, one PNG and one JPEG."""
    paths = tmp_path / "bg.png", tmp_path / "fg_bg.jpg"
    paths[0].write_bytes(encode_png(photo(0)))
    paths[1].write_bytes(encode_jpeg(photo(1)))
    return paths


def test_three_images_of_the_inputs_size(saved: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Users overlay them on the input, which rarely has the shape of the model's input."""
    out = tmp_path / "new" / "out"
    written = predict_files(saved, *pair, out)
    assert written == [out / "mask.png", out / "depth.png", out / "overlay.png"]
    assert sorted(out.iterdir()) == sorted(written)
    mask, depth, overlay = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in written)
    assert (mask.shape, depth.shape, overlay.shape) == ((40, 70), (40, 70), (40, 70, 3))
    photos = [decode_photo(path.read_bytes(), path.name) for path in pair]
    expected = predict_pixels(saved, *photos)
    np.testing.assert_array_equal(mask, expected[0])
    np.testing.assert_array_equal(depth, expected[1])
    assert mask.std() > 0
    assert predict_files(saved, *pair, out) == written  # again, over what is there


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_a_threshold_makes_the_mask_binary(
    saved: Path, pair: tuple[Path, Path], tmp_path: Path, threshold: float
) -> None:
    """With a threshold the mask is 0 or 255; the depth does not change."""
    plain, binary = tmp_path / "plain", tmp_path / "binary"
    predict_files(saved, *pair, plain)
    predict_files(saved, *pair, binary, threshold=threshold)
    probability, mask = (cv2.imread(str(out / "mask.png"), cv2.IMREAD_UNCHANGED) for out in (plain, binary))
    np.testing.assert_array_equal(mask, np.where(probability / 255 >= threshold, 255, 0))
    assert (plain / "depth.png").read_bytes() == (binary / "depth.png").read_bytes()


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 127.0, float("nan"), float("inf")])
def test_threshold_outside_0_to_1_is_refused(
    saved: Path, pair: tuple[Path, Path], tmp_path: Path, threshold: float
) -> None:
    """Users may pass a grey level instead."""
    with pytest.raises(InputError, match=r"'--threshold' is .*, but must be a probability from 0 to 1"):
        predict_files(saved, *pair, tmp_path / "out", threshold=threshold)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_photographs_are_predicted_upright(saved: Path, tmp_path: Path, form: str, orientation: int) -> None:
    """EXIF orientation is applied, as Pillow does: the prediction of an upright photograph is upright."""
    exif, paths = Image.Exif(), []
    exif[0x0112] = orientation
    for name, seed in (("bg", 0), ("fg_bg", 1)):
        paths.append(tmp_path / name)
        Image.fromarray(photo(seed)).save(paths[-1], form, exif=exif)
    shown = [np.array(ImageOps.exif_transpose(Image.open(path))) for path in paths]
    written = predict_files(saved, *paths, tmp_path / "out")
    mask, depth = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in written[:2])
    expected = predict_pixels(saved, *shown)
    np.testing.assert_array_equal(mask, expected[0])
    np.testing.assert_array_equal(depth, expected[1])


def test_order_of_the_two_images_matters(saved: Path) -> None:
    """With swapped inputs, the mask would show an object that does not exist."""
    mask, _ = predict_pixels(saved, photo(0), photo(1))
    swapped, _ = predict_pixels(saved, photo(1), photo(0))
    assert not np.array_equal(mask, swapped)


def test_a_stored_sample_is_predicted_as_the_evaluation_does(saved: Path, trial_data: TrialData) -> None:
    """A prediction from files must be as good as the score measured on the data set."""
    model, origin = checkpoint.load_model(saved)
    context = DistributedContext(device=torch.device("cpu"))
    (batch,) = evaluation_loader(origin.config, trial_data, "test", context).epoch(0)
    expected = as_pixels(predict(model, batch, origin.config.model))
    stored = read_part(origin.config.data, trial_data, "test").gather(np.arange(3))
    for index in range(3):
        found = predict_pixels(saved, stored.bg[index], stored.fg_bg[index])
        for plane, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(plane.astype(int), wanted[index].astype(int), atol=1)


def test_planes_as_pixels_are_clipped_not_wrapped() -> None:
    """The depth head is linear: -0.1 must be black and 1.1 white, not the other way round."""
    depth = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1, 300.0]).view(1, 1, 1, 6)
    logits = torch.tensor([-200.0, -1.0, 0.0, 1.0, 20.0, 200.0]).view(1, 1, 1, 6)
    mask, far = as_pixels(Prediction.of(logits, depth))
    assert far.tolist() == [[[0, 0, 128, 255, 255, 255]]]
    assert mask.tolist() == [[[0, 69, 128, 186, 255, 255]]]


def test_images_of_two_sizes_are_refused(saved: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Their pixels do not correspond."""
    pair[0].write_bytes(encode_png(photo(0, height=41)))
    with pytest.raises(InputError, match="are 70 × 41 and 70 × 40 pixels; give two of the same size"):
        predict_files(saved, *pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("content", [None, b"", b"no image", encode_png(photo(0))[:500]])
def test_file_that_is_not_an_image_is_refused(
    saved: Path, pair: tuple[Path, Path], tmp_path: Path, which: int, content: bytes | None
) -> None:
    """The error names the file."""
    if content is None:
        pair[which].unlink()
    else:
        pair[which].write_bytes(content)
    with pytest.raises(InputError, match=str(pair[which])):
        predict_files(saved, *pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_directory_is_not_an_image(saved: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Users may pass a directory of images."""
    with pytest.raises(InputError, match="Is a directory"):
        predict_files(saved, tmp_path, pair[1], tmp_path / "out")


def test_unwritable_destination_is_refused(saved: Path, pair: tuple[Path, Path]) -> None:
    """A file blocks the output directory."""
    with pytest.raises(InputError, match=f"'{pair[0]}'.*give another directory"):
        predict_files(saved, *pair, pair[0])
    assert cv2.imread(str(pair[0])).shape == (40, 70, 3)


def test_a_directory_without_a_checkpoint_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Users may pass a parent or child directory instead."""
    with pytest.raises(InputError, match="give a directory made by 'twinhead best'"):
        predict_files(tmp_path, *pair, tmp_path / "out")
