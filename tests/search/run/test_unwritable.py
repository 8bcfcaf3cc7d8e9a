"""Unwritable files are reported before any file is created, and a search that did not start frees its name."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from data.disk import disk_error
from data.errors import DiskError
from search.cli.shared import print_result, resumable
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import held_study, open_study, removing_if_unstarted
from tests.commands import run

Command = Callable[..., Any]
OWN = DiskError("The file system of '/disk' is full", "make room there")
FULL = [
    RuntimeError("1 trial failed: [Errno 28] No space left on device"),
    RayTaskError("measure", "Traceback (most recent call last): …", OWN).as_instanceof_cause(),
    OWN,
]
COMMANDS = [("search", "--name", "first", "--data"), ("train", "birender-cnn"), ("compare",)]


@pytest.mark.parametrize("command", COMMANDS, ids=["search", "train", "compare"])
def test_cache_that_is_not_a_directory_is_named(
    refused: Command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """At once, and with nothing made."""
    cache = tmp_path / "cache"
    cache.write_text("")
    monkeypatch.setenv("TWINHEAD_CACHE", str(cache))
    said = refused(*command, scenes)

    assert said == (
        f"twinhead: The cache '{cache}' cannot be written (it is not a directory); set $TWINHEAD_CACHE to a directory "
        "that can."
    )
    assert not Path("artifacts").exists()


@pytest.mark.slow
def test_unwritable_home_is_named(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps its token there; the cluster itself is not at fault. The search did not begin: its name is free."""
    home = tmp_path / "home"
    home.write_text("")
    monkeypatch.setenv("HOME", str(home))
    done = run("search", "--data", str(drawn), "--name", "first", "--storage", str(tmp_path / "storage"))

    assert done.returncode == 2
    [said] = [line for line in done.stderr.splitlines() if line.startswith("twinhead: ")]
    assert said.startswith(f"twinhead: Ray cannot write '{home / '.ray'}' (Not a directory); set HOME, where it keeps")
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "storage").iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("Ray"), OSError("no"), DiskError("It is full", "make room")])
def test_any_error_before_the_first_trial_frees_the_name(tmp_path: Path, error: Exception) -> None:
    """Waiting trials are no work that could be lost; a stop by Ctrl-C keeps them, so that the search can be resumed."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    study = open_study(experiment)
    study.enqueue_trial({})
    with pytest.raises(KeyboardInterrupt), removing_if_unstarted(experiment, study):
        raise KeyboardInterrupt
    assert experiment.root.exists()
    with pytest.raises(type(error)), removing_if_unstarted(experiment, study):
        raise error
    assert not experiment.root.exists()


def test_failed_creation_of_the_study_frees_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is full already."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    monkeypatch.setattr("search.study.study.open_study", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"), held_study(experiment):
        pass
    assert not experiment.root.exists()


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("raised", FULL, ids=["text", "task", "own"])
def test_full_disk_error_shows_how_to_continue(tmp_path: Path, begun: bool, raised: Exception) -> None:
    """With --resume if there is something to resume, however Ray wrapped the error."""
    experiment = Experiment(storage=tmp_path, name="first")
    if begun:
        experiment.create(load_spec(data_path="set"))

    def work() -> dict[str, Any]:
        raise raised

    with pytest.raises(DiskError) as caught:
        resumable(experiment, experiment.resume_command, work)
    assert type(caught.value) is DiskError
    assert str(caught.value).startswith("The file system of '")
    then = f"continue with '{experiment.resume_command}'." if begun else "give the same command again."
    assert str(caught.value).endswith(then)


def test_a_full_disk_of_the_output_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is redirected to a file; nothing is wrong with the cache."""

    def refuse(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("click.echo", refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        print_result({}, as_json=True, show=lambda: None)
    assert "so '/dev/stdout' cannot be written" in str(disk_error(caught.value, "/somewhere/else"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["render", "best", "inspect"])
def test_a_full_disk_ends_a_command_with_a_sentence(
    twinhead: Command, experiment: Experiment, scenes: Path, tmp_path: Path, command: str
) -> None:
    """It names the file system; nothing half-written stays there."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted")
    try:
        (small / "fill").write_bytes(bytes(2**20 - 8 * 2**10))
        given = {
            "render": ("render", small / "set", "--backgrounds", "10", "--per-background", "2", "--size", "32"),
            "best": ("best", "first", "--trial", "0", "--out", small / "out", "--storage", experiment.storage),
            "inspect": ("inspect", scenes, "--out", small / "sheet.png"),
        }[command]
        said = twinhead(*given)
        left = [path.name for path in small.iterdir()]
    finally:
        subprocess.run(["umount", str(small)], check=True)

    [line] = [line for line in said.err.splitlines() if line.startswith("twinhead: ")]
    assert said.code == 1
    assert line.startswith(f"twinhead: The file system of '{small}' is full (")
    assert line.endswith("cannot be written; make room there, then give the same command again.")
    assert left == ["fill"]
