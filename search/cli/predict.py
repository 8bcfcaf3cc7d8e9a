"""The command that applies a network to a pair of photographs."""

from __future__ import annotations

from pathlib import Path

import click

from search.cli.shared import json_option, print_result, refuse_unwritable, screen


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
@json_option
def predict(checkpoint: Path, bg: Path, fg_bg: Path, out: Path, threshold: float | None, as_json: bool) -> None:
    """Predict mask and depth of a pair of photographs.

    Writes mask.png, depth.png and overlay.png.
    """
    refuse_unwritable(out, "--out", is_directory=True)

    from trainable.evaluation.predict import files_look_swapped, predict_files
    from trainable.loop.checkpoint import DamagedCheckpointError

    try:
        written = [str(path) for path in predict_files(checkpoint, bg, fg_bg, out, threshold=threshold)]
    except DamagedCheckpointError as error:
        from search.results.damaged import explained  # imports Ray, which predicting does without

        raise explained(error) from None
    swapped = files_look_swapped(bg, fg_bg)
    if swapped:
        screen().say(f"warning: the object seems to be in '{bg}', not in '{fg_bg}'; if so, swap --bg and --fg-bg")
    print_result({"written": written, "looks_swapped": swapped}, as_json, lambda: click.echo("\n".join(written)))
