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
from tests.trainable.evaluation.whole import predict_whole
from trainable.config import TrialConfig, build
from trainable.evaluation.grid import as_pixels, predict
from trainable.evaluation.pairs import Pair, pair_of_files
from trainable.evaluation.predict import count_made, predict_pairs
from trainable.evaluation.predictor import Predictor
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


def predict_files(checkpoint: Path, bg: Path, fg_bg: Path, out: Path, *, threshold: float | None = None) -> list[Path]:
    """Predict one pair, as the command does: mask.png, depth.png and overlay.png in `out`."""
    [found] = predict_pairs(Predictor(checkpoint), [pair_of_files(bg, fg_bg)], out, threshold=threshold)
    if found.state == "failed":
        raise InputError(found.reason)
    return list(found.written)


def test_three_images_of_the_inputs_size(saved: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Users overlay them on the input, which rarely has the shape of the model's input."""
    out = tmp_path / "new" / "out"
    written = predict_files(saved, *pair, out)
    assert written == [out / "mask.png", out / "depth.png", out / "overlay.png"]
    assert sorted(out.iterdir()) == sorted(written)
    mask, depth, overlay = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in written)
    assert (mask.shape, depth.shape, overlay.shape) == ((40, 70), (40, 70), (40, 70, 3))
    photos = [decode_photo(path.read_bytes(), path.name) for path in pair]
    [expected] = predict_whole(Predictor(saved), photos[:1], photos[1:])
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


@pytest.mark.slow
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
    [expected] = predict_whole(Predictor(saved), shown[:1], shown[1:])
    np.testing.assert_array_equal(mask, expected[0])
    np.testing.assert_array_equal(depth, expected[1])


def test_order_of_the_two_images_matters(saved: Path) -> None:
    """With swapped inputs, the mask would show an object that does not exist."""
    [(mask, _), (swapped, _)] = predict_whole(Predictor(saved), [photo(0), photo(1)], [photo(1), photo(0)])
    assert not np.array_equal(mask, swapped)


def test_a_stored_sample_is_predicted_as_the_evaluation_does(saved: Path, trial_data: TrialData) -> None:
    """A prediction from files must be as good as the score measured on the data set."""
    model, origin = checkpoint.load_model(saved)
    context = DistributedContext(device=torch.device("cpu"))
    (batch,) = evaluation_loader(origin.config, trial_data, "test", context).epoch(0)
    expected = as_pixels(predict(model, batch, origin.config.model))
    stored = read_part(origin.config.data, trial_data, "test").gather(np.arange(3))
    for index in range(3):
        [found] = predict_whole(Predictor(saved), [stored.bg[index]], [stored.fg_bg[index]])
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


def listed(directory: Path, count: int = 5) -> list[Pair]:
    """Pairs of files named 0, 1, …, of two sizes."""
    directory.mkdir(exist_ok=True)
    pairs = []
    for number in range(count):
        paths = [directory / f"{number}-{kind}.png" for kind in ("bg", "fg_bg")]
        for path, seed in zip(paths, (number, 100 + number), strict=True):
            path.write_bytes(encode_png(photo(seed, height=40 + number % 2)))
        pairs.append(pair_of_files(*paths, name=f"room/{number}"))
    return pairs


def written(out: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of each file."""
    paths = [path for path in out.rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_several_pairs_are_predicted_as_each_alone(saved: Path, tmp_path: Path) -> None:
    """Batches change nothing but the speed: names, sizes and pixels are those of single pairs."""
    pairs, out = listed(tmp_path / "in"), tmp_path / "out"
    found = list(predict_pairs(Predictor(saved), pairs, out))

    assert [(predicted.pair, predicted.state) for predicted in found] == [(pair, "made") for pair in pairs]
    assert set(written(out)) == {
        f"{kind}/room/{number}.png" for kind in ("mask", "depth", "overlay") for number in range(5)
    }
    for predicted, pair in zip(found, pairs, strict=True):
        alone = predict_files(saved, Path(pair.bg), Path(pair.fg_bg), tmp_path / pair.name)
        for path, expected in zip(predicted.written, alone, strict=True):
            pixels, wanted = (cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in (path, expected))
            np.testing.assert_allclose(pixels.astype(int), wanted.astype(int), atol=2)


def test_an_interrupted_prediction_continues(saved: Path, tmp_path: Path) -> None:
    """What is complete is kept; what is missing, also of a single pair, is made."""
    pairs, out, predictor = listed(tmp_path / "in"), tmp_path / "out", Predictor(saved)
    names = [pair.name for pair in pairs]
    whole = tmp_path / "whole"
    list(predict_pairs(predictor, pairs, whole))
    interrupted = predict_pairs(predictor, pairs, out)
    next(interrupted)
    interrupted.close()
    for number in (1, 2, 3, 4):
        for kind in ("overlay", "mask", "depth")[: number - 1]:
            (out / kind / "room" / f"{number}.png").unlink(missing_ok=True)
    before = written(out)
    assert count_made(predictor, names, out) < 5

    states = [predicted.state for predicted in predict_pairs(predictor, pairs, out)]

    assert states[0] == "kept"
    assert "kept" not in states[2:]
    after = written(out)
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in written(whole).items()
    }
    assert all(after[name] == before[name] for name in before if name.endswith("/0.png"))
    assert count_made(predictor, names, out) == 5
    assert {predicted.state for predicted in predict_pairs(predictor, pairs, out)} == {"kept"}
    assert written(out) == after


def test_another_threshold_replaces_the_predictions(saved: Path, tmp_path: Path) -> None:
    """It is the same network and the same images: the masks are made again, and the depth stays as it is."""
    pairs, out, predictor = listed(tmp_path / "in", 2), tmp_path / "out", Predictor(saved)
    list(predict_pairs(predictor, pairs, out))
    depth = (out / "depth/room/0.png").read_bytes()

    assert count_made(predictor, ["room/0", "room/1"], out, threshold=0.5) == 0
    assert {found.state for found in predict_pairs(predictor, pairs, out, threshold=0.5)} == {"replaced"}
    assert {found.state for found in predict_pairs(predictor, pairs, out, threshold=0.5)} == {"kept"}
    assert set(np.unique(cv2.imread(str(out / "mask/room/0.png"), cv2.IMREAD_UNCHANGED))) <= {0, 255}
    assert (out / "depth/room/0.png").read_bytes() == depth


def test_predictions_of_other_networks_and_images_are_not_replaced(
    saved: Path, save_warmed: Callable[[TrialConfig], Path], tmp_path: Path
) -> None:
    """They have the same names, and nothing else would tell them apart."""
    pairs, out = listed(tmp_path / "in", 2), tmp_path / "out"
    list(predict_pairs(Predictor(saved), pairs, out))
    before = written(out)
    values = CONFIG.model_dump() | {"model": {"width": 8, "precision": "fp32"}}
    other = Predictor(save_warmed(build(TrialConfig, values, source="the test")))

    with pytest.raises(InputError, match=r"mask/room/0\.png' is not of this network and these images"):
        list(predict_pairs(other, pairs, out))
    Path(pairs[1].bg).write_bytes(encode_png(photo(7, height=41)))
    with pytest.raises(InputError, match=r"mask/room/1\.png' is not of this network and these images"):
        list(predict_pairs(Predictor(saved), pairs, out))
    (out / "mask/room/0.png").write_bytes(encode_png(photo(0)))
    with pytest.raises(InputError, match=r"mask/room/0\.png' is not of this network and these images"):
        list(predict_pairs(Predictor(saved), pairs[:1], out))
    assert {name: content for name, content in written(out).items() if name != "mask/room/0.png"} == {
        name: content for name, content in before.items() if name != "mask/room/0.png"
    }


def test_pairs_that_fail_are_named_and_the_others_go_on(saved: Path, tmp_path: Path) -> None:
    """One bad file of a thousand does not cost the others."""
    pairs, out = listed(tmp_path / "in"), tmp_path / "out"
    Path(pairs[0].bg).write_bytes(b"no image")
    Path(pairs[2].fg_bg).unlink()
    Path(pairs[3].bg).write_bytes(encode_png(photo(0, height=30)))

    found = list(predict_pairs(Predictor(saved), pairs, out))

    assert [predicted.state for predicted in found] == ["failed", "made", "failed", "failed", "made"]
    assert f"'{pairs[0].bg}' is not an image" in found[0].reason
    assert f"'{pairs[2].fg_bg}' cannot be read (No such file or directory)" in found[2].reason
    assert "are 70 × 30 and 70 × 41 pixels" in found[3].reason
    assert sorted(path.name for path in (out / "mask/room").iterdir()) == ["1.png", "4.png"]


def test_large_photographs_are_predicted_in_smaller_batches(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of photographs of 12 megapixels would take gigabytes of memory."""
    monkeypatch.setattr("trainable.evaluation.predict.MAX_BATCH_BYTES", 10_000)
    sizes = []

    class Counting(Predictor):
        def predict_small(self, bg: Pixels, fg_bg: Pixels, valid: Pixels | None = None) -> list[tuple[Pixels, Pixels]]:
            sizes.append(len(bg))
            return super().predict_small(bg, fg_bg, valid)

    predictor = Counting(saved)
    assert len(list(predict_pairs(predictor, listed(tmp_path / "in", 5), tmp_path / "out"))) == 5
    assert sizes == [2, 2, 1]


def test_predictions_note_what_they_are_of(saved: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Any program that reads PNG text sees it."""
    mask, depth, _ = predict_files(saved, *pair, tmp_path / "out", threshold=0.5)
    with Image.open(mask) as image, Image.open(depth) as other:
        note, of_depth = image.text["Twinhead"], other.text["Twinhead"]
    assert note == f"{of_depth} threshold=0.5"
    assert of_depth.startswith(f"network={Predictor(saved).identity} images=")


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("L", None),
        ("P", None),
        ("1", None),
        ("RGBA", None),
        ("transparent", "fg_bg.png' is transparent in"),
        ("I;16", "fg_bg.png' is stored as uint16, but must have 8 bits a channel"),
    ],
)
def test_photographs_of_other_modes(saved: Path, tmp_path: Path, mode: str, sentence: str | None) -> None:
    """Grey, palette, black and white, opaque alpha: as Pillow shows them; the others are refused by name."""
    bg, fg_bg = tmp_path / "bg.png", tmp_path / "fg_bg.png"
    Image.fromarray(photo(0)).save(bg)
    if mode == "I;16":
        Image.fromarray(photo(1)[:, :, 0].astype(np.uint16) * 257).save(fg_bg)
    elif mode == "transparent":
        Image.fromarray(np.dstack([photo(1), photo(2)[:, :, 0]])).save(fg_bg)
    else:
        Image.fromarray(photo(1)).convert(mode).save(fg_bg)
    if sentence:
        with pytest.raises(InputError, match=sentence):
            predict_files(saved, bg, fg_bg, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    mask, *_ = predict_files(saved, bg, fg_bg, tmp_path / "out")
    shown = np.array(Image.open(fg_bg).convert("RGB"))
    [(expected, _)] = predict_whole(Predictor(saved), [photo(0)], [shown])
    np.testing.assert_array_equal(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED), expected)
