"""Resources of a retraining, which has the cluster to itself."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from data.dataset.dataset import Dataset
from search.run import prepare
from search.run.prepare import Session, Slots, alone, each_uses, job_on_cluster, make_job
from search.spec.sections import ResourcesConfig, RetrainConfig
from search.study.experiment import Experiment
from search.study.trials import SLOTS
from search.terminal import Screen
from trainable.job import TrialJob, Workers


def job(scenes: Path, workers: Workers) -> TrialJob:
    return make_job(Experiment(storage=Path("nowhere"), name="s"), Dataset.open(scenes), workers, [1])


@pytest.fixture(autouse=True)
def _one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "has_one_node", lambda: True)


def test_retraining_may_use_the_cores_of_all_trials(scenes: Path) -> None:
    """They are free by then, and on a busy machine fewer threads are faster."""
    workers = alone(job(scenes, Workers(cpus=2)), 3).workers

    assert workers == Workers(cpus=6, measures_threads=True)
    assert each_uses(workers) == "up to 6 CPU"


@pytest.mark.parametrize(("scale", "factor"), [("batch", 1.0), ("linear", 1.5)])
def test_retraining_keeps_the_effective_batch_unless_asked(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, scale: str, factor: float
) -> None:
    """Another batch is another training than that of the trial; the batch size of a trial is for its own workers."""
    monkeypatch.setattr(prepare, "cluster_resources", lambda: [{"CPU": 4.0}])
    config = RetrainConfig.model_validate({"workers": 3, "scale": scale})
    found = job_on_cluster(job(scenes, Workers(count=2)), 1, config, batch_size=8)
    assert found.workers == Workers(count=3)
    assert found.batch_scale(3) == factor


def test_elastic_group_is_described_by_its_bounds() -> None:
    """The user reads what a retraining may take."""
    assert each_uses(Workers(count=4, min_count=1, cpus=2, gpus=1)) == "up to 8 CPU and 4 GPU in 1 to 4 workers"


@pytest.mark.parametrize("workers", [Workers(), Workers(count=2), Workers(gpus=1)])
def test_explicit_retraining_cpus_are_used(scenes: Path, workers: Workers) -> None:
    """The same number gives the same sums, whatever else the machine does."""
    used = alone(job(scenes, workers), 3, 2).workers

    assert (used.count, used.cpus, used.gpus, used.measures_threads) == (workers.count, 2, workers.gpus, False)


@pytest.mark.parametrize("workers", [Workers(count=2), Workers(gpus=0.5)])
def test_groups_and_gpus_keep_the_resources_of_a_trial(scenes: Path, workers: Workers) -> None:
    """Their speed is not that of CPU threads."""
    assert alone(job(scenes, workers), 3).workers == workers


def test_the_trials_at_a_time_follow_the_nodes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A change is said once, and is in the study for those who ask for the state of the search."""
    nodes = [{"CPU": 4.0}]
    monkeypatch.setattr(prepare, "cluster_resources", lambda: nodes)
    study = optuna.create_study()
    session = Session(study=study, workers=Workers(cpus=2), concurrent=2, dashboard="")
    slots = Slots(session, ResourcesConfig(cpus_per_worker=2), Screen())

    assert (slots(), study.user_attrs[SLOTS]) == (2, {"concurrent": 2, "cpus": 2, "gpus": 0})

    nodes.append({"CPU": 8.0})
    assert (slots(), slots(), study.user_attrs[SLOTS]["concurrent"]) == (6, 6, 6)

    nodes.clear()
    assert slots() == 1
    assert capsys.readouterr().err.splitlines() == [
        "the cluster changed: 6 trials at a time, 2 before",
        "the cluster changed: 1 trial at a time, 6 before",
    ]
