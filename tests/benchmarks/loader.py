"""Samples a second in random order: ours, the published way, and the loaders that others offer.

make bench-loader [--json FILE]; or, with one of the sides alone, .venv-bench/bin/python tests/benchmarks/loader.py
--sides litdata

An epoch is each of the samples once, in batches of 32 on the CPU: bg, fg_bg, mask and depth at 224 px, not augmented.
The sides hold the same pictures, on the same disk and in the page cache, and take turns. All give uint8, but the
published way gives floats. Before that, an epoch of each side that stores raw pixels is compared with the pictures.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import loader_peers as peers
import numpy as np
import torch
from loader_peers import BATCH, Epochs, Form, Stored
from loader_pictures import batch_fingerprints, fingerprints, lossless_samples, make_pictures, stored_jpeg, stored_raw
from results import Row, arguments, publish, write

from data.cache.cache import decoded
from data.cache.decoded import DecodedImages
from data.dataset.dataset import Dataset, write_dataset
from data.loader import Loader
from data.schema import Batch

SIZE = 224
PER_BACKGROUND = 15
TURN = 1.0
"""Seconds of a side's turn at least; an epoch at least, too."""
OURS, COLD, PUBLISHED = "ours", "ours, page cache dropped", "published: 4 JPEG files, PIL"
PEERS: dict[str, Callable[[Sequence[Stored], Path, Form, int], Epochs]] = {
    "webdataset": peers.web_dataset,
    "litdata": peers.lit_data,
    "datasets": peers.hugging_face,
    "datasets, iterable": peers.hugging_face_iterable,
}


def main() -> None:
    """Write the pictures in every form, compare, measure, and print."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="twinhead-loader-", dir=options.directory) as name:
        directory = Path(name)
        pictures = make_pictures(options.samples, PER_BACKGROUND, SIZE)
        write(f"{options.samples} samples, {sum(stack.nbytes for stack in pictures[:4]) / 1e6:.0f} MB of pixels")
        ours = Ours(pictures, directory / "ours")
        rates = {OURS: [], COLD: [ours.cold_rate() for _ in range(options.turns)]}
        sides = {OURS: ours.epoch} | _others(pictures, directory, options.sides)
        compare(sides, pictures)
        ours.compare_batches(pictures)
        for turn in range(options.turns):
            for side, epochs in sides.items():
                rates.setdefault(side, []).append(rate(epochs, warm_up=turn == 0))
                write(f"turn {turn + 1} of {options.turns}: {side}, {rates[side][-1]:,.0f} samples/s")
        publish(*_summary(rates), options.json)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--turns", type=int, default=3, help="a figure is the median of so many turns")
    parser.add_argument("--sides", nargs="*", default=["published", *PEERS], choices=["published", *PEERS])
    parser.add_argument("--directory", type=Path, help="where files are written while it runs, some 3 GB")
    return parser.parse_args()


class Ours:
    """A data set, its decoded split and the loader of it."""

    def __init__(self, pictures: DecodedImages, directory: Path) -> None:
        write_dataset(lossless_samples(pictures, PER_BACKGROUND), directory / "dataset", source={})
        rows = np.arange(len(pictures.mask))
        self._open = partial(
            decoded, Dataset.open(directory / "dataset"), [rows], SIZE, resize="area", root=directory / "cache"
        )
        self._loader = self._new_loader()
        self._files = list((directory / "cache").rglob("*.npy"))

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`."""
        return self._loader.epoch(number)

    def compare_batches(self, pictures: DecodedImages) -> None:
        """Compare batches of rows that we choose with the pictures, tensor by tensor."""
        order = np.random.default_rng(0).permutation(len(pictures.mask))
        for rows in np.split(order, range(BATCH, len(order), BATCH)):
            expected = peers.to_batch([torch.from_numpy(stack[rows]) for stack in pictures[:4]])
            batch = self._loader.batch(rows)
            for field in ("bg", "fg_bg", "mask", "depth"):
                if not torch.equal(getattr(batch, field), getattr(expected, field)):
                    raise SystemExit(f"ours: a batch's {field} differs from the pictures.")

    def cold_rate(self) -> float:
        """Samples a second of an epoch that finds none of its files in memory; to open them is not counted."""
        del self._loader
        gc.collect()
        for path in self._files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._loader = self._new_loader()
        return _timed(self.epoch, 0)

    def _new_loader(self) -> Loader:
        return Loader(split=self._open(), batch_size=BATCH, device=torch.device("cpu"), shuffle=True)


def _others(pictures: DecodedImages, directory: Path, chosen: Sequence[str]) -> dict[str, Epochs]:
    count = len(pictures.mask)
    forms: dict[Form, list[dict[str, bytes]]] = {
        "raw": [stored_raw(pictures, index) for index in range(count)],
        "jpeg": [stored_jpeg(pictures, index) for index in range(count)],
    }
    sides: dict[str, Epochs] = {}
    if "published" in chosen:
        sides[PUBLISHED] = peers.published(forms["jpeg"], _made(directory / "published"))
    for name, side in PEERS.items():
        for form, samples in forms.items():
            if name in chosen:
                sides[f"{name}, {form}"] = side(samples, _made(directory / f"{name} {form}"), form, SIZE)
    return sides


def compare(sides: dict[str, Epochs], pictures: DecodedImages) -> None:
    """An epoch of ours and of each peer that stores raw pixels has every sample once, the same to the last byte."""
    expected = sorted(fingerprints(*pictures[:4]))
    same = [name for name in sides if name == OURS or name.endswith("raw")]
    for name in same:
        if sorted(mark for batch in sides[name](1) for mark in batch_fingerprints(batch)) != expected:
            raise SystemExit(f"{name}: an epoch's samples differ from the pictures.")
    write(f"identical to the last byte: {'; '.join(same)}")


def rate(epochs: Epochs, *, warm_up: bool) -> float:
    """Samples a second of a side's turn."""
    if warm_up:
        _timed(epochs, 2)
    counts, started = [], time.perf_counter()
    while not counts or time.perf_counter() - started < TURN:
        counts.append(sum(len(batch) for batch in epochs(len(counts) + 3)))
    return sum(counts) / (time.perf_counter() - started)


def _timed(epochs: Epochs, number: int) -> float:
    started = time.perf_counter()
    count = sum(len(batch) for batch in epochs(number))
    return count / (time.perf_counter() - started)


def _summary(rates: dict[str, list[float]]) -> tuple[list[Row], dict[str, float]]:
    middle = {side: statistics.median(taken) for side, taken in rates.items()}
    rows: list[Row] = [
        {
            "loader": side,
            "samples/s": middle[side],
            "lowest": min(taken),
            "highest": max(taken),
            "ours is faster by": None if side in (OURS, COLD) else middle[OURS] / middle[side],
        }
        for side, taken in rates.items()
    ]
    of_peers = [middle[side] for side in middle if side not in (OURS, COLD, PUBLISHED)]
    ratios = {"published": middle[OURS] / middle[PUBLISHED]} if PUBLISHED in middle else {}
    return rows, ratios | ({"best_peer": middle[OURS] / max(of_peers)} if of_peers else {})


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


if __name__ == "__main__":
    main()
