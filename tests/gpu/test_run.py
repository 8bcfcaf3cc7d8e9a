"""The run on a GPU, as CI has it: without one, at small sizes on the CPU, and with a network and Ray out of reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.gpu.driver import main
from tests.gpu.parts import PARTS

ROOT = Path(__file__).parents[2]
NEEDED = {
    "filelock",
    "kornia",
    "numpy",
    "opencv-python-headless",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "torch",
}
"""What the docstring of the script names; torch itself needs jinja2."""
MODULES = {"vl-convert-python": "vl_convert"}
BARE_MACHINE = """
import socket, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def refuse(*_):
    raise OSError("the network is out of reach")

sys.meta_path.insert(0, Missing())
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


def missing_modules() -> set[str]:
    """Of the dependencies, those that the script does without; and the packages above `trainable`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.split(">")[0].split("[")[0].strip() for line in project["dependencies"]}
    assert names > NEEDED
    return {MODULES.get(name, name) for name in names - NEEDED - {"jinja2"}} | {"search", "twinhead"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, object]]:
    """The whole run as a process, and its JSON."""
    directory = tmp_path_factory.mktemp("bare")
    (directory / "sitecustomize.py").write_text(BARE_MACHINE.format(missing=missing_modules()))
    file = directory / "findings.json"
    environment = os.environ | {"PYTHONPATH": str(directory), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, ROOT / "tests/gpu/run.py", "--minutes", "60", "--json", file],
        env=environment, cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done, json.loads(file.read_text())


@pytest.mark.slow
def test_run_without_ray_and_network_finds_nothing_wrong(
    finished: tuple[subprocess.CompletedProcess[str], dict[str, object]],
) -> None:
    """A machine that is lent for minutes has neither."""
    done, _ = finished
    assert done.returncode == 0, done.stdout + done.stderr
    assert "There is no GPU here: all parts run at small sizes" in done.stdout


@pytest.mark.slow
def test_table_has_every_part(finished: tuple[subprocess.CompletedProcess[str], dict[str, object]]) -> None:
    """A part without a row could be one that checked nothing."""
    done, content = finished
    lines = done.stdout.splitlines()
    rows = lines[next(number for number, line in enumerate(lines) if line.startswith("part ")) + 1 : -2]
    assert list(dict.fromkeys(row.split()[0] for row in rows)) == list(PARTS)
    assert len(rows) == len(content["findings"])  # type: ignore[arg-type]
    assert str(content["torch"]) in lines[-1]
    assert str(content["date"]) in lines[-1]


@pytest.mark.slow
def test_every_check_was_made_and_every_speed_measured(
    finished: tuple[subprocess.CompletedProcess[str], dict[str, object]],
) -> None:
    """Only what no CPU can show is skipped, and no goal for a GPU is compared with the speed of a CPU."""
    _, content = finished
    by_state: dict[str, list[str]] = {}
    for finding in content["findings"]:  # type: ignore[attr-defined]
        by_state.setdefault(f"{finding['group']} {finding['state']}", []).append(finding["check"])
    assert by_state.keys() == {"correctness ok", "correctness skipped", "speed measured"}
    assert by_state["correctness skipped"] == ["the host does not wait for the device"]


def test_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name must not run nothing, and call it a success."""
    with pytest.raises(SystemExit) as ended:
        main(["--only", "correctness,speeed"])
    assert ended.value.code == 2
    assert "'--only' has 'speeed', but must have names of correctness, speed, families" in capsys.readouterr().err


def test_time_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--minutes", "nan"])
    assert ended.value.code == 2
    assert "'--minutes' is nan, but must be > 0" in capsys.readouterr().err


def test_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not after minutes on a machine that is lent for minutes."""
    with pytest.raises(SystemExit) as ended:
        main(["--json", str(tmp_path / "missing" / "findings.json")])
    assert ended.value.code == 2
    assert "does not exist; create it, or give another file" in capsys.readouterr().err
