"""Commands on a remote storage: as on a directory, from any machine, with no cluster running."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.dataset.dataset import Dataset
from data.dataset.storage import Location
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.running import running
from search.study.study import open_study
from search.study.trials import note_epoch, note_start
from tests.s3 import Store, failing_store
from tests.search.conftest import CONFIGURATION, METRICS, Said
from trainable.loop.checkpoint import load_model, save
from trainable.loop.checkpoint_files import WEIGHTS, Origin
from trainable.models import build_model
from trainable.report import TrialReport

Command = Callable[..., Said]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch, failing_store() as store:
        patch.setattr("data.dataset.transfer.FIRST_PAUSE_SECONDS", 0.01)
        patch.setattr("search.study.running.CLAIM_SECONDS", 0.01)
        yield store


@pytest.fixture
def searched(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A search of two trials in the storage, seen from a machine with an empty cache; the second trial is better."""
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "driver"))
    name = f"of-{abs(hash(tmp_path))}"
    experiment = Experiment(storage=Location.of_storage(store.address("runs")), name=name)
    experiment.create(load_spec(data_path="set"))
    with running(experiment, lambda _: None):
        study = open_study(experiment)
        for number, score in enumerate((0.3, 0.5)):
            trial = study.ask()
            note_start(trial, CONFIGURATION.model_dump())
            relative = f"trials/{number:05d}/checkpoint_000000"
            origin = Origin(config=CONFIGURATION, data_fingerprint="ab12", epoch=1)
            save(tmp_path / "raw", build_model(CONFIGURATION.model), origin, METRICS, state={"epoch": 1})
            for file in (tmp_path / "raw").iterdir():
                store.write(f"runs/{name}/{relative}/{file.name}", file.read_bytes())
            note_epoch(trial, TrialReport(epoch=1, metrics=METRICS | {"score": score}, outcome="trained"), relative)
            study.tell(trial, score)
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "reader"))
    monkeypatch.setenv("TWINHEAD_STORAGE", store.address("runs"))
    return experiment


@pytest.mark.slow
def test_a_search_is_read_from_its_address(twinhead: Command, searched: Experiment, store: Store) -> None:
    """Its trials and its front; only the networks on the front are fetched, and no optimizer state."""
    rows = json.loads(twinhead("trials", searched.name, "--json").out)
    assert [(row["number"], row["score"]) for row in rows] == [(1, 0.5), (0, 0.3)]

    front = json.loads(twinhead("front", searched.name, "--storage", store.address("runs"), "--json").out)
    assert [point["trial"] for point in front["front"]] == [1]
    fetched = sorted(path.name for path in Path("reader").rglob("checkpoint_000000/[!.]*"))
    assert fetched == ["checksums.json", "config.json", "metrics.json", WEIGHTS]


@pytest.mark.slow
def test_a_network_is_exported_from_the_storage(twinhead: Command, searched: Experiment) -> None:
    """To a directory that works without the storage."""
    said = twinhead("best", searched.name, "--trial", "0", "--out", "out")

    assert said.code == 0, said.err
    assert load_model(Path("out"))[1].epoch == 1


@pytest.mark.slow
def test_an_altered_network_is_refused_with_another(
    refused: Callable[..., str], searched: Experiment, store: Store
) -> None:
    """The sentence names the file in the storage, and the command that exports an intact network."""
    path = f"runs/{searched.name}/trials/00001/checkpoint_000000/{WEIGHTS}"
    content = store.read(path)
    store.write(path, content[:-1] + bytes([content[-1] ^ 0xFF]))

    sentence = refused("best", searched.name, "--trial", "1", "--out", "out")

    assert f"The file 's3://searches/{path}?" in sentence
    assert "is truncated or altered" in sentence
    assert f"twinhead best {searched.name} --trial 0 --storage 's3://" in sentence
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_cache_that_cannot_hold_the_mirror_is_named(
    refused: Callable[..., str], searched: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage is not at fault."""
    cache = tmp_path / "file"
    cache.write_text("")
    monkeypatch.setenv("TWINHEAD_CACHE", str(cache))

    assert refused("trials", searched.name).startswith(f"twinhead: The cache '{cache}' cannot be written")


@pytest.mark.slow
def test_a_full_disk_of_the_mirror_is_named(
    twinhead: Command, searched: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After room was made, the same command goes on; nothing half-read counts."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted")
    try:
        (small / "fill").write_bytes(bytes(2**20 - 16 * 2**10))
        monkeypatch.setenv("TWINHEAD_CACHE", str(small))
        full = twinhead("best", searched.name, "--trial", "0", "--out", "out")
        (small / "fill").unlink()
        roomy = twinhead("best", searched.name, "--trial", "0", "--out", "out")
    finally:
        subprocess.run(["umount", str(small)], check=True)

    [line] = [line for line in full.err.splitlines() if line.startswith("twinhead: ")]
    assert full.code == 1
    assert line.startswith(f"twinhead: The file system of '{small}' is full (")
    assert roomy.code == 0, roomy.err
    assert load_model(Path("out"))[1].epoch == 1


@pytest.mark.slow
def test_a_storage_that_denies_access_is_named(refused: Callable[..., str], searched: Experiment, store: Store) -> None:
    """Instead of a traceback of pyarrow."""
    store.faults.refuses = "denied"
    try:
        assert "was denied" in refused("trials", searched.name)
    finally:
        store.faults.refuses = ""


@pytest.mark.parametrize(
    "address",
    [
        "s3://",
        "s3://bucket//runs",
        "pigeon://bucket/x",
        "s3://key:s3cr3t@bucket/runs",
        "s3://bucket/runs?endpoint_override=http://key:s3cr3t@store",
        "s3://bucket/runs?secret_key=s3cr3t",
    ],
)
def test_an_address_that_is_no_storage_is_refused(refused: Callable[..., str], tmp_path: Path, address: str) -> None:
    """No directory of that name appears, and no secret is shown."""
    sentence = refused("trials", "first", "--storage", address)

    assert "s3cr3t" not in sentence
    assert list(tmp_path.glob("s3*")) == list(tmp_path.glob("pigeon*")) == []


@pytest.mark.slow
def test_a_data_set_is_rendered_to_an_address(twinhead: Command, refused: Callable[..., str], store: Store) -> None:
    """And is not rendered over."""
    size = ("--backgrounds", 2, "--per-background", 1, "--size", 32, "--json")
    said = twinhead("render", store.address("rendered"), *size)

    assert said.code == 0, said.err
    assert json.loads(said.out)["path"] == store.address("rendered")
    assert Dataset.open(store.address("rendered"), verify=True).info.counts.samples == 2
    assert "has a data set already" in refused("render", store.address("rendered"), *size[:-1])
    assert list(Path.cwd().glob("s3*")) == []
