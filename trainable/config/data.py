"""What a trial reads, and what is done to its images."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data.splits.splits import SplitKey
from trainable.config.section import Probability, Section, Share


class Split(Section):
    """Shares of the split key's ids that go to each part; they add up to 1."""

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
    """Rectangles of a photograph that are painted over, drawn anew for `bg` and for `fg_bg`.

    Random erasing (Zhong et al. 2020), Cutout (DeVries & Taylor 2017) and coarse dropout are all of this form.
    """

    p: Probability = 0.0
    """Probability that a photograph gets any."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """How many."""
    area_low: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Smallest area, as a share of the image's."""
    area_high: Annotated[float, Field(gt=0, le=1)] = 0.10
    """Largest area."""
    ratio_low: Annotated[float, Field(gt=0, le=10)] = 0.8
    """Smallest height over width."""
    ratio_high: Annotated[float, Field(gt=0, le=10)] = 1.2
    """Largest height over width."""
    fill: Literal["black", "mean"] = "black"
    """'mean' is the network's input mean (`model.normalise`), which becomes 0, or mid-grey where it has none."""
    bg_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sides in `bg`, as a share of those in `fg_bg`."""
    crosses_border: bool = False
    """Whether the centre alone has to lie in the image; otherwise all of the rectangle does."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        for name, low, high in (("area", self.area_low, self.area_high), ("ratio", self.ratio_low, self.ratio_high)):
            if low > high:
                raise ValueError(f"have {name}_low at most {name}_high, which is {high:g}")
        return self


class Augmentation(Section):
    """What is done to the training images: a geometry that all four share, light and noise for each photograph."""

    hflip: Probability = 0.5
    """Probability of a left-right flip."""
    vflip: Probability = 0.0
    """Probability of an upside-down flip."""
    rotate: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Rotation, uniform in plus or minus so many degrees, border reflected; 0 is none."""
    rotate_p: Probability = 1.0
    """Probability that there is a rotation."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Random zoom into up to this share of the side, and a random place; 0 is none."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength of brightness, contrast and saturation changes, as a share."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Strength of hue changes that come with them, as a share of the colour circle."""
    shift: Probability = 0.0
    """Probability of a shift: of red, green and blue by up to 20 levels each, or, as likely, of hue, saturation and
    value by up to 20, 30 and 20."""
    noise: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest standard deviation of Gaussian noise, as a share of full scale; 0 is none."""
    noise_low: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Smallest standard deviation."""
    noise_p: Probability = 0.5
    """Probability that a photograph gets noise."""
    erase: Erasing = Erasing()
    flips_apart: bool = False
    """A published error: `bg` and `fg_bg` are flipped independently, and what is to be predicted never."""
    targets_too: bool = False
    """A published error: light and noise change the mask and the depth as well."""
    in_evaluation: bool = False
    """A published error: validation and test images are changed like those for training."""

    @model_validator(mode="after")
    def _noise_is_ordered(self) -> Self:
        if self.noise and self.noise_low > self.noise:
            raise ValueError(f"have noise_low at most noise, which is {self.noise:g}")
        return self


class Stage(Section):
    """An early part of a run, on smaller images; the weights are carried over, the optimizer starts anew."""

    share: Annotated[float, Field(gt=0, lt=1)]
    """Of the run's epochs, at least one."""
    scale: Annotated[float, Field(gt=0, le=1)]
    """Side of the images, as a share of `image_size`; rounded to a multiple of 16, at least 16."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """As in `data` when left out."""


class DataConfig(Section):
    """What a trial reads, and in what form."""

    image_size: Annotated[int, Field(ge=16, le=2048, multiple_of=16)] = 96
    """Side in pixels of the square images that the model sees and the metrics are taken at; a multiple of 16."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Samples an optimizer step sees, over all workers."""
    resize: Literal["area", "bilinear", "lanczos"] = "area"
    """How images come to that size; 'area' averages where they shrink, and is bilinear where they grow."""
    split_by: SplitKey = "background"
    """The id whose hash decides the split; 'background' keeps every room on one side. The last five are published."""
    split: Split = Split()
    augment: Augmentation = Augmentation()
    augment_on: Literal["auto", "cpu", "device"] = "auto"
    """Where that is done, which changes rounding and noise alone; 'auto' is the CPU unless the device is a GPU."""
    progression: list[Stage] = Field(default=[])
    """Stages on smaller images before the rest of the run (Howard 2018); none by default."""

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of train, val and test."""
        return self.split.train, self.split.val, self.split.test

    @model_validator(mode="after")
    def _leaves_a_last_stage(self) -> Self:
        total = sum(stage.share for stage in self.progression)
        if total >= 1:
            raise ValueError(f"leave a share of the run after the stages of progression, which take {total:g}")
        return self
