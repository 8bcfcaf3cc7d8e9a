"""The commands that train what is given: `train` for a recipe by itself, `compare` for several on the same pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from data.errors import InputError
from search.cli.shared import console, json_option, pair, print_result, resumable, screen, storage_option
from search.commands import cited

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable

    from data.dataset.dataset import Dataset
    from search.recipes.trainings import Given, Kind
    from search.study.experiment import Experiment
    from search.terminal import Screen

    Work = Callable[[Experiment, Given, Dataset, Screen], T]

set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a key of the configuration; may be repeated."
)
faithful_option = click.option(
    "--faithful", is_flag=True, help="Turn the published errors back on; 'twinhead recipes NAME' lists them."
)


@click.command(
    epilog="\b\nExamples:\n  twinhead train birender-cnn classroom\n"
    "  twinhead train ramana-dnn classroom --epochs 3 --set data.image_size=128 --set data.batch_size=32\n"
    "  twinhead train --resume birender-cnn"
)
@click.argument("recipe", required=False)
@click.argument("data", required=False)
@click.option("--epochs", type=click.IntRange(1), help="Epochs; the recipe's when left out.")
@set_option
@faithful_option
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that share it.")
@click.option("--name", help="Name of the training; the recipe's when left out.")
@click.option("--resume", metavar="NAME", help="Go on with a training that was stopped.")
@storage_option
@json_option
def train(
    recipe: str | None,
    data: str | None,
    epochs: int | None,
    overrides: tuple[str, ...],
    faithful: bool,
    workers: int,
    name: str | None,
    resume: str | None,
    storage: Path,
    as_json: bool,
) -> None:
    """Train one recipe on a data set, without a search.

    RECIPE is a name that 'twinhead recipes' lists, or a YAML file like those it prints. Policies keep their published
    step counts. Validation picks the epoch; its network is evaluated on the test images once and exported.
    """
    from search.cli.tables import show_training
    from search.recipes.train import make_training, run_training
    from search.study.experiment import Experiment, free_name

    if resume:
        _refuse_beside_resume(resume, recipe, data, name, overrides, epochs, faithful)
        summary = _go_on("train", Experiment(storage=storage, name=resume), run_training)
    elif recipe is None or data is None:
        raise InputError("The recipe and the data set are needed; write 'twinhead train RECIPE DATA'.")
    else:
        pairs = [pair(text) for text in overrides]
        given = make_training(recipe, data, epochs=epochs, overrides=pairs, faithful=faithful, workers=workers)
        experiment = Experiment(storage=storage, name=name or free_name(storage, next(iter(given.trials))))
        summary = _begin(experiment, given, run_training)
    print_result(summary, as_json, lambda: show_training(console(), storage, summary))


@click.command(
    epilog="\b\nExamples:\n  twinhead compare classroom --epochs 9\n"
    "  twinhead compare classroom --recipes birender-cnn,mine.yaml --set data.image_size=64 --set data.batch_size=16\n"
    "  twinhead compare --resume compare"
)
@click.argument("data", required=False)
@click.option("--recipes", default="all", show_default=True, help="Names or YAML files, with commas between, or 'all'.")
@click.option("--epochs", type=click.IntRange(1), default=9, show_default=True, help="Epochs of each training.")
@set_option
@faithful_option
@click.option("--name", help="Name of the comparison; 'compare' when left out.")
@click.option("--resume", metavar="NAME", help="Go on with a comparison that was stopped.")
@storage_option
@json_option
def compare(
    data: str | None,
    recipes: str,
    epochs: int,
    overrides: tuple[str, ...],
    faithful: bool,
    name: str | None,
    resume: str | None,
    storage: Path,
    as_json: bool,
) -> None:
    """Train recipes on equal terms and compare their test metrics.

    Every recipe sees the same number of samples and is evaluated on the same test images. Learning-rate policies are
    scaled to the given epochs; image size, split and --set apply to all. Writes comparison.md, comparison.json and
    comparison.html, with images.
    """
    from search.recipes.compare import make_comparison, run_comparison
    from search.results.report import show_comparison
    from search.study.experiment import Experiment, free_name

    if resume:
        _refuse_beside_resume(resume, data, name, overrides, faithful)
        experiment = Experiment(storage=storage, name=resume)
        comparison = _go_on("compare", experiment, run_comparison)
    elif data is None:
        raise InputError("The data set is needed; write 'twinhead compare DATA'.")
    else:
        names = [text.strip() for text in recipes.split(",") if text.strip()]
        pairs = [pair(text) for text in overrides]
        given = make_comparison(data, names, epochs=epochs, overrides=pairs, faithful=faithful)
        experiment = Experiment(storage=storage, name=name or free_name(storage, "compare"))
        comparison = _begin(experiment, given, run_comparison)

    def show() -> None:
        show_comparison(console(), comparison)
        click.echo(f"\nreport      {experiment.root / 'comparison.html'} (and .md, .json)")

    print_result(comparison.as_plain(), as_json, show)


def _begin(experiment: Experiment, given: Given, work: Work[T]) -> T:
    from search.recipes.trainings import begin_given
    from search.run.prepare import open_data

    experiment.refuse_existing()
    dataset = open_data(given.data_path, screen())
    begin_given(experiment, given, dataset)
    return resumable(experiment, experiment.resume_command, lambda: work(experiment, given, dataset, screen()))


def _go_on(kind: Kind, experiment: Experiment, work: Work[T]) -> T:
    from search.recipes.trainings import load_given
    from search.run.prepare import open_data

    given = load_given(experiment)
    if given.kind != kind:
        command = cited(experiment.resume_command)
        raise InputError(f"'{experiment.name}' was not started by '{kind}'; go on with {command}.")
    dataset = open_data(given.data_path, screen())
    return resumable(experiment, experiment.resume_command, lambda: work(experiment, given, dataset, screen()))


def _refuse_beside_resume(resume: str, *others: object) -> None:
    if any(others):
        raise InputError(f"--resume goes on with '{resume}' as it was started; leave out what is given beside it.")
