"""The `report` command: what one or several searches found, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.shared import json_option, plugins_option, print_result, refuse_unwritable, screen, storage_option

if TYPE_CHECKING:
    from data.dataset.storage import Location


@click.command(
    epilog="\b\nExamples:\n  twinhead report first\n  twinhead report first second --out compared.html\n"
    "  twinhead report first --json"
)
@click.argument("names", metavar="NAME [OTHER ...]", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="HTML file; an existing one is replaced.",
)
@storage_option
@plugins_option
@json_option
def report(names: tuple[str, ...], out: Path, storage: Path | Location, as_json: bool) -> None:
    """Write what a search found, and how, as one HTML file.

    Several searches are compared. The file loads nothing from elsewhere: charts with hover, zoom and filter, the tables
    behind them, and images are inside.
    """
    from search.study.experiment import Experiment

    experiments = [Experiment(storage=storage, name=name) for name in dict.fromkeys(names)]
    for experiment in experiments:
        experiment.spec()  # raises at once if there is no such search
    refuse_unwritable(out, "--out")

    from search.report.report import write_report

    shown = screen()
    problems = write_report(experiments, out, shown.say)
    for problem in problems:
        shown.say(f"note: {problem}")
    size = out.stat().st_size
    found = {"names": [each.name for each in experiments], "out": str(out), "bytes": size, "problems": problems}
    print_result(found, as_json, lambda: click.echo(f"report: {out}"))
