"""Latency of a network: measured once, stored, and without side effects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trainable.config import DataConfig, ModelConfig, TrialConfig
from trainable.evaluation.latency import ms_per_picture

CONFIG = TrialConfig(model=ModelConfig(family="debug", width=2, precision="fp32"), data=DataConfig(image_size=32))
CPU = torch.device("cpu")


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """The file of a search's measurements."""
    return tmp_path / "measurements.json"


def test_latency_is_measured_once(memory: Path) -> None:
    """A constraint that changes between trials of one network would mislead the searcher."""
    taken = ms_per_picture(CONFIG, CPU, memory)
    [key] = json.loads(memory.read_text())
    memory.write_text(json.dumps({key: 123.0}))

    assert taken > 0
    assert ms_per_picture(CONFIG, CPU, memory) == 123.0


def test_each_network_has_its_own_latency(memory: Path) -> None:
    """A network of another width, and images of another size."""
    wider = CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"width": 4})})
    larger = CONFIG.model_copy(update={"data": DataConfig(image_size=64)})
    for config in (CONFIG, wider, larger):
        ms_per_picture(config, CPU, memory)

    assert len(json.loads(memory.read_text())) == 3


def test_latency_measured_under_load_is_not_kept_beyond_its_search(memory: Path) -> None:
    """Another search measures again; its file also contains the precisions."""
    memory.write_text(json.dumps({"another": 1.0}))
    taken = ms_per_picture(CONFIG, CPU, memory)
    [key] = json.loads(memory.read_text()).keys() - {"another"}
    memory.write_text(json.dumps({key: taken + 1}))

    assert ms_per_picture(CONFIG, CPU, memory.with_name("other.json")) != taken + 1


def test_damaged_measurements_are_measured_again(memory: Path) -> None:
    """An invalid file must not fail a trial."""
    memory.write_text('{"a": ')

    assert ms_per_picture(CONFIG, CPU, memory) > 0


def test_measuring_keeps_the_random_state(memory: Path) -> None:
    """The same seed gives the same weights, whether the network was timed before or not."""
    torch.manual_seed(3)
    ms_per_picture(CONFIG, CPU, memory)
    after = torch.rand(3)
    torch.manual_seed(3)

    assert torch.equal(after, torch.rand(3))
