"""The `compose` command: composes a data set from backgrounds, their depth, and foregrounds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from data.errors import InputError
from data.quantities import byte_size, counted
from search.cli.shared import INTERRUPTED, json_option, print_dataset, screen

if TYPE_CHECKING:
    from data.compose.composition import Composition
    from data.compose.estimate import Plan
    from data.compose.sources import Sources
    from search.terminal import Screen

_FOLDER = click.Path(path_type=Path)
PLAUSIBLE_METRES = (0.3, 1000.0)
"""Distances outside of this range are more often a wrong unit than a measurement."""


@click.command(
    epilog="\b\nExamples:\n"
    "  twinhead compose --backgrounds rooms --depths rooms-depth --depth-unit mm --foregrounds people \\\n"
    "      --placements 20 --flips --out classroom\n"
    "  twinhead compose --backgrounds streets --depths estimated --depth-unit relative \\\n"
    "      --depth-polarity far-bright --foregrounds players --out footballers"
)
@click.option("--backgrounds", type=_FOLDER, required=True, help="Folder of photographs.")
@click.option("--foregrounds", type=_FOLDER, required=True, help="Folder of RGBA images of objects.")
@click.option("--depths", type=_FOLDER, help="Folder of their depth images, with the same names.  [required]")
@click.option("--out", required=True, help="Directory for the data set, or address, such as s3://bucket/set.")
@click.option(
    "--depth-unit", type=click.Choice(["mm", "cm", "m", "relative"]), help="Unit of the depth values.  [required]"
)
@click.option(
    "--depth-polarity",
    type=click.Choice(["far-bright", "near-bright"]),
    help="Meaning of bright pixels in relative depth.",
)
@click.option(
    "--depth-far",
    type=float,
    help="Distance in metres stored as 255, the largest value; the largest distance of the set when left out.",
)
@click.option(
    "--placements", type=int, default=20, show_default=True, help="Placements of each foreground in each background."
)
@click.option("--flips", is_flag=True, help="Add each foreground mirrored: twice as many samples.")
@click.option(
    "--size",
    type=int,
    default=224,
    show_default=True,
    help="Side in pixels; backgrounds are cropped to their central square.",
)
@click.option(
    "--scale",
    type=(float, float),
    default=(0.2, 0.67),
    show_default=True,
    help="Range of a foreground's longer side, as a fraction of the image's side.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the placements.")
@click.option("--materialise", is_flag=True, help="Write the images of every sample, not the recipe for them.")
@click.option("--workers", type=click.IntRange(1), help="Number of processes; one per core when left out.")
@json_option
def compose(
    backgrounds: Path,
    foregrounds: Path,
    depths: Path | None,
    out: str,
    depth_unit: str | None,
    depth_polarity: str | None,
    depth_far: float | None,
    placements: int,
    flips: bool,
    size: int,
    scale: tuple[float, float],
    seed: int,
    materialise: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Compose a data set from backgrounds and foregrounds.

    The mask is the foreground's alpha. The depth is the background's, with the foreground as an upright plane that
    stands on the ground.

    The data set is a recipe: the images of its samples are composed when they are read. With --materialise, they are
    written as files, and the same command resumes an interrupted run.
    """
    from data.compose.composition import Composition

    if depths is None or depth_unit is None:
        raise _missing_depth(depths)
    composition = Composition(
        backgrounds=backgrounds,
        foregrounds=foregrounds,
        depths=depths,
        depth_unit=cast("Any", depth_unit),
        depth_polarity=cast("Any", depth_polarity),
        depth_far=depth_far,
        placements=placements,
        flips=flips,
        size=size,
        scale=scale,
        seed=seed,
    )
    run = _materialise if materialise else _compose
    run(composition, out, workers, screen())
    print_dataset(out, None, as_json)


def _compose(composition: Composition, out: str, workers: int | None, shown: Screen) -> None:
    """Write the recipe."""
    from data.compose.compose import compose as compose_set
    from data.compose.compose import refuse_unfinished
    from data.dataset.publish import refuse_existing

    refuse_existing(out)
    refuse_unfinished(out)
    sources = _check_sources(composition, shown)
    samples = _announce(composition, sources, shown)
    with shown.bar("composing", samples, "samples") as move:
        compose_set(composition, sources, out, processes=workers, on_samples=lambda count: move(count, ""))


def _materialise(composition: Composition, out: str, workers: int | None, shown: Screen) -> None:
    """Write the images of every sample."""
    from data.compose.estimate import plan_composition
    from data.compose.materialise import check_resumable, materialise
    from data.dataset.publish import refuse_existing

    refuse_existing(out)
    sources = _check_sources(composition, shown)
    check_resumable(composition, sources, out)
    plan = plan_composition(composition, sources, out, processes=workers)
    _announce(composition, sources, shown)
    _announce_images(plan, shown)
    try:
        with shown.bar("composing", plan.samples, "samples") as move:
            materialise(composition, sources, out, processes=workers, on_sample=lambda _: move(1, ""))
    except KeyboardInterrupt:
        click.echo("\nstopped; the same command resumes it", err=True)
        sys.exit(INTERRUPTED)


def _check_sources(composition: Composition, shown: Screen) -> Sources:
    from data.compose.sources import count_images, open_sources

    total = count_images(composition)
    with shown.bar("checking the images", total, "images") as move:
        return open_sources(composition, lambda _: move(1, ""))


def _announce(composition: Composition, sources: Sources, shown: Screen) -> int:
    """Say what is composed; return the number of samples."""
    backgrounds, foregrounds = len(sources.backgrounds), len(sources.foregrounds)
    samples = backgrounds * foregrounds * composition.per_foreground
    directions = " × 2 directions" if composition.flips else ""
    shown.say(
        f"{counted(samples, 'sample')} of {composition.size} px: {counted(backgrounds, 'background')} × "
        f"{counted(foregrounds, 'foreground')}{directions} × {counted(composition.placements, 'placement')}"
    )
    if copies := sources.copies():
        more = f" and {len(copies) - 1:,} more" if len(copies) > 1 else ""
        shown.warn(
            f"the background '{copies[0][1]}'{more} has the content of another one, such as '{copies[0][0]}'; a split "
            "by background may put them into different parts: remove the copies"
        )
    if sources.scale.far is not None:
        shown.say(f"depth: level 255 is {sources.scale.far:g} m and beyond")
        if not PLAUSIBLE_METRES[0] <= sources.scale.far <= PLAUSIBLE_METRES[1]:
            shown.say(f"note: {sources.scale.far:g} m is an unusual distance; check --depth-unit {sources.scale.unit}")
    return samples


def _announce_images(plan: Plan, shown: Screen) -> None:
    from search.terminal import clock

    if plan.pieces_finished:
        shown.say(f"resuming; {plan.pieces_finished} of {plan.pieces} pieces are finished")
    shown.say(
        f"about {byte_size(plan.bytes)}, twice that until it is complete; about {clock(plan.seconds)} with "
        f"{plan.processes} process{'es' if plan.processes > 1 else ''}"
    )


def _missing_depth(depths: Path | None) -> InputError:
    if depths is None:
        return InputError(
            "The depth of the backgrounds is missing; give --depths, a folder with a depth image for each background."
        )
    return InputError(f"The unit of the depth in '{depths}' is not known; give --depth-unit mm, cm, m or relative.")
