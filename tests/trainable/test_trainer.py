"""What a trial reports to Ray Tune, with the trainer in this process and without a cluster."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from trainable import trainer, trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData, TrialJob, TrialRequest, Workers
from trainable.loop.state import DistributedContext
from trainable.metrics.names import DIVERGED
from trainable.report import TrialReport

CPU = torch.device("cpu")


def values(lr: float) -> dict[str, Any]:
    return {
        "data": {"image_size": 16, "batch_size": 8},
        "model": {"family": "debug", "width": 2, "precision": "fp32"},
        "optimizer": {"name": "sgd", "lr": lr, "clip_norm": 0.0},
        "policy": {"name": "constant"},
        "epochs": 3,
    }


def test_divergence_after_a_resume_is_reported_in_its_epoch(
    trial_data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong epoch: the worst metrics, reported for epoch 1, replaced those that the study had of it."""

    def keep(end: Any, training: Any, _: object) -> None:
        if end.epoch == 1:
            training.save(tmp_path, end.metrics)

    config = build(TrialConfig, values(lr=0.01), source="the test")
    trial.run(config, trial_data, context=DistributedContext(device=CPU), report=keep)
    reports: list[TrialReport] = []
    monkeypatch.setattr(trainer, "_report", lambda _, report, __: reports.append(report))
    monkeypatch.setattr(trainer, "_is_drained", lambda _: False)
    monkeypatch.setattr(trainer, "get_device", lambda: CPU)
    request = TrialRequest(name="one", trial=values(lr=1e30), resume_from=str(tmp_path))
    job = TrialJob(
        data=trial_data,
        workers=Workers(count=1, cpus=1, gpus=0),
        checkpoint_epochs=frozenset(),
        group_storage=str(tmp_path),
    )
    trainer._train({"task": trainer._Task(request=request, job=job, tune_checkpoint=None)})

    assert [(report.epoch, report.outcome) for report in reports] == [(2, DIVERGED)]
    assert "(epoch 2)" in reports[0].reason


def test_a_full_cache_disk_does_not_fail_a_trial(
    trial_data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost trials: the copy of a remote storage's measurements is not worth one."""

    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path))
    monkeypatch.setattr(trainer, "read_whole", lambda _: b"{}")
    monkeypatch.setattr(Path, "write_bytes", full)
    job = TrialJob(
        data=trial_data,
        workers=Workers(count=1, cpus=1, gpus=0),
        checkpoint_epochs=frozenset(),
        group_storage=str(tmp_path),
        measurements="s3://bucket/searches/first/measurements.json",
    )

    path = trainer._measurements(job)

    assert path is not None
    assert not path.exists()


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (0.5, "cuda:0")])
def test_a_trial_without_gpus_leaves_those_of_its_node_alone(
    gpus: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory: Ray hides no GPU from a process that reserves none, so all trials of the CPUs shared the first."""
    monkeypatch.setattr(trainer, "get_device", lambda: torch.device("cuda:0"))

    assert trainer._distributed_context(Workers(cpus=1, gpus=gpus)).device == torch.device(device)
