"""Run twenty different trials in one process, then the first one again; print the state of the process before each.

python tests/search/run/warm.py STORAGE DATA     # with the environment of `search.run.cluster.ENVIRONMENT`

Each trial is first run by itself, in a process that has run none before. The output is JSON: the `fresh` and the `warm`
curves, and the `states` of the warm process, each from before a trial.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import sys
import threading
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from data.dataset.dataset import Dataset
from data.loader import Loader
from search.run import tuner
from search.run.tuner import Stopper, run_trials
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import TrialRecord
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData, TrialJob, Workers
from trainable.loop.loop import EpochEnd, NonFiniteLossError
from trainable.loop.state import DistributedContext, Training
from trainable.trainer import run_trial

UNLIKE, EPOCHS = 20, 2
MEASURED = re.compile(r"second|^time_|^memory_")
FAMILIES = (("debug", 4), ("resunet", 2), ("sepunet", 8), ("pair", 2), ("resunet-lite", 8))
AUGMENTED = {
    "hflip": 0.5,
    "rotate": 10.0,
    "zoom": 0.2,
    "jitter": 0.2,
    "noise": 0.1,
    "erase": {"p": 0.5, "fill": "mean"},
}
DIVERGING = 7
"""Number of a trial whose loss does not stay finite."""


def config(number: int) -> dict[str, Any]:
    """A trial's values; neighbours differ in all that they can differ in."""
    number %= UNLIKE
    family, width = FAMILIES[number % len(FAMILIES)]
    values: dict[str, Any] = {
        "data": {"image_size": (16, 32)[number % 2], "batch_size": (4, 8, 12)[number % 3]},
        "model": {"family": family, "width": width, "precision": ("fp32", "bf16")[number // 2 % 2]},
        "optimizer": {"name": ("sgd", "adam", "adamw")[number % 3], "lr": 0.01, "clip_norm": number % 2},
        "policy": {"name": ("constant", "onecycle", "cosine", "plateau")[number % 4]},
        "loss": {"combine": ("sum", "uncertainty")[number // 3 % 2]},
        "epochs": EPOCHS,
        "seed": number // 4,
    }
    values["data"]["augment"] = AUGMENTED if number % 2 else {"hflip": 0.0}
    if number == DIVERGING:
        values |= {"optimizer": {"name": "sgd", "lr": 1e30, "clip_norm": 0.0}, "policy": {"name": "constant"}}
    return build(TrialConfig, values, source="the test").model_dump()


def fresh(data: TrialData, number: int) -> list[dict[str, float]]:
    """The curve of a trial by itself."""
    ends: list[EpochEnd] = []

    def report(end: EpochEnd, training: Training, val: Loader | None) -> None:
        ends.append(end)

    torch.set_num_threads(1)
    chosen = build(TrialConfig, config(number), source="the test")
    try:
        trial.run(chosen, data, context=DistributedContext(device=torch.device("cpu")), report=report)
    except NonFiniteLossError:
        return [{"score": 0.0}]
    return [comparable(end.metrics) for end in ends]


def comparable(metrics: dict[str, float]) -> dict[str, float]:
    """All but times and memory."""
    return {name: value for name, value in metrics.items() if not MEASURED.search(name)}


def watched(config: dict[str, Any], *, job: TrialJob, states: Path) -> None:
    """A trial, before which the state of its process is written down."""
    with states.open("a") as file:
        file.write(json.dumps(state()) + "\n")
    run_trial(config, job=job)


def state() -> dict[str, Any]:
    """What a trial may change in its process, and what it may leave behind."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    children: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends at this moment
            children += (task / "children").read_text().split()
    return {
        "process": os.getpid(),
        "kilobytes": int(re.search(r"VmRSS:\s+(\d+)", status)[1]),  # type: ignore[index]
        "tensors": sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects()),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "processes": sorted(children),
        "settings": settings(),
    }


def settings() -> dict[str, Any]:
    """Of torch and of the process, for all that runs in it."""
    import torch  # here, for Ray cannot send its backends along with a function

    return {
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": [getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")],
        "mkldnn": torch.backends.mkldnn.enabled,  # type: ignore[attr-defined]
        "torch_threads": torch.get_num_threads(),
        "warnings": [str(entry) for entry in warnings.filters],
        "environment": dict(os.environ),
        "directory": str(Path.cwd()),
    }


def warm(storage: Path, data: TrialData) -> tuple[list[list[dict[str, float]]], list[dict[str, Any]]]:
    """The curves of the trials in one process, and its states."""
    experiment = Experiment(storage=storage, name="warm")
    experiment.create(load_spec(data_path=data.path))
    study, states = open_study(experiment), storage / "states"
    for _ in range(UNLIKE + 1):
        study.enqueue_trial({})
    job = TrialJob(
        data=data,
        workers=Workers(),
        checkpoint_epochs=frozenset(range(1, EPOCHS + 1)),
        group_storage=str(experiment.groups),
    )
    tuner.trainable = lambda job: tune.with_resources(
        tune.with_parameters(watched, job=job, states=states), job.resources()
    )
    run_trials(
        experiment,
        job,
        study,
        lambda trial: config(trial.number),
        FIFOScheduler(),  # type: ignore[no-untyped-call]
        rungs=[EPOCHS],
        samples=UNLIKE + 1,
        seed=0,
        slots=lambda: 1,
        stopper=Stopper(),
        callbacks=[],
    )
    records = [TrialRecord.of(trial) for trial in study.get_trials(deepcopy=False)]
    curves = [
        [{"score": 0.0}]
        if record.outcome == "diverged"
        else [comparable(dict(epoch.metrics)) for epoch in record.epochs]
        for record in records
    ]
    return curves, [json.loads(line) for line in states.read_text().splitlines()]


def main(storage: Path, path: str) -> None:
    """Run them all, fresh and warm."""
    data = TrialData(path=path, fingerprint=Dataset.open(path).info.fingerprint)
    importlib.import_module("torch._dynamo")  # which the first optimizer of a process asks for, and takes its time
    with get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        alone = pool.starmap(fresh, [(data, number) for number in range(UNLIKE)], chunksize=1)
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    together, states = warm(storage, data)
    ray.shutdown()
    sys.stdout.write(f"\n{json.dumps({'fresh': [*alone, alone[0]], 'warm': together, 'states': states})}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
