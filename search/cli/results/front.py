"""The `front` command: trade-offs between a search's objectives."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.quantities import counted
from search.cli.shared import console, json_option, plugins_option, print_result, refuse_unwritable, storage_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data.dataset.storage import Location
    from search.results.front import Point
    from search.study.experiment import Experiment
    from trainable.metrics.objective import Notation


@click.command(
    epilog="\b\nExamples:\n  twinhead front first\n  twinhead front first --objectives score,-macs --svg front.svg\n"
    "  twinhead front first --json"
)
@click.argument("name")
@click.option("--objectives", metavar="NAMES", help="Objectives, such as score,-macs; the search's own when left out.")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw the trials and the front to a file.")
@plugins_option
@storage_option
@json_option
def front(name: str, objectives: str | None, svg: Path | None, storage: Path | Location, as_json: bool) -> None:
    """Show the Pareto front of a search.

    These are the trials that no other trial beats in every objective. Each trial is evaluated at its best epoch by the
    first objective of the search, whose checkpoint is kept.
    """
    if svg is not None:
        refuse_unwritable(svg, "--svg")

    from search.results.front import front_of
    from search.spec.objectives import parse_objectives
    from search.study.experiment import Experiment

    experiment = Experiment(storage=storage, name=name)
    spec = experiment.spec()
    own = [notation for record in spec.plan.plugins for notation in record.metrics]
    compared = parse_objectives(objectives, own) if objectives is not None else spec.plan.objectives
    points = front_of(experiment, compared)
    if svg is not None:
        _draw(points, compared, name, svg)
    found = {
        "name": name,
        "objectives": compared,
        "trials": len(points),
        "front": [point.row.model_dump() for point in points if point.on_front],
        "svg": str(svg) if svg else None,
    }
    print_result(found, as_json, lambda: _show(experiment, points, compared, svg))


def _draw(points: Sequence[Point], objectives: Sequence[Notation], name: str, file: Path) -> None:
    from data.atomic import replace_file
    from data.errors import InputError
    from search.results.front_chart import as_svg
    from trainable.metrics.objective import Objective

    if len(objectives) < 2:
        raise InputError(
            f"There is nothing to draw of one objective, '{Objective.of(objectives[0])}'; give two, such as "
            f"--objectives {_with_macs(objectives[0])}."
        )
    try:
        file.parent.stat()  # raises if the directory is missing
        replace_file(file, as_svg(points, objectives, f"Trade-offs of the search '{name}'"))
    except OSError as error:
        raise InputError(f"The chart cannot be written to '{file}' ({error.strerror}); give another --svg.") from None


def _with_macs(objective: Notation) -> str:
    """The value of --objectives for the trade-off with the multiply-adds."""
    from trainable.metrics.objective import Objective

    return shlex.quote(f"{Objective.of(objective)},-macs")


def _show(experiment: Experiment, points: Sequence[Point], objectives: Sequence[Notation], svg: Path | None) -> None:
    from search.cli.tables import show_front
    from search.results.front_chart import as_text
    from search.terminal import print_line

    out = console()
    rows = [point.row for point in points if point.on_front]
    print_line(out, f"on the front: {len(rows)} of {counted(len(points), 'trial')} with a network")
    if len(objectives) > 1:
        out.print()
        for line in as_text(points, objectives):
            print_line(out, line)
    show_front(out, experiment, rows)
    if len(objectives) == 1:
        print_line(out, f"for trade-offs, give --objectives {_with_macs(objectives[0])}")
    if svg is not None:
        print_line(out, f"\nchart: {svg}")
