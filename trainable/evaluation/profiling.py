"""Profile of a training: time by phase, memory and throughput, measured on a few steps without Ray."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

from data.atomic import replacing
from data.errors import InputError
from data.loader import Loader
from trainable.config import TrialConfig
from trainable.job import TrialData
from trainable.loop.clock import OTHER, Clock, Phase, peaks, reset_peaks
from trainable.loop.loaders import evaluation_loader, training_loaders
from trainable.loop.precision import autocast, choose_precision, with_precision
from trainable.loop.state import DistributedContext, Training, start
from trainable.loop.step import train_step
from trainable.metrics.pooled import MetricSums
from trainable.models.cost import multiply_adds, parameter_count
from trainable.threads import use_fastest_threads

STEP_PHASES: tuple[Phase, ...] = ("data", "transfer", "forward", "loss", "backward", "optimizer")
WARMUP_STEPS = 3
"""The first steps are slower, because memory is allocated and kernels are selected."""
TRACED_STEPS = 3
MAX_EVALUATED_BATCHES = 8
"""The time of the whole split is extrapolated from these."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The cost of an epoch, by phase."""

    steps: int
    """Number of measured steps; an epoch is extrapolated from them."""
    seconds: dict[str, float]
    """Seconds of an epoch by phase: those of `trainable.loop.clock`, and 'other'."""
    epoch_steps: int
    batch_size: int
    samples_per_second: float
    """In training, without evaluation and checkpoints."""
    memory_gb: dict[str, float]
    """Peak memory of the host, and of the device if it is a GPU."""
    parameters: int
    multiply_adds: int
    """For one pair of images."""
    precision: str
    precision_seconds: dict[str, float]
    """Seconds of a step in each precision, if the configuration has 'auto'."""
    threads: int
    thread_seconds: dict[str, float]
    """Seconds of a step by number of threads; empty with a single core or a GPU."""
    micro_batches: int
    device: str
    trace: Path

    def as_plain(self) -> dict[str, object]:
        """Convert to JSON values, with the share of each phase."""
        whole = sum(self.seconds.values())
        phases = [
            {"phase": name, "seconds_an_epoch": seconds, "share": seconds / whole}
            for name, seconds in self.seconds.items()
        ]
        return {**vars(self), "seconds": whole, "phases": phases, "trace": str(self.trace)}


def profile_training(
    config: TrialConfig,
    data: TrialData,
    trace: Path,
    *,
    device: torch.device,
    steps: int = 20,
    on_step: Callable[[int], None] = lambda _: None,
) -> Profile:
    """Train `config` for a few steps of its last stage, evaluate, and write a temporary checkpoint.

    Args:
        config: configuration of the trial.
        data: the data set and its parts.
        trace: file for a trace of some steps in Chrome's format, for Perfetto and TensorBoard.
        device: device of the training.
        steps: number of steps to measure, over several epochs if they are short.
        on_step: progress callback, called with the number of new steps.

    Raises:
        InputError: if the data cannot be used, or the trace cannot be written.
        torch.OutOfMemoryError: if a single sample does not fit.
    """
    context = DistributedContext(device=device)
    limit = torch.get_num_threads()
    torch.set_num_threads(1)
    measured = choose_precision(config, device) if config.model.precision == "auto" else None
    resolved = with_precision(config, measured.precision) if measured else config
    threads = use_fastest_threads(resolved, device, limit=limit)
    train = training_loaders(resolved, data, context)
    training = start(
        resolved, steps_of_epochs=[len(loader) for loader in train], context=context, data_fingerprint=data.fingerprint
    )
    reset_peaks(device)
    clock = Clock(device)
    steps_taken = _Steps(training, train[-1], context, clock, on_step)
    steps_taken.run(WARMUP_STEPS)
    clock.read()
    samples, wall, shares = steps_taken.run(steps)
    _write_trace(steps_taken, trace)
    epoch_steps = len(train[-1])
    seconds = {name: shares[name] * wall / steps * epoch_steps for name in (*STEP_PHASES, OTHER)}
    if data.val:
        seconds["evaluation"] = _evaluation_seconds(training, evaluation_loader(resolved, data, data.val, context))
    seconds["checkpoint"] = _checkpoint_seconds(training)
    return Profile(
        steps=steps,
        seconds=seconds,
        epoch_steps=epoch_steps,
        batch_size=resolved.data.batch_size,
        samples_per_second=samples / wall,
        memory_gb=peaks(device),
        parameters=parameter_count(training.network),
        multiply_adds=multiply_adds(training.network, resolved.data.image_size),
        precision=resolved.model.precision,
        precision_seconds={str(name): value for name, value in measured.seconds.items()} if measured else {},
        threads=threads.count,
        thread_seconds={str(count): value for count, value in threads.seconds.items()},
        micro_batches=training.micro_batches,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        trace=trace,
    )


class _Steps:
    """Runs steps of a training, over as many epochs as needed."""

    def __init__(
        self,
        training: Training,
        loader: Loader,
        context: DistributedContext,
        clock: Clock,
        on_step: Callable[[int], None],
    ) -> None:
        self._training, self._context, self._clock, self._on_step = training, context, clock, on_step
        self._batches = itertools.chain.from_iterable(loader.epoch(epoch) for epoch in itertools.count(1))
        self._run_steps = len(loader) * training.config.epochs
        self._number = 0

    def run(self, steps: int) -> tuple[int, float, dict[str, float]]:
        """Run `steps` steps; return the number of their samples, their wall seconds and the share of each phase."""
        samples = 0
        self._training.model.train()
        for _ in range(steps):
            with self._clock.during("data"):
                batch = next(self._batches)
            # Restart the policies at the end of the run.
            train_step(self._training, batch, self._number % self._run_steps, self._context, self._clock)
            self._number += 1
            samples += len(batch)
            self._on_step(1)
        return samples, *self._clock.read()


def _write_trace(steps: _Steps, trace: Path) -> None:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as profiler:
        steps.run(TRACED_STEPS)
    try:
        with replacing(trace, durable=False) as beside:
            beside.touch()  # the profiler does not report that it cannot write
            profiler.export_chrome_trace(str(beside))
    except OSError as error:
        raise InputError(f"The trace '{trace}' cannot be written ({error.strerror}); give another --out.") from None


@torch.no_grad()
def _evaluation_seconds(training: Training, loader: Loader) -> float:
    """Seconds of the whole split, extrapolated from its first batches."""
    count = min(len(loader), MAX_EVALUATED_BATCHES)
    training.model.eval()
    sums = MetricSums(loader.device)
    started = time.perf_counter()
    for batch in itertools.islice(loader.epoch(0), count):
        with autocast(training.config.model, loader.device):
            prediction = training.model(*batch.model_inputs())
        sums.update(prediction, batch.mask, batch.depth, *batch.regions())
    sums.state().cpu()  # waits for the device
    return (time.perf_counter() - started) * len(loader) / count


def _checkpoint_seconds(training: Training) -> float:
    with TemporaryDirectory() as directory:
        started = time.perf_counter()
        training.save(Path(directory), {})
        return time.perf_counter() - started
