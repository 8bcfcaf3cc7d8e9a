"""What a sample, a batch and a stored data set are: shapes, units, and the columns of the Parquet parts.

Shapes: B samples of a batch, H and W height and width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

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
"""One row a sample; the images are encoded as PNG or JPEG. The background is referred to by `bg_id`."""

BACKGROUND_COLUMNS = pa.schema(
    [
        pa.field("bg_id", pa.string(), nullable=False),
        pa.field("bg", pa.binary(), nullable=False),
    ]
)
"""One row a background, however many samples stand in front of it."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A background, the same background with something in front of it, and what is to be predicted.

    Raises:
        ValueError: if a picture is not uint8, has another shape than the others, or an id is empty.
    """

    sample_id: str
    """Unique in its data set."""
    bg_id: str
    """The background's id: samples with the same one share the background's pixels."""
    fg_id: str
    """The foreground's id: the object that stands in front."""
    bg: Pixels
    """(H, W, 3), RGB."""
    fg_bg: Pixels
    """(H, W, 3), RGB: the background with the foreground in front of it."""
    mask: Pixels
    """(H, W): 255 where the foreground is, 0 elsewhere, between the two at its soft edges."""
    depth: Pixels
    """(H, W): depth of `fg_bg`, far is bright; 255 is the farthest of the picture or of the whole set."""

    def __post_init__(self) -> None:
        for name in ("sample_id", "bg_id", "fg_id"):
            if not getattr(self, name):
                raise ValueError(f"The value of '{name}' is empty, but must name the sample's part.")
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
    """A `Sample` as it is stored: each picture is the bytes of a PNG or JPEG file.

    Photographs decode to three channels (a grey one counts as R=G=B), mask and depth to a single one, all four
    to the same height and width.
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
    """What a model and its losses are given: uint8 as stored, turned to float on the device it lies on."""

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
        """`bg` and `fg_bg` as a model takes them: (B, 3, H, W) float32 in 0..1."""
        return self.bg.float().div_(255), self.fg_bg.float().div_(255)

    def targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`mask` and `depth` as the losses take them: (B, 1, H, W) float32 in 0..1."""
        return self.mask.float().div_(255), self.depth.float().div_(255)

    def split(self, pieces: int) -> tuple[Batch, ...]:
        """The same samples in at most so many batches, as even as can be; views, nothing is copied."""
        if pieces == 1:
            return (self,)
        cut = [getattr(self, field.name).tensor_split(min(pieces, len(self))) for field in fields(self)]
        return tuple(Batch(bg=a, fg_bg=b, mask=mask, depth=depth) for a, b, mask, depth in zip(*cut, strict=True))

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; from pinned memory the copy does not block."""
        moved: dict[str, Any] = {
            field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)
        }
        return Batch(**moved)
