"""The commands that analyse a search: `trials`, `importance` and `tensorboard`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.errors import InputError
from data.quantities import counted
from search.cli.shared import (
    console,
    json_option,
    print_result,
    refuse_unwritable,
    screen,
    storage_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from data.dataset.storage import Location
    from search.results.analysis import Analysis
    from search.results.importance import Figure
    from search.results.trials_table import TrialRow
    from search.study.experiment import Experiment

MAX_PARAMETERS = 12
OPTIONAL = ("depth_delta1", "mask_iou", "seconds", "proposed_by", "epochs")
"""Columns of the trials that a narrow terminal does not show, the least important first."""


@click.command(
    epilog="\b\nExamples:\n  twinhead trials first\n  twinhead trials first --sort mask_iou --top 5\n"
    "  twinhead trials first --where model.family=resunet --where 'score>0.5' --json\n"
    "  twinhead trials first --csv trials.csv"
)
@click.argument("name")
@click.option(
    "--sort",
    help="Column: number, epochs, seconds, a metric (best first) or a key; the objective when left out.",
)
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="Filter the trials; also KEY>NUMBER and KEY<NUMBER.")
@click.option("--top", type=click.IntRange(1), help="Show at most this many rows.")
@click.option(
    "--csv",
    "csv_file",
    is_flag=False,
    flag_value="-",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="[FILE]",
    help="Write CSV, to FILE or standard output.",
)
@storage_option
@json_option
def trials(
    name: str,
    sort: str | None,
    where: tuple[str, ...],
    top: int | None,
    csv_file: str | None,
    storage: Path | Location,
    as_json: bool,
) -> None:
    """List the trials of a search, the best first."""
    if csv_file is not None and as_json:
        raise InputError("Both --csv and --json are given; leave one of them out.")
    if csv_file not in {None, "-"}:
        refuse_unwritable(Path(str(csv_file)), "--csv")

    from search.results.trials_table import parse_condition, trial_rows, unknown_values
    from search.study.experiment import Experiment

    experiment, keep = Experiment(storage=storage, name=name), [parse_condition(text) for text in where]
    rows = trial_rows(experiment, sort=sort, keep=keep)[:top]
    sort = sort or experiment.objective.key
    if csv_file is not None:
        _write_csv(experiment, rows, csv_file)
        return
    plain = [row.as_plain(sort) for row in rows]
    if rows:
        print_result(plain, as_json, lambda: _show_trials(rows, sort))
        return
    missing = "; ".join(["there is no such trial", *unknown_values(experiment, keep)])
    print_result(plain, as_json, lambda: click.echo(missing))


@click.command(epilog="\b\nExamples:\n  twinhead importance first\n  twinhead importance first --json")
@click.argument("name")
@storage_option
@json_option
def importance(name: str, storage: Path | Location, as_json: bool) -> None:
    """Show which hyperparameters mattered in a search."""
    from search.results.analysis import analyse
    from search.study.experiment import Experiment

    analysis = analyse(Experiment(storage=storage, name=name))
    print_result(asdict(analysis), as_json, lambda: _show_importance(analysis))


@click.command(
    epilog="\b\nExamples:\n  twinhead tensorboard first\n"
    "  twinhead tensorboard first --storage s3://bucket/searches --port 6010"
)
@click.argument("name")
@click.option("--port", type=click.IntRange(1, 65535), help="Port; the first free one from 6006 on when left out.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to; 0.0.0.0 for all.")
@storage_option
def tensorboard(name: str, port: int | None, host: str, storage: Path | Location) -> None:
    """Show curves, images and hyperparameters in TensorBoard.

    Also while the search runs, and from a remote storage. Ctrl-C ends it. TensorBoard has no password: whoever reaches
    the address sees the results.
    """
    from search.results.tensorboard.server import serve
    from search.study.experiment import Experiment

    def show(address: str) -> None:
        click.echo(f"TensorBoard of '{name}': {address} (Ctrl-C ends it)")

    serve(Experiment(storage=storage, name=name), host=host, port=port, say=screen().say, show=show)


def _write_csv(experiment: Experiment, rows: Sequence[TrialRow], file: str) -> None:
    """Write the trials to a file, or, for '-', to standard output."""
    from search.results.trials_csv import as_csv

    content = as_csv(rows, experiment.spec().plan.scheduler.rungs).encode()
    if file == "-":
        click.echo(content, nl=False)
        return

    from data.atomic import replace_file

    try:
        replace_file(Path(file), content)
    except OSError as error:
        raise InputError(f"The table cannot be written to '{file}' ({error.strerror}); give another --csv.") from None
    click.echo(f"{file}: {counted(len(rows), 'trial')}", err=True)


def _show_trials(rows: Sequence[TrialRow], sort: str) -> None:
    from search.terminal import print_table

    columns = dict.fromkeys(["number", "outcome", "epochs", sort, "score", "mask_iou", "depth_delta1", "seconds"])
    table = [
        {column: _cell(row.value(column)) for column in columns}
        | {"proposed_by": row.proposed_by, "what it tried": _tried(row)}
        for row in rows
    ]
    optional = [column for column in OPTIONAL if column != sort]
    print_table(console(), table, left=["outcome", "proposed_by"], wrapped="what it tried", optional=optional)


def _tried(row: TrialRow) -> str:
    """The recipe or the main parameters; or why there is no score."""
    if row.outcome in {"diverged", "constraint", "failed"}:
        return row.reason
    if row.recipe:
        return f"recipe {row.recipe}"
    named = [str(value) for key, value in row.params.items() if key.endswith((".name", ".family"))]
    width = [f"width {value}" for key, value in row.params.items() if key.startswith("model.width")]
    numbers = [
        f"{key.rpartition('.')[2].partition('@')[0]} {_cell(value)}"
        for key, value in row.params.items()
        if isinstance(value, float) and "optimizer." in key
    ]
    return ", ".join([*named, *width, *numbers])


def _show_importance(analysis: Analysis) -> None:
    from search.results.importance import MIN_TRIALS, RESAMPLES
    from search.terminal import Ragged, print_line, print_table

    out = console()
    print_line(
        out,
        f"of {analysis.trials} trials, the best {analysis.good} against all (PED-ANOVA; the shares add up to 1); "
        f"95 % intervals over {RESAMPLES} resamples of the trials",
    )
    out.print(Ragged(_importance_table(analysis)))
    if len(analysis.figures) > MAX_PARAMETERS:
        print_line(out, f"and {len(analysis.figures) - MAX_PARAMETERS} parameters of smaller shares")
    if analysis.too_few:
        named = ", ".join(f"{key} ({count})" for key, count in analysis.too_few.items())
        print_line(out, f"too few trials for a figure, fewer than {MIN_TRIALS}: {named}")
    print_line(out, f"\nnearest to the best trial, {analysis.best}:")
    near = [
        {
            "trial": str(row.number),
            "distance": f"{row.distance:.2f}",
            analysis.objective: _cell(row.value),
            "below": _cell(row.below),
            "differs most in": ", ".join(
                f"{key} {_cell(ours)} → {_cell(its)}" for key, (ours, its) in list(row.differs.items())[:3]
            ),
        }
        for row in analysis.neighbours
    ]
    print_table(out, near, wrapped="differs most in", optional=["below"])


def _importance_table(analysis: Analysis) -> Table:
    """A row for each section, followed by its parameters among the most important ones overall."""
    from rich.table import Table

    shown = list(analysis.figures)[:MAX_PARAMETERS]
    table = Table(box=None, pad_edge=False)
    table.add_column("parameter")
    for column in ("share", "95 % interval", "trials"):
        table.add_column(column, justify="right")
    table.add_column("")
    for section, of_all in analysis.sections.items():
        table.add_row(section, *_figure_cells(of_all), style="bold")
        for key in shown:
            if key.partition(".")[0] == section:
                table.add_row(f"  {key}", *_figure_cells(analysis.figures[key]))
    return table


def _figure_cells(figure: Figure) -> tuple[str, str, str, str]:
    interval = f"{figure.low:.3f} to {figure.high:.3f}"
    return f"{figure.share:.3f}", interval, str(figure.trials), "█" * round(30 * figure.share)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
