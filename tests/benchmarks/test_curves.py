"""The table of curves: what is drawn, trained, merged, resumed and read."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.dataset.dataset import write_dataset
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from tests.benchmarks.curves.table import Key, merge, read_curves, rows_of, trainings, write
from trainable.config import TrialConfig, build
from trainable.metrics.names import METRICS

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "tests" / "benchmarks" / "curves" / "train.py"
CONFIGURATIONS = json.loads((SCRIPT.parent / "configurations.json").read_text())
FILES = {"--table": "table.parquet", "--work": "work", "--configurations": "configurations.json"}
SEEDS = 3
TEXTS = {"outcome": "trained", "device": "a GPU", "precision": "fp32", "fingerprint": "f", "configuration": "{}"}


def part(path: Path, key: Key, scores: list[float | None]) -> Path:
    """A table with one training; None is the epoch in which it diverged."""
    epochs = [None if score is None else {"score": score, "lr": 0.1} for score in scores]
    outcome = "diverged" if None in scores else "trained"
    write(path, rows_of(key, TEXTS | {"outcome": outcome}, 2, epochs))
    return path


def test_trainings_are_read_as_they_were_written(tmp_path: Path) -> None:
    """By data set, configuration and seed, whatever the order of the parts."""
    parts = [
        part(tmp_path / "a.parquet", ("rooms", 3, 0), [0.2, 0.4]),
        part(tmp_path / "b.parquet", ("nyu", 3, 1), [0.5]),
        part(tmp_path / "c.parquet", ("nyu", 3, 0), [0.1, 0.3, 0.25]),
    ]

    assert merge(tmp_path / "table.parquet", parts) == 3

    first, second, third = read_curves(tmp_path / "table.parquet")
    assert [(each.data_set, each.seed) for each in (first, second, third)] == [("nyu", 0), ("nyu", 1), ("rooms", 0)]
    assert first.scores.tolist() == pytest.approx([0.1, 0.3, 0.25])
    assert third.scores.tolist() == pytest.approx([0.2, 0.4])
    assert (first.workers, first.device, first.precision, first.fingerprint) == (2, "a GPU", "fp32", "f")
    assert np.isnan(first.numbers["val_loss"]).all()  # no policy watched it


def test_a_training_that_diverged_keeps_its_epochs(tmp_path: Path) -> None:
    """Its last epoch has no numbers, and the score that a search gives it."""
    merge(tmp_path / "table.parquet", [part(tmp_path / "a.parquet", ("nyu", 0, 0), [0.2, None])])

    (curve,) = read_curves(tmp_path / "table.parquet")
    assert curve.outcome == "diverged"
    assert curve.scores.tolist() == pytest.approx([0.2, 0.0])
    assert np.isnan(curve.numbers["score"]).tolist() == [False, True]


def test_a_training_is_merged_once(tmp_path: Path) -> None:
    """A cut-off between a merge and the removal of its parts, or a table that comes back twice, changes nothing."""
    table, again = tmp_path / "table.parquet", part(tmp_path / "b.parquet", ("nyu", 0, 0), [0.9])
    merge(table, [part(tmp_path / "a.parquet", ("nyu", 0, 0), [0.1])])
    before = table.read_bytes()

    assert merge(table, [again, again]) == 0

    assert table.read_bytes() == before


def test_the_same_training_in_two_parts_is_added_once(tmp_path: Path) -> None:
    """Two machines may have trained it."""
    parts = [part(tmp_path / f"{name}.parquet", ("nyu", 0, 0), [0.1, 0.2]) for name in "ab"]

    assert merge(tmp_path / "table.parquet", parts) == 1

    assert len(read_curves(tmp_path / "table.parquet")) == 1


def test_a_damaged_part_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    """The table is days of work."""
    table = tmp_path / "table.parquet"
    merge(table, [part(tmp_path / "a.parquet", ("nyu", 0, 0), [0.1])])
    before = table.read_bytes()
    (tmp_path / "b.parquet").write_bytes(before[:100])

    with pytest.raises((OSError, ValueError)):
        merge(table, [tmp_path / "b.parquet"])

    assert table.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.parquet", "b.parquet", "table.parquet"}


def test_no_table_has_no_trainings(tmp_path: Path) -> None:
    """The first run begins without one."""
    assert trainings(tmp_path / "table.parquet") == set()


def test_the_configurations_can_be_built_and_have_all_families_evenly() -> None:
    """Also in each run of eight, so that a table that is cut off is not about some families alone."""
    families = [values["model"]["family"] for values in CONFIGURATIONS]
    for values in CONFIGURATIONS:
        build(TrialConfig, values, source="configurations.json")

    assert len(CONFIGURATIONS) >= 250
    assert all(len(set(families[first : first + 8])) == 8 for first in range(0, len(families), 8))
    assert {len(set(values["policy"])) for values in CONFIGURATIONS} == {2, 3}  # only the section of its policy
    assert len({values["policy"]["name"] for values in CONFIGURATIONS}) == 6


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one small data set."""
    directory = tmp_path_factory.mktemp("sets")
    scenes = SceneSet(seed=3, backgrounds=12, per_background=2, size=32)
    write_dataset(render(scenes, processes=1), directory / "rooms", source={"kind": "scenes"})
    return directory


def configuration(**sections: Any) -> dict[str, Any]:
    return {
        "epochs": 2,
        "data": {"image_size": 32, "batch_size": 8},
        "model": {"family": "debug", "width": 2},
    } | sections


def command(sets: Path, directory: Path, *arguments: str) -> list[str]:
    """A run of the script on the CPU with the configurations in `directory`, where its table is, too."""
    options = {name: str(directory / file) for name, file in FILES.items()}
    options |= {"--device": "cpu", "--nice": "0"}
    return [sys.executable, str(SCRIPT), str(sets), *itertools.chain(*options.items()), *arguments]


def environment(directory: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TWINHEAD_CACHE": str(directory / "cache")}


def run(sets: Path, directory: Path, *arguments: str, configurations: list[dict[str, Any]]) -> str:
    """The output of a run that ends by itself."""
    (directory / FILES["--configurations"]).write_text(json.dumps(configurations))
    ran = subprocess.run(
        command(sets, directory, *arguments),
        env=environment(directory),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return ran.stdout


@pytest.mark.slow
def test_a_run_goes_on_where_the_last_one_ended(sets: Path, tmp_path: Path) -> None:
    """Of three seeds of the first configuration and one of the second, two trainings are there after the first run."""
    configurations = [configuration(), configuration(model={"family": "debug", "width": 4})]
    run(sets, tmp_path, "--trainings", "2", configurations=configurations)
    first = read_curves(tmp_path / "table.parquet")
    run(sets, tmp_path, "--workers", "2", configurations=configurations)

    curves = read_curves(tmp_path / "table.parquet")
    assert [(each.configuration_id, each.seed) for each in first] == [(0, 0), (0, 1)]
    assert [(each.configuration_id, each.seed) for each in curves] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert [each.scores.tolist() for each in curves[:2]] == [each.scores.tolist() for each in first]
    assert curves[3].values == configurations[1]
    assert all(np.isfinite(each.numbers[name]).all() for each in curves for name in (*METRICS, "train_loss", "lr"))
    assert all((each.numbers["seconds"] > 0).all() for each in curves)
    assert curves[0].scores.tolist() != curves[1].scores.tolist()  # another seed


@pytest.mark.slow
def test_a_training_that_diverges_is_in_the_table_and_a_bad_one_ends_alone(sets: Path, tmp_path: Path) -> None:
    """A learning rate of 1e30 makes the loss infinite; a batch size of 0 cannot be built."""
    wild = configuration(optimizer={"name": "sgd", "lr": 1e30, "clip_norm": 0.0}, policy={"name": "constant"}, epochs=4)
    bad = configuration(data={"image_size": 32, "batch_size": 0})
    with pytest.raises(subprocess.CalledProcessError) as failure:
        run(sets, tmp_path, configurations=[bad, wild, configuration()])

    outcomes = {each.configuration_id: each.outcome for each in read_curves(tmp_path / "table.parquet")}
    assert outcomes == {1: "diverged", 2: "trained"}
    assert "batch_size" in failure.value.stdout
    assert failure.value.returncode == 1


@pytest.mark.slow
def test_a_training_ends_with_the_time_of_its_run(sets: Path, tmp_path: Path) -> None:
    """A lent machine goes back then; a training that is not complete is not in the table."""
    run(sets, tmp_path, "--seconds", "2", configurations=[configuration(epochs=1_000_000)])

    assert trainings(tmp_path / "table.parquet") == set()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(sets: Path, tmp_path: Path) -> None:
    """It does not wait for the trainings that run, which may take hours."""
    endless = configuration(epochs=1_000_000)
    (tmp_path / "configurations.json").write_text(json.dumps([configuration(), endless]))
    running = subprocess.Popen(
        command(sets, tmp_path), env=environment(tmp_path), start_new_session=True, stdout=subprocess.PIPE
    )
    try:
        while len(list(tmp_path.glob("work/*.parquet"))) + len(trainings(tmp_path / "table.parquet")) < SEEDS:
            assert running.poll() is None
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=300)
    finally:
        running.kill()

    assert running.returncode == 130
    assert trainings(tmp_path / "table.parquet") == {("rooms", 0, seed) for seed in range(SEEDS)}


def test_the_table_has_both_data_sets_and_the_noise_of_the_score() -> None:
    curves = read_curves()
    assert len({curve.fingerprint for curve in curves}) == 2
    for data_set in {curve.data_set for curve in curves}:
        seeds: dict[int, set[int]] = {}
        for curve in curves:
            if curve.data_set == data_set:
                seeds.setdefault(curve.configuration_id, set()).add(curve.seed)
        assert len(seeds) >= 250
        assert sum(len(of_one) >= SEEDS for of_one in seeds.values()) >= 25
    assert all(len(curve.scores) == 27 for curve in curves)
