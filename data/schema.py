"""Types of a sample and a batch, and the columns of the Parquet parts.

Shapes: B is the batch size, H and W are height and width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 1

Pixels = NDArray[np.uint8]

SAMPLE_COLUMNS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("bg_id", pa.string(), nullable=False),
        pa.field("fg_id", pa.string(), nullable=False),
        pa.field("fg_bg", pa.binary(), nullable=False),
        pa.field("mask", pa.binary(), nullable=False),
        pa.field("depth", pa.binary(), nullable=False),
    ]
)
"""One row per sample; images are encoded as PNG or JPEG. `bg_id` refers to the background."""

BACKGROUND_COLUMNS = pa.schema(
    [
        pa.field("bg_id", pa.string(), nullable=False),
        pa.field("bg", pa.binary(), nullable=False),
    ]
)
"""One row per background; samples share it."""

RECIPE_SCHEMA_VERSION = 3
"""Version of data sets whose samples are composed when they are read (`data.composed`); the others stay readable by
earlier versions."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A background, the same background with a foreground object in front of it, and the two targets.

    Raises:
        ValueError: if an image is not uint8, the shapes differ, or an id is empty.
    """

    sample_id: str
    """Unique within the data set."""
    bg_id: str
    """Id of the background; samples with the same id share its pixels."""
    fg_id: str
    """Id of the foreground object."""
    bg: Pixels
    """(H, W, 3), RGB."""
    fg_bg: Pixels
    """(H, W, 3), RGB: the background with the foreground in front of it."""
    mask: Pixels
    """(H, W): 255 is foreground, 0 is background; soft edges have levels in between."""
    depth: Pixels
    """(H, W): depth of `fg_bg`, far is bright; 255 is the farthest point of the image or of the whole set."""

    def __post_init__(self) -> None:
        for name in ("sample_id", "bg_id", "fg_id"):
            if not getattr(self, name):
                raise ValueError(f"The value of '{name}' is empty; give each sample all three ids.")
        height_width = self.bg.shape[:2]
        for name, channels in (("bg", (3,)), ("fg_bg", (3,)), ("mask", ()), ("depth", ())):
            pixels: Pixels = getattr(self, name)
            if pixels.dtype != np.uint8 or pixels.shape != (*height_width, *channels):
                raise ValueError(
                    f"The value of '{name}' in sample '{self.sample_id}' is {pixels.dtype} of shape {pixels.shape}, "
                    f"but must be uint8 of shape {(*height_width, *channels)}."
                )


@dataclass(frozen=True, kw_only=True)
class EncodedSample:
    """A `Sample` as stored: each image is the content of a PNG or JPEG file.

    Photos decode to three channels (grey becomes R=G=B), mask and depth to one, all four to the same height and width.
    """

    sample_id: str
    bg_id: str
    fg_id: str
    bg: bytes
    fg_bg: bytes
    mask: bytes
    depth: bytes


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Input of a model and its losses: uint8 as stored, converted to float on the device."""

    bg: torch.Tensor
    """(B, 3, H, W) uint8, RGB."""
    fg_bg: torch.Tensor
    """(B, 3, H, W) uint8, RGB."""
    mask: torch.Tensor
    """(B, 1, H, W) uint8."""
    depth: torch.Tensor
    """(B, 1, H, W) uint8, far is bright."""

    def __len__(self) -> int:
        return int(self.bg.shape[0])

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`bg` and `fg_bg` for the model: (B, 3, H, W) float32 in 0..1."""
        return self.bg.float().div_(255), self.fg_bg.float().div_(255)

    def targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`mask` and `depth` for the losses: (B, 1, H, W) float32 in 0..1."""
        return self.mask.float().div_(255), self.depth.float().div_(255)

    def split(self, pieces: int) -> tuple[Batch, ...]:
        """Split into at most `pieces` batches of nearly equal size; views, nothing is copied."""
        if pieces == 1:
            return (self,)
        views = [getattr(self, field.name).tensor_split(min(pieces, len(self))) for field in fields(self)]
        return tuple(Batch(bg=a, fg_bg=b, mask=mask, depth=depth) for a, b, mask, depth in zip(*views, strict=True))

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to `device`; asynchronous from pinned memory."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(bg=moved(self.bg), fg_bg=moved(self.fg_bg), mask=moved(self.mask), depth=moved(self.depth))
