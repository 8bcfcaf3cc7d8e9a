"""Plan and run short trials as a search does, on a cluster that claims six CPUs and a GPU; print what ran where.

python tests/search/run/packing.py STORAGE     # with the environment of `search.run.cluster.ENVIRONMENT`
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search.run import tuner
from search.run.cluster import cluster_resources, plan
from search.run.tuner import Stopper, run_trials
from search.spec.sections import ResourcesConfig
from search.spec.spec import load_spec
from search.strategy.scheduler import build_scheduler
from search.study.experiment import Experiment
from search.study.study import open_study
from trainable.job import TrialData, TrialJob

CPUS, TRIALS, SHORT_TRIALS = 6, 6, 32
LIMIT_SECONDS = 120
"""After which no further trial will start."""
CASES = {
    "a quarter of a GPU": ResourcesConfig(gpus_per_trial=0.25),
    "two CPUs": ResourcesConfig(cpus_per_worker=2, gpus_per_trial=0),
}


def most_at_once(experiment: Experiment, config: ResourcesConfig) -> tuple[int, list[int]]:
    """How many trials ran at once at most, and how many GPUs each saw."""
    _, concurrent = plan(config, cluster_resources())
    present = experiment.root.with_name(f"{experiment.name}-present")
    present.mkdir()
    held = tune.with_parameters(_held, present=present, count=concurrent)
    reports = run(experiment, config, held, TRIALS)
    events = [(report["train_start"], 1) for report in reports] + [(report["train_end"], -1) for report in reports]
    running = most = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most, [report["train_gpus"] for report in reports]


def trials_by_process(experiment: Experiment) -> list[int]:
    """The number of trials that each of two processes ran, of which the second takes as long to start as eight trials.

    It stands for the process on a node that joins a cluster on which trials end often.
    """
    config = ResourcesConfig(gpus_per_trial=0, concurrent=2)
    slow = tune.with_parameters(_SlowStart, started=experiment.root.with_name("started"))
    reports = run(experiment, config, slow, SHORT_TRIALS)
    return sorted(Counter(report["train_process"] for report in reports).values())


def run(experiment: Experiment, config: ResourcesConfig, function: Any, samples: int) -> list[dict[str, Any]]:
    """The reports of trials of one epoch each."""
    workers, concurrent = plan(config, cluster_resources())
    job = TrialJob(
        data=TrialData(path="set", fingerprint="0"),
        workers=workers,
        checkpoint_epochs=frozenset(),
        group_storage=str(experiment.groups),
    )
    experiment.create(load_spec(data_path="set"))
    study = open_study(experiment)
    tuner.trainable = lambda job: tune.with_resources(function, job.resources())
    run_trials(
        experiment,
        job,
        study,
        lambda trial: {"x": trial.suggest_float("x", 0, 1)},
        build_scheduler(max_epochs=1, grace_epochs=1, reduction_factor=3),
        rungs=[1],
        samples=samples,
        seed=0,
        slots=lambda: concurrent,
        stopper=Stopper(),
        callbacks=[],
    )
    return [trial.user_attrs["epoch:1"]["metrics"] for trial in study.get_trials(deepcopy=False)]


def _held(config: dict[str, Any], present: Path, count: int) -> None:
    """A trial that lasts until `count` run at once, or the last one runs, and for another second."""
    started, own = time.time(), present / f"{config['name']}.runs"
    own.touch()
    while len([*present.glob("*.runs")]) < count and len([*present.iterdir()]) < TRIALS:
        assert time.time() < started + LIMIT_SECONDS
        time.sleep(0.05)
    time.sleep(1.0)
    own.rename(own.with_suffix(".ran"))
    gpus = len(ray.get_gpu_ids())
    tune.report({"score": 0.5, "epoch": 1, "train_start": started, "train_end": time.time(), "train_gpus": gpus})


class _SlowStart(tune.Trainable):  # type: ignore[misc]
    """A trial of half a second. All processes but the first take four seconds to start."""

    def setup(self, config: dict[str, Any], started: Path) -> None:  # noqa: ARG002
        try:
            started.touch(exist_ok=False)
        except FileExistsError:
            time.sleep(4.0)

    def reset_config(self, new_config: dict[str, Any]) -> bool:  # noqa: ARG002
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def step(self) -> dict[str, Any]:
        time.sleep(0.5)
        return {"score": 0.5, "epoch": 1, "train_process": os.getpid(), "train_end": time.time()}


if __name__ == "__main__":
    ray.init("local", num_cpus=CPUS, num_gpus=1, include_dashboard=False, log_to_driver=False)
    storage = Path(sys.argv[1])
    found = {
        "concurrent": {
            name: most_at_once(Experiment(storage=storage, name=f"case-{number}"), config)
            for number, (name, config) in enumerate(CASES.items())
        },
        "by_process": trials_by_process(Experiment(storage=storage, name="slow-start")),
    }
    ray.shutdown()
    sys.stdout.write(f"\n{json.dumps(found)}\n")
