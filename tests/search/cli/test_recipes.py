"""`twinhead recipes`: a table for people, a list for programs, a file to be copied."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.search.conftest import Said
from trainable.recipes import RECIPES, load_recipe


@pytest.mark.slow
def test_all_recipes_are_listed(twinhead: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the values in which recipes differ, on 120 columns, also in a file."""
    monkeypatch.setenv("COLUMNS", "80")
    said = twinhead("recipes")

    assert said.code == 0
    for name in RECIPES:
        assert any(line.startswith(f"{name} ") for line in said.out.splitlines())
    assert max(map(len, said.out.splitlines())) <= 120
    assert "18.21 G at 224  l1 mask, l1 depth; sgd lr 0.5, momentum 0.9;" in said.out
    assert "BirenderPanwar/EVA4_Phase1" in said.out


@pytest.mark.slow
def test_json_lists_recipes_as_objects(twinhead: Callable[..., Said]) -> None:
    """Each with its figures as numbers."""
    listed = json.loads(twinhead("recipes", "--json").out)

    assert [recipe["name"] for recipe in listed] == list(RECIPES)
    assert {
        "name",
        "family",
        "width",
        "parameters",
        "macs",
        "image_size",
        "losses",
        "policy",
        "optimizer",
        "source",
    } <= set(listed[0])
    assert (listed[3]["parameters"], listed[3]["macs"]) == (242_976, 8_912_240_640)


def test_recipe_is_printed_as_its_file(twinhead: Callable[..., Said], tmp_path: Path) -> None:
    """Its comments too: they say what the shares stand for."""
    printed = twinhead("recipes", "birender-cnn").out
    copy = tmp_path / "mine.yaml"
    copy.write_text(printed)

    assert printed.startswith("# Plain convolutions")
    assert "8 epochs up, 8 down" in printed
    assert load_recipe(str(copy)).config == load_recipe("birender-cnn").config


@pytest.mark.slow
def test_faithful_flag_is_printed(twinhead: Callable[..., Said]) -> None:
    """A copy of it is faithful without an option."""
    assert "faithful: true" in twinhead("recipes", "monimoyd-unet", "--faithful").out
    whole = json.loads(twinhead("recipes", "monimoyd-unet", "--faithful", "--json").out)
    assert whole["parameters"] == 513_206
    assert whole["config"]["model"]["shared_decoder"]
    assert any("decoder" in line["what"] for line in whole["corrected"])


def test_faithful_flag_is_added_to_a_printed_file(twinhead: Callable[..., Said], tmp_path: Path) -> None:
    """In a file of one's own, the line may be missing, or be written another way."""
    own, copy = tmp_path / "own.yaml", tmp_path / "copy.yaml"
    for text in (
        "name: x\nsource: y\n",
        "{name: x, source: y, faithful: false}\n",
        "name: x\nsource: y\nfaithful:   no\n",
    ):
        own.write_text(text)
        copy.write_text(twinhead("recipes", own, "--faithful").out)
        assert load_recipe(str(copy)).faithful


def test_error_of_an_unbuildable_network_names_the_file(refused: Callable[..., str], tmp_path: Path) -> None:
    """The mistake is in the file, and nowhere else."""
    own = tmp_path / "own.yaml"
    own.write_text("name: x\nsource: y\nmodel: {family: unet}\n")
    assert "'model.family' is 'unet', but must be one of" in (sentence := refused("recipes", own, "--json"))
    assert sentence.endswith(f"correct it in '{own}' (did you mean 'sepunet'?).")


def test_an_unknown_recipe_is_refused(refused: Callable[..., str]) -> None:
    """With the names that there are."""
    assert "monimoyd-unet" in refused("recipes", "monimoyd")
