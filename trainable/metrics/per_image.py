"""Metrics of a network on a part of a data set, from one row of sums for each image.

The metrics of any set of images follow from the sum of their rows, as resampling needs. N images; numpy only.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from data.atomic import replacing
from data.errors import InputError
from trainable.metrics.objective import Objective

Floats = NDArray[np.float64]

STATES = (
    "images", "iou", "pixels",
    "mask_squares", "mask_absolutes", "mask_within1", "mask_within2", "mask_within3",
    "depth_squares", "depth_absolutes", "depth_within1", "depth_within2", "depth_within3",
    "depth_invalid_pixels", "depth_invalid_images",
)  # fmt: skip
"""Columns of sums for the metrics that every trial reports; `trainable.metrics.pooled` defines the metrics.

The last two count what the sums of the depth leave out: invalid pixels, and images without a valid one.
"""

PUBLISHED = (
    "ssim90_mask", "ssim50_depth", "iou75_mask",
    "soft_mask_squares", "soft_mask_within1", "soft_mask_within2", "soft_mask_within3",
    "ssim50_invalid_images",
)  # fmt: skip
"""Columns of sums for the metrics of published projects; `trainable.metrics.published` defines the metrics.

The last counts the images that 'ssim50_depth' leaves out, because no window of theirs is valid.
"""

_OWN = "own:"
"""Prefix of the names of metrics of plugins in a file."""


@dataclass(frozen=True, kw_only=True)
class ImageFigures:
    """Measurements of each image of a part.

    Raises:
        ValueError: if there are no images, or the columns have another length or other names.
    """

    bg_ids: tuple[str, ...]
    """Background id of each image, (N,)."""
    states: Floats
    """(N, 15), with the columns `STATES`."""
    published: Mapping[str, Floats]
    """(N,) each, with the keys `PUBLISHED`."""
    own: Mapping[str, Floats] = field(default_factory=dict)
    """(N,) each: the values of metrics of plugins, by name."""

    def __post_init__(self) -> None:
        images = len(self.bg_ids)
        if not images or self.states.shape != (images, len(STATES)):
            raise ValueError(f"The states are {self.states.shape}, but must be ({images}, {len(STATES)}), not empty.")
        if any(column.shape != (images,) for column in self.own.values()):
            raise ValueError(f"The columns of metrics of plugins must be of {images} images each.")
        if set(self.published) != set(PUBLISHED) or any(
            column.shape != (images,) for column in self.published.values()
        ):
            raise ValueError(f"The published columns must be {', '.join(PUBLISHED)}, each of {images} images.")

    def columns(self) -> Floats:
        """The states, the published and the own columns side by side, (N, 23 + K), K metrics of plugins.

        `metrics_of` takes their sum over images.
        """
        return np.column_stack([self.states, *(self.published[name] for name in PUBLISHED), *self.own.values()])

    def save(self, path: Path) -> None:
        """Write an npz file of plain arrays, atomically."""
        bg_ids = np.asarray(self.bg_ids, dtype=np.str_)
        with replacing(path) as partial, partial.open("wb") as file:
            own = {f"{_OWN}{name}": column for name, column in self.own.items()}
            np.savez_compressed(file, allow_pickle=False, bg_ids=bg_ids, states=self.states, **self.published, **own)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a file written by `save`; those of earlier versions count nothing as invalid.

        Raises:
            InputError: if it is missing, damaged, or from another version.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                bg_ids, states = tuple(arrays["bg_ids"].tolist()), arrays["states"]
                images = len(bg_ids)
                if states.shape == (images, len(STATES) - 2):
                    states = np.column_stack([states, np.zeros((images, 2))])
                published = {name: arrays[name] for name in PUBLISHED if name in arrays.files}
                published.setdefault(PUBLISHED[-1], np.zeros(images))
                own = {name.removeprefix(_OWN): arrays[name] for name in arrays.files if name.startswith(_OWN)}
                return cls(bg_ids=bg_ids, states=states, published=published, own=own)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"The measurements of images in '{path}' cannot be read ({reason}); "
                "remove the file to measure them again."
            ) from None


def figures(table: ImageFigures) -> dict[str, float]:
    """All metrics over the images of a table: those of `METRICS`, of published projects, and of plugins."""
    return {name: float(value) for name, value in metrics_of(table.columns().sum(axis=0), tuple(table.own)).items()}


def metrics_of(sums: Floats, own: Sequence[str] = ()) -> dict[str, Floats]:
    """Compute metrics from sums over images, each (...,); NaN of the depth where no pixel is valid.

    Args:
        sums: (..., 23) with the columns of `ImageFigures.columns`, or (..., 15) with `STATES` only, for the
            metrics that every trial reports.
        own: names of the metrics of plugins, whose columns follow the 23.
    """
    by_name = dict(zip(STATES + PUBLISHED, np.moveaxis(sums, -1, 0), strict=False))
    images = by_name["images"]
    metrics = {"mask_iou": by_name["iou"] / images}
    measured = _or_nan(by_name["pixels"] - by_name["depth_invalid_pixels"])
    for head, pixels in (("mask", by_name["pixels"]), ("depth", measured)):
        metrics[f"{head}_rmse"] = np.sqrt(by_name[f"{head}_squares"] / pixels)
        metrics[f"{head}_mae"] = by_name[f"{head}_absolutes"] / pixels
        metrics |= {f"{head}_delta{k}": by_name[f"{head}_within{k}"] / pixels for k in (1, 2, 3)}
    metrics = {"score": (metrics["mask_iou"] + metrics["depth_delta1"]) / 2} | metrics
    if sums.shape[-1] == len(STATES):
        return metrics
    counted = {"ssim90_mask": images, "ssim50_depth": _or_nan(images - by_name["ssim50_invalid_images"])}
    metrics |= {name: by_name[name] / count for name, count in (counted | {"iou75_mask": images}).items()}
    pixels = by_name["pixels"]
    metrics["soft_mask_rmse"] = np.sqrt(by_name["soft_mask_squares"] / pixels)
    metrics |= {f"soft_mask_delta{k}": by_name[f"soft_mask_within{k}"] / pixels for k in (1, 2, 3)}
    of_plugins = np.moveaxis(sums, -1, 0)[len(STATES + PUBLISHED) :]
    return metrics | {name: column / images for name, column in zip(own, of_plugins, strict=True)}


def _or_nan(counts: Floats) -> Floats:
    """`counts`, with NaN for 0."""
    return np.where(counts > 0, counts, np.nan)


def values_of(metrics: Mapping[str, Floats], objective: Objective) -> Floats:
    """The values of an objective for the result of `metrics_of`, in its shape (...,).

    Raises:
        KeyError: if one of its metrics is missing.
    """
    if len(objective.names) == 1:
        return metrics[objective.key]
    return np.asarray(np.sum([share * metrics[name] for name, share in objective.shares.items()], axis=0))
