"""What a plugin adds: model families, losses and metrics, each a function and a name.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

HEADS = ("mask_", "depth_")
"""How the name of a metric begins: with the head that it measures."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FAMILY_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Family:
    """A model family, a value of `model.family`.

    Raises:
        InputError: if the name cannot be used.
    """

    name: str
    """Up to 40 lower-case letters, digits, '-' and '_', starting with a letter."""
    build: Callable[..., nn.Module]
    """`build(width)`, or `build(width, dropout)` with `has_dropout`: the network, randomly initialised.

    Its `forward(bg, fg_bg)` takes (B, 3, H, W) floats and returns the outputs of both heads before any activation, mask
    and depth, (B, 1, H, W) each.
    """
    has_dropout: bool = False
    """Whether it supports `model.dropout`."""

    def __post_init__(self) -> None:
        if not _FAMILY_NAME.fullmatch(self.name):
            raise _wrong_name("family", self.name, "lower-case letters, digits, '-' and '_', starting with a letter")


@dataclass(frozen=True)
class Loss:
    """A loss of a head, whose weight is a key of `loss.mask` and `loss.depth`.

    Raises:
        InputError: if the name cannot be used.
    """

    name: str
    """Up to 40 lower-case letters, digits and '_', starting with a letter."""
    function: Callable[[Tensor, Tensor], Tensor]
    """`function(prediction, target)` of two (B, 1, H, W) float32 tensors: a scalar with a finite gradient.

    The target is in 0..1; the prediction is the output of the head after its activation.
    """
    on_logits: bool = False
    """Whether the prediction is the output of the head before its activation."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise _wrong_name("loss", self.name, "lower-case letters, digits and '_', starting with a letter")


@dataclass(frozen=True)
class Metric:
    """A metric, which every trial reports beside the built-in ones: the mean of a value of each image.

    Raises:
        InputError: if the name cannot be used, or `better` is neither 'higher' nor 'lower'.
    """

    name: str
    """As that of a loss, starting with 'mask_' or 'depth_'."""
    function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    """`function(mask, depth, true_mask, true_depth)` of four (B, 1, H, W) float32 tensors: the values, (B,).

    The mask is a probability and the truth is in 0..1; the depth is as predicted. Predictions may be NaN.
    """
    better: Literal["higher", "lower"] = "higher"
    """Which values are better; decides on the sign in `objectives`."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not self.name.startswith(HEADS):
            raise _wrong_name("metric", self.name, "lower-case letters, digits and '_', starting with mask_ or depth_")
        if self.better not in {"higher", "lower"}:
            raise InputError(
                f"The value of 'better' of the metric '{self.name}' is {self.better!r}, but must be 'higher' or "
                "'lower'; correct it."
            )

    @property
    def notation(self) -> str:
        """As in `objectives`: with '-' if lower is better."""
        return self.name if self.better == "higher" else f"-{self.name}"


Part = Family | Loss | Metric


def _wrong_name(kind: str, name: str, allowed: str) -> InputError:
    return InputError(f"The name of the {kind} '{name}' must be up to 40 {allowed}; correct it in the plugin.")
