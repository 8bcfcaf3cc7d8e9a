"""Transforms of albumentations, applied to all images of a sample together.

Geometric transforms (albumentations' DualTransform) change all images with one draw. Photometric ones
(ImageOnlyTransform) change `bg` and `fg_bg`, with one draw or with one for each. Images are reflected at their borders,
as by the built-in transforms: black would be a depth. Mask and depth are interpolated linearly, as in resizing; a
validity mask takes the nearest pixel, and is 0 where a pixel was outside the image, or was interpolated from an invalid
one.
"""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from data.augment.catalog import Arguments, build, is_geometric
from data.schema import VALID as MEASURED
from data.schema import Pixels

PHOTOS = ("bg", "fg_bg")
VALID = "valid"
"""Name of a validity mask: 0 for pixels without a depth."""
_STREAM = 1
"""Distinguishes the random numbers from those of the built-in transforms, which have the same key."""


class ResultError(ValueError):
    """A transform gave an image of another shape or type; the message completes a sentence with 'it'."""


class Transforms:
    """Transforms that are applied in order to each sample of a batch."""

    def __init__(self, transforms: Mapping[str, Arguments], *, apart: bool = False) -> None:
        """Prepare the transforms, which are built when they are first applied.

        Args:
            transforms: their arguments by name, in order, valid as by `data/augment/faults.py`.
            apart: whether photometric transforms are drawn independently for `bg` and `fg_bg`.
        """
        self._transforms = {name: arguments for name, arguments in transforms.items() if arguments["p"]}
        self._apart = apart
        self._thread = threading.local()

    def change(self, stacks: Mapping[str, Pixels], *key: int) -> None:
        """Change a batch in place with the random numbers of `key`. Safe to call from several threads.

        Args:
            stacks: by name, uint8: `bg` and `fg_bg` (B, H, W, 3), and any of `mask`, `depth` and `valid` (B, H, W).
            key: such as (seed, epoch, rank, batch).

        Raises:
            ResultError: if an image would change its shape or type.
        """
        generator = np.random.default_rng((*key, _STREAM))
        steps = self._steps()
        for step in steps:
            step.draw_from(generator)
        for sample in range(len(stacks["bg"])):
            images = {name: stack[sample] for name, stack in stacks.items()}
            changed = images
            for step in steps:
                changed = step.apply(changed)
            for name, pixels in images.items():
                _replace(pixels, changed[name])

    def _steps(self) -> list[_Step]:
        """Those of this thread: each transform holds the state of its random numbers."""
        if not hasattr(self._thread, "steps"):
            self._thread.steps = [
                _Geometric(name, arguments) if is_geometric(name) else _Photometric(name, arguments, self._apart)
                for name, arguments in self._transforms.items()
            ]
        steps: list[_Step] = self._thread.steps
        return steps


class _Step(ABC):
    """A transform of the images of one sample, which are given by name and not modified."""

    def __init__(self, transform: Any) -> None:
        self._transform = transform

    def draw_from(self, generator: np.random.Generator) -> None:
        """Use the random numbers of `generator` from now on."""
        python = random.Random(int(generator.integers(2**63)))  # noqa: S311  no secrets
        self._transform.set_random_state(generator, python)

    @abstractmethod
    def apply(self, images: Mapping[str, Pixels]) -> dict[str, Pixels]:
        """The changed images, by the same names."""


class _Geometric(_Step):
    def __init__(self, name: str, arguments: Arguments) -> None:
        super().__init__(
            build(name, arguments, border_mode=cv2.BORDER_REFLECT_101, mask_interpolation=cv2.INTER_LINEAR)
        )
        self._transform.add_targets({"fg_bg": "image", "depth": "mask"})
        self._nearest = build(name, arguments, border_mode=cv2.BORDER_CONSTANT, mask_interpolation=cv2.INTER_NEAREST)

    def apply(self, images: Mapping[str, Pixels]) -> dict[str, Pixels]:
        # albumentations takes the shape from 'image'.
        given = {"image" if name == "bg" else name: pixels for name, pixels in images.items() if name != VALID}
        changed = self._transform(**given)
        changed["bg"] = changed.pop("image")
        if VALID in images:
            changed[VALID] = self._apply_to_valid(images[VALID], given)
        return dict(changed)

    def _apply_to_valid(self, valid: Pixels, given: Mapping[str, Pixels]) -> Pixels:
        drawn = self._transform.get_applied_params()
        if not drawn:  # its probability decided against it
            return valid
        changed = _applied(self._nearest, drawn, given, valid)
        # Where the depth was interpolated from an invalid pixel too, it is not valid. Floats do not round that away.
        mixed = _applied(self._transform, drawn, given, (valid != MEASURED).astype(np.float32))
        return np.where((mixed > 0) & (changed == MEASURED), np.uint8(0), changed)


def _applied(transform: Any, drawn: Mapping[str, Any], given: Mapping[str, Pixels], plane: Any) -> Any:
    """A plane (H, W) after a transform with the parameters of another one."""
    return transform.apply_with_params(transform.update_transform_params(dict(drawn), given), mask=plane)["mask"]


class _Photometric(_Step):
    def __init__(self, name: str, arguments: Arguments, apart: bool) -> None:
        super().__init__(build(name, arguments))
        self._transform.add_targets({"fg_bg": "image"})
        self._apart = apart

    def apply(self, images: Mapping[str, Pixels]) -> dict[str, Pixels]:
        if self._apart:
            return {**images, **{name: self._transform(image=images[name])["image"] for name in PHOTOS}}
        changed = self._transform(image=images["bg"], fg_bg=images["fg_bg"])
        return {**images, "bg": changed["image"], "fg_bg": changed["fg_bg"]}


def _replace(old: Pixels, new: Pixels) -> None:
    if new.shape != old.shape or new.dtype != old.dtype:
        raise ResultError(f"makes images {new.shape} {new.dtype}, which were {old.shape} {old.dtype}")
    if new is not old:
        old[:] = new
