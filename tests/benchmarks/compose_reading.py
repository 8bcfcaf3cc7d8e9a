"""Reading a composed data set: its recipe, the mapped cache of its images, and the published way, on one core.

python tests/benchmarks/compose_reading.py [--samples 2000] [--sizes 64 128 224] [--json FILE]

All sides read the same samples in random order, in batches of 32, in one thread: bg, fg_bg, mask and depth. The recipe
composes them, the mapped cache copies them, and the published way opens four JPEG files of each with PIL and makes
float tensors. The plain loop is that of `compose.py`, which pastes with Pillow, here without the files. Sides take
turns; figures are those of the fastest batch, which other processes disturb least, and of the median one.

A second table has the bytes on disk and in the cache, and the time from the start of `compose` to the first batch of 32
at 96 px, for the measured samples and for 400,000 of 100 backgrounds and 100 foregrounds.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from compose import PUBLISHED, composed_from, draw, paste_plainly
from loader_peers import BATCH, Files
from loader_pictures import FIELDS, stored_jpeg
from PIL import Image
from results import Row, arguments, publish, write

from data.cache.cache import cache_bytes, decoded
from data.cache.decoded import IMAGES, DecodedSplit
from data.cache.mapped import decoded_bytes
from data.compose.compose import compose
from data.compose.composition import Composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
from data.dataset.dataset import Dataset

ROUNDS, BATCHES = 5, 8
FEW, MANY = 5, 100
"""Numbers of backgrounds, and of foregrounds, of a small set and of one with 400,000 samples."""
FIRST_BATCH_SIZE = 96
SIZE = 224


def main() -> None:
    """Measure reading at each size, and then the bytes and the first batch."""
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 128, SIZE])
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="twinhead-compose-") as name:
        root = Path(name)
        draw(root, SIZE, FEW)
        composition = composed_from(root, max(1, options.samples // (FEW * FEW * 2)), SIZE)
        sources = open_sources(composition)
        compose(composition, sources, root / "recipe")
        materialise(composition, sources, root / "images")
        recipe, images = Dataset.open(root / "recipe"), Dataset.open(root / "images")
        rows = [row for size in options.sizes for row in reading(root, recipe, images, size)]
        by_side = {(row["side"], row["px"]): row for row in rows}
        ratios = {
            f"{other}_{size}": rate(by_side["recipe", size]) / rate(by_side[other, size])
            for size in options.sizes
            for other in ("mapped", "published", "plain")
        }
        publish(rows, ratios, options.json)
        write("")
        publish([*first_batch(root, composition, images)], {}, None)


def rate(row: Row) -> float:
    """Samples a second of a side."""
    found = row["samples/s"]
    return found if isinstance(found, float) else 0.0


def reading(root: Path, recipe: Dataset, images: Dataset, size: int) -> list[Row]:
    """A row for each side."""
    count = recipe.info.counts.samples
    splits = {
        name: decoded(dataset, [np.arange(count)], size, root=root / "cache")
        for name, dataset in (("recipe", recipe), ("mapped", images))
    }
    check_same(splits["recipe"], splits["mapped"])
    files = root / f"files-{size}"
    write_files(splits["mapped"], files)
    published = Files(files, count)

    def open_files(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> object:
        return torch.utils.data.default_collate([published[int(row)] for row in rows])

    sides: dict[str, Callable[[np.ndarray[tuple[int], np.dtype[np.int64]]], object]] = {
        "recipe": splits["recipe"].gather,
        "mapped": splits["mapped"].gather,
        "published": open_files,
        "plain": plain_loop(root, size),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        order = np.random.default_rng(number).integers(0, count, BATCH * BATCHES)
        for name, read in sides.items():
            for first in range(0, len(order), BATCH):
                started = time.perf_counter()
                read(order[first : first + BATCH])
                seconds[name].append(time.perf_counter() - started)
    return [
        {
            "side": name,
            "px": size,
            "samples/s": BATCH / min(taken),
            "us a sample": 1e6 * min(taken) / BATCH,
            "median samples/s": BATCH / float(np.median(taken)),
        }
        for name, taken in seconds.items()
    ]


def check_same(recipe: DecodedSplit, images: DecodedSplit) -> None:
    """Stop if the sides differ by more than the rounding of JPEG and of resizing."""
    rows = np.arange(min(len(recipe), 64))
    for name, left, right in zip(IMAGES, recipe.gather(rows)[:4], images.gather(rows)[:4], strict=True):
        difference = np.abs(left.astype(int) - right)
        if difference.max() > 1 and (name != "fg_bg" or difference.mean() > 2):
            raise SystemExit(
                f"{name} of the recipe differs from that of the images by up to {difference.max()} levels."
            )


def write_files(split: DecodedSplit, directory: Path) -> None:
    """Four JPEG files of each sample, at the size at which they are read."""
    directory.mkdir()
    for row in range(len(split)):
        for field, content in stored_jpeg(split.gather(np.array([row])), 0).items():
            (directory / f"{row:06d}.{field}.jpg").write_bytes(content)
    if len(list(directory.iterdir())) != len(FIELDS) * len(split):
        raise SystemExit(f"{directory} has not all files.")


def plain_loop(root: Path, size: int) -> Callable[[np.ndarray[tuple[int], np.dtype[np.int64]]], object]:
    """Compose a batch as the loop of `compose.py` does, with the sources in memory."""
    backgrounds = [
        (
            Image.open(path).convert("RGB").resize((size, size)),
            Image.open(root / "depth" / path.name).resize((size, size)),
        )
        for path in sorted((root / "bg").iterdir())
    ]
    cutouts = [Image.open(path).convert("RGBA") for path in sorted((root / "fg").iterdir())]

    def compose_batch(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> object:
        batch = []
        for row in rows.tolist():
            bg, room = backgrounds[row % FEW]
            fg_bg, mask, depth = paste_plainly(bg, room, cutouts[row // FEW % FEW], size, row)
            batch.append([np.asarray(image) for image in (bg, fg_bg, mask, depth)])
        return [np.stack(column) for column in zip(*batch, strict=True)]

    return compose_batch


def first_batch(root: Path, composition: Composition, images: Dataset) -> list[Row]:
    """Bytes, and seconds to the first batch, of recipes and of the images measured before."""
    many = root / "many"
    many.mkdir()
    draw(many, SIZE, MANY)
    found: list[Row] = [described("images", images, None)]
    for name, options in (
        ("recipe", composition),
        ("recipe", composed_from(many, PUBLISHED // (MANY * MANY * 2), SIZE)),
    ):
        out = root / f"set-{options.placements}-{options.backgrounds.parent.name}"
        started, used = time.perf_counter(), sum(os.times()[:4])
        info = compose(options, open_sources(options), out)
        composed, composed_cpu = time.perf_counter() - started, sum(os.times()[:4]) - used
        split = decoded(Dataset.open(out), [np.arange(info.counts.samples)], FIRST_BATCH_SIZE, root=out / "cache")
        split.gather(np.arange(BATCH))
        seconds = composed, composed_cpu, time.perf_counter() - started
        found.append(described(name, Dataset.open(out), seconds))
    return found


def described(name: str, dataset: Dataset, seconds: tuple[float, float, float] | None) -> Row:
    """A line of the second table."""
    counts = dataset.info.counts
    return {
        "form": name,
        "samples": counts.samples,
        "MB on disk": sum(part.bytes for part in dataset.info.parts) / 1e6,
        "MB in the cache": cache_bytes(dataset, SIZE) / 1e6,
        "MB decoded": decoded_bytes(counts.samples, counts.backgrounds, SIZE) / 1e6,
        "s to compose": seconds[0] if seconds else None,
        "CPU s to compose": seconds[1] if seconds else None,
        f"s to a batch of {FIRST_BATCH_SIZE} px": seconds[2] if seconds else None,
    }


if __name__ == "__main__":
    main()
