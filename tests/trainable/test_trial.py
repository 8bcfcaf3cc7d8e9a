"""A trial in this process: it is repeatable, reads the expected data, and runs from the command line."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from data.dataset.dataset import Dataset, write_dataset
from data.errors import EnvironmentFaultError, InputError
from data.loader import Loader
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop import loaders
from trainable.loop.checkpoint import load_model
from trainable.loop.checkpoint_files import CHECKSUMS, STATE, WEIGHTS
from trainable.loop.loop import EpochEnd
from trainable.loop.precision import resolve_for_trial
from trainable.loop.state import DistributedContext, Training

ALONE = DistributedContext(device=torch.device("cpu"))


def config(**changes: Any) -> TrialConfig:
    values: dict[str, Any] = {
        "data": {"image_size": 16, "batch_size": 8},
        "model": {"family": "debug", "width": 2, "precision": "fp32"},
        "epochs": 2,
    }
    return build(TrialConfig, values | changes, source="the test")


MEASURED = re.compile(r"second|^time_|^memory_")


def curve_of(config: TrialConfig, data: TrialData, **options: Any) -> list[dict[str, float]]:
    """The reported metrics without times and memory."""
    ends: list[EpochEnd] = []

    def report(end: EpochEnd, training: Training, val: Loader | None) -> None:
        ends.append(end)

    trial.run(config, data, context=ALONE, report=report, **options)
    return [{name: value for name, value in end.metrics.items() if not MEASURED.search(name)} for end in ends]


def test_trial_is_reproducible(trial_data: TrialData, tmp_path: Path) -> None:
    """Configuration and data set determine the curve; precision 'auto' is resolved once per search."""
    automatic = config(model={"family": "debug", "width": 2})
    first, second = (resolve_for_trial(automatic, ALONE, measurements=tmp_path / "m.json") for _ in range(2))
    assert curve_of(first, trial_data) == curve_of(second, trial_data)
    assert curve_of(config(seed=1), trial_data) != curve_of(config(), trial_data)


def test_trial_resumes_from_a_checkpoint(trial_data: TrialData, tmp_path: Path) -> None:
    """After a crash, the remaining epochs are the same as without it."""

    def keep_first(end: EpochEnd, training: Training, val: Loader | None) -> None:
        if end.epoch == 1:
            training.save(tmp_path, end.metrics)

    whole = curve_of(config(), trial_data)
    trial.run(config(), trial_data, context=ALONE, report=keep_first)
    assert curve_of(config(), trial_data, resume_from=[tmp_path]) == whole[1:]


def test_trial_that_ended_unnoticed_reports_its_last_epoch(trial_data: TrialData, tmp_path: Path) -> None:
    """As if the driver was killed between the last report of the trial and its end: nothing is trained again."""
    saved: list[int] = []

    def keep_last(end: EpochEnd, training: Training, val: Loader | None) -> None:
        if end.epoch == 2:
            training.save(tmp_path / "last", end.metrics)

    def save_again(end: EpochEnd, training: Training, val: Loader | None) -> None:
        assert end.save is not None
        end.save(tmp_path / "again")
        saved.append(end.epoch)

    (tmp_path / "last").mkdir()
    (tmp_path / "again").mkdir()
    whole = curve_of(config(), trial_data)
    trial.run(config(), trial_data, context=ALONE, report=keep_last)
    trial.run(config(), trial_data, context=ALONE, report=save_again, resume_from=[tmp_path / "last"])

    assert saved == [2]
    assert curve_of(config(), trial_data, resume_from=[tmp_path / "again"]) == whole[1:]


def test_scaled_batches_have_a_scaled_learning_rate(trial_data: TrialData) -> None:
    """The linear rule: as many times the samples per step, as many times the step."""
    plain = config(optimizer={"lr": 0.01})
    doubled = config(data={"image_size": 16, "batch_size": 16}, optimizer={"lr": 0.02})
    assert curve_of(plain, trial_data, batch_scale=2.0) == curve_of(doubled, trial_data)
    assert curve_of(plain, trial_data) != curve_of(doubled, trial_data)


def test_a_resumed_trial_has_the_learning_rate_of_its_workers(trial_data: TrialData, tmp_path: Path) -> None:
    """An elastic group continues with more or fewer workers than those that wrote the checkpoint."""
    first, _ = saved_epochs(tmp_path, trial_data)
    chosen = config(epochs=3, policy={"name": "constant"})
    (before, *_), (after, *_) = (
        curve_of(chosen, trial_data, resume_from=[first], batch_scale=scale) for scale in (1.0, 2.0)
    )
    assert after["lr"] == pytest.approx(2 * before["lr"])


def test_stages_are_scaled_too() -> None:
    """A stage may have a batch size of its own."""
    stages = [{"share": 0.3, "scale": 0.5, "batch_size": 16}, {"share": 0.3, "scale": 0.75}]
    scaled = loaders.with_scaled_batches(config(data={"image_size": 32, "batch_size": 8, "progression": stages}), 1.5)
    assert scaled.data.batch_size == 12
    assert [stage.batch_size for stage in scaled.data.progression] == [24, None]


def saved_epochs(directory: Path, data: TrialData) -> list[Path]:
    """Checkpoints after the first and the second of three epochs."""

    def keep(end: EpochEnd, training: Training, val: Loader | None) -> None:
        training.save(directory / str(end.epoch), end.metrics)

    trial.run(config(epochs=3), data, context=ALONE, report=keep)
    return [directory / "1", directory / "2"]


def notes_of(data: TrialData, resume_from: list[Path]) -> tuple[list[int], str]:
    """The epochs that a resumed trial reports, and its note."""
    epochs: list[int] = []

    def report(end: EpochEnd, training: Training, val: Loader | None) -> None:
        epochs.append(end.epoch)

    training = trial.run(config(epochs=3), data, context=ALONE, report=report, resume_from=resume_from)
    return epochs, training.note


@pytest.mark.parametrize("name", [STATE, WEIGHTS])
def test_trial_resumes_from_the_checkpoint_before_a_damaged_one(
    trial_data: TrialData, tmp_path: Path, name: str
) -> None:
    """A wrong bit must neither cost all epochs nor get into the network."""
    first, second = saved_epochs(tmp_path, trial_data)
    (second / name).write_bytes((second / name).read_bytes()[:-1] + b"?")

    epochs, note = notes_of(trial_data, [second, first])

    assert epochs == [2, 3]
    assert note == (
        f"the file '{second / name}' is truncated or altered: its SHA-256 is not that in checksums.json; "
        "the trial resumes after epoch 1"
    )


def test_trial_does_not_resume_from_a_checkpoint_without_its_checksums(trial_data: TrialData, tmp_path: Path) -> None:
    """Unverified files: altered weights would be trained on, if it were enough to remove the checksums."""
    first, second = saved_epochs(tmp_path, trial_data)
    (second / CHECKSUMS).unlink()
    weights = (second / WEIGHTS).read_bytes()
    (second / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))

    epochs, note = notes_of(trial_data, [second, first])

    assert epochs == [2, 3]
    assert note == (
        f"the file '{second / CHECKSUMS}' is missing, so the checkpoint is incomplete; the trial resumes after epoch 1"
    )


def test_a_trial_whose_checkpoints_are_all_damaged_starts_over(trial_data: TrialData, tmp_path: Path) -> None:
    """The trial starts over, with the same curve."""
    checkpoints = saved_epochs(tmp_path, trial_data)
    for directory in checkpoints:
        (directory / STATE).write_bytes(b"")

    epochs, note = notes_of(trial_data, checkpoints[::-1])

    assert epochs == [1, 2, 3]
    assert note.endswith("; the trial starts over")
    fresh = curve_of(config(epochs=3), trial_data)
    assert curve_of(config(epochs=3), trial_data, resume_from=checkpoints) == fresh


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trial_that_continues_keeps_the_precision_of_its_checkpoint(
    trial_data: TrialData, tmp_path: Path, precision: str
) -> None:
    """On another machine 'auto' may resolve differently; a trial must not mix precisions."""
    directory = tmp_path / "checkpoint"

    def keep_first(end: EpochEnd, training: Training, val: Loader | None) -> None:
        if end.epoch == 1:
            training.save(directory, end.metrics)

    begun = config(model={"family": "debug", "width": 2, "precision": precision})
    trial.run(begun, trial_data, context=ALONE, report=keep_first)
    automatic = config(model={"family": "debug", "width": 2})
    measured = tmp_path / "m.json"
    assert resolve_for_trial(automatic, ALONE, measurements=measured, resume_from=[directory]) == begun
    assert not measured.exists()
    assert curve_of(automatic, trial_data, resume_from=[directory]) == curve_of(begun, trial_data)[1:]


def test_the_final_training_has_no_validation(trial_data: TrialData) -> None:
    """It trains on train + val as one split, and reports training losses only."""
    data = TrialData(path=trial_data.path, fingerprint=trial_data.fingerprint, train="train+val", val=None)
    both, *_ = loaders.training_loaders(config(), data, ALONE)
    assert len(both.split) == 27
    curve = curve_of(config(), data)
    assert len(curve) == 2
    assert "score" not in curve[0]


def final_weights(
    directory: Path, data: TrialData, config: TrialConfig, resume_from: Sequence[Path] = ()
) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """The weights in the last checkpoint, and those after each step; each epoch's checkpoint is kept."""
    steps: list[dict[str, torch.Tensor]] = []
    network: list[nn.Module] = []

    def keep(end: EpochEnd, training: Training, _: Loader | None) -> None:
        training.save(directory / str(end.epoch), end.metrics)

    def wrap(module: nn.Module) -> nn.Module:
        network.append(module)
        return module

    def after_step(*_: object) -> None:
        steps.append({name: tensor.clone() for name, tensor in network[0].state_dict().items()})

    hook = register_optimizer_step_post_hook(after_step)
    try:
        trial.run(config, data, context=ALONE, report=keep, wrap=wrap, resume_from=resume_from)
    finally:
        hook.remove()
    return load_model(directory / str(config.epochs))[0].state_dict(), steps


def test_without_validation_the_weights_are_averaged(trial_data: TrialData, tmp_path: Path) -> None:
    """No part is left that could pick an epoch, and the weights of a single step may be bad ones."""
    data = TrialData(path=trial_data.path, fingerprint=trial_data.fingerprint, train="train+val", val=None)
    long = config(epochs=20)
    found, steps = final_weights(tmp_path / "whole", data, long)
    decay = 1 - 20 / len(steps)
    expected = {name: tensor.double() for name, tensor in steps[0].items()}
    for after in steps[1:]:
        expected = {name: decay * expected[name] + (1 - decay) * after[name].double() for name in expected}

    floating = [name for name, tensor in found.items() if tensor.is_floating_point()]
    assert len(floating) > 4
    for name in floating:
        assert torch.allclose(found[name].double(), expected[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(found[name], steps[-1][name], rtol=1e-3) for name in floating)

    again, _ = final_weights(tmp_path / "resumed", data, long, resume_from=[tmp_path / "whole" / "12"])
    assert all(torch.equal(again[name], found[name]) for name in found)


def test_with_validation_the_weights_are_those_of_the_epoch(trial_data: TrialData, tmp_path: Path) -> None:
    """The metrics that picked it are of these weights."""
    found, steps = final_weights(tmp_path, trial_data, config())
    assert all(torch.equal(found[name], steps[-1][name]) for name in found)


@pytest.mark.slow
def test_data_that_changed_is_refused(tmp_path: Path) -> None:
    """Trials of one search must read the same images, even in a process that cached the old ones."""
    path = tmp_path / "set"
    for seed in (1, 2):
        scenes = SceneSet(seed=seed, backgrounds=6, per_background=1, size=32)
        shutil.rmtree(path, ignore_errors=True)
        write_dataset(render(scenes, processes=1), path, source={})
        if seed == 1:
            old = TrialData(path=str(path), fingerprint=Dataset.open(path).info.fingerprint)
            loaders.read_part(config().data, old, "train")
    for part in ("train", "val"):
        with pytest.raises(InputError, match=f"'{path}' has the fingerprint .*, but must be {old.fingerprint}"):
            loaders.read_part(config().data, old, part)


@pytest.mark.parametrize("what", ["data set", "cache", "checkpoint"])
def test_missing_data_set_is_not_a_failure_of_the_trial(
    scenes: Path, trial_data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The search waits for the environment, because another configuration would fail as well."""
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "cache"))
    path, resume_from = scenes, list[Path]()
    if what == "data set":
        path = tmp_path / "set"
    elif what == "cache":
        (tmp_path / "cache").touch()
    else:
        resume_from = [tmp_path / "checkpoint_000001"]
    data = TrialData(path=str(path), fingerprint=trial_data.fingerprint)

    with pytest.raises(EnvironmentFaultError, match=f"'{tmp_path}"):
        curve_of(config(), data, resume_from=resume_from)


def test_data_lost_while_reading_is_not_a_failure_of_the_trial(
    scenes: Path, trial_data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples that do not fit into the cache are read in every epoch."""
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0")
    path = tmp_path / "set"
    shutil.copytree(scenes, path)
    data = TrialData(path=str(path), fingerprint=trial_data.fingerprint)
    with pytest.warns(UserWarning, match="decoded anew for every batch"):
        loader = loaders.evaluation_loader(config(), data, "val", ALONE)
    shutil.rmtree(path)

    with pytest.raises(EnvironmentFaultError, match=f"'{path}/.*' cannot be read"):
        list(loader.epoch(0))


def test_a_part_without_samples_is_refused(trial_data: TrialData) -> None:
    """With ten rooms, a split may have no samples."""
    split = {"train": 0.5, "val": 0.5, "test": 0.0}
    nothing_left = config(data={"image_size": 16, "split": split})
    with pytest.raises(InputError, match=r"'test' .* has no samples"):
        loaders.evaluation_loader(nothing_left, trial_data, "test", ALONE)


SMALL = ["data.image_size=16", "data.batch_size=8", "model.family=debug", "model.precision=fp32", "epochs=2"]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainable.trial", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_trial_runs_from_the_command_line(trial_data: TrialData, tmp_path: Path) -> None:
    """For a debugger, without Ray: it writes a checkpoint of the given configuration."""
    done = command(trial_data.path, str(tmp_path / "out"), *SMALL, "optimizer.lr=1e-2")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["epoch 1", "epoch 2"]
    _, origin = load_model(tmp_path / "out")
    assert (origin.config.optimizer.lr, origin.config.model.family) == (0.01, "debug")
    assert origin.config.data.augment == TrialConfig().data.augment
    assert origin.data_fingerprint == trial_data.fingerprint


def test_unknown_setting_is_refused(trial_data: TrialData, tmp_path: Path) -> None:
    """It would otherwise train the default under another name."""
    with pytest.raises(InputError, match=r"'optimizer\.rate' is not known; remove it from the command line"):
        trial.main(trial_data.path, str(tmp_path), "optimizer.rate=1")
    assert list(tmp_path.iterdir()) == []
