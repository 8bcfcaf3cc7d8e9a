"""The estimate of a search before it starts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from data.dataset.dataset import Dataset
from data.errors import InputError
from search.run import dry_run as dry_run_module
from search.run.dry_run import dry_run, first_trials
from search.spec.spec import SearchSpec, load_spec
from tests.commands import SMALL, run
from trainable.config import TrialConfig
from trainable.loop import state
from trainable.loop.precision import PrecisionChoice

SETTINGS = (("data.image_size", "32"), ("model.family", "debug"), ("model.width", "{choices: [2, 8]}"))
NOWHERE = Path("nowhere")
"""A storage without earlier searches."""


def spec(data: Path, *more: tuple[str, str]) -> SearchSpec:
    return load_spec(None, [*SETTINGS, *more], data_path=str(data))


@pytest.mark.slow
def test_epochs_follow_from_the_rungs(drawn: Path) -> None:
    """9 trials of 3 epochs, 3 of which continue to 9, and 1 to 27: ASHA reduces 243 epochs to this."""
    rungs = [("scheduler.max_epochs", "27"), ("scheduler.grace_epochs", "3"), ("budget.trials", "9")]
    found = dry_run(spec(drawn, *rungs), Dataset.open(drawn), NOWHERE).as_plain()

    assert found["epochs"] == {"fewest": 9 * 3 + 3 * 6 + 1 * 18, "most": 243}


@pytest.mark.slow
def test_smallest_and_largest_networks_are_measured(drawn: Path) -> None:
    """A budget depends on the extremes of the space, not on its middle."""
    found = dry_run(spec(drawn), Dataset.open(drawn), NOWHERE).as_plain()
    smallest, largest = found["networks"]["smallest"], found["networks"]["largest"]

    assert (smallest["width"], largest["width"]) == (2, 8)
    assert smallest["multiply_adds"] < largest["multiply_adds"]
    assert min(found["hours"]) > 0
    assert len(found["first"]) == 20
    assert json.loads(json.dumps(found)) == found


@pytest.mark.slow
def test_too_few_optimizer_steps_are_reported_with_sufficient_epochs(drawn: Path) -> None:
    """The number of epochs says little: with few samples they are too short to train a network."""
    batches = ("data.batch_size", "{choices: [4, 16]}")
    few = dry_run(spec(drawn, batches, ("scheduler.max_epochs", "9")), Dataset.open(drawn), NOWHERE).as_plain()
    samples = few["samples"]["train"]
    fewest, most = 9 * -(-samples // 16), 9 * -(-samples // 4)

    assert (few["optimizer_steps"]["fewest"], few["optimizer_steps"]["most"]) == (fewest, most)
    found = re.search(r"set scheduler.max_epochs to (\d+) or more", few["optimizer_steps"]["warning"])
    assert found
    enough = spec(drawn, batches, ("scheduler.max_epochs", found[1]))
    assert dry_run(enough, Dataset.open(drawn), NOWHERE).as_plain()["optimizer_steps"]["warning"] is None


@pytest.mark.slow
def test_networks_beyond_a_limit_are_left_out_of_the_estimate(drawn: Path) -> None:
    """It would not be trained: the largest network is the widest within the limit."""
    wide = ("model.width", "{low: 2, high: 64}")
    free = dry_run(spec(drawn, wide), Dataset.open(drawn), NOWHERE).as_plain()["networks"]["largest"]
    limit = free["parameters"] // 4
    found = dry_run(spec(drawn, wide, ("constraints.parameters", str(limit))), Dataset.open(drawn), NOWHERE).as_plain()
    largest = found["networks"]["largest"]

    assert free["width"] == 64
    assert 2 < largest["width"] < 64
    assert limit * 0.9 < largest["parameters"] <= limit


@pytest.mark.slow
def test_search_starts_with_the_trials_of_its_dry_run(drawn: Path) -> None:
    """Otherwise the shown first trials would be a guess."""
    of_seed = [first_trials(spec(drawn, ("search.seed", seed)), NOWHERE) for seed in ("1", "1", "2")]

    assert of_seed[0] == of_seed[1] != of_seed[2]


def test_first_trials_have_their_origin(drawn: Path) -> None:
    """The default configuration is no proposal of the searcher."""
    first, _ = first_trials(spec(drawn, ("search.start_from", "[default]"), ("budget.trials", "2")), NOWHERE)

    assert [trial.proposed_by for trial in first] == ["default", "exploration"]


@pytest.mark.slow
def test_dry_run_creates_no_files(drawn: Path, tmp_path: Path) -> None:
    """A dry run that leaves a search behind is not dry."""
    done = run("search", "--data", str(drawn), *SMALL, "--dry-run", "--storage", str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert "GPU-hours" in done.stdout
    assert "of the optimizer in a whole trial" in done.stdout
    assert re.search(r"^warning: .* optimizer steps are too few", done.stdout, re.MULTILINE)
    assert re.search(r"first trials\s+0  exploration: ", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_networks_are_measured_on_the_device_of_the_trials(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong hours: trials without GPUs were estimated by steps on the GPU of the machine."""
    devices: list[torch.device] = []

    def measure(config: TrialConfig, device: torch.device) -> PrecisionChoice:
        devices.append(device)
        return PrecisionChoice(precision="fp32", seconds={"fp32": 1.0}, step_seconds=1.0, images=8)

    monkeypatch.setattr(state, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(dry_run_module, "_this_machine", lambda: [{"CPU": 4.0, "GPU": 1.0}])
    monkeypatch.setattr(dry_run_module, "choose_precision", measure)
    for gpus in ("0", "auto"):
        dry_run(spec(drawn, ("resources.gpus_per_trial", gpus)), Dataset.open(drawn), NOWHERE)

    assert [device.type for device in devices] == ["cpu", "cpu", "cuda", "cuda"]


def test_split_without_samples_is_refused(drawn: Path) -> None:
    """As the search itself would."""
    with pytest.raises(InputError):
        dry_run(spec(drawn, ("data.split", "{train: 1.0, val: 0.0, test: 0.0}")), Dataset.open(drawn), NOWHERE)
