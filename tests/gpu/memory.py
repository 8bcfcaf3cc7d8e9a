"""Memory of the device after twenty trials of one process, and batches that do not fit into it."""

from __future__ import annotations

import contextlib
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from data.loader import Loader
from data.schema import Batch
from tests.gpu.compare import exact_float32, relative_error
from tests.gpu.findings import Measure
from tests.gpu.session import Session, write
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.clock import Clock
from trainable.loop.loaders import evaluation_loader
from trainable.loop.loop import EpochEnd, NonFiniteLossError, evaluate
from trainable.loop.state import Training, start
from trainable.loop.step import train_step

FAMILIES = {"resunet": 16, "pair": 16, "sepunet": 32, "dmnet-cnn": 8, "resnet-dual": 8}
ENDINGS = ("to its end", "stopped", "diverging")
TRIALS = 20
ROOMS = 10
"""Of the data set of the trials: so many that each part of it has samples."""
MB = 1e6
MAX_GROWTH = 1.0
"""Megabytes: constants such as the windows of SSIM stay, one for each image size."""
ROOM = 0.4
"""Of what the whole batch needs, left free for it. Half a batch does not fit either."""


def check_trials(session: Session) -> None:
    """Twenty trials in this process, some stopped or diverging, as a search runs them: is their memory given back?"""
    data = _dataset(session)
    left: list[float] = []
    libraries = 0.0
    for number in range(TRIALS):
        if session.left() <= 0:
            break
        megabytes, libraries = _memory_left_by(number, data, session)
        left.append(megabytes)
        write(f"    trial {number + 1} of {TRIALS}: {megabytes:.3f} MB left by {_described(number)}")
    growth = max(left, default=0.0) - (left[0] if left else 0.0)
    measures = [
        Measure(name="trials", value=len(left), at_least=TRIALS),
        Measure(name="growth since the first", value=growth, unit=" MB", at_most=MAX_GROWTH),
    ]
    if session.on_gpu:
        measures.append(Measure(name="work spaces of cuBLAS at the end", value=libraries, unit=" MB"))
    session.add("memory after twenty trials", *measures)


def check_out_of_memory(session: Session) -> None:
    """Training and evaluation with less memory than a batch needs: pieces of it, and the same results."""
    with exact_float32():
        _check_training(session)
        _check_evaluation(session)


class Cramped(nn.Module):
    """A network on a device that is full with more than `most` samples."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, bg: torch.Tensor, fg_bg: torch.Tensor) -> object:
        """The prediction of the network.

        Raises:
            torch.OutOfMemoryError: as a GPU does.
        """
        if len(bg) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(bg, fg_bg)


def live_bytes(device: torch.device) -> int:
    """Bytes of all tensors: those that the allocator of a GPU has given out; on a CPU, of those that Python knows."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    storages: dict[int, int] = {}
    for found in gc.get_objects():
        if issubclass(type(found), torch.Tensor) and found.layout == torch.strided:
            storage = found.untyped_storage()
            with contextlib.suppress(RuntimeError):  # a tensor that torch.export traced with has no memory
                if storage.device.type == "cpu":
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _dataset(session: Session) -> TrialData:
    return session.dataset(max(session.sizes.trial_sides), rooms=ROOMS, per_room=4)


def _memory_left_by(number: int, data: TrialData, session: Session) -> tuple[float, float]:
    """Megabytes of tensors after a trial, and those of cuBLAS, while the error that ended the trial is referenced."""
    ending = ENDINGS[number % len(ENDINGS)]

    def report(end: EpochEnd, training: Training, val: Loader | None) -> None:
        if ending == "stopped":
            sys.exit(0)  # as Ray Tune does it

    try:
        with trial.releasing_memory(session.device):
            trial.run(_trial(number, session), data, context=session.context, report=report)
    except (SystemExit, NonFiniteLossError):
        return _measured(session)
    return _measured(session)


def _measured(session: Session) -> tuple[float, float]:
    if not session.on_gpu:
        return live_bytes(session.device) / MB, 0.0
    session.wait()
    # cuBLAS keeps a work space for each stream, which is no memory of a trial.
    before = live_bytes(session.device)
    torch._C._cuda_clearCublasWorkspaces()
    after = live_bytes(session.device)
    return after / MB, (before - after) / MB


def _trial(number: int, session: Session) -> TrialConfig:
    family, width = list(FAMILIES.items())[number % len(FAMILIES)]
    augment = {"hflip": 0.5, "rotate": 10.0, "jitter": 0.1, "noise": 0.05}
    values: dict[str, Any] = {
        "data": {
            "image_size": session.sizes.trial_sides[number % 2],
            "batch_size": (8, 16)[number // 2 % 2],
            "augment": augment,
        },
        "model": {
            "family": family,
            "width": max(2, width // session.sizes.width_divisor),
            "precision": ("bf16", "fp32")[number % 2],
        },
        "optimizer": {"name": ("sgd", "adam", "adamw")[number % 3]},
        "epochs": 2 if session.on_gpu else 1,
    }
    if ENDINGS[number % len(ENDINGS)] == "diverging":
        values |= {"optimizer": {"name": "sgd", "lr": 1e30, "clip_norm": 0.0}, "policy": {"name": "constant"}}
    return build(TrialConfig, values, source="this script")


def _described(number: int) -> str:
    return f"{list(FAMILIES)[number % len(FAMILIES)]}, {ENDINGS[number % len(ENDINGS)]}"


def _check_training(session: Session) -> None:
    """A step with too little memory, beside one in the same number of pieces with enough."""
    batch = session.images(session.sizes.crowded_side, session.sizes.crowded_batch).to(session.device)
    whole = _training(session)
    before = _weights(whole)
    needed = _peak(session, lambda: _step(whole, batch, session))
    cramped = _training(session)
    with _limited(session, cramped, needed, most=len(batch) // 4), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        _step(cramped, batch, session)
    expected = _training(session)
    expected.micro_batches = cramped.micro_batches
    _step(expected, batch, session)
    update, reference = _weights(cramped) - before, _weights(expected) - before
    session.add(
        "a training step without room",
        Measure(name="pieces", value=cramped.micro_batches, at_least=2),
        Measure(name="warnings", value=sum("ran out of memory" in str(each.message) for each in warned), at_least=1),
        Measure(name="error of the update", value=relative_error(update, reference), at_most=0.01),
        note=f"a batch of {len(batch)} needs {needed / MB:.0f} MB" if session.on_gpu else "simulated on a CPU",
    )


def _check_evaluation(session: Session) -> None:
    """An evaluation with too little memory, beside one with enough."""
    side = max(session.sizes.trial_sides)
    training = _training(session, side)
    loader = evaluation_loader(training.config, _dataset(session), "all", session.context)

    def metrics() -> dict[str, float]:
        return evaluate(training.model, loader, training.config, session.context)

    found: dict[str, dict[str, float]] = {}
    needed = _peak(session, lambda: found.update(expected=metrics()))
    with _limited(session, training, needed, most=4), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found["cramped"] = metrics()
    difference = max(abs(value - found["cramped"][name]) for name, value in found["expected"].items())
    session.add(
        "an evaluation without room",
        Measure(name="warnings", value=sum("ran out of memory" in str(each.message) for each in warned), at_least=1),
        Measure(name="largest difference of a metric", value=difference, at_most=0.005),
        note="" if session.on_gpu else "simulated on a CPU",
    )


def _training(session: Session, side: int | None = None) -> Training:
    values = {
        "data": {"image_size": side or session.sizes.crowded_side, "batch_size": session.sizes.crowded_batch},
        "model": {"family": "resunet", "width": 32 // session.sizes.width_divisor, "precision": "fp32"},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "policy": {"name": "constant"},
    }
    config = build(TrialConfig, values, source="this script")
    return start(config, steps_of_epochs=[1], context=session.context, data_fingerprint="0")


def _step(training: Training, batch: Batch, session: Session) -> None:
    train_step(training, batch, 0, session.context, Clock(session.device))


def _weights(training: Training) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in training.network.parameters()])


def _peak(session: Session, call: Callable[[], object]) -> int:
    """Bytes that `call` needs on a GPU in addition to those that are allocated; 0 on a CPU."""
    if not session.on_gpu:
        call()
        return 0
    before = live_bytes(session.device)
    torch.cuda.reset_peak_memory_stats(session.device)
    call()
    return torch.cuda.max_memory_allocated(session.device) - before


@contextlib.contextmanager
def _limited(session: Session, training: Training, needed: int, *, most: int) -> Iterator[None]:
    """A device with room for a part of `needed` bytes; on a CPU, a network that takes at most `most` samples."""
    if not session.on_gpu:
        training.model = Cramped(training.network, most)
        try:
            yield
        finally:
            training.model = training.network
        return
    gc.collect()
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved(session.device) + ROOM * needed
    total = torch.cuda.get_device_properties(session.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), session.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, session.device)
