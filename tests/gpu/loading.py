"""The loader: samples a second by itself, and how much of a training waits for it."""

from __future__ import annotations

import statistics
import time

from step import WIDTHS
from wait import GPU_LIMIT, shares

from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter
from data.loader import Loader
from tests.gpu.augmentation import EVERYTHING
from tests.gpu.findings import Measure
from tests.gpu.session import Session
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.loaders import read_part

TURNS = 3


def measure_loader(session: Session) -> None:
    """Epochs of the loader alone by where it augments, then a training of the ResUNet with its own clock."""
    sizes = session.sizes
    data = session.dataset(sizes.step_side, rooms=sizes.loader_rooms, per_room=2, copies=sizes.loader_copies)
    config = _config(session)
    for check, rate in _rates(session, config, data).items():
        session.add(check, Measure(name="samples/s", value=rate))
    if session.left() <= 0:
        session.add("training", note="no time left")
        return
    found = shares(
        config, TrialData(path=data.path, fingerprint=data.fingerprint, train="all", val=None), session.device
    )
    trained = 1 - float(found["checkpoint"])
    session.add(
        f"training, resunet at {sizes.step_side} px",
        Measure(name="waits for data", value=100 * float(found["data"]) / trained, unit=" %", at_most=_limit(session)),
        Measure(name="samples/s", value=float(found["samples/s"])),
    )


def _limit(session: Session) -> float | None:
    return session.goal(100 * GPU_LIMIT)


def _config(session: Session) -> TrialConfig:
    sizes = session.sizes
    values = {
        "data": {"image_size": sizes.step_side, "batch_size": sizes.step_batch},
        "model": {"family": "resunet", "width": WIDTHS["resunet"] // sizes.width_divisor, "precision": "bf16"},
        "epochs": sizes.loader_epochs,
    }
    return build(TrialConfig, values, source="this script")


def _rates(session: Session, config: TrialConfig, data: TrialData) -> dict[str, float]:
    """Samples a second of whole epochs with every kind of augmentation, by the median of epochs that take turns."""
    split = read_part(config.data, data, "all")
    sides = {
        f"augmented on the {place}, {'prefetched' if prefetch else 'one after the other'}": Loader(
            split=split,
            batch_size=config.data.batch_size,
            device=session.device,
            shuffle=True,
            augmenter=kind(**EVERYTHING),
            prefetch=prefetch,
        )
        for place, kind in (("CPU", Augmenter), ("device", DeviceAugmenter))
        for prefetch in (False, True)
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(1 + TURNS):
        for name, loader in sides.items():
            session.wait()
            started = time.perf_counter()
            for batch in loader.epoch(turn):
                batch.inputs()
            session.wait()
            rates[name].append(len(split) / (time.perf_counter() - started))
    return {name: statistics.median(taken[1:]) for name, taken in rates.items()}
