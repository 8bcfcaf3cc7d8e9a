"""The command `evaluate`: metrics of a network on a data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.shared import (
    console,
    device_option,
    json_option,
    plugins_option,
    print_result,
    refuse_unwritable,
    screen,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command(
    epilog="\b\nExamples:\n  twinhead evaluate best/ classroom --split test\n"
    "  twinhead evaluate best/ classroom --out evaluation/\n"
    "\n\b\nFiles in --out:\n"
    "  evaluation.json  the metrics with 95 % intervals over backgrounds, as --json prints them\n"
    "  images.csv       every metric of each image\n"
    "  worst.png        the 16 images with the lowest score"
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="test", show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Directory for intervals, the values of each image, and a grid."
)
@device_option
@plugins_option
@json_option
def evaluate(checkpoint: Path, data: str, split: str, out: Path | None, device: str | None, as_json: bool) -> None:
    """Evaluate a network on a data set, with baselines."""
    if out is not None:
        refuse_unwritable(out, "--out", is_directory=True)

    from search.cli.tables import show_metrics, show_verdict
    from search.results.export import baseline_metrics
    from search.run.networks import evaluate_with_baselines
    from trainable.loop.state import device_named
    from trainable.metrics.names import DEPTH_IMAGES

    shown = screen()
    measured = evaluate_with_baselines(checkpoint, data, split, shown, device=device_named(device), out=out)
    columns: dict[str, Mapping[str, float]] = {"network": measured.metrics}
    if measured.baselines:
        columns = {"baselines": baseline_metrics(measured.baselines)} | columns

    def show() -> None:
        show_metrics(console(), f"{split} images of {data}", columns, intervals=measured.intervals)
        if images := measured.metrics.get(DEPTH_IMAGES):
            click.echo(f"\nThe depth was measured in {images:.0f} images only, which its metrics are of.")
        if measured.baselines:
            show_verdict(console(), measured.metrics, measured.baselines)
        if out is not None:
            click.echo(f"\nwritten     {out / 'evaluation.json'}, {out / 'images.csv'}, {out / 'worst.png'}")

    print_result(asdict(measured), as_json, show)
