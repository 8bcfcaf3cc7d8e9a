"""The command `predict`: mask, depth and overlay of photographs."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.errors import InputError
from data.quantities import counted
from search.cli.shared import (
    INTERRUPTED,
    device_option,
    json_option,
    plugins_option,
    print_result,
    refuse_unwritable,
    screen,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.terminal import Screen
    from trainable.evaluation.pairs import Pairs
    from trainable.evaluation.predict import Predicted
    from trainable.evaluation.predictor import Predictor

NAMED = 10
"""Pairs that failed, or look swapped, that are printed one by one; --json has all."""


@click.command(
    epilog="\b\nFiles, of the photographs' size:\n"
    "  mask.png     probability of the object, 0 to 255 for 0 to 1; 0 or 255 with --threshold\n"
    "  depth.png    depth of the scene with the object, far is bright\n"
    "  overlay.png  the photograph --fg-bg with the mask over it\n"
    "With several pairs, they are mask/NAME.png, depth/NAME.png and overlay/NAME.png.\n"
    "\n\b\nExamples:\n"
    "  twinhead predict best/ --bg bg.jpg --fg-bg fg_bg.jpg --out out/ --threshold 0.5\n"
    "  twinhead predict best/ --bg empty-rooms/ --fg-bg rooms/ --out out/\n"
    "  twinhead predict best/ --bg empty.jpg --fg-bg frames/ --out out/\n"
    "  twinhead predict best/ pairs.csv --out out/\n"
    "  twinhead predict best/ classroom --split test --out out/"
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("source", required=False)
@click.option("--bg", type=click.Path(path_type=Path), help="Photograph of the background alone, or a folder of them.")
@click.option(
    "--fg-bg", type=click.Path(path_type=Path), help="The same with an object in front of it, or a folder of them."
)
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), help="Part of a data set; test.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out"), show_default=True, help="Directory.")
@click.option("--threshold", type=float, help="Make mask.png binary: 255 from this probability (0 to 1) on, else 0.")
@device_option
@plugins_option
@json_option
def predict(
    checkpoint: Path,
    source: str | None,
    bg: Path | None,
    fg_bg: Path | None,
    split: str | None,
    out: Path,
    threshold: float | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Predict mask and depth of pairs of photographs.

    The photographs are two files, two folders whose files have the same names, one background and a folder, or SOURCE:
    a CSV file with the columns bg and fg_bg, or a data set. Predictions of the same network, photographs and threshold
    that are in --out are kept, so that the same command continues after an interruption. Those of another threshold
    are replaced; those of another network or other photographs, and other files, are refused.
    """
    refuse_unwritable(out, "--out", is_directory=True)
    _check_source(source, bg, fg_bg, split)
    _check_apart(fg_bg, out)

    from trainable.evaluation.predict import check_threshold
    from trainable.evaluation.predictor import Predictor
    from trainable.loop.checkpoint_files import DamagedCheckpointError
    from trainable.loop.state import device_named

    check_threshold(threshold)
    try:
        predictor = Predictor(checkpoint, device_named(device))
    except DamagedCheckpointError as error:
        from search.results.damaged import with_alternatives  # imports Ray, which prediction does not need

        raise with_alternatives(error) from None
    if bg is not None and fg_bg is not None and not fg_bg.is_dir():
        _predict_one(predictor, bg, fg_bg, out, threshold, as_json)
    else:
        _predict_all(predictor, _pairs(predictor, source, bg, fg_bg, split), out, threshold, as_json)


def _check_source(source: str | None, bg: Path | None, fg_bg: Path | None, split: str | None) -> None:
    """Refuse other than one source of photographs."""
    if source is None and (bg is None or fg_bg is None):
        raise InputError("The photographs are needed; give --bg and --fg-bg, a CSV file, or a data set.")
    if source is not None and (bg or fg_bg):
        raise InputError(f"The photographs are given twice, by '{source}' and by --bg or --fg-bg; leave one out.")
    if split and (source is None or _is_csv(source)):
        raise InputError(f"The option '--split {split}' is only for a data set; leave it out.")
    if bg is not None and fg_bg is not None and bg.is_dir() and not fg_bg.exists():
        raise InputError(f"The folder '{fg_bg}' does not exist; give --fg-bg a folder, as --bg is one.")


def _check_apart(fg_bg: Path | None, out: Path) -> None:
    """Refuse to write predictions where photographs are looked for, by the same command again."""
    if fg_bg is not None and fg_bg.is_dir() and out.resolve().is_relative_to(fg_bg.resolve()):
        raise InputError(
            f"The directory '{out}' lies in '{fg_bg}', whose photographs are predicted; give another --out."
        )


def _is_csv(source: str) -> bool:
    return source.lower().endswith(".csv")


def _pairs(predictor: Predictor, source: str | None, bg: Path | None, fg_bg: Path | None, split: str | None) -> Pairs:
    from trainable.evaluation.pairs import pairs_in_csv, pairs_in_dataset, pairs_in_folders

    if source is None:
        assert bg is not None  # noqa: S101 - by `_check_source`
        assert fg_bg is not None  # noqa: S101
        return pairs_in_folders(bg, fg_bg)
    if _is_csv(source):
        return pairs_in_csv(Path(source))
    return pairs_in_dataset(source, split or "test", predictor.config.data)


def _predict_one(
    predictor: Predictor, bg: Path, fg_bg: Path, out: Path, threshold: float | None, as_json: bool
) -> None:
    from trainable.evaluation.pairs import pair_of_files
    from trainable.evaluation.predict import files_look_swapped, predict_pairs

    [found] = predict_pairs(predictor, [pair_of_files(bg, fg_bg)], out, threshold=threshold)
    if found.state == "failed":
        raise InputError(found.reason)
    if found.state == "replaced":
        screen().say(f"replaced the earlier prediction in '{out}'")
    if found.state == "kept":
        screen().say(f"'{out}' has this prediction already")
    swapped = files_look_swapped(bg, fg_bg)
    if swapped:
        screen().say(f"warning: the object seems to be in '{bg}', not in '{fg_bg}'; if so, swap --bg and --fg-bg")
    written = [str(path) for path in found.written]
    print_result({"written": written, "looks_swapped": swapped}, as_json, lambda: click.echo("\n".join(written)))


def _predict_all(predictor: Predictor, pairs: Pairs, out: Path, threshold: float | None, as_json: bool) -> None:
    shown = screen()
    failed = dict(pairs.unpaired)
    for number, reason in enumerate(failed.values()):
        _say_some(shown, number, reason)
    try:
        found = _run(predictor, pairs, out, threshold, shown, failed)
    except KeyboardInterrupt:
        click.echo("\nstopped; the same command continues", err=True)
        sys.exit(INTERRUPTED)
    states: Counter[str] = Counter(predicted.state for predicted in found)
    swapped = [predicted.pair.name for predicted in found if predicted.looks_swapped]
    if swapped:
        shown.say(
            f"warning: in {counted(len(swapped), 'pair')}, the object seems to be in the background "
            f"({', '.join(swapped[:NAMED])}{', …' if len(swapped) > NAMED else ''}); if so, swap the two"
        )
    values = {
        "out": str(out),
        **{state: states[state] for state in ("made", "replaced", "kept")},
        "failed": failed,
        "looks_swapped": swapped,
    }
    print_result(values, as_json, lambda: click.echo(_summary(out, states)))
    if failed:
        total = len(pairs.names) + len(pairs.unpaired)
        raise InputError(
            f"There is no prediction of {counted(len(failed), 'pair')} of {total:,}, such as '{next(iter(failed))}'; "
            "correct what is said above, and give the same command again."
        )


def _run(
    predictor: Predictor,
    pairs: Pairs,
    out: Path,
    threshold: float | None,
    shown: Screen,
    failed: dict[str, str],
) -> list[Predicted]:
    """Predict the pairs with a progress bar, and note those that fail."""
    from trainable.evaluation.predict import count_made, predict_pairs

    found: list[Predicted] = []
    made = count_made(predictor, pairs.names, out, threshold=threshold)
    with shown.bar("predicting", len(pairs.names), "pairs", done=made) as move:
        for predicted in predict_pairs(predictor, pairs, out, threshold=threshold):
            if predicted.state == "failed":
                _say_some(shown, len(failed), predicted.reason)
                failed[predicted.pair.name] = predicted.reason
            found.append(predicted)
            if predicted.state != "kept":
                move(1, f"{len(failed)} failed" if failed else "")
    return found


def _say_some(shown: Screen, number: int, reason: str) -> None:
    """Print the first few reasons, and then that there are more."""
    if number < NAMED:
        shown.say(f"failed: {reason}")
    elif number == NAMED:
        shown.say("more pairs failed; --json lists all")


def _summary(out: Path, states: Mapping[str, int]) -> str:
    counts = [f"{counted(states['made'] + states['replaced'], 'pair')} predicted"]
    if states["replaced"]:
        counts.append(f"{states['replaced']:,} of them in place of earlier predictions")
    if states["kept"]:
        counts.append(f"{states['kept']:,} kept")
    folders = ", ".join(os.path.join(out, name) + os.sep for name in ("mask", "depth", "overlay"))  # noqa: PTH118
    return f"{', '.join(counts)}: {folders}"
