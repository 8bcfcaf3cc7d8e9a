"""The recipes as text and as figures, for `twinhead recipes`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import yaml

from search.spec.describe import describe
from trainable.config.text import parse_yaml
from trainable.recipes import RECIPES, Recipe, load_recipe

if TYPE_CHECKING:
    from rich.console import Console


def list_recipes(*, faithful: bool = False) -> list[dict[str, Any]]:
    """The values of `describe_recipe` for every recipe."""
    return [describe_recipe(load_recipe(name, faithful=faithful)) for name in RECIPES]


def describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe's main choices, parameter count and multiply-adds, as JSON values.

    Raises:
        InputError: if its network cannot be built.
    """
    # Imports torch, which is slow, and which not every caller needs.
    from trainable.models import build_on_meta, check_model, multiply_adds, parameter_count

    config = recipe.config
    check_model(config.model, recipe.file)
    network = build_on_meta(config.model)
    return {
        "name": recipe.name,
        "source": recipe.source,
        **asdict(describe(config)),
        "parameters": parameter_count(network),
        "macs": multiply_adds(network, config.data.image_size),
        "image_size": config.data.image_size,
        "epochs": config.epochs,
        "batch_size": config.data.batch_size,
        "metric": recipe.metric,
        "faithful": recipe.faithful,
    }


def describe_in_full(recipe: Recipe) -> dict[str, Any]:
    """The same with the whole configuration and the corrections."""
    return describe_recipe(recipe) | {
        "config": recipe.config.model_dump(mode="json"),
        "evaluation": recipe.evaluation.model_dump(mode="json"),
        "corrected": [correction.model_dump(mode="json", exclude_none=True) for correction in recipe.corrected],
    }


def as_text(recipe: Recipe) -> str:
    """The recipe's file, with its present value of `faithful`."""
    stated = f"faithful: {str(recipe.faithful).lower()}"
    text, found = re.subn(r"^faithful:[^\S\n]*\w+", stated, recipe.text, count=1, flags=re.MULTILINE)
    if recipe.faithful and not found:
        values = parse_yaml(recipe.text, recipe.file) | {"faithful": True}
        text = yaml.safe_dump(values, sort_keys=False)
    return text


def show_recipes(console: Console, listed: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of recipes, and the source of each."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("recipe", "family"):
        table.add_column(heading, no_wrap=True)
    for heading in ("width", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("losses, optimizer and policy", overflow="fold")
    for row in listed:
        table.add_row(
            row["name"],
            row["family"],
            str(row["width"]),
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e9:.2f} G at {row['image_size']}",
            f"{row['losses']}; {row['optimizer']}; {row['policy']}",
        )
    console.print(table)
    console.print()
    for row in listed:
        console.print(f"{row['name']:<22}{row['source']}", highlight=False, soft_wrap=True)
    console.print(
        "\n'twinhead recipes NAME' prints a recipe and its corrections; 'twinhead train NAME DATA' trains it.",
        highlight=False,
        soft_wrap=True,
    )
