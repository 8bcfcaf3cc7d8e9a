"""Prediction of mask and depth from image files with an exported checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from data.errors import InputError
from data.grids import overlay, save_png
from data.images import encode_png, resize
from data.schema import Batch, Pixels
from data.source_images import source_photo
from trainable.evaluation.grid import as_pixels, predict
from trainable.evaluation.swapped import look_swapped
from trainable.loop.checkpoint import load_model
from trainable.loop.precision import as_recorded
from trainable.loop.state import default_device

OUTPUTS = ("mask.png", "depth.png", "overlay.png")


def predict_files(checkpoint: Path, bg: Path, fg_bg: Path, out: Path, *, threshold: float | None = None) -> list[Path]:
    """Predict mask and depth of a pair of images, and write them as PNG files of the same size.

    Args:
        checkpoint: directory exported by `twinhead best`.
        bg: image of the background.
        fg_bg: image of the same background with a foreground object, of the same size.
        out: output directory, created if it is missing.
        threshold: minimum probability in 0..1 of a foreground pixel; None for a mask of probabilities.

    Returns:
        mask.png (probability, 0..255; 0 or 255 with a threshold), depth.png (far is bright, clipped to 0..255) and
        overlay.png in `out`.

    Raises:
        InputError: if a file cannot be read, the two images differ in size, the threshold is out of its range, or
            `out` cannot be written or has another prediction.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"The value of '--threshold' is {threshold:g}, but must be a probability from 0 to 1.")
    photos = [_read(path) for path in (bg, fg_bg)]
    if photos[0].shape != photos[1].shape:
        sizes = " and ".join(f"{photo.shape[1]} × {photo.shape[0]}" for photo in photos)
        raise InputError(f"The images '{bg}' and '{fg_bg}' are {sizes} pixels; give two of the same size.")
    mask, depth = predict_pixels(checkpoint, *photos)
    if threshold is not None:
        mask = np.where(mask >= threshold * 255, np.uint8(255), np.uint8(0))
    written = [out / name for name in OUTPUTS]
    _refuse_other(written, depth)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for pixels, path in zip((mask, depth, overlay(photos[1], mask)), written, strict=True):
            save_png(pixels, path)
    except OSError as error:
        raise InputError(f"Nothing can be written to '{out}' ({error.strerror}); give another directory.") from None
    return written


def files_look_swapped(bg: Path, fg_bg: Path) -> bool:
    """Whether the object seems to be in `bg` instead of `fg_bg`; see `look_swapped`. Both have the same size.

    Raises:
        InputError: if a file cannot be read.
    """
    return look_swapped(_read(bg), _read(fg_bg))


def predict_pixels(checkpoint: Path, bg: Pixels, fg_bg: Pixels) -> tuple[Pixels, Pixels]:
    """Predict mask (probability) and depth, both (H, W) uint8, of two (H, W, 3) uint8 images."""
    model, origin = load_model(checkpoint)
    device = default_device()
    config = as_recorded(origin.config)
    height, width = bg.shape[:2]
    size = config.data.image_size
    stacks = [
        torch.from_numpy(resize(photo, size, config.data.resize).copy()).permute(2, 0, 1)[None] for photo in (bg, fg_bg)
    ]
    unused = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    batch = Batch(bg=stacks[0], fg_bg=stacks[1], mask=unused, depth=unused).to(device)
    planes = as_pixels(predict(model.on(device), batch, config.model))
    mask, depth = (
        np.asarray(cv2.resize(plane[0], (width, height), interpolation=cv2.INTER_LINEAR), np.uint8) for plane in planes
    )
    return mask, depth


def _refuse_other(outputs: Sequence[Path], depth: Pixels) -> None:
    """Refuse to replace files that are not a prediction of the same network and images, which has the same depth."""
    there = [path for path in outputs if path.exists()]
    earlier = outputs[OUTPUTS.index("depth.png")]
    if there and not (earlier.is_file() and earlier.read_bytes() == encode_png(depth)):
        raise InputError(
            f"The file '{there[0]}' is not of this network and these images; give another --out, or remove it."
        )


def _read(path: Path) -> Pixels:
    try:
        return source_photo(path.read_bytes(), str(path))[0]
    except OSError as error:
        raise InputError(f"The image '{path}' cannot be read ({error.strerror}); give a PNG or JPEG file.") from None
