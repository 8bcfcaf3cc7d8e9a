"""The command `evaluate`: metrics of a network on a data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.shared import console, json_option, print_result, screen

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command(epilog="\b\nExample:\n  twinhead evaluate best/ classroom --split test")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="test", show_default=True)
@json_option
def evaluate(checkpoint: Path, data: str, split: str, as_json: bool) -> None:
    """Evaluate a network on a data set, with baselines."""
    from search.cli.tables import show_metrics, show_verdict
    from search.results.export import baseline_metrics
    from search.run.networks import evaluate_with_baselines

    shown = screen()
    measured = evaluate_with_baselines(checkpoint, data, split, shown)
    columns: dict[str, Mapping[str, float]] = {"network": measured.metrics}
    if measured.baselines:
        columns = {"baselines": baseline_metrics(measured.baselines)} | columns

    def show() -> None:
        show_metrics(console(), f"{split} images of {data}", columns)
        if measured.baselines:
            show_verdict(console(), measured.metrics, measured.baselines)

    print_result(asdict(measured), as_json, show)
