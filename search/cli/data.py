"""The commands for data sets: `render`, `import`, `inspect` and `verify`."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.byte_size import byte_size
from data.errors import InputError
from search.cli.shared import counted, json_option, print_dataset, print_result, refuse_unwritable, screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data.dataset.verify import Verification
    from search.terminal import Screen

BROKEN = 1
"""Exit code of `verify` for a damaged data set."""


@click.command(epilog="\b\nExample:\n  twinhead render scenes --backgrounds 200 --per-background 10 --size 128")
@click.argument("destination")
@click.option("--backgrounds", type=int, default=100, show_default=True, help="Number of rooms.")
@click.option("--per-background", type=int, default=8, show_default=True, help="Images of each room.")
@click.option("--size", type=int, default=128, show_default=True, help="Side of the images in pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the scenes.")
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


@click.command(
    "import",
    epilog="\b\nExamples:\n"
    "  twinhead import samples.csv classroom\n"
    "  twinhead import classroom-photos classroom\n"
    "  twinhead import dataset.zip footballers",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination")
@click.option("--layout", help="Layout of the source; detected from the file names when left out.")
@click.option(
    "--depth-polarity",
    type=click.Choice(["far-bright", "near-bright"]),
    help="What bright depth means in the source; measured when left out.",
)
@json_option
def import_(source: Path, destination: str, layout: str | None, depth_polarity: str | None, as_json: bool) -> None:
    """Import images as a data set.

    SOURCE is a table (.csv, .jsonl or .parquet) with the columns bg, fg_bg, mask and depth, which hold paths relative
    to the table, and optionally sample_id, bg_id, fg_id and split (train, val or test). Or it is a published layout: a
    folder, a zip archive, or a folder of zip archives, which are read without being extracted.
    """
    try:
        _import(source, destination, layout, depth_polarity, screen())
    except InputError as error:
        from data.importers.problems import ImportProblemsError

        if as_json:
            problems = error.as_plain() if isinstance(error, ImportProblemsError) else [{"sentence": str(error)}]
            print_result({"ok": False, "problems": problems}, as_json, lambda: None)
        raise
    print_dataset(destination, None, as_json)


def _import(source: Path, destination: str, layout: str | None, depth_polarity: str | None, shown: Screen) -> None:
    from data.dataset.dataset import write_dataset
    from data.dataset.publish import refuse_existing
    from data.importers.importers import import_source
    from search.cli.tables import shown_split

    refuse_existing(destination)
    with _checking(shown) as on_checked:
        found = import_source(source, layout=layout, depth_polarity=depth_polarity, on_checked=on_checked)
    measured = found.measured
    shown.say(f"layout {found.layout}: {found.reason}")
    shown.say(
        f"{len(found)} samples; depth is {found.depth_polarity} (inside the mask it differs "
        f"from just around it by {measured.difference:.1f} grey levels, {measured.agreement:.0%} of {measured.samples} "
        f"samples agree)"
    )
    if found.mask_factor != 1:
        shown.say(f"masks hold only 0 and 1; they are multiplied by {found.mask_factor}")
    if found.depth_bits == 16:
        zero = "0 means no measurement, and is filled with the depth of the nearest pixel that has one"
        shown.say(
            "depth has 16 bits; the range of each image is scaled to 0..255"
            + (f"; {zero}" if found.depth_polarity == "far-bright" else "")
        )
    if found.split is not None:
        several = found.backgrounds_in_several_parts()
        shown.say(
            f"split: {shown_split(found.split)}; data.split_by: stored uses it"
            + (f"; {counted(several, 'background')} in more than one part" if several else "")
        )
    with shown.bar("importing", len(found), "samples") as move:
        write_dataset(
            found.samples(), destination, source=found.source, split=found.split, on_sample=lambda _: move(1, "")
        )


@contextlib.contextmanager
def _checking(shown: Screen) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that appears once all samples must be checked."""
    with contextlib.ExitStack() as stack:
        move: Callable[[int, str], None] | None = None

        def show(_: int, total: int) -> None:
            nonlocal move
            if move is None:
                shown.say("a file is missing or cannot be used; all samples are checked for others")
                move = stack.enter_context(shown.bar("checking", total, "samples"))
            move(1, "")

        yield show


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
    from search.run.prepare import open_data

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
