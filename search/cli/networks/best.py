"""The command `best`: the network of a search as a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.shared import json_option, print_result, storage_option

if TYPE_CHECKING:
    from data.dataset.storage import Location


@click.command(epilog="\b\nExamples:\n  twinhead best first --out best/\n  twinhead best first --trial 3")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Directory; when left out, best, or trialN with --trial.")
@click.option("--trial", type=int, help="Export this trial's own weights in place of the retrained ones.")
@storage_option
@json_option
def best(name: str, out: Path | None, trial: int | None, storage: Path | Location, as_json: bool) -> None:
    """Export the best network of a search.

    Writes a directory with model.safetensors, config.json, metrics.json, checksums.json and a model card, README.md.
    """
    from search.study.experiment import Experiment

    experiment = Experiment(storage=storage, name=name)
    experiment.spec()  # raises at once if there is no such search

    from search.cli.tables import loss_by_retraining
    from search.results.export import has_files
    from search.run.networks import export_network

    out = out or Path("best" if trial is None else f"trial{trial}")
    replaced = ", in place of an earlier export" if has_files(out) else ""
    what = export_network(experiment, out, trial)
    print_result({"what": what, "out": str(out)}, as_json, lambda: click.echo(f"{what}: {out}{replaced}"))
    summary = experiment.summary() if trial is None and experiment.summary_file.is_file() else None
    if summary is not None and (note := loss_by_retraining(experiment, summary)):
        click.echo(f"note: {note}", err=True)
