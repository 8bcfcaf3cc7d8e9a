"""The `profile` command: where a recipe's training time goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.quantities import byte_size
from search.cli.shared import console, json_option, pair, plugins_option, print_result, refuse_unwritable, screen
from search.cli.train import faithful_option, set_option

if TYPE_CHECKING:
    from trainable.evaluation.profiling import Profile

QUIET = "99"
"""Above every log level of torch's profiler."""


@click.command(
    epilog="\b\nExamples:\n  twinhead profile raguram-resunet classroom\n"
    "  twinhead profile mine.yaml classroom --set data.image_size=64 --steps 50 --out traces/"
)
@click.argument("recipe")
@click.argument("data")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Training steps to measure.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(), show_default=True, help="Directory for the trace."
)
@set_option
@faithful_option
@plugins_option
@json_option
def profile(
    recipe: str, data: str, steps: int, out: Path, overrides: tuple[str, ...], faithful: bool, as_json: bool
) -> None:
    """Profile the training of a recipe on a data set.

    Measures a few steps and extrapolates to an epoch. The trace opens in Perfetto and in TensorBoard.
    """
    refuse_unwritable(out, "--out", is_directory=True)
    os.environ.setdefault("KINETO_LOG_LEVEL", QUIET)  # read when torch is imported
    from search.data import open_data
    from search.recipes.configs import with_overrides
    from trainable.recipes import load_recipe

    found = load_recipe(recipe, faithful=faithful or None)
    config = with_overrides(found.config, [pair(text) for text in overrides], found.file)
    shown = screen()
    dataset = open_data(data, shown)

    from trainable.evaluation.profiling import TRACED_STEPS, WARMUP_STEPS, profile_training  # imports torch
    from trainable.job import TrialData
    from trainable.loop.loaders import read_part
    from trainable.loop.state import default_device

    part = TrialData(path=data, fingerprint=dataset.info.fingerprint)
    with shown.warnings():
        with shown.bar("decoding", dataset.info.counts.samples, "samples") as move:
            for name in ("train", "val"):
                read_part(config.data, part, name, lambda count: move(count, ""))
        with shown.bar("measuring", WARMUP_STEPS + steps + TRACED_STEPS, "steps") as move:
            measured = profile_training(
                config,
                part,
                out / f"{found.name}.pt.trace.json",
                device=default_device(),
                steps=steps,
                on_step=lambda count: move(count, ""),
            )
    print_result({"recipe": found.name} | measured.as_plain(), as_json, lambda: _show(found.name, measured))


def _show(name: str, measured: Profile) -> None:
    from search.terminal import print_line, print_table

    out = console()
    whole = sum(measured.seconds.values())
    print_line(
        out,
        f": {whole:.1f} s an epoch of {measured.epoch_steps} steps of {measured.batch_size} samples,"
        f" by {measured.steps} of them",
        title=name,
    )
    phases = [
        {"": phase, "s an epoch": f"{seconds:.2f}", "share": f"{seconds / whole:.1%}"}
        for phase, seconds in measured.seconds.items()
    ]
    print_table(out, phases, left=[""])
    out.print()
    for line in _lines(measured):
        print_line(out, line)


def _lines(measured: Profile) -> list[str]:
    memory = ", ".join(f"{where} {byte_size(1e9 * gigabytes)}" for where, gigabytes in measured.memory_gb.items())
    seconds = ", ".join(f"{name} {value:.3f} s" for name, value in measured.precision_seconds.items())
    by_threads = ", ".join(f"{count}: {value:.3f} s" for count, value in measured.thread_seconds.items())
    pieces = f", each batch in {measured.micro_batches} pieces" if measured.micro_batches > 1 else ""
    return [
        f"samples/s      {measured.samples_per_second:.1f} in training, on {measured.device}{pieces}",
        f"network        {measured.parameters:,} parameters, {measured.multiply_adds:,} multiply-adds per image",
        f"precision      {measured.precision}" + (f" (a step: {seconds})" if seconds else ""),
        f"threads        {measured.threads}" + (f" (a step on {by_threads})" if by_threads else ""),
        f"peak memory    {memory}",
        f"trace          {measured.trace}",
    ]
