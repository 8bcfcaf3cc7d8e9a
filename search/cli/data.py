"""The commands for data sets: `render`, `inspect` and `verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.errors import InputError
from data.quantities import byte_size, counted
from search.cli.shared import json_option, print_dataset, print_result, refuse_unwritable, screen

if TYPE_CHECKING:
    from data.dataset.verify import Verification

BROKEN = 1
"""Exit code of `verify` for a damaged data set."""


@click.command(epilog="\b\nExample:\n  twinhead render scenes --backgrounds 200 --per-background 10 --size 128")
@click.argument("destination")
@click.option("--backgrounds", type=click.IntRange(1), default=100, show_default=True, help="Number of rooms.")
@click.option("--per-background", type=click.IntRange(1), default=8, show_default=True, help="Images of each room.")
@click.option(
    "--size", type=click.IntRange(32, 1024), default=128, show_default=True, help="Side of the images in pixels."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the scenes.")
@json_option
def render(destination: str, backgrounds: int, per_background: int, size: int, seed: int, as_json: bool) -> None:
    """Render a data set of scenes with exact mask and depth.

    DESTINATION is a directory, or an address such as s3://bucket/scenes.
    """
    from data.scenes.scenes import SceneSet
    from search.recipes.demo import render_dataset

    scenes = SceneSet(seed=seed, backgrounds=backgrounds, per_background=per_background, size=size)
    render_dataset(scenes, destination, screen())
    print_dataset(destination, None, as_json)


@click.command(epilog="\b\nExample:\n  twinhead inspect classroom --out sheet.png")
@click.argument("data")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The contact sheet; DATA-sheet.png when left out.",
)
@click.option("--samples", type=click.IntRange(1, 100), default=8, show_default=True, help="Rows of the contact sheet.")
@json_option
def inspect(data: str, out: Path | None, samples: int, as_json: bool) -> None:
    """Show counts, statistics and a contact sheet of a data set."""
    from data.dataset.storage import Location
    from data.grids import contact_sheet, save_png
    from search.data import open_data

    sheet = out or Path(f"{Location.parse(data).name}-sheet.png")
    refuse_unwritable(sheet, "--out")
    dataset = open_data(data, screen())
    try:
        save_png(contact_sheet(dataset, samples), sheet)
    except OSError as error:
        raise InputError(f"The sheet '{sheet}' cannot be written ({error.strerror}); give another --out.") from None
    print_dataset(data, sheet, as_json)


@click.command(
    epilog="\b\nExamples:\n  twinhead verify classroom\n  twinhead verify s3://bucket/classroom --json\n\n"
    "The exit code is 0 if the data set is intact, 1 if it is damaged, 2 if there is no data set."
)
@click.argument("data")
@json_option
def verify(data: str, as_json: bool) -> None:
    """Verify every checksum and decode every image of a data set.

    Each fault is printed with its part, sample id, image and reason. DATA is a directory or an address.
    """
    from data.dataset.verify import verify as verify_dataset

    found = verify_dataset(data, bar=screen().bar)
    values = {"data": data, "whole": found.is_whole} | asdict(found)
    print_result(values, as_json, lambda: _show_verification(data, found))
    if not found.is_whole:
        sys.exit(BROKEN)


def _show_verification(data: str, found: Verification) -> None:
    for fault in found.faults:
        click.echo(str(fault))
    more = found.fault_count - len(found.faults)
    if more:
        click.echo(f"… and {more} more")
    checked = (
        f"{counted(found.samples, 'sample')} and {counted(found.backgrounds, 'background')} in "
        f"{byte_size(found.bytes)}, {counted(found.pictures, 'image')} decoded"
    )
    faults = "whole" if found.is_whole else f"broken, with {counted(found.fault_count, 'fault')}"
    click.echo(f"{data} is {faults}: {checked}")
