"""`twinhead compose`: its errors before it starts, and its result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from data.compose.composition import DEFAULT_SCALE
from data.errors import InputError
from search.cli.compose import compose
from tests.data.compose.compose_kit import kit

if TYPE_CHECKING:
    from click.testing import Result


def invoke(root: Path, *arguments: str, catch: bool = True) -> Result:
    kit(root)
    folders = ["--backgrounds", str(root / "bg"), "--foregrounds", str(root / "fg"), "--out", str(root / "set")]
    return CliRunner().invoke(compose, [*folders, *arguments], catch_exceptions=catch)


@pytest.mark.parametrize("form", [(), ("--materialise",)], ids=["recipe", "images"])
def test_data_set_is_composed(tmp_path: Path, form: tuple[str, ...]) -> None:
    """The result alone on standard output, and on standard error how much it will be."""
    depths = ("--depths", str(tmp_path / "depth"), "--depth-unit", "mm", *form)
    said = invoke(tmp_path, *depths, "--size", "32", "--placements", "3", "--flips", "--workers", "1", "--json")

    assert said.exit_code == 0
    result = json.loads(said.stdout)
    assert result["counts"] == {"samples": 24, "backgrounds": 2, "foregrounds": 2}
    assert (result["path"], result["source"]["depth"]["far"]) == (str(tmp_path / "set"), 5.0)
    assert "24 samples of 32 px: 2 backgrounds × 2 foregrounds × 2 directions × 3 placements" in said.stderr
    assert "level 255 is 5 m" in said.stderr
    assert "unusual distance" not in said.stderr
    assert (" kB, twice that until it is complete; about " in said.stderr) == bool(form)
    assert {part["kind"] for part in result["parts"]} >= ({"samples"} if form else {"placements", "cutouts"})


def test_an_implausible_unit_is_noted(tmp_path: Path) -> None:
    """Millimetres read as metres would put every object on the horizon."""
    said = invoke(tmp_path, "--depths", str(tmp_path / "depth"), "--depth-unit", "m", "--size", "32", "--workers", "1")

    assert said.exit_code == 0
    assert "note: 5000 m is an unusual distance; check --depth-unit m\n" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --depths, a folder"),
        (("--depths", "depth"), "give --depth-unit mm, cm, m or relative"),
        (("--depths", "depth", "--depth-unit", "relative"), "give --depth-polarity"),
        (("--depths", "depth", "--depth-unit", "mm", "--placements", "0"), "--placements"),
    ],
)
def test_missing_options_are_named_in_one_sentence(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """With the option that is to be given."""
    with pytest.raises(InputError) as refused:
        invoke(tmp_path, *arguments, catch=False)
    assert said in str(refused.value)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("form", [(), ("--materialise",)], ids=["recipe", "images"])
def test_existing_destination_is_reported_first(tmp_path: Path, form: tuple[str, ...]) -> None:
    """Hundreds of thousands of images may have to be looked at before it would be said otherwise."""
    (tmp_path / "set").mkdir()
    depths = ("--depths", str(tmp_path / "depth"), "--depth-unit", "mm")
    said = invoke(tmp_path, *depths, "--size", "32", "--workers", "1", *form)

    assert "exists already" in str(said.exception)
    assert said.stderr == ""


def test_copies_of_a_background_are_named(tmp_path: Path) -> None:
    """Under several names, one photograph would be in training and in validation."""
    depths = ("--depths", str(tmp_path / "depth"), "--depth-unit", "mm", "--size", "32", "--workers", "1")
    assert "copies" not in invoke(tmp_path, *depths).stderr
    for folder in ("bg", "depth"):
        shutil.copy(tmp_path / folder / "room0.png", tmp_path / folder / "room0 (1).png")

    shutil.rmtree(tmp_path / "set")
    said = invoke(tmp_path, *depths)

    assert "warning: the background 'room0 (1)' has the content of another one, such as 'room0';" in said.stderr


def test_inspection_says_how_images_are_stored(tmp_path: Path) -> None:
    """And from how many samples the statistics are."""
    depths = ("--depths", str(tmp_path / "depth"), "--depth-unit", "mm")
    said = invoke(tmp_path, *depths, "--size", "32", "--placements", "300", "--workers", "1")

    assert "images      composed when they are read" in said.stdout
    assert "channels, 0..1, from 1,000 samples at random" in said.stdout


def test_options_have_the_defaults_of_composition() -> None:
    """They are written twice, since the command line loads nothing that it may not need."""
    defaults = {parameter.name: parameter.default for parameter in compose.params}
    assert defaults["scale"] == DEFAULT_SCALE
