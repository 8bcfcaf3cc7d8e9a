"""The commands that use a network: `best`, `evaluate` and `predict`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.shared import (
    console,
    json_option,
    plugins_option,
    print_result,
    refuse_unwritable,
    screen,
    storage_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    from search.results.export import has_files
    from search.run.networks import export_network

    out = out or Path("best" if trial is None else f"trial{trial}")
    replaced = ", in place of an earlier export" if has_files(out) else ""
    what = export_network(experiment, out, trial)
    print_result({"what": what, "out": str(out)}, as_json, lambda: click.echo(f"{what}: {out}{replaced}"))


@click.command(epilog="\b\nExample:\n  twinhead evaluate best/ classroom --split test")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="test", show_default=True)
@plugins_option
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


@click.command(
    epilog="\b\nFiles, of the photographs' size:\n"
    "  mask.png     probability of the object, 0 to 255 for 0 to 1; 0 or 255 with --threshold\n"
    "  depth.png    depth of the scene with the object, far is bright\n"
    "  overlay.png  the photograph --fg-bg with the mask over it\n"
    "\n\b\nExample:\n"
    "  twinhead predict best/ --bg bg.jpg --fg-bg fg_bg.jpg --out out/ --threshold 0.5"
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--bg", type=click.Path(path_type=Path), required=True, help="Photograph of the background alone.")
@click.option("--fg-bg", type=click.Path(path_type=Path), required=True, help="The same with an object in front of it.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out"), show_default=True, help="Directory.")
@click.option("--threshold", type=float, help="Make mask.png binary: 255 from this probability (0 to 1) on, else 0.")
@plugins_option
@json_option
def predict(checkpoint: Path, bg: Path, fg_bg: Path, out: Path, threshold: float | None, as_json: bool) -> None:
    """Predict mask and depth of a pair of photographs.

    Writes mask.png, depth.png and overlay.png. An earlier prediction is replaced only if it is of the same network and
    photographs.
    """
    refuse_unwritable(out, "--out", is_directory=True)

    from trainable.evaluation.predict import OUTPUTS, files_look_swapped, predict_files
    from trainable.loop.checkpoint import DamagedCheckpointError

    replaced = any((out / name).exists() for name in OUTPUTS)
    try:
        written = [str(path) for path in predict_files(checkpoint, bg, fg_bg, out, threshold=threshold)]
    except DamagedCheckpointError as error:
        from search.results.damaged import with_alternatives  # imports Ray, which prediction does not need

        raise with_alternatives(error) from None
    if replaced:
        screen().say(f"replaced the earlier prediction in '{out}'")
    swapped = files_look_swapped(bg, fg_bg)
    if swapped:
        screen().say(f"warning: the object seems to be in '{bg}', not in '{fg_bg}'; if so, swap --bg and --fg-bg")
    print_result({"written": written, "looks_swapped": swapped}, as_json, lambda: click.echo("\n".join(written)))
