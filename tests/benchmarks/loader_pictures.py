"""What the loaders of `loader.py` are given: samples of smooth random pictures, and each of them as stored bytes.

Shapes: N samples, S a picture's side in pixels; pictures are uint8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.cache.decoded import DecodedImages
from data.schema import Batch, EncodedSample, Pixels

FIELDS = ("bg", "fg_bg", "mask", "depth")
JPEG_QUALITY = 90
_SPOTS = 12
"""Blobs a picture has from side to side: smoother than most photographs, so that JPEGs of them decode fast."""


def make_pictures(samples: int, per_background: int, size: int) -> DecodedImages:
    """N samples, `per_background` of them in a row with one background: photographs (N, S, S, 3), planes (N, S, S).

    No two samples are alike: a foreground has a place, a shape and grain of its own.
    """
    rng = np.random.default_rng(0)
    bg, fg_bg = (np.empty((samples, size, size, 3), np.uint8) for _ in range(2))
    mask, depth = (np.empty((samples, size, size), np.uint8) for _ in range(2))
    for index in range(samples):
        bg[index] = bg[index - 1] if index % per_background else _photo(rng, size)
        mask[index] = _figure(rng, size)
        share = mask[index].astype(np.float32)[:, :, None] / 255
        fg_bg[index] = bg[index] * (1 - share) + _photo(rng, size) * share
        depth[index] = _smooth(rng, size, 1)[:, :, 0]
    return DecodedImages(bg, fg_bg, mask, depth)


def stored_raw(pictures: DecodedImages, index: int) -> dict[str, bytes]:
    """The bytes of a sample's pixels, row by row."""
    return {field: stack[index].tobytes() for field, stack in zip(FIELDS, pictures[:4], strict=True)}


def stored_jpeg(pictures: DecodedImages, index: int) -> dict[str, bytes]:
    """A sample's pictures as JPEG files."""
    return {
        field: _encode(".jpg", stack[index], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        for field, stack in zip(FIELDS, pictures[:4], strict=True)
    }


def lossless_samples(pictures: DecodedImages, per_background: int) -> Iterator[EncodedSample]:
    """What a data set is written of: PNG files, so that what is read can be compared with `pictures`."""
    for index in range(len(pictures.mask)):
        files = {
            field: _encode(".png", stack[index], [cv2.IMWRITE_PNG_COMPRESSION, 0])
            for field, stack in zip(FIELDS, pictures[:4], strict=True)
        }
        bg_id = f"{index // per_background:04d}"
        yield EncodedSample(sample_id=f"{index:06d}", bg_id=bg_id, fg_id="figure", **files)


def to_batch(tensors: Sequence[torch.Tensor]) -> Batch:
    """Photographs (B, S, S, 3) and planes (B, S, S), in the order of FIELDS, seen in a batch's shapes."""
    bg, fg_bg, mask, depth = tensors
    return Batch(
        bg=bg.permute(0, 3, 1, 2), fg_bg=fg_bg.permute(0, 3, 1, 2), mask=mask.unsqueeze(1), depth=depth.unsqueeze(1)
    )


def fingerprints(bg: Pixels, fg_bg: Pixels, mask: Pixels, depth: Pixels) -> list[bytes]:
    """One for each of N samples, the same for two samples if and only if all their bytes are."""
    return [
        hashlib.sha256(b"".join(picture.tobytes() for picture in sample)).digest()
        for sample in zip(bg, fg_bg, mask, depth, strict=True)
    ]


def batch_fingerprints(batch: Batch) -> list[bytes]:
    """Those of a batch's samples."""
    photos = (stack.permute(0, 2, 3, 1).numpy() for stack in (batch.bg, batch.fg_bg))
    planes = (stack.squeeze(1).numpy() for stack in (batch.mask, batch.depth))
    return fingerprints(*photos, *planes)


def _photo(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """(S, S, 3): blobs of colour under a camera's grain."""
    grain = rng.standard_normal((size, size, 3), dtype=np.float32) * 3
    return np.clip(_smooth(rng, size, 3) + grain, 0, 255)


def _smooth(rng: np.random.Generator, size: int, channels: int) -> NDArray[np.float32]:
    """(S, S, `channels`), 0 to 255."""
    spots = rng.uniform(0, 255, (_SPOTS, _SPOTS, channels)).astype(np.float32)
    enlarged = cv2.resize(spots, (size, size), interpolation=cv2.INTER_CUBIC).reshape(size, size, channels)
    return np.clip(enlarged, 0, 255)


def _figure(rng: np.random.Generator, size: int) -> Pixels:
    """(S, S): an ellipse with soft edges."""
    plane = np.zeros((size, size), np.uint8)
    centre, axes = rng.integers(size // 4, 3 * size // 4, 2), rng.integers(size // 12, size // 4, 2)
    cv2.ellipse(plane, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    return plane


def _encode(extension: str, pixels: Pixels, options: list[int]) -> bytes:
    colours = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(extension, colours, options)[1])
