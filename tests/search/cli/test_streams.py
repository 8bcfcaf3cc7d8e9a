"""Terminals without UTF-8: every command prints its output in the available characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import InputError
from search.cli.cluster.common import confirm
from search.cli.shared import screen
from search.cli.streams import EQUIVALENTS, in_ascii
from search.results.export import export_checkpoint
from search.study.experiment import Experiment
from tests.commands import command
from trainable.loop.checkpoint_files import WEIGHTS

ROOT = Path(__file__).parents[3]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "iso-8859-1"}
LOCALES = {"ascii": ASCII, "latin-1": LATIN}


def ran(environment: dict[str, str], where: Path, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """A command in its own process, in a locale and a directory."""
    there = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    return subprocess.run(
        command(*map(str, arguments)),
        cwd=where,
        env={**there, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "ascii_text"),
    [
        ("96 × 96", "96 x 96"),
        ("1 – 2 …", "1 - 2 ..."),
        ("a → b", "a -> b"),
        ("café", "cafe"),
        ("m²", "m2"),
        ("★", "?"),
    ],
)
def test_characters_have_ascii_equivalents(text: str, ascii_text: str) -> None:
    """The text must stay readable."""
    assert in_ascii(text) == ascii_text


def test_every_printed_character_has_an_ascii_equivalent() -> None:
    """A question mark would hide the character."""
    sources = [path for name in ("data", "trainable", "search") for path in (ROOT / name).rglob("*.py")]
    ours = {character for path in sources for character in path.read_text(encoding="utf-8") if ord(character) > 127}

    assert {"×", "–", "…"} <= ours
    assert all(EQUIVALENTS.values())
    assert {character for character in ours if "?" in in_ascii(character)} == set()


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
def test_commands_print_in_any_encoding(locale: str, experiment: Experiment, scenes: Path, tmp_path: Path) -> None:
    """Tables, help texts, progress, JSON and errors; Python alone ends with a traceback."""
    photo = next((ROOT / "docs").glob("*.png"))
    export_checkpoint(experiment.trials / "00000" / "checkpoint_000000", experiment.best, metrics={}, title="first")
    for arguments, code, said in (
        (["recipes"], 0, b"G at 224"),
        (["search", "--help"], 0, b"Usage"),
        (["compose", "--help"], 0, b"Usage"),
        (["inspect", scenes], 0, "32 × 32"),
        (["inspect", scenes, "--json"], 0, b'"width": 32'),
        (["trials", "first", "--storage", experiment.storage], 0, b"what it tried"),
        (["trials", "first", "--storage", "st é"], 2, b"no search 'first' in 'st "),
        (["predict", experiment.best, "--bg", photo, "--fg-bg", experiment.best / "nowhere é.png"], 2, b"cannot be"),
        (["best", "first", "--trial", "0", "--storage", experiment.storage, "--out", "copy"], 0, b"trial 0"),
    ):
        done = ran(LOCALES[locale], tmp_path, *arguments)
        wanted = said if isinstance(said, bytes) else (in_ascii(said) if locale == "ascii" else said).encode("latin-1")
        assert done.returncode == code, done.stderr
        assert wanted in done.stdout + done.stderr
        assert b"Error" not in done.stderr
        assert b"Traceback" not in done.stderr

    assert (tmp_path / "copy" / WEIGHTS).is_file()


@pytest.mark.slow
def test_json_is_ascii_everywhere(scenes: Path, tmp_path: Path) -> None:
    """Programs read it, whatever the terminal."""
    done = ran(ASCII, tmp_path, "inspect", scenes, "--json")

    assert done.stdout.isascii()
    assert json.loads(done.stdout)["counts"]["samples"] == 30


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["inspect", "sét"], ["render", "sét", "--backgrounds", "1"]])
def test_path_that_arrow_cannot_encode_is_refused(arguments: list[str], tmp_path: Path) -> None:
    """Arrow decodes every path as UTF-8: it would look for another file, or end with a traceback."""
    done = ran(ASCII, tmp_path, *arguments)

    assert done.returncode == 2
    assert b"has characters that this locale" in done.stderr
    assert b"Traceback" not in done.stderr


def test_closed_standard_streams_are_no_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python sets a stream to None that the calling program closed, such as a service manager."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="give -y to confirm"):
        confirm("Remove 'first'?", yes=False)
    monkeypatch.setattr(sys, "stderr", None)
    screen(runs=True).say("a line that nobody reads")
