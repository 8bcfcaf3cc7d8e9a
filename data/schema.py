"""Types of a sample and a batch, and the columns of the Parquet parts.

Shapes: B is the batch size, H and W are height and width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

BASE_SCHEMA_VERSION, VALIDITY_SCHEMA_VERSION, RECIPE_SCHEMA_VERSION = 1, 2, 3
"""Versions of data sets: without validity masks; with them, as an older Twinhead must not take invalid depth for near;
and of recipes, whose samples are composed when they are read (`data.composed`)."""
SCHEMA_VERSION = RECIPE_SCHEMA_VERSION
"""Newest version that can be read."""

Pixels = NDArray[np.uint8]

VALID, PADDING = 255, 64
"""Levels of a validity mask: where the depth was measured, and in the border of a padded image; 0 where it was not.

The border appears when an image is fitted to the size of a network, and is not stored in a data set.
"""

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

VALID_COLUMN = pa.field("valid", pa.binary(), nullable=True)
"""A further column of a sample: its validity mask, null if its whole depth was measured. Parts before the first mask of
a data set do not have it."""

BACKGROUND_COLUMNS = pa.schema(
    [
        pa.field("bg_id", pa.string(), nullable=False),
        pa.field("bg", pa.binary(), nullable=False),
    ]
)
"""One row per background; samples share it."""


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
    valid: Pixels | None = None
    """(H, W): 255 where the depth was measured, 0 where it was not; None if it was measured everywhere."""

    def __post_init__(self) -> None:
        for name in ("sample_id", "bg_id", "fg_id"):
            if not getattr(self, name):
                raise ValueError(f"The value of '{name}' is empty; give each sample all three ids.")
        height_width = self.bg.shape[:2]
        for name, channels in (("bg", (3,)), ("fg_bg", (3,)), ("mask", ()), ("depth", ()), ("valid", ())):
            pixels: Pixels | None = getattr(self, name)
            if pixels is None:
                continue
            if pixels.dtype != np.uint8 or pixels.shape != (*height_width, *channels):
                raise ValueError(
                    f"The value of '{name}' in sample '{self.sample_id}' is {pixels.dtype} of shape {pixels.shape}, "
                    f"but must be uint8 of shape {(*height_width, *channels)}."
                )


@dataclass(frozen=True, kw_only=True)
class EncodedSample:
    """A `Sample` as stored: each image is the content of a PNG or JPEG file.

    Photos decode to three channels (grey becomes R=G=B), mask, depth and validity mask to one, all to the same height
    and width.
    """

    sample_id: str
    bg_id: str
    fg_id: str
    bg: bytes
    fg_bg: bytes
    mask: bytes
    depth: bytes
    valid: bytes | None = None
    """A lossless file of the levels 0 and 255 only; None if the depth was measured everywhere."""


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
    valid: torch.Tensor | None = None
    """(B, 1, H, W) uint8: `VALID` where the depth was measured, 0 where it was not, `PADDING` in the border of a padded
    image; None if it was measured everywhere and there is no border."""

    def __len__(self) -> int:
        return int(self.bg.shape[0])

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`bg` and `fg_bg` for the model: (B, 3, H, W) float32 in 0..1."""
        return self.bg.float().div_(255), self.fg_bg.float().div_(255)

    def model_inputs(self) -> tuple[torch.Tensor, ...]:
        """The arguments of a `Network`: `inputs`, and `is_inside` if images may have a border."""
        inside = self.is_inside()
        return self.inputs() if inside is None else (*self.inputs(), inside)

    def targets(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`mask` and `depth` for the losses: (B, 1, H, W) float32 in 0..1."""
        return self.mask.float().div_(255), self.depth.float().div_(255)

    def is_valid(self) -> torch.Tensor | None:
        """Where the depth was measured: (B, 1, H, W) bool; None if everywhere."""
        return None if self.valid is None else self.valid == VALID

    def is_inside(self) -> torch.Tensor | None:
        """Where the images are, without the border of padded ones: (B, 1, H, W) bool; None if everywhere."""
        return None if self.valid is None else self.valid != PADDING

    def regions(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The pixels of which losses and metrics of the depth, and of the mask, are: `is_valid` and `is_inside`."""
        return self.is_valid(), self.is_inside()

    def split(self, pieces: int) -> tuple[Batch, ...]:
        """Split into at most `pieces` batches of nearly equal size; views, nothing is copied."""
        if pieces == 1:
            return (self,)
        views = {name: tensor.tensor_split(min(pieces, len(self))) for name, tensor in self._tensors().items()}
        return tuple(
            replace(self, **dict(zip(views, piece, strict=True))) for piece in zip(*views.values(), strict=True)
        )

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to `device`; asynchronous from pinned memory."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory of the batch, which was allocated on another stream, until `stream` has used it."""
        for tensor in self._tensors().values():
            tensor.record_stream(stream)

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}
