"""Source images of a composed data set: rooms with a floor, and markers as foregrounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from data.schema import Pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 64


def photo(seed: int, height: int = SIZE, width: int = SIZE) -> Pixels:
    """(H, W, 3) of soft colours, which JPEG keeps."""
    coarse = np.random.default_rng(seed).integers(40, 216, (4, 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def floor_depth(height: int = SIZE, width: int = SIZE) -> NDArray[np.uint16]:
    """(H, W) in mm: a wall 5 m away, and from the middle down a floor that comes as near as 1 m."""
    rows = np.arange(height)
    nearer = 5000 - 8000 * (rows / (height - 1) - 0.5)
    return np.repeat(np.minimum(5000, nearer).astype(np.uint16)[:, None], width, axis=1)


def marker(height: int = 30, width: int = 20) -> Pixels:
    """(H, W, 4): red on the left, blue on the right, with a soft edge all around."""
    cutout = np.zeros((height, width, 4), np.uint8)
    cutout[:, : width // 2, 0] = 255
    cutout[:, width // 2 :, 2] = 255
    cutout[2:-2, 2:-2, 3] = 255
    cutout[:, :, 3] = cv2.blur(cutout[:, :, 3], (3, 3))
    return cutout


def put(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA)
    elif pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def kit(root: Path, backgrounds: int = 2, foregrounds: int = 2) -> dict[str, Any]:
    """Write folders of rooms and markers; return the arguments of `Composition` for them."""
    for number in range(backgrounds):
        put(root / "bg" / f"room{number}.png", photo(number))
        put(root / "depth" / f"room{number}.png", floor_depth())
    for number in range(foregrounds):
        put(root / "fg" / f"thing{number}.png", marker(30 + 6 * number))
    folders = {"backgrounds": root / "bg", "foregrounds": root / "fg", "depths": root / "depth"}
    return {**folders, "depth_unit": "mm", "size": SIZE, "placements": 2}
