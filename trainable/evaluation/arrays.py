"""Prediction of images that a program has in memory.

Shapes: H and W are height and width in pixels.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from data.errors import InputError
from data.fitting.fit import Fitting
from data.schema import Pixels
from data.source_images import source_photo
from trainable.config import TrialConfig
from trainable.evaluation.grid import predict_photos
from trainable.evaluation.predictor import refuse_other_size

if TYPE_CHECKING:
    import PIL.Image

Image: TypeAlias = "NDArray[np.uint8] | PIL.Image.Image"
"""An image in memory: an array (H, W, 3) of RGB or (H, W), or a PIL image."""
CHANNELS = (1, 3, 4)


class Planes(NamedTuple):
    """A prediction at the size of its images, (H, W) float32 each."""

    mask: NDArray[np.float32]
    """Probability of foreground, in 0..1."""
    depth: NDArray[np.float32]
    """Depth of the image with the foreground in 0..1, far is 1."""


def predict_arrays(model: nn.Module, config: TrialConfig, bg: Image, fg_bg: Image) -> Planes:
    """Predict mask and depth of two images of the same size.

    Args:
        model: a network, on its device.
        config: its configuration, with its precision.
        bg: image of the background.
        fg_bg: image of the same background with a foreground object.

    Raises:
        InputError: if an image has another type, size or depth of colour, or transparent pixels.
    """
    photos = [as_photo(image, name) for image, name in ((bg, "bg"), (fg_bg, "fg_bg"))]
    refuse_other_size(photos[0], photos[1], ("bg", "fg_bg"))
    fitting = Fitting.of_whole_images(config.data.sides, config.data.resize, config.data.fit)
    small = [fitting.image(photo)[None] for photo in photos]
    prediction = predict_photos(model, small[0], small[1], config, fitting.borders([photos[0].shape[:2]]))
    planes = (plane[0, 0].clamp(0, 1).cpu().numpy() for plane in (prediction.mask, prediction.depth))
    return Planes(*(fitting.restore(plane, photos[0].shape[:2]) for plane in planes))


def as_photo(image: Image, name: str) -> Pixels:
    """An image in memory as (H, W, 3) RGB, uint8.

    Args:
        image: a PIL image, whose EXIF orientation is applied, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        name: of the argument, for error messages.

    Raises:
        InputError: if it is neither, does not have 8 bits per channel, or has transparent pixels.
    """
    if hasattr(image, "getexif"):
        return source_photo(_png(image), name)[0]
    if not isinstance(image, np.ndarray):
        raise InputError(f"The image '{name}' is a {type(image).__name__}; give a numpy array or a PIL image.")
    has_channels = image.ndim == 3 and image.shape[2] in CHANNELS
    if image.dtype != np.uint8 or not (image.ndim == 2 or has_channels) or not image.size:
        raise InputError(
            f"The image '{name}' is {image.dtype} of shape {image.shape}, but must be uint8 of shape (H, W, 3) or "
            "(H, W), in 0 to 255; convert it."
        )
    if image.ndim == 3 and image.shape[2] == 4:
        # As a file, so that its pixels are checked, and a refusal reads, like those of the command.
        return source_photo(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))[1].tobytes(), name)[0]
    return image if image.shape[2:] == (3,) else np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)


def _png(image: Any) -> bytes:
    """A PIL image as the content of a PNG file, upright."""
    from PIL import ImageOps

    file = io.BytesIO()
    try:
        ImageOps.exif_transpose(image).save(file, "PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise InputError(f"The image of mode {image.mode} cannot be used ({error}); convert it to RGB.") from None
    return file.getvalue()
