"""How well `trainable.evaluation.swapped` recognises swapped photographs: hits and false alarms.

python tests/benchmarks/swapped.py [--scenes 400] [--json FILE]

The pairs are those listed in $TWINHEAD_REAL/index_quads.csv, composed and published, and rendered scenes. A hit is a
swapped pair that is said to look swapped, a false alarm one in the right order. Each pair is measured as it is stored,
and as two shots of a camera differ: with noise, another exposure, either blurred, compressed, shifted by a pixel.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from results import Row, arguments, publish

from data.images import decode_photo, encode_jpeg, resize_to
from data.scenes.scenes import SceneSet
from data.schema import Pixels
from trainable.evaluation.swapped import look_swapped

Pair = tuple[Pixels, Pixels]
PER_BACKGROUND = 4
SIDE = 128
"""Of a rendered scene."""
RNG = np.random.default_rng(0)

SHOTS: dict[str, Callable[[Pixels, Pixels], Pair]] = {
    "as stored": lambda bg, fg_bg: (bg, fg_bg),
    "noise of 5 levels": lambda bg, fg_bg: (noisy(bg), noisy(fg_bg)),
    "exposure of fg_bg 0.8": lambda bg, fg_bg: (bg, np.asarray(fg_bg * 0.8, np.uint8)),
    "exposure of fg_bg 1.1": lambda bg, fg_bg: (bg, np.clip(fg_bg * 1.1, 0, 255).astype(np.uint8)),
    "bg blurred by 1.2 px": lambda bg, fg_bg: (blurred(bg), fg_bg),
    "fg_bg blurred by 1.2 px": lambda bg, fg_bg: (bg, blurred(fg_bg)),
    "JPEG of quality 60": lambda bg, fg_bg: (compressed(bg), compressed(fg_bg)),
    "fg_bg shifted by 1 px": lambda bg, fg_bg: (bg, np.roll(fg_bg, (1, 1), (0, 1))),
}


def main() -> None:
    """Measure both rates for each set and each way of taking the two shots."""
    parser = arguments(__doc__)
    parser.add_argument("--scenes", type=int, default=400)
    options = parser.parse_args()
    if "TWINHEAD_REAL" not in os.environ:
        sys.exit("TWINHEAD_REAL does not name a folder of real images")
    sets = {**real(), "rendered": list(rendered(options.scenes))}
    rows: list[Row] = []
    rates: dict[str, float] = {}
    for shot, take in SHOTS.items():
        for name, pairs in sets.items():
            taken = [take(*pair) for pair in pairs]
            hits = float(np.mean([look_swapped(fg_bg, bg) for bg, fg_bg in taken]))
            false_alarms = float(np.mean([look_swapped(bg, fg_bg) for bg, fg_bg in taken]))
            rows.append({"shots": shot, "set": name, "pairs": len(pairs), "hits": hits, "false alarms": false_alarms})
            if shot == "as stored":
                rates |= {f"{name}_hits": hits, f"{name}_false_alarms": false_alarms}
    publish(rows, rates, options.json)


def real() -> dict[str, list[Pair]]:
    """Pairs by 'composed' and 'published'."""
    root = Path(os.environ["TWINHEAD_REAL"])
    pairs: dict[str, list[Pair]] = {"composed": [], "published": []}
    with (root / "index_quads.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            bg, fg_bg = (decode_photo((root / row[role]).read_bytes(), row[role]) for role in ("bg", "fg_bg"))
            name = "composed" if row["source"].startswith("composed") else "published"
            pairs[name].append((resize_to(bg, *fg_bg.shape[:2]), fg_bg))
    return pairs


def rendered(count: int) -> Iterator[Pair]:
    """Pairs of scenes."""
    scenes = SceneSet(seed=5, backgrounds=-(-count // PER_BACKGROUND), per_background=PER_BACKGROUND, size=SIDE)
    for index in range(count):
        yield scenes[index].bg, scenes[index].fg_bg


def noisy(photo: Pixels) -> Pixels:
    """With noise of a standard deviation of 5 levels."""
    return np.clip(photo + RNG.normal(0, 5, photo.shape), 0, 255).astype(np.uint8)


def blurred(photo: Pixels) -> Pixels:
    """Out of focus."""
    return np.asarray(cv2.GaussianBlur(photo, (0, 0), 1.2), np.uint8)


def compressed(photo: Pixels) -> Pixels:
    """As strongly as messengers do."""
    return decode_photo(encode_jpeg(photo, 60), "photo")


if __name__ == "__main__":
    main()
