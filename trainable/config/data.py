"""The data of a trial: image size, split and augmentation."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from data.augment.catalog import by_name
from data.errors import FaultsError, KeyFault
from data.fitting.sizes import Sides, sides_of
from data.splits.splits import SplitKey
from trainable.config.section import Probability, Section, Share

MIN_SIDE, MAX_SIDE, SIDE_MULTIPLE = 16, 2048, 16
"""Image sizes, in pixels: multiples, so that every family can halve them."""


class Split(Section):
    """Share of the ids in each part; the shares add up to 1."""

    train: Share = 0.70
    val: Share = 0.15
    test: Share = 0.15

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"add up to 1, not to {total:g}")
        return self


class Erasing(Section):
    """Random erasing of rectangles, sampled independently for `bg` and `fg_bg`.

    It covers random erasing (Zhong et al. 2020), Cutout (DeVries & Taylor 2017) and coarse dropout.
    """

    p: Probability = 0.0
    """Probability that a photograph gets rectangles."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of rectangles."""
    area_low: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Minimum area, as a share of the image."""
    area_high: Annotated[float, Field(gt=0, le=1)] = 0.10
    """Maximum area."""
    ratio_low: Annotated[float, Field(gt=0, le=10)] = 0.8
    """Minimum ratio of height to width."""
    ratio_high: Annotated[float, Field(gt=0, le=10)] = 1.2
    """Maximum ratio of height to width."""
    fill: Literal["black", "mean"] = "black"
    """Fill colour: 'mean' is the mean in `model.normalise`, or mid-grey without normalisation."""
    bg_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Side lengths in `bg`, as a share of those in `fg_bg`."""
    crosses_border: bool = False
    """Whether only the centre must lie in the image, instead of the whole rectangle."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        for name, low, high in (("area", self.area_low, self.area_high), ("ratio", self.ratio_low, self.ratio_high)):
            if low > high:
                raise ValueError(f"have {name}_low at most {name}_high, which is {high:g}")
        return self


class Augmentation(Section):
    """Augmentation of the training images: shared geometry, separate colour changes and noise per photograph."""

    hflip: Probability = 0.5
    """Probability of a horizontal flip."""
    vflip: Probability = 0.0
    """Probability of a vertical flip."""
    rotate: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Maximum rotation in degrees, uniform in both directions, with reflected border; 0 for none."""
    rotate_p: Probability = 1.0
    """Probability of a rotation."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Maximum share of the side that a random crop removes before it is enlarged; 0 for none."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Maximum relative change of brightness, contrast and saturation; 0 for none."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Maximum change of the hue, as a share of the colour circle; 0 for none."""
    shift: Probability = 0.0
    """Probability of a colour shift: of red, green and blue by up to 20 levels each or, with equal probability, of hue,
    saturation and value by up to 20, 30 and 20."""
    noise: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Maximum standard deviation of Gaussian noise, as a share of the full scale; 0 for none."""
    noise_low: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Minimum standard deviation of the noise."""
    noise_p: Probability = 0.5
    """Probability of noise in a photograph."""
    noise_per_channel: bool = True
    """Whether red, green and blue get independent noise; else they get the same, for a network that sees photographs in
    grey."""
    erase: Erasing = Erasing()
    transforms: dict[str, dict[str, JsonValue]] = Field(default={})
    """Transforms of albumentations, which follow those above in their order: arguments by name, such as
    `{GridDistortion: {distort_limit: 0.2, p: 0.3}}`, or a list of names. `p` is 0.5 by default. Geometric ones change
    the four images together."""
    transforms_apart: bool = False
    """Whether the other transforms of albumentations are drawn independently for `bg` and `fg_bg`, as jitter and noise
    are."""
    flips_apart: bool = False
    """A published error: `bg` and `fg_bg` are flipped independently, mask and depth never."""
    targets_too: bool = False
    """A published error: colour changes and noise are applied to mask and depth too."""
    in_evaluation: bool = False
    """A published error: validation and test images are augmented too."""

    @field_validator("transforms", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> dict[str, dict[str, Any]]:
        return by_name(value)

    @model_validator(mode="after")
    def _noise_is_ordered(self) -> Self:
        if self.noise and self.noise_low > self.noise:
            raise ValueError(f"have noise_low at most noise, which is {self.noise:g}")
        return self


class Stage(Section):
    """An early part of a run on smaller images. The next stage keeps the weights and resets the optimizer."""

    share: Annotated[float, Field(gt=0, lt=1)]
    """Share of the epochs of the run, at least one epoch."""
    scale: Annotated[float, Field(gt=0, le=1)]
    """Image size as a share of `data.image_size`, rounded to a multiple of 16, at least 16."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Batch size of the stage; `data.batch_size` by default."""

    def image_size(self, whole: int | list[int]) -> int | list[int]:
        """The size of its images, for images of size `whole` in the last stage."""
        if isinstance(whole, list):
            return [self._side(side) for side in whole]
        return self._side(whole)

    def _side(self, whole: int) -> int:
        return max(1, round(self.scale * whole / SIDE_MULTIPLE)) * SIDE_MULTIPLE


class DataConfig(Section):
    """The data of a trial."""

    image_size: Annotated[int, Field(ge=16, le=2048, multiple_of=16)] | list[int] = 96
    """Side in pixels of the square images for training and metrics, or [height, width]; multiples of 16."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Samples per optimizer step, over all workers."""
    resize: Literal["area", "bilinear", "lanczos"] = "area"
    """Interpolation to that size; 'area' averages when shrinking and is bilinear when enlarging."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """Images of another aspect ratio: 'stretch' changes it, 'crop' takes the largest centred rectangle, 'pad' adds a
    grey border, which losses and metrics leave out. 'predict' needs the whole image, and pads it with 'crop' too."""
    split_by: SplitKey = "background"
    """The id whose hash decides the split; 'background' keeps each room in one part. 'stored' is the split of a table
    or saved data set that was imported; the five before it are published."""
    split: Split = Split()
    augment: Augmentation = Augmentation()
    augment_on: Literal["auto", "cpu", "device"] = "auto"
    """Where to augment, which affects only rounding and noise; 'auto' is the CPU unless the device is a GPU. With
    `augment.transforms`, it is always the CPU."""
    progression: list[Stage] = Field(default=[])
    """Progressive resizing: stages on smaller images before the rest of the run (Howard 2018); none by default."""

    @property
    def sides(self) -> Sides:
        """Height and width of the images, in pixels."""
        return sides_of(self.image_size)

    @field_validator("image_size", mode="before")
    @classmethod
    def _has_sides_for_every_family(cls, size: object) -> object:
        sides = size if isinstance(size, tuple | list) else [size]
        if isinstance(size, tuple | list) and len(size) != 2:
            raise ValueError("be a side, or the two sides [height, width]")
        for side in sides:
            if type(side) is not int:
                raise ValueError("be a valid integer, or [height, width] of two")
            if not MIN_SIDE <= side <= MAX_SIDE:
                raise ValueError(f"have sides from {MIN_SIDE} to {MAX_SIDE}")
            if side % SIDE_MULTIPLE:
                raise ValueError(f"be a multiple of {SIDE_MULTIPLE}, or [height, width] of two such")
        return list(size) if isinstance(size, tuple) else size

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of train, val and test."""
        return self.split.train, self.split.val, self.split.test

    @model_validator(mode="after")
    def _leaves_a_last_stage(self) -> Self:
        total = sum(stage.share for stage in self.progression)
        if total >= 1:
            raise ValueError(f"leave a share of the run after the stages of progression, which take {total:g}")
        return self

    @model_validator(mode="after")
    def _transforms_can_run(self) -> Self:
        transforms = self.augment.transforms
        if not transforms:
            return self
        from data.augment.faults import faults  # imports albumentations

        if self.augment_on == "device":
            said = "is 'device', but must be auto or cpu with data.augment.transforms, which run on the CPU only"
            raise FaultsError([KeyFault(key="augment_on", said=said, value="device")])
        sides = {self.sides, *(sides_of(stage.image_size(self.image_size)) for stage in self.progression)}
        # Sizes differ in few faults, which are listed once.
        found = next(filter(None, (faults(transforms, *size) for size in sorted(sides))), [])
        if found:
            raise FaultsError([replace(fault, key=f"augment.transforms.{fault.key}") for fault in found])
        return self
