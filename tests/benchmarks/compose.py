"""Composing a data set: `twinhead compose` against a plain loop over Pillow that saves JPEG files.

python tests/benchmarks/compose.py [--samples 2000] [--processes 2] [--size 224] [--sources DIR] [--json FILE]

All sides put the same foregrounds in front of the same backgrounds, and make background, photograph, mask and depth.
The plain loop pastes anywhere, in one process, and saves files. Ours looks for the ground; as images it stores mask and
depth without loss, and checks and measures each sample on its way into the data set; as a recipe it stores a row of
each sample. Sides take turns; a figure is the best of the rounds. CPU is that of all processes; the last column is what
400,000 samples take at that rate.

A recipe of few samples spends its time on sources and statistics. The second table is for 400,000 samples of 100
backgrounds and 100 foregrounds, rendered or from --sources (folders bg, depth and fg): the time from the start of
`compose` to the first batch of 32 at 96 px, and the bytes on disk. The plain loop is extrapolated from the first table.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from results import Row, arguments, publish, write

from data.cache.cache import decoded
from data.compose.compose import compose
from data.compose.composition import DEFAULT_SCALE, Composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
from data.dataset.dataset import Dataset
from data.images import encode_png
from data.scenes.scenes import SceneSet

ROUNDS = 3
PICTURES = 5
"""So many backgrounds and so many foregrounds."""
PUBLISHED = 400_000
MANY = 100
"""So many backgrounds and so many foregrounds have the published data sets."""
BATCH, BATCH_SIZE = 32, 96


def main() -> None:
    """Measure both sides in turns."""
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--sources", type=Path, metavar="DIR", help="images for the second table; default: rendered")
    options = parser.parse_args()
    placements = max(1, options.samples // (PICTURES * PICTURES * 2))
    samples = PICTURES * PICTURES * 2 * placements
    taken: dict[str, list[float]] = {"recipe": [], "images": [], "plain": []}
    cpu: dict[str, list[float]] = {name: [] for name in taken}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root, options.size)
        composition = composed_from(root, placements, options.size)
        for _ in range(ROUNDS):
            for name in taken:
                out = root / name
                started, used = time.perf_counter(), sum(os.times()[:4])
                if name == "plain":
                    compose_plainly(root, out, placements, options.size)
                elif name == "images":
                    materialise(composition, open_sources(composition), out, processes=options.processes)
                else:
                    compose(composition, open_sources(composition), out, processes=options.processes)
                taken[name].append(time.perf_counter() - started)
                cpu[name].append(sum(os.times()[:4]) - used)
                sizes[name] = sum(path.stat().st_size for path in out.iterdir())
                shutil.rmtree(out)
        published = first_batch(root, options.sources, options.processes, options.size)
    rows = [row(name, samples, min(taken[name]), min(cpu[name]), sizes[name]) for name in taken]
    ratios = {name: min(taken["plain"]) / min(taken[name]) for name in ("images", "recipe")}
    by_cpu = {f"{name}_by_cpu": min(cpu["plain"]) / min(cpu[name]) for name in ("images", "recipe")}
    each = PUBLISHED / samples
    plain: Row = {
        "side": "plain",
        "extrapolated from": samples,
        "s to compose": each * min(taken["plain"]),
        "CPU s to compose": each * min(cpu["plain"]),
        f"s to a batch of {BATCH_SIZE} px": each * min(taken["plain"]),
        "MB on disk": each * sizes["plain"] / 1e6,
    }
    columns = {"first_batch": f"s to a batch of {BATCH_SIZE} px", "cpu": "CPU s to compose", "bytes": "MB on disk"}
    many = {f"published_{name}": number(plain, column) / number(published, column) for name, column in columns.items()}
    publish(rows, ratios | by_cpu | many, options.json)
    write(f"\n{PUBLISHED:,} samples of {MANY} backgrounds and {MANY} foregrounds:\n")
    publish([published, plain], {}, None)


def number(row: Row, column: str) -> float:
    """A figure of a row."""
    value = row[column]
    return float(value) if isinstance(value, int | float) else 0.0


def first_batch(root: Path, sources: Path | None, processes: int, size: int) -> Row:
    """Compose a recipe of 400,000 samples, and read its first batch."""
    folder = sources or root / "many"
    if sources is None:
        folder.mkdir()
        draw(folder, size, MANY)
    options = composed_from(folder, PUBLISHED // (MANY * MANY * 2), size)
    started, used = time.perf_counter(), sum(os.times()[:4])
    info = compose(options, open_sources(options), root / "published", processes=processes)
    composed, composed_cpu = time.perf_counter() - started, sum(os.times()[:4]) - used
    dataset = Dataset.open(root / "published")
    split = decoded(dataset, [np.arange(info.counts.samples)], BATCH_SIZE, root=root / "cache")
    split.gather(np.arange(BATCH))
    seconds = time.perf_counter() - started
    if info.counts.samples != PUBLISHED:
        raise SystemExit(f"{folder} gives {info.counts.samples:,} samples; it needs {MANY} images in each folder.")
    return {
        "side": "recipe",
        "extrapolated from": None,
        "s to compose": composed,
        "CPU s to compose": composed_cpu,
        f"s to a batch of {BATCH_SIZE} px": seconds,
        "MB on disk": sum(part.bytes for part in info.parts) / 1e6,
    }


def composed_from(root: Path, placements: int, size: int) -> Composition:
    """The options of a set of the images that `draw` made."""
    return Composition(
        backgrounds=root / "bg",
        foregrounds=root / "fg",
        depths=root / "depth",
        depth_unit="relative",
        depth_polarity="far-bright",
        placements=placements,
        flips=True,
        size=size,
    )


def row(name: str, samples: int, seconds: float, cpu: float, size: int) -> Row:
    """A line of the table."""
    return {
        "side": name,
        "samples": samples,
        "samples/s": samples / seconds,
        "CPU ms a sample": cpu / samples * 1000,
        "KB a sample": size / samples / 1000,
        f"minutes for {PUBLISHED:,}": PUBLISHED * seconds / samples / 60,
    }


def draw(root: Path, size: int, count: int = PICTURES) -> None:
    """Rooms and their depth, and as many figures cut out of other rooms."""
    rooms, figures = (SceneSet(seed=seed, backgrounds=count, per_background=1, size=size) for seed in (1, 2))
    for number in range(count):
        room, figure = rooms[number], figures[number]
        pictures = {"bg": room.bg, "depth": room.depth}
        for folder, pixels in pictures.items():
            (root / folder).mkdir(exist_ok=True)
            (root / folder / f"{number:03d}.png").write_bytes(encode_png(pixels))
        (root / "fg").mkdir(exist_ok=True)
        rows, columns = (np.flatnonzero(figure.mask.any(axis=axis)) for axis in (1, 0))
        cutout = np.dstack([figure.fg_bg, figure.mask])[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        Image.fromarray(cutout, "RGBA").save(root / "fg" / f"{number:03d}.png")


def compose_plainly(root: Path, out: Path, placements: int, size: int) -> None:
    """The loop that anybody would write: resize, mirror, paste, save."""
    out.mkdir()
    rng = random.Random(0)  # noqa: S311  (places, not secrets)
    for background in sorted((root / "bg").iterdir()):
        bg = Image.open(background).convert("RGB").resize((size, size))
        room = Image.open(root / "depth" / background.name).resize((size, size))
        bg.save(out / f"bg_{background.stem}.jpg", quality=95, subsampling=0)
        for foreground in sorted((root / "fg").iterdir()):
            cutout = Image.open(foreground).convert("RGBA")
            for flip in (False, True):
                turned = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else cutout
                for placement in range(placements):
                    name = f"{background.stem}_{foreground.stem}_{int(flip)}_{placement:02d}.jpg"
                    images = paste_plainly(bg, room, turned, size, rng.random())
                    for kind, image in zip(("fg_bg", "mask", "depth"), images, strict=True):
                        options = {"subsampling": 0} if kind == "fg_bg" else {}
                        image.save(out / f"{kind}_{name}", quality=95, **options)


def paste_plainly(
    bg: Image.Image, room: Image.Image, cutout: Image.Image, size: int, seed: float
) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Photograph, mask and depth of one sample."""
    rng = random.Random(seed)  # noqa: S311  (places, not secrets)
    share = rng.uniform(*DEFAULT_SCALE) * size / max(cutout.size)
    fg = cutout.resize((max(1, round(cutout.width * share)), max(1, round(cutout.height * share))))
    place = rng.randint(0, size - fg.width), rng.randint(0, size - fg.height)
    fg_bg = bg.copy()
    fg_bg.paste(fg, place, fg)
    mask = Image.new("L", bg.size)
    mask.paste(fg.getchannel("A"), place)
    depth = np.array(room)
    inside = np.array(mask) > 127
    if inside.any():
        depth[inside] = depth[inside].min()
    return fg_bg, mask, Image.fromarray(depth)


if __name__ == "__main__":
    main()
