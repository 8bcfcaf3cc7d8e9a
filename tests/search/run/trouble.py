"""Run trials that fail, as a search does; print their records in the study, and which epochs started.

python tests/search/run/trouble.py STORAGE DATA WORKERS TROUBLE...  # environment: `search.run.cluster.ENVIRONMENT`

A trouble is a kind and a number of times: 'killed:1' kills the process of a trial in its second epoch, once. In a trial
with several WORKERS it happens in the first one. The kind 'node' kills the node of the trial; then there are two nodes
with one CPU each besides that of the driver.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.cluster_utils import Cluster
from ray.tune.schedulers import FIFOScheduler

from data.dataset.dataset import Dataset
from search.results.summary import outcomes
from search.run import tuner
from search.run.cluster import cluster
from search.run.tuner import Stopper, run_trials
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import trial_records
from trainable.config import TrialConfig, build
from trainable.job import TrialData, TrialJob, Workers

EPOCHS = 3


def troubled(config: dict[str, Any], *, job: TrialJob, troubles: list[str], begun: Path) -> None:
    """A trial whose second epoch gets into its trouble."""
    from trainable import trainer

    kind, _, times = troubles[config["number"]].partition(":")

    def train(settings: dict[str, Any]) -> None:
        from trainable.loop import loop
        from trainable.trainer import _train

        train_epoch = loop.train_epoch

        def noted(training: Any, loaders: Any, epoch: int, context: Any, clock: Any) -> dict[str, float]:
            if context.rank == 0:
                with begun.open("a") as file:
                    file.write(f"{config['number']} {epoch}\n")
                if epoch == 2 and begun.read_text().splitlines().count(f"{config['number']} 2") <= int(times or 0):
                    get_into(kind)
            return train_epoch(training, loaders, epoch, context, clock)

        loop.train_epoch = noted
        try:
            _train(settings)
        finally:
            loop.train_epoch = train_epoch

    class Trainer(trainer.TorchTrainer):  # type: ignore[misc]
        def __init__(self, _: Any, **options: Any) -> None:
            super().__init__(train, **options)

    real, trainer.TorchTrainer = trainer.TorchTrainer, Trainer  # type: ignore[misc]
    try:
        trainer.run_trial(config, job=job)
    finally:
        trainer.TorchTrainer = real  # type: ignore[misc]


def get_into(kind: str) -> None:
    """Trouble of a kind."""
    import signal

    import torch

    from trainable.models.network import Network

    def forward(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "node":
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    elif kind == "left":
        sys.exit(3)
    elif kind == "memory":
        Network.forward = forward  # type: ignore[assignment]
    elif kind == "bug":
        raise ValueError("a bug\nin two lines")


def main(storage: Path, path: str, workers: int, troubles: list[str]) -> None:
    """Run a trial for each trouble."""
    experiment = Experiment(storage=storage, name="troubled")
    experiment.create(load_spec(data_path=path))
    study, begun = open_study(experiment), storage / "begun"
    for _ in troubles:
        study.enqueue_trial({})
    job = TrialJob(
        data=TrialData(path=path, fingerprint=Dataset.open(path).info.fingerprint),
        workers=Workers(count=workers),
        checkpoint_epochs=frozenset(range(1, EPOCHS + 1)),
        group_storage=str(experiment.groups),
    )
    values = {
        "data": {"image_size": 16, "batch_size": 8},
        "model": {"family": "debug", "width": 2, "precision": "fp32"},
        "epochs": EPOCHS,
    }
    config = build(TrialConfig, values, source="the test").model_dump()
    tuner.trainable = lambda job: tune.with_resources(
        tune.with_parameters(troubled, job=job, troubles=troubles, begun=begun), job.resources()
    )
    if workers > 1:
        tuner.RETRIES = 0  # a group takes long to start
    with nodes(troubles), cluster():
        run_trials(
            experiment,
            job,
            study,
            lambda _: config,
            FIFOScheduler(),  # type: ignore[no-untyped-call]
            rungs=[EPOCHS],
            samples=len(troubles),
            seed=0,
            slots=lambda: 2 // workers,
            stopper=Stopper(),
            callbacks=[],
        )
    records = trial_records(study)
    epochs = [
        [int(line.split()[1]) for line in begun.read_text().splitlines() if int(line.split()[0]) == number]
        for number in range(len(troubles))
    ]
    found = {
        "trials": {
            trouble: {
                "state": record.state.name,
                "outcome": record.outcome,
                "reason": record.reason,
                "retries": record.retries,
                "epochs": [epoch.epoch for epoch in record.epochs],
                "begun": epochs[record.number],
            }
            for trouble, record in zip(troubles, records, strict=True)
        },
        "outcomes": outcomes(records, EPOCHS),
    }
    sys.stdout.write(f"\n{json.dumps(found)}\n")


@contextmanager
def nodes(troubles: list[str]) -> Iterator[None]:
    """The cluster to join, where nodes are to die."""
    if not any(trouble.startswith("node") for trouble in troubles):
        yield
        return
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = made.address
    try:
        yield
    finally:
        made.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
