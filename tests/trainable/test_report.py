"""What travels to a trial and back survives Ray's plain values."""

from __future__ import annotations

from pathlib import Path

from trainable.job import TrialRequest
from trainable.report import TrialReport


def test_request_survives_plain_values() -> None:
    """Tune carries it as a dict."""
    request = TrialRequest(name="00003-1", trial={"epochs": 2}, number=3, recipe="pair", resume_from="a", refused="b")

    assert TrialRequest.from_plain(request.as_plain()) == request


def test_request_without_optional_keys_has_defaults() -> None:
    """A retraining has no number, and other configurations of Tune have none of the keys."""
    assert TrialRequest.from_plain({"name": "run-0", "lr": 0.1}) == TrialRequest(name="run-0")


def test_report_survives_plain_values_among_the_keys_of_ray() -> None:
    """Ray adds its own keys and the checkpoint to the same flat dict."""
    report = TrialReport(
        epoch=3,
        metrics={"score": 0.5, "train_loss": 0.1},
        outcome="trained",
        precision="bf16",
        machine="EPYC",
        host="node",
        lr_factors=[1.0, 0.5, 0.25],
        violations={"ms_per_picture": -0.5},
        note="the trial starts over",
    )
    added = {"training_iteration": 3, "pid": 7, "hostname": "node"}

    assert TrialReport.from_plain({**report.as_plain(), **added}) == report
    assert report.as_plain()["score"] == 0.5


def test_checkpoint_of_a_report_is_found_for_one_worker_and_for_a_group() -> None:
    """Tune names a directory in that of the trial, Train an absolute path."""
    plain = {"score": 0.5, "epoch": 1}
    single = TrialReport.from_plain({**plain, "checkpoint_dir_name": "checkpoint_000000"})
    group = TrialReport.from_plain({**plain, "checkpoint_path": "/groups/00000/checkpoint_000001"})

    assert single.checkpoint(Path("/trials/00000")) == Path("/trials/00000/checkpoint_000000")
    assert group.checkpoint(Path("/trials/00000")) == Path("/groups/00000/checkpoint_000001")
    assert TrialReport.from_plain(plain).checkpoint(Path("/trials/00000")) is None
