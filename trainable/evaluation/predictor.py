"""An exported network, ready to predict mask and depth of photographs of any size.

Shapes: B pairs, H and W height and width of a photograph in pixels, h and w those of the network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from data.errors import InputError
from data.fitting.fit import Fitting
from data.schema import Pixels
from trainable.evaluation.grid import as_pixels, predict_photos
from trainable.loop.checkpoint import load_model
from trainable.loop.checkpoint_files import WEIGHTS, checksums
from trainable.loop.precision import as_recorded
from trainable.loop.state import default_device

MAX_BATCH_SIZE = 32


class Predictor:
    """A network on a device.

    Args:
        checkpoint: directory exported by `twinhead best`.
        device: of the computation; the GPU if there is one when left out.

    Raises:
        InputError: if the checkpoint cannot be loaded; the subclass DamagedCheckpointError if a file is damaged.
    """

    def __init__(self, checkpoint: Path, device: torch.device | None = None) -> None:
        self.device = device or default_device()
        model, origin = load_model(checkpoint)
        self.config = as_recorded(origin.config)
        self.batch_size = MAX_BATCH_SIZE if self.config.model.eval_mode == "eval" else 1
        """Pairs per forward pass; one if the network's layers in training mode mix the images of a batch."""
        self._data = self.config.data
        fit: list[str] = [] if self._data.fit == "stretch" else [self._data.fit]
        if fit and self.config.model.depth_activation == "minmax":
            fit.append("inside")  # earlier versions stretched the depth over the border too
        self.identity = _identity(
            checkpoint, (self.config.model.model_dump_json(), self._data.image_size, self._data.resize, *fit)
        )
        """Equal for networks that make the same predictions, up to rounding."""
        self.fitting = Fitting.of_whole_images(self._data.sides, self._data.resize, self._data.fit)
        self._model = model.on(self.device)

    def shrink(self, photo: Pixels) -> Pixels:
        """Fit a photograph (H, W, 3) to the size of the network, (h, w, 3)."""
        return self.fitting.image(photo)

    def predict_small(self, bg: Pixels, fg_bg: Pixels, valid: Pixels | None = None) -> list[tuple[Pixels, Pixels]]:
        """Predict mask and depth, (h, w) uint8 each by pair, of two stacks of photographs (B, h, w, 3).

        `valid` is as `Fitting.borders` returns it. On an out-of-memory error, the stacks are predicted in halves.

        Raises:
            torch.OutOfMemoryError: if a single pair does not fit.
        """
        try:
            masks, depths = as_pixels(predict_photos(self._model, bg, fg_bg, self.config, valid))
        except torch.OutOfMemoryError:
            if len(bg) == 1:
                raise
        else:
            return list(zip(masks, depths, strict=True))
        half = len(bg) // 2
        parts = slice(half), slice(half, None)
        first, second = (
            self.predict_small(bg[part], fg_bg[part], None if valid is None else valid[part]) for part in parts
        )
        return first + second


def refuse_other_size(bg: Pixels, fg_bg: Pixels, names: tuple[str, str]) -> None:
    """Refuse a pair of photographs of different sizes; `names` are for the message.

    Raises:
        InputError: if they differ.
    """
    if bg.shape != fg_bg.shape:
        sizes = " and ".join(f"{photo.shape[1]} × {photo.shape[0]}" for photo in (bg, fg_bg))
        raise InputError(f"The images '{names[0]}' and '{names[1]}' are {sizes} pixels; give two of the same size.")


def _identity(checkpoint: Path, settings: Sequence[object]) -> str:
    weights = checksums(checkpoint).get(WEIGHTS)
    if weights is None:  # written by an early version
        weights = hashlib.sha256((checkpoint / WEIGHTS).read_bytes()).hexdigest()
    return hashlib.sha256(repr((weights, *settings)).encode()).hexdigest()[:16]
