"""What one trial is: every choice it makes, typed and validated when it is built.

A share is a number in [0, 1] of the whole run, so that the same configuration means the same at 9 epochs and at 90.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.errors import InputError

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a configuration: keyword-only, immutable, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


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


class Augmentation(Section):
    """What is done to the training pictures: a geometry that all four share, light and noise for each photograph."""

    hflip: Probability = 0.5
    """Probability of a left-right flip."""
    rotate: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Rotation, uniform in plus or minus so many degrees; 0 is none."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Random zoom into up to this share of the side, and a random place; 0 is none."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength of brightness, contrast and saturation changes, as a share; hue changes by a tenth of it."""
    noise: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest standard deviation of Gaussian noise, as a share of full scale."""


class DataConfig(Section):
    """What a trial reads, and in what form."""

    image_size: Annotated[int, Field(ge=16, le=2048, multiple_of=16)] = 96
    """Side in pixels of the square pictures that the model sees and the metrics are taken at; a multiple of 16."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Samples an optimizer step sees, over all workers."""
    split_by: Literal["background", "foreground", "sample"] = "background"
    """The id whose hash decides the split; 'background' keeps every room on one side."""
    split: Split = Split()
    augment: Augmentation = Augmentation()

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of train, val and test."""
        return self.split.train, self.split.val, self.split.test


class ModelConfig(Section):
    """The network."""

    family: str = "resunet"
    """A key of `trainable.models.MODELS`."""
    width: Annotated[int, Field(ge=1, le=1024)] = 16
    """Channels of the first stage; the others are multiples of it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a value is dropped in training; only families that had dropout as published take one above 0."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; 'auto' takes bf16 where it was measured to be faster."""


class MaskLoss(Section):
    """Weights of the mask's losses; 0 leaves one out."""

    bce: Weight = 1.0
    dice: Weight = 0.0
    l1: Weight = 0.0


class DepthLoss(Section):
    """Weights of the depth's losses; 0 leaves one out."""

    l1: Weight = 1.0
    ssim: Weight = 0.0
    edge: Weight = 0.0


class LossConfig(Section):
    """The loss is the weighted sum of these."""

    mask: MaskLoss = MaskLoss()
    depth: DepthLoss = DepthLoss()

    @model_validator(mode="after")
    def _trains_both_heads(self) -> Self:
        for head, weights in (("mask", self.mask), ("depth", self.depth)):
            if not any(weights.model_dump().values()):
                raise ValueError(f"give the {head} head at least one loss with a weight above 0")
        return self


class OptimizerConfig(Section):
    """How the weights move."""

    name: Literal["sgd", "adamw"] = "adamw"
    lr: Positive = 2e-3
    """Peak learning rate: each policy scales it by a factor in (0, 1]."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD; AdamW's first beta."""
    nesterov: bool = False
    """Nesterov's momentum, for SGD."""
    weight_decay: Weight = 1e-4
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Largest norm of the gradient over all parameters; 0 does not clip."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("have a momentum above 0 when nesterov is true")
        return self


class StepPolicy(Section):
    """Multiply by `factor` after every `every` of the run, stepped per epoch."""

    every: Annotated[float, Field(gt=0, le=1)] = 0.33
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.3


class PlateauPolicy(Section):
    """Multiply by `factor` when the validation score has not risen for `patience` of the run, stepped per epoch."""

    patience: Share = 0.1
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.3
    threshold: Weight = 1e-3
    """Smallest rise of the score that counts."""


class CyclicPolicy(Section):
    """Up and down between `floor` and 1 in triangles, stepped per batch (Smith 2017)."""

    period: Annotated[float, Field(gt=0, le=1)] = 0.33
    """Share of the run that one cycle takes, up and down."""
    floor: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Lowest factor."""
    halve: bool = True
    """Halve each next cycle's height ('triangular2')."""


class OneCyclePolicy(Section):
    """Rise from 1 / `div` to 1, then fall to 1 / (`div` × `final_div`), stepped per batch (Smith & Topin 2018)."""

    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the run that rises."""
    div: Annotated[float, Field(ge=1)] = 25.0
    final_div: Annotated[float, Field(ge=1)] = 1000.0
    anneal: Literal["cos", "linear"] = "cos"


class CosinePolicy(Section):
    """Fall along half a cosine from 1 to `floor`, stepped per batch (Loshchilov & Hutter 2017, without restarts)."""

    floor: Share = 0.0


POLICY_NAMES = Literal["constant", "step", "plateau", "cyclic", "onecycle", "cosine"]


class PolicyConfig(Section):
    """How the learning rate changes over the run; only the named policy's own part is used."""

    name: POLICY_NAMES = "onecycle"
    warmup: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the run's batches over which the learning rate first rises linearly to what the policy says."""
    step: StepPolicy = StepPolicy()
    plateau: PlateauPolicy = PlateauPolicy()
    cyclic: CyclicPolicy = CyclicPolicy()
    onecycle: OneCyclePolicy = OneCyclePolicy()
    cosine: CosinePolicy = CosinePolicy()


class TrialConfig(Section):
    """Everything that decides a trial: the same one and the same data give the same curve on the same machine."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    policy: PolicyConfig = PolicyConfig()
    epochs: Annotated[int, Field(ge=1)] = 9
    """Length of the whole run; a scheduler may stop it before."""
    seed: Annotated[int, Field(ge=0)] = 0


SectionT = TypeVar("SectionT", bound=BaseModel)


def build(section: type[SectionT], values: Mapping[str, Any], *, source: str) -> SectionT:
    """`section` from plain values, as they come from YAML or JSON.

    Args:
        section: the class to build.
        values: nested mappings of plain values.
        source: where the values came from, for the error's sentence.

    Raises:
        InputError: at the first value that does not fit, naming it and what would.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(_sentence(error, source)) from None


def _sentence(error: ValidationError, source: str) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"The key '{key}' is not known; remove it from {source}, or correct its spelling."
    if first["type"] == "missing":
        return f"The key '{key}' is missing; add it to {source}."
    wanted = first["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    return f"The value of '{key}' is {first['input']!r}, but must {wanted}; correct it in {source}."
