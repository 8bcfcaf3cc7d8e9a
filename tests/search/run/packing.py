"""Plan and run short trials as a search does, on a cluster that claims six CPUs and a GPU; print what ran concurrently.

python tests/search/run/packing.py STORAGE     # with the environment of `search.run.cluster.ENVIRONMENT`
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from search.run import tuner
from search.run.cluster import cluster_resources, plan
from search.run.tuner import Stopper, run_trials
from search.spec.sections import ResourcesConfig
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from trainable.job import TrialData, TrialJob

CPUS, TRIALS = 6, 8
LIMIT_SECONDS = 120
"""After which no further trial will start."""
CASES = {
    "a quarter of a GPU": ResourcesConfig(gpus_per_trial=0.25),
    "a quarter, two at a time": ResourcesConfig(gpus_per_trial=0.25, concurrent=2),
    "four tenths": ResourcesConfig(gpus_per_trial=0.4),
    "two CPUs": ResourcesConfig(cpus_per_worker=2, gpus_per_trial=0),
}


def most_at_once(experiment: Experiment, config: ResourcesConfig) -> tuple[int, list[int]]:
    """How many trials ran at once at most, and how many GPUs each saw."""
    workers, concurrent = plan(config, cluster_resources())
    job = TrialJob(
        data=TrialData(path="set", fingerprint="0"),
        workers=workers,
        checkpoint_epochs=frozenset(),
        group_storage=str(experiment.groups),
    )
    experiment.create(load_spec(data_path="set"))
    study = open_study(experiment)
    present = experiment.root / "present"
    present.mkdir()
    held = tune.with_parameters(_held, present=present, count=concurrent)
    tuner.trainable = lambda job: tune.with_resources(held, job.resources())
    run_trials(
        experiment,
        job,
        study,
        lambda trial: {"x": trial.suggest_float("x", 0, 1)},
        FIFOScheduler(),  # type: ignore[no-untyped-call]
        rungs=[1],
        samples=TRIALS,
        seed=0,
        concurrent=concurrent,
        stopper=Stopper(),
        callbacks=[],
    )
    reports = [trial.user_attrs["epoch:1"]["metrics"] for trial in study.get_trials(deepcopy=False)]
    events = [(report["train_start"], 1) for report in reports] + [(report["train_end"], -1) for report in reports]
    running = most = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most, [report["train_gpus"] for report in reports]


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


if __name__ == "__main__":
    ray.init("local", num_cpus=CPUS, num_gpus=1, include_dashboard=False, log_to_driver=False)
    storage = Path(sys.argv[1])
    found = {
        name: most_at_once(Experiment(storage=storage, name=f"case-{number}"), config)
        for number, (name, config) in enumerate(CASES.items())
    }
    ray.shutdown()
    sys.stdout.write(f"\n{json.dumps(found)}\n")
