"""What all tests share: a cache of their own, a single thread, and one small data set of rendered scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from data.dataset.dataset import Dataset, write_dataset
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from trainable.config import TrialConfig
from trainable.job import TrialData
from trainable.loop import checkpoint
from trainable.models import build_model


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache, and none takes more than one core."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWINHEAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of ten rooms with three pictures each at 32 px: by room 24 train, 3 val and 3 test."""
    destination = tmp_path_factory.mktemp("scenes") / "set"
    scene_set = SceneSet(seed=3, backgrounds=10, per_background=3, size=32)
    write_dataset(render(scene_set, processes=1), destination, source={"kind": "scenes"})
    return destination


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 24 rooms with two pictures each at 32 px, drawn by the command that users have for it."""
    from tests.commands import twinhead  # brings Ray, which most tests do without

    path = tmp_path_factory.mktemp("drawn") / "set"
    twinhead("render", str(path), "--backgrounds", "24", "--per-background", "2", "--size", "32", "--seed", "3")
    return path


@pytest.fixture(scope="session")
def trial_data(scenes: Path) -> TrialData:
    """`scenes` as a trial is told of it."""
    return TrialData(path=str(scenes), fingerprint=Dataset.open(scenes).info.fingerprint)


@pytest.fixture(scope="session")
def save_warmed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrialConfig], Path]:
    """Saves a network whose batch norms have seen something, so that training and evaluation mode differ."""

    def save(config: TrialConfig) -> Path:
        directory = tmp_path_factory.mktemp("checkpoint")
        torch.manual_seed(2)
        model, size = build_model(config.model), config.data.image_size
        for _ in range(20):
            model(torch.rand(4, 3, size, size), torch.rand(4, 3, size, size))
        origin = checkpoint.Origin(config=config, data_fingerprint="ab12", epoch=1)
        checkpoint.save(directory, model, origin, {})
        return directory

    return save
