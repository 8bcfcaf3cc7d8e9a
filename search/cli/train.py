"""The commands for recipes: `recipes` lists them, `train` trains one, `compare` several on the same images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from click.core import ParameterSource

from data.errors import InputError
from search.cli.shared import (
    console,
    json_option,
    pair,
    plugins_option,
    print_result,
    refuse_twice,
    resumable,
    screen,
    storage_option,
    verbose_option,
)
from search.commands import cited

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable

    from data.dataset.dataset import Dataset
    from data.dataset.storage import Location
    from search.recipes.configs import FixedConfigs, Kind
    from search.results.comparison import Comparison
    from search.study.experiment import Experiment
    from search.study.summary import TrainingSummary
    from search.terminal import Screen

    Work = Callable[[Experiment, FixedConfigs, Dataset, Screen], T]

FIXED_AT_START = {"recipe", "recipes", "data", "epochs", "overrides", "faithful", "workers", "name"}
"""Parameters of a training or comparison that --resume does not change."""

set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a key of the configuration; may be repeated."
)
faithful_option = click.option(
    "--faithful", is_flag=True, help="Keep the published errors; 'twinhead recipes NAME' lists them."
)


@click.command(
    epilog="\b\nExamples:\n  twinhead recipes\n  twinhead recipes birender-cnn > mine.yaml\n"
    "  twinhead recipes birender-cnn --json --faithful"
)
@click.argument("name", required=False)
@click.option("--faithful", is_flag=True, help="As published, with the errors that are corrected by default.")
@plugins_option
@json_option
def recipes(name: str | None, faithful: bool, as_json: bool) -> None:
    """List the published recipes, or print one as YAML.

    A recipe is a YAML file: copy it, change it, and pass the path of the copy to 'train' or 'compare'. It ends with the
    list of its corrections, those that --faithful undoes and those that it does not, each with the reason.
    """
    from search.recipes.listing import as_text, describe_in_full, describe_recipe, show_recipes
    from trainable.recipes import RECIPES, load_recipe

    if name is None:
        listed = [describe_recipe(load_recipe(each, faithful=faithful)) for each in RECIPES]
        print_result([asdict(row) for row in listed], as_json, lambda: show_recipes(console(), listed))
    else:
        recipe = load_recipe(name, faithful=faithful or None)
        if as_json:
            print_result(describe_in_full(recipe), True, lambda: None)
        else:
            click.echo(as_text(recipe), nl=False)


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
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes per training.")
@click.option("--name", help="Name of the training; when left out the recipe's, with a number if in use.")
@click.option("--resume", metavar="NAME", help="Resume an interrupted training.")
@plugins_option
@storage_option
@verbose_option
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
    storage: Path | Location,
    verbose: bool,
    as_json: bool,
) -> None:
    """Train one recipe on a data set, without a search.

    RECIPE is a name that 'twinhead recipes' lists, or a YAML file like those it prints. Policies keep their published
    step counts. Validation picks the epoch; its network is evaluated on the test images once and exported.
    """
    from search.recipes.configs import make_training
    from search.study.experiment import Experiment
    from search.study.names import free_name

    if resume:
        _refuse_with_resume(resume)
        summary = _resume("train", Experiment(storage=storage, name=resume), _run_training, verbose)
    elif recipe is None or data is None:
        raise InputError("The recipe and the data set are needed; write 'twinhead train RECIPE DATA'.")
    else:
        pairs = [pair(text) for text in overrides]
        refuse_twice(pairs, "epochs", "--epochs", epochs)
        fixed = make_training(recipe, data, epochs=epochs, overrides=pairs, faithful=faithful, workers=workers)
        experiment = Experiment(storage=storage, name=name or free_name(storage, next(iter(fixed.trials))))
        summary = _start(experiment, fixed, _run_training, verbose)

    from search.cli.tables import show_training

    print_result(summary.as_plain(), as_json, lambda: show_training(console(), storage, summary))


@click.command(
    epilog="\b\nExamples:\n  twinhead compare classroom --epochs 9\n"
    "  twinhead compare classroom --recipes birender-cnn,mine.yaml --set data.image_size=64 --set data.batch_size=16\n"
    "  twinhead compare --resume compare"
)
@click.argument("data", required=False)
@click.option("--recipes", default="all", show_default=True, help="Comma-separated names or YAML files, or 'all'.")
@click.option("--epochs", type=click.IntRange(1), default=9, show_default=True, help="Epochs of each training.")
@set_option
@faithful_option
@click.option("--name", help="Name of the comparison; when left out 'compare', with a number if in use.")
@click.option("--resume", metavar="NAME", help="Resume an interrupted comparison.")
@plugins_option
@storage_option
@verbose_option
@json_option
def compare(
    data: str | None,
    recipes: str,
    epochs: int,
    overrides: tuple[str, ...],
    faithful: bool,
    name: str | None,
    resume: str | None,
    storage: Path | Location,
    verbose: bool,
    as_json: bool,
) -> None:
    """Train recipes on equal terms and compare their test metrics.

    Every recipe sees the same number of samples and is evaluated on the same test images. Learning-rate policies are
    scaled to the given epochs; image size, split and --set apply to all. Writes comparison.md, comparison.json and
    comparison.html, with images.
    """
    from search.recipes.configs import make_comparison
    from search.study.experiment import Experiment
    from search.study.names import free_name

    if resume:
        _refuse_with_resume(resume)
        experiment = Experiment(storage=storage, name=resume)
        comparison = _resume("compare", experiment, _run_comparison, verbose)
    elif data is None:
        raise InputError("The data set is needed; write 'twinhead compare DATA'.")
    else:
        names = [text.strip() for text in recipes.split(",") if text.strip()]
        pairs = [pair(text) for text in overrides]
        refuse_twice(pairs, "epochs", "--epochs", epochs if "epochs" in _given() else None)
        fixed = make_comparison(data, names, epochs=epochs, overrides=pairs, faithful=faithful)
        experiment = Experiment(storage=storage, name=name or free_name(storage, "compare"))
        comparison = _start(experiment, fixed, _run_comparison, verbose)

    def show() -> None:
        from search.results.comparison_report import show_comparison

        show_comparison(console(), comparison)
        click.echo(f"\nreport      {experiment.comparison_page} (and .md, .json)")

    print_result(comparison.as_plain(), as_json, show)


def _run_training(experiment: Experiment, fixed: FixedConfigs, dataset: Dataset, screen: Screen) -> TrainingSummary:
    from search.recipes.train import run_training

    return run_training(experiment, fixed, dataset, screen)


def _run_comparison(experiment: Experiment, fixed: FixedConfigs, dataset: Dataset, screen: Screen) -> Comparison:
    from search.recipes.compare import run_comparison

    return run_comparison(experiment, fixed, dataset, screen)


def _start(experiment: Experiment, fixed: FixedConfigs, work: Work[T], verbose: bool) -> T:
    from search.data import open_data

    experiment.refuse_existing()
    shown = screen(runs=True, verbose=verbose)
    dataset = open_data(fixed.data, shown)

    from search.recipes.trainings import create_training  # imports torch and Ray, which takes seconds

    create_training(experiment, fixed, dataset)
    return resumable(experiment, experiment.resume_command, lambda: work(experiment, fixed, dataset, shown))


def _resume(kind: Kind, experiment: Experiment, work: Work[T], verbose: bool) -> T:
    from search.data import open_data
    from search.recipes.configs import load_fixed_configs

    fixed = load_fixed_configs(experiment)
    if fixed.kind != kind:
        command = cited(experiment.resume_command)
        raise InputError(f"'{experiment.name}' was not started by '{kind}'; continue with {command}.")
    shown = screen(runs=True, verbose=verbose)
    dataset = open_data(fixed.data, shown)
    return resumable(experiment, experiment.resume_command, lambda: work(experiment, fixed, dataset, shown))


def _refuse_with_resume(resume: str) -> None:
    """Refuse every other argument that says what is trained."""
    if FIXED_AT_START & _given():
        raise InputError(f"--resume continues '{resume}' as it was started; leave out the other arguments.")


def _given() -> set[str]:
    """Names of the parameters on the command line, also of those with the value of their default."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) == ParameterSource.COMMANDLINE}
