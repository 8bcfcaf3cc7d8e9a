"""Checkpoints of a remote storage: a trial resumes from the newest one that is as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data.dataset.storage import Location
from data.errors import EnvironmentFaultError
from tests.s3 import Store, failing_store
from trainable import trial
from trainable.config import DataConfig, ModelConfig, TrialConfig
from trainable.job import TrialData
from trainable.loop.checkpoint_files import CHECKSUMS, STATE, WEIGHTS
from trainable.loop.fetch import earlier_checkpoints, fetch, intact_copies, local_copy, output_file
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext, Training

CONFIG = TrialConfig(
    epochs=3, model=ModelConfig(family="debug", width=2, precision="fp32"), data=DataConfig(image_size=32)
)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch, failing_store() as store:
        patch.setattr("data.dataset.transfer.FIRST_PAUSE_SECONDS", 0.01)
        yield store


@pytest.fixture(scope="module")
def trained(trial_data: TrialData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a trial that trained for two of three epochs."""
    directory = tmp_path_factory.mktemp("trial")

    def report(end: EpochEnd, training: Training, _: object) -> None:
        training.save(directory / f"checkpoint_{end.epoch - 1:06d}", end.metrics)
        if end.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trial.run(CONFIG, trial_data, context=DistributedContext(device=torch.device("cpu")), report=report)
    return directory


def uploaded(store: Store, trained: Path, name: str) -> Location:
    """The trial in the storage; its newest checkpoint."""
    for file in trained.rglob("*.*"):
        store.write(f"{name}/{file.relative_to(trained)}", file.read_bytes())
    return Location.of_storage(store.address(f"{name}/checkpoint_000001"))


def resumed(checkpoints: list[Path], data: TrialData, damaged: list[str]) -> tuple[list[int], str]:
    """The epochs that a trial still trains, and its note."""
    epochs, notes = list[int](), list[str]()

    def report(end: EpochEnd, training: Training, _: object) -> None:
        epochs.append(end.epoch)
        notes.append(training.note)

    context = DistributedContext(device=torch.device("cpu"))
    trial.run(CONFIG, data, context=context, report=report, resume_from=checkpoints, damaged=damaged)
    return epochs, notes[0]


@pytest.mark.slow
def test_a_trial_resumes_from_the_storage(store: Store, trained: Path, trial_data: TrialData, tmp_path: Path) -> None:
    """On a node that never saw it; older checkpoints are not fetched."""
    newest = uploaded(store, trained, "whole")
    earlier = earlier_checkpoints(newest)
    assert [found.name for found in earlier] == ["checkpoint_000000"]

    copies, damaged = intact_copies([newest, *earlier], tmp_path)

    assert [copy.name for copy in copies] == ["checkpoint_000001"]
    assert resumed(copies, trial_data, damaged) == ([3], "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "damage", "problem"),
    [
        (STATE, "altered", "is truncated or altered: its SHA-256 is not that in checksums.json"),
        (WEIGHTS, "altered", "is truncated or altered: its SHA-256 is not that in checksums.json"),
        (STATE, "missing", "is missing"),
        (WEIGHTS, "missing", "is missing"),
        (CHECKSUMS, "missing", "is missing, so the checkpoint is incomplete"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    store: Store, trained: Path, trial_data: TrialData, tmp_path: Path, file: str, damage: str, problem: str
) -> None:
    """Its bytes were altered, or its writer was killed: the one before is taken, and this is said."""
    name = f"{damage}-{file}"
    newest = uploaded(store, trained, name)
    content = bytearray((trained / newest.name / file).read_bytes())
    content[-20] ^= 0xFF
    store.write(f"{name}/{newest.name}/{file}", bytes(content))
    if damage == "missing":
        store.behind().delete_file(f"searches/{name}/{newest.name}/{file}")

    copies, damaged = intact_copies([newest, *earlier_checkpoints(newest)], tmp_path)
    epochs, note = resumed(copies, trial_data, damaged)

    assert epochs == [2, 3]
    assert note == f"the file '{newest / file}' {problem}; the trial resumes after epoch 1"


@pytest.mark.slow
def test_a_missing_checkpoint_is_a_fault_of_the_storage(store: Store, tmp_path: Path) -> None:
    """It is no fault of the trial: the search waits until the storage is back."""
    gone = Location.of_storage(store.address("gone/checkpoint_000001"))

    with pytest.raises(EnvironmentFaultError, match=r"The checkpoint 's3://.*' does not exist"):
        intact_copies([gone], tmp_path)


def test_a_local_checkpoint_is_not_copied(trained: Path, tmp_path: Path) -> None:
    """Nodes that share a folder read it where it is."""
    newest = Location.of_storage(trained / "checkpoint_000001")

    copies, damaged = intact_copies([newest, *earlier_checkpoints(newest)], tmp_path)

    assert damaged == []
    assert copies == [trained / "checkpoint_000001", trained / "checkpoint_000000"]
    with local_copy(str(trained / "checkpoint_000001")) as path:
        assert path == trained / "checkpoint_000001"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_broken_download_of_a_checkpoint_continues(store: Store, trained: Path, tmp_path: Path) -> None:
    """In the same process, and after what another one left, whatever that was."""
    newest = uploaded(store, trained, "broken")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / f".{WEIGHTS}.part").write_bytes(b"other bytes")
    store.faults.cuts = [10, 20, 30]

    fetch(newest, tmp_path / "copy", state=True)

    for file in (trained / newest.name).iterdir():
        assert (tmp_path / "copy" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_what_a_process_elsewhere_writes_is_uploaded(store: Store, tmp_path: Path) -> None:
    """Measurements run on any node of the cluster."""
    with output_file(store.address("out/table.bin")) as path:
        path.write_bytes(b"table")
    with output_file(str(tmp_path / "sub" / "table.bin")) as path:
        path.write_bytes(b"table")

    assert store.read("out/table.bin") == (tmp_path / "sub" / "table.bin").read_bytes() == b"table"
