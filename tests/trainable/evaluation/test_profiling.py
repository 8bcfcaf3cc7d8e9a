"""The profile of a training: its time by phase and its cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trainable.config import TrialConfig, build
from trainable.evaluation.profiling import STEP_PHASES, profile_training
from trainable.job import TrialData
from trainable.loop.clock import OTHER
from trainable.loop.loaders import training_loaders
from trainable.loop.precision import faster_precision
from trainable.loop.state import DistributedContext

CPU = torch.device("cpu")


def config(**model: object) -> TrialConfig:
    debug = {"family": "debug", "width": 4, "precision": "fp32"} | model
    return build(TrialConfig, {"data": {"image_size": 32, "batch_size": 8}, "model": debug}, source="the test")


@pytest.mark.slow
def test_profile_splits_the_time_of_an_epoch(trial_data: TrialData, tmp_path: Path) -> None:
    """The phases show what to change, and the trace must open in a viewer."""
    done: list[int] = []
    trace = tmp_path / "new" / "debug.pt.trace.json"
    measured = profile_training(config(), trial_data, trace, device=CPU, steps=40, on_step=done.append)
    plain = measured.as_plain()
    events = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}

    assert set(measured.seconds) == {*STEP_PHASES, OTHER, "evaluation", "checkpoint"}
    assert min(measured.seconds[phase] for phase in STEP_PHASES) > 0
    assert sum(row["share"] for row in plain["phases"]) == pytest.approx(1)
    assert "aten::convolution" in events
    assert sum(done) == 46  # with those that warm up, and those of the trace
    assert measured.samples_per_second > 0 < measured.memory_gb["host"]
    assert json.loads(json.dumps(plain)) == plain
    assert [path.name for path in trace.parent.iterdir()] == [trace.name]


def test_profile_counts_the_samples_of_the_measured_steps_alone(trial_data: TrialData, tmp_path: Path) -> None:
    """Wrong count: the steps of the warm-up and of the trace are no part of the rate, which is that of an epoch."""
    measured = profile_training(config(), trial_data, tmp_path / "t.json", device=CPU, steps=12)
    seconds = sum(measured.seconds[phase] for phase in (*STEP_PHASES, OTHER))
    [*_, loader] = training_loaders(config(), trial_data, DistributedContext(device=CPU))

    assert 12 % measured.epoch_steps == 0
    assert measured.samples_per_second == pytest.approx(len(loader.split) / seconds)


def test_profile_shows_automatic_choices(trial_data: TrialData, tmp_path: Path) -> None:
    """The reported precision must be the one that its measurements imply."""
    measured = profile_training(config(precision="auto"), trial_data, tmp_path / "t.json", device=CPU, steps=1)

    assert measured.precision == faster_precision(
        {"fp32": measured.precision_seconds["fp32"], "bf16": measured.precision_seconds["bf16"]}
    )
    assert set(measured.precision_seconds) == {"fp32", "bf16"}
