"""The recipes as text and as figures, for `twinhead recipes`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import yaml

from data.fitting.sizes import size_text
from search.terminal import print_line, print_table
from trainable.config.describe import describe
from trainable.config.text import parse_yaml
from trainable.families import check_model
from trainable.recipes import PORTFOLIO, Recipe

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class RecipeRow:
    """A recipe's main choices, and the size of its network."""

    name: str
    source: str
    """Author and place of publication."""
    family: str
    width: int
    losses: str
    optimizer: str
    policy: str
    parameters: int
    macs: int
    """Multiply-adds for one pair of images of `image_size`."""
    image_size: int | list[int]
    epochs: int
    batch_size: int
    metric: str
    """The project's own metric; 'none' if it has none."""
    faithful: bool


def describe_recipe(recipe: Recipe) -> RecipeRow:
    """The row of a recipe.

    Raises:
        InputError: if its network cannot be built.
    """
    # Imports torch, which is slow, and which not every caller needs.
    from trainable.models import build_on_meta, multiply_adds, parameter_count

    config = recipe.config
    check_model(config.model, recipe.file)
    network = build_on_meta(config.model)
    return RecipeRow(
        name=recipe.name,
        source=recipe.source,
        **asdict(describe(config)),
        parameters=parameter_count(network),
        macs=multiply_adds(network, config.data.image_size),
        image_size=config.data.image_size,
        epochs=config.epochs,
        batch_size=config.data.batch_size,
        metric=recipe.metric,
        faithful=recipe.faithful,
    )


def describe_in_full(recipe: Recipe) -> dict[str, object]:
    """The row with the whole configuration and the corrections, as JSON values."""
    return asdict(describe_recipe(recipe)) | {
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


def show_recipes(console: Console, listed: Sequence[RecipeRow]) -> None:
    """Print a table of recipes, and the source of each."""
    choices = "losses, optimizer and policy"
    rows = [
        {
            "recipe": row.name,
            "family": row.family,
            "width": str(row.width),
            "parameters": f"{row.parameters:,}",
            "multiply-adds": f"{row.macs / 1e9:.2f} G at {size_text(row.image_size)}",
            choices: f"{row.losses}; {row.optimizer}; {row.policy}",
        }
        for row in listed
    ]
    optional = [choices, "multiply-adds", "width"]
    print_table(console, rows, left=["recipe", "family"], wrapped=choices, optional=optional)
    console.print()
    for row in listed:
        print_line(console, f"{row.name:<22}{row.source}")
    print_line(
        console, "\n'twinhead recipes NAME' prints a recipe and its corrections; 'twinhead train NAME DATA' trains it."
    )
    print_line(console, f"{PORTFOLIO[0]} to {PORTFOLIO[-1]} are configurations of our own that did well on other data.")
