"""The code that a submitted search runs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from search.cluster.code import MODULES, PACKAGES, PLUGINS, write_archive
from trainable.plugins.active import PluginSource


def test_the_archive_is_the_code_and_nothing_else(tmp_path: Path) -> None:
    """No data, results, history, caches or tests are uploaded."""
    archive = write_archive(tmp_path)
    with zipfile.ZipFile(archive.path) as opened:
        names = opened.namelist()
    tops = {name.split("/")[0] for name in names}

    assert tops - {name for name in tops if name.endswith(".dist-info")} == {*PACKAGES, *MODULES, "twinhead"}
    assert {"search/report/templates/comparison.html.j2", "trainable/recipes/raguram-resunet.yaml"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert archive.files == len(names)
    assert archive.bytes < 2**20


def test_the_same_code_is_the_same_archive(tmp_path: Path) -> None:
    """Ray uploads what it does not know, by its bytes."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    assert write_archive(tmp_path / "a").path.read_bytes() == write_archive(tmp_path / "b").path.read_bytes()


def test_plugins_travel_with_the_code(tmp_path: Path) -> None:
    """A job runs the file of the user who submits it, not the copy in a storage that others may write to."""
    archive = write_archive(tmp_path, [PluginSource("own.py", "PLUGINS = []\n")])
    with zipfile.ZipFile(archive.path) as opened:
        assert opened.read(f"{PLUGINS}/own.py") == b"PLUGINS = []\n"


def test_the_command_runs_from_the_archive_alone(tmp_path: Path) -> None:
    """With the version that was submitted, whatever is installed beside it."""
    code = tmp_path / "code"
    with zipfile.ZipFile(write_archive(tmp_path).path) as opened:
        opened.extractall(code)
    show = (
        "from importlib import metadata; import search; print(search.__file__, metadata.distribution('twinhead')._path)"
    )
    shown, version = (
        subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(code), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for arguments in (["-c", show], ["-m", "search.cli.main", "--version"])
    )

    assert all(path.startswith(f"{code}/") for path in shown.split())
    assert version.startswith("twinhead, version ")
