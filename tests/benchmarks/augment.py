"""Augmentation on the CPU and on the device, beside albumentations' own pipeline and a training step.

python tests/benchmarks/augment.py [--json FILE]
python tests/benchmarks/augment.py --device cuda

The transforms are those of 'ramana-dnn', the recipe with the most. All sides take turns in one thread, and a figure is
the median of batches; without --device the device's side runs on the CPU as well. 'plain' is the same transforms by
albumentations, a sample at a time, as its documentation has it for several targets; 'listed' is the same transforms in
data.augment.transforms, where a shift of RGB and one of HSV are drawn independently. The step is that of
'raguram-resunet', in the precision that is faster here; 'share' is what the CPU's side would add to it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from results import Row, arguments, publish

from data.augment.catalog import by_name
from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter
from data.augment.draws import MAX_HSV_SHIFT, MAX_RGB_SHIFT
from data.augment.erase import Erase
from data.augment.transforms import Transforms
from data.cache.decoded import IMAGES, DecodedImages
from data.schema import Batch
from trainable.config import Augmentation
from trainable.loop.precision import choose_precision
from trainable.recipes import load_recipe

BATCH = 32
ROUNDS = 15
STEP_PICTURES = {64: 8, 128: 4, 224: 2}
"""By size: in the batch of the training step."""
CPU = torch.device("cpu")


def main() -> None:
    """Measure all sides at each size, and print them."""
    options = _options()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for size in STEP_PICTURES:
        rates = measure(size, torch.device(options.device))
        step = _step_rate(size)
        named = {f"{name}/s": rate for name, rate in rates.items()}
        rows.append({"size": size, **named, "step/s": step, "share": step / rates["cpu"]})
        ratios |= {f"cpu_over_device_{size}": rates["cpu"] / rates["device"]}
        ratios |= {f"cpu_over_plain_albumentations_{size}": rates["cpu"] / rates["plain"]}
        ratios |= {f"cpu_over_listed_transforms_{size}": rates["cpu"] / rates["listed"]}
        ratios |= {f"listed_transforms_over_plain_albumentations_{size}": rates["listed"] / rates["plain"]}
    publish(rows, ratios, options.json)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args()


def measure(size: int, device: torch.device) -> dict[str, float]:
    """Samples a second of each side, which take turns."""
    recipe = load_recipe("ramana-dnn").config.data.augment
    strengths = recipe.model_dump(exclude={"erase", "in_evaluation", "transforms", "transforms_apart"})
    strengths |= {"erase": Erase(**recipe.erase.model_dump(exclude={"fill"}))}
    cpu, on_device, plain = Augmenter(**strengths), DeviceAugmenter(**strengths), Plain(recipe)
    listed = Transforms(by_name(_listed(recipe)), apart=True)
    stacks = _stacks(size)
    batch = _batch(stacks).to(device)
    sides: dict[str, Callable[[int], object]] = {
        "cpu": lambda key: cpu.change(stacks[:4], key),
        "device": lambda key: _waited(on_device(batch, key), device),
        "plain": lambda _: [plain(*pictures) for pictures in zip(*stacks[:4], strict=True)],
        "listed": lambda key: listed.change(dict(zip(IMAGES, stacks[:4], strict=True)), key),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for key in range(1 + ROUNDS):
        for name, side in sides.items():
            started = time.perf_counter()
            side(key)
            seconds[name].append(time.perf_counter() - started)
    return {name: BATCH / statistics.median(taken[1:]) for name, taken in seconds.items()}


def _stacks(size: int) -> DecodedImages:
    """Smooth pictures of noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (BATCH, 8, 16, 16), np.uint8)
    eight = np.stack([cv2.resize(sample.transpose(1, 2, 0), (size, size)) for sample in coarse])
    bg, fg_bg, mask, depth = np.split(eight, [3, 6, 7], axis=3)
    return DecodedImages(bg.copy(), fg_bg.copy(), mask[..., 0].copy(), depth[..., 0].copy())


def _batch(stacks: DecodedImages) -> Batch:
    bg, fg_bg, mask, depth = (torch.from_numpy(stack.copy()) for stack in stacks[:4])
    return Batch(bg=bg.permute(0, 3, 1, 2), fg_bg=fg_bg.permute(0, 3, 1, 2), mask=mask[:, None], depth=depth[:, None])


def _waited(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return batch


class Plain:
    """The recipe by albumentations: one pipeline for the geometry of all four, one for each photograph's light."""

    def __init__(self, recipe: Augmentation) -> None:
        a = _albumentations()
        linear = cv2.INTER_LINEAR
        turn = a.Rotate(
            limit=recipe.rotate, interpolation=linear, mask_interpolation=linear, border_mode=cv2.BORDER_REFLECT_101,
            p=recipe.rotate_p,
        )  # fmt: skip
        shifts = [
            a.RGBShift(*[MAX_RGB_SHIFT] * 3, p=1.0),
            a.HueSaturationValue(*MAX_HSV_SHIFT, p=1.0),
        ]
        holes = a.CoarseDropout(
            num_holes_range=(recipe.erase.count, recipe.erase.count), hole_height_range=(0.33, 0.33),
            hole_width_range=(0.25, 0.25), p=recipe.erase.p,
        )  # fmt: skip
        noise = a.GaussNoise(std_range=(recipe.noise_low, recipe.noise), p=recipe.noise_p)
        self._geometry = a.Compose(
            [a.HorizontalFlip(p=recipe.hflip), a.VerticalFlip(p=recipe.vflip), turn],
            additional_targets={"fg_bg": "image", "depth": "mask"},
        )
        self._light = a.Compose([a.OneOf(shifts, p=recipe.shift), noise, holes])

    def __call__(self, bg: Any, fg_bg: Any, mask: Any, depth: Any) -> tuple[Any, ...]:
        """The four pictures of a sample, changed."""
        moved = self._geometry(image=bg, fg_bg=fg_bg, mask=mask, depth=depth)
        bg, fg_bg = (self._light(image=moved[name])["image"] for name in ("image", "fg_bg"))
        return bg, fg_bg, moved["mask"], moved["depth"]


def _listed(recipe: Augmentation) -> dict[str, dict[str, Any]]:
    """The recipe as transforms by name."""
    return {
        "HorizontalFlip": {"p": recipe.hflip},
        "VerticalFlip": {"p": recipe.vflip},
        "Rotate": {"limit": recipe.rotate, "p": recipe.rotate_p},
        "RGBShift": {
            **dict.fromkeys(("r_shift_limit", "g_shift_limit", "b_shift_limit"), MAX_RGB_SHIFT),
            "p": recipe.shift / 2,
        },
        "HueSaturationValue": {
            **dict(zip(("hue_shift_limit", "sat_shift_limit", "val_shift_limit"), MAX_HSV_SHIFT, strict=True)),
            "p": recipe.shift / 2,
        },
        "GaussNoise": {"std_range": [recipe.noise_low, recipe.noise], "p": recipe.noise_p},
        "CoarseDropout": {
            "num_holes_range": [recipe.erase.count, recipe.erase.count],
            "hole_height_range": [0.33, 0.33],
            "hole_width_range": [0.25, 0.25],
            "p": recipe.erase.p,
        },
    }


def _albumentations() -> Any:
    """Without its look for a newer version on the network."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


def _step_rate(size: int) -> float:
    """Samples a second of a training step, measured anew."""
    config = load_recipe("raguram-resunet").config
    seen = config.data.model_copy(update={"image_size": size, "batch_size": STEP_PICTURES[size]})
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TWINHEAD_CACHE"] = cache
        taken = choose_precision(config.model_copy(update={"data": seen}), CPU)
    return taken.images / min(taken.seconds.values())


if __name__ == "__main__":
    main()
