"""The command `twinhead profile`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import run

RECIPE = """
name: small
source: written for a test
data: {image_size: 32, batch_size: 8}
model: {family: debug, width: 2, precision: fp32}
"""


@pytest.mark.slow
def test_profile_writes_a_table_and_a_trace(drawn: Path, tmp_path: Path) -> None:
    """What a person reads, and what a viewer opens; torch's profiler itself has nothing to say."""
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    done = run("profile", str(recipe), str(drawn), "--steps", "2", "--out", str(tmp_path / "traces"))

    assert done.returncode == 0, done.stderr
    for word in ("data", "forward", "backward", "evaluation", "samples/s", "multiply-adds", "peak memory"):
        assert word in done.stdout
    assert "profiler" not in done.stderr
    assert json.loads((tmp_path / "traces" / "small.pt.trace.json").read_text())["traceEvents"]


@pytest.mark.slow
def test_unknown_key_is_named(drawn: Path, tmp_path: Path) -> None:
    """Before anything is measured."""
    done = run("profile", "birender-cnn", str(drawn), "--set", "model.wide=3", "--out", str(tmp_path))

    assert done.returncode == 2
    assert "model.wide" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_warnings_are_shown_once(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without room slows what is measured: a sentence says so, without the line of code that it came from."""
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0")
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    done = run("profile", str(recipe), str(drawn), "--steps", "2", "--out", str(tmp_path / "traces"))

    assert done.returncode == 0, done.stderr
    parts = [line for line in done.stderr.splitlines() if "are decoded anew for every batch" in line]
    assert len(parts) == len(set(parts)) > 0
    assert "Warning" not in done.stderr
