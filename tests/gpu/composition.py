"""Composition of a recipe's batches on the device against that of the CPU, and samples a second of both."""

from __future__ import annotations

import statistics
import time

import numpy as np

from data.cache.cache import decoded
from data.cache.composed import ComposedSplit
from data.cache.decoded import IMAGES
from data.compose.compose import compose
from data.compose.composition import Composition
from data.compose.sources import open_sources
from data.composed.device import DeviceComposer
from data.dataset.dataset import Dataset
from data.loader import Loader
from data.schema import Batch
from tests.data.compose.compose_kit import kit
from tests.gpu.findings import Measure
from tests.gpu.session import Session

TURNS = 5
ROUNDED_OTHERWISE = 10
"""Percent of the levels that may be one off: ties of halves are rounded in another direction."""


def check_composition(session: Session) -> None:
    """Levels of difference at the size of the recipe, at a smaller and at a larger one."""
    recipe = _recipe(session)
    side = session.sizes.augmented_side
    for size in (side, side // 2, side + side // 2):
        loader = _loader(session, recipe, size)
        rows = np.random.default_rng(size).permutation(len(loader.split))
        found = DeviceComposer(_split(loader), session.device)(rows)
        apart = _differences(found, loader.batch(rows))
        session.add(
            f"{side} px composed at {size} px",
            Measure(name="largest difference in levels", value=float(apart.max()), at_most=1),
            Measure(
                name="levels that differ", value=100 * float((apart > 0).mean()), unit=" %", at_most=ROUNDED_OTHERWISE
            ),
        )


def measure_composition(session: Session) -> None:
    """Samples a second of epochs that take turns, composed on the CPU and on the device."""
    loader = _loader(session, _recipe(session), session.sizes.step_side)
    composer = DeviceComposer(_split(loader), session.device)
    sides = {"on the CPU": None, "on the device": composer}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(1 + TURNS):
        for name, chosen in sides.items():
            batches = _loader(session, _recipe(session), session.sizes.step_side, chosen)
            session.wait()
            started = time.perf_counter()
            for batch in batches.epoch(turn):
                batch.inputs()
            session.wait()
            rates[name].append(len(batches.split) / (time.perf_counter() - started))
    for name, taken in rates.items():
        session.add(f"composed {name}", Measure(name="samples/s", value=statistics.median(taken[1:])))


def _recipe(session: Session) -> Dataset:
    """A recipe of drawn sources, written once."""
    root = session.directory / "recipe"
    if not (root / "set").exists():
        sources = kit(root, backgrounds=4, foregrounds=4) | {"size": session.sizes.augmented_side, "placements": 16}
        composition = Composition(**sources | {"scale": (0.1, 0.9)}, flips=True)
        compose(composition, open_sources(composition), root / "set")
    return Dataset.open(root / "set")


def _loader(session: Session, recipe: Dataset, size: int, composer: DeviceComposer | None = None) -> Loader:
    split = decoded(recipe, [np.arange(recipe.info.counts.samples)], size, root=session.directory / "cache")
    return Loader(
        split=split, batch_size=session.sizes.step_batch, device=session.device, shuffle=True, seed=1, composer=composer
    )


def _split(loader: Loader) -> ComposedSplit:
    if not isinstance(loader.split, ComposedSplit):
        raise TypeError("A recipe is not composed.")
    return loader.split


def _differences(found: Batch, wanted: Batch) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(N,): levels by which the images differ."""
    pairs = [(getattr(found, name).cpu().numpy(), getattr(wanted, name).cpu().numpy()) for name in IMAGES]
    return np.concatenate([np.abs(a.astype(np.int64) - b).ravel() for a, b in pairs])
