"""How long a network takes: measured once, remembered, and without a trace in what comes after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trainable.config import DataConfig, ModelConfig, TrialConfig
from trainable.evaluation.latency import ms_per_picture

CONFIG = TrialConfig(model=ModelConfig(family="debug", width=2, precision="fp32"), data=DataConfig(image_size=32))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path))
    return tmp_path / "latency.json"


def test_it_is_measured_once(cache: Path) -> None:
    """A verdict that changes from trial to trial of one network would teach the searcher nothing."""
    taken = ms_per_picture(CONFIG, CPU)
    [key] = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: 123.0}))

    assert taken > 0
    assert ms_per_picture(CONFIG, CPU) == 123.0


def test_each_network_has_its_own(cache: Path) -> None:
    """Of other width, and on pictures of other size."""
    wider = CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"width": 4})})
    larger = CONFIG.model_copy(update={"data": DataConfig(image_size=64)})
    for config in (CONFIG, wider, larger):
        ms_per_picture(config, CPU)

    assert len(json.loads(cache.read_text())) == 3


def test_a_damaged_memory_is_measured_anew(cache: Path) -> None:
    """A cache is no reason for a trial to fail."""
    cache.write_text('{"a": ')

    assert ms_per_picture(CONFIG, CPU) > 0


def test_it_leaves_the_random_numbers_alone() -> None:
    """The same seed gives the same weights, whether the network was timed before or not."""
    torch.manual_seed(3)
    ms_per_picture(CONFIG, CPU)
    after = torch.rand(3)
    torch.manual_seed(3)

    assert torch.equal(after, torch.rand(3))
