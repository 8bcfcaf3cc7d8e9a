"""Composing a data set: `twinhead compose` against a plain loop over Pillow that saves JPEG files.

python tests/benchmarks/compose.py [--samples 2000] [--processes 2] [--size 224] [--json FILE]

All sides put the same foregrounds in front of the same backgrounds, and make background, photograph, mask and depth.
The plain loop pastes anywhere, in one process, and saves files. Ours looks for the ground; as images it stores mask and
depth without loss, and checks and measures each sample on its way into the data set; as a recipe it stores a row of
each sample. Sides take turns; a figure is the best of the rounds. CPU is that of all processes; the last column is what
400,000 samples take at that rate. A recipe of few samples spends its time on sources and statistics: a recipe of
400,000 is measured in `compose_reading.py`.
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
from results import Row, arguments, publish

from data.compose.compose import compose
from data.compose.composition import DEFAULT_SCALE, Composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
from data.images import encode_png
from data.scenes.scenes import SceneSet

ROUNDS = 3
PICTURES = 5
"""So many backgrounds and so many foregrounds."""
PUBLISHED = 400_000


def main() -> None:
    """Measure both sides in turns."""
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
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
    rows = [row(name, samples, min(taken[name]), min(cpu[name]), sizes[name]) for name in taken]
    ratios = {name: min(taken["plain"]) / min(taken[name]) for name in ("images", "recipe")}
    by_cpu = {f"{name}_by_cpu": min(cpu["plain"]) / min(cpu[name]) for name in ("images", "recipe")}
    publish(rows, ratios | by_cpu, options.json)


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
