"""What all tests share: a cache, one thread, two small data sets of rendered scenes, and a Ray cluster."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from data.dataset.dataset import Dataset, write_dataset
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from tests.examples import PLUGIN, plugin_text
from tests.s3 import Store, failing_store
from trainable.config import TrialConfig
from trainable.job import TrialData
from trainable.loop import checkpoint
from trainable.loop.checkpoint_files import Origin
from trainable.models import build_model
from trainable.plugins.load import use_plugins

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

# A shell ignores Ctrl-C for what it runs in the background, and the commands that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    *("test_hosts.py", "test_end_to_end.py", "test_jobs.py", "test_interruptions.py", "test_trouble.py"),
    *("test_remote_search.py", "test_train_and_compare.py", "test_charts.py", "test_cluster_files.py"),
)
"""Files of tests that take minutes, which start first, so that no process runs one of them alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session", autouse=True)
def _isolate_from_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a cache of the session instead of the user's, and one thread."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWINHEAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of ten rooms with three samples each at 32 px: by room 24 train, 3 val and 3 test."""
    return _rendered(tmp_path_factory.mktemp("scenes") / "set", backgrounds=10, per_background=3)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 24 rooms with two samples each at 32 px, as `twinhead render` writes it."""
    return _rendered(tmp_path_factory.mktemp("drawn") / "set", backgrounds=24, per_background=2)


def _rendered(destination: Path, *, backgrounds: int, per_background: int) -> Path:
    scenes = SceneSet(seed=3, backgrounds=backgrounds, per_background=per_background, size=32)
    write_dataset(render(scenes, processes=1), destination, source={"kind": "scenes"})
    return destination


@pytest.fixture(scope="session")
def trial_data(scenes: Path) -> TrialData:
    """`scenes` as the data set of a trial."""
    return TrialData(path=str(scenes), fingerprint=Dataset.open(scenes).info.fingerprint)


@pytest.fixture(scope="session")
def _cluster_address() -> Iterator[str]:
    """The address of a Ray cluster that stops at the end of the session, also after a failure or Ctrl-C."""
    from tests.commands import running_cluster

    with running_cluster() as address:
        yield address


@pytest.fixture(scope="module")
def shared_cluster(_cluster_address: str) -> Iterator[str]:
    """Let the commands of a module join the Ray cluster of the session; for tests that end no process of Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", _cluster_address)
        yield _cluster_address


@pytest.fixture(scope="session")
def save_warmed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrialConfig], Path]:
    """Save a network whose batch norms have running statistics, so that training and evaluation mode differ."""

    def save(config: TrialConfig) -> Path:
        directory = tmp_path_factory.mktemp("checkpoint")
        torch.manual_seed(2)
        model, sides = build_model(config.model), config.data.sides
        for _ in range(20):
            model(torch.rand(4, 3, *sides), torch.rand(4, 3, *sides))
        origin = Origin(config=config, data_fingerprint="ab12", epoch=1)
        checkpoint.save(directory, model, origin, {})
        return directory

    return save


@pytest.fixture
def own_plugin(tmp_path: Path) -> Iterator[Path]:
    """The plugin of docs/python.md: the loss log_l1, the metric mask_f1 and the family tiny. Not loaded yet."""
    (tmp_path / PLUGIN).write_text(plugin_text())
    yield tmp_path / PLUGIN
    use_plugins([])


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """An S3 server on this machine whose requests can be made to fail."""
    with failing_store() as store:
        yield store
