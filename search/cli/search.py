"""The commands that search: `demo`, `search` and `retrain`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.errors import InputError
from data.quantities import counted
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
from search.commands import JOB_VARIABLE, cited, shell_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data.dataset.storage import Location
    from search.spec.spec import SearchSpec
    from search.study.experiment import Experiment
    from search.study.summary import Retrained, Summary
    from trainable.config import ConfigError
    from trainable.metrics.objective import Objective


@click.command(epilog="\b\nExample:\n  twinhead demo --storage artifacts")
@storage_option
@verbose_option
@json_option
def demo(storage: Path | Location, verbose: bool, as_json: bool) -> None:
    """Run a small search end to end on rendered scenes."""
    from search.recipes.demo import prepare_demo

    experiment, search_on = prepare_demo(storage, screen(runs=True, verbose=verbose))
    summary = resumable(experiment, experiment.resume_command, search_on)
    _show_summary(experiment, summary, as_json)


@click.command(
    epilog="\b\nExamples:\n  twinhead search --data classroom --name first --trials 24\n"
    "  twinhead search spec.yaml --name second --set optimizer.lr=0.01\n"
    "  twinhead search spec.yaml --dry-run\n"
    "  twinhead search --resume first\n"
    "  twinhead search --resume first --trials 48 --set budget.hours=8"
)
@click.argument("spec", type=click.Path(path_type=Path), required=False)
@click.option("--data", help="The data set to search on.")
@click.option("--name", help="Name of the search; its directory in the storage.")
@click.option("--trials", type=int, help="Total number of configurations to try.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a key of the spec; may be repeated.")
@click.option("--study", metavar="URL", help="Database for the study, in place of a file beside the spec.")
@click.option("--resume", metavar="NAME", help="Resume an interrupted search.")
@click.option("--dry-run", is_flag=True, help="Only estimate the cost and show the first configurations.")
@plugins_option
@storage_option
@verbose_option
@json_option
def search(
    spec: Path | None,
    data: str | None,
    name: str | None,
    trials: int | None,
    overrides: tuple[str, ...],
    study: str | None,
    resume: str | None,
    dry_run: bool,
    storage: Path | Location,
    verbose: bool,
    as_json: bool,
) -> None:
    """Search for the best configuration, then retrain and test it.

    SPEC is a YAML file with the search space, the budget and the data set. Keys that it leaves out have defaults.
    """
    from search.spec.trackers import check_packages
    from search.study.experiment import Experiment

    pairs = overridden(overrides, trials=trials, study=study)
    refuse_twice(pairs, "name", "--name", name)
    if resume:
        if spec or name or data or dry_run:
            raise InputError(
                f"--resume continues '{resume}' as it was started; only a larger budget may be added, with --trials or "
                "--set budget.KEY=VALUE."
            )
        experiment = Experiment(storage=storage, name=resume)
        if os.environ.get(JOB_VARIABLE):
            from search.cluster.entry import prepare_driver

            resumable(
                experiment,
                experiment.resume_command,
                lambda: prepare_driver(experiment, screen(runs=True, verbose=verbose)),
            )
        checked = experiment.extended(pairs) if pairs else experiment.spec()
    else:
        checked = checked_spec(spec, pairs, data)
        check_packages(checked.plan, spec, overridden=[key for key, _ in pairs])
        named = name or checked.subject.name
        if named or not dry_run:
            experiment = Experiment(storage=storage, name=named or default_name(spec))
            experiment.refuse_existing()
        if dry_run:
            _dry_run(checked, storage, as_json)
            return

    # Imported here because they take seconds: errors in the spec are reported before.
    from search.data import open_data
    from search.run.run import create_search, run_search
    from search.spec.locate import with_locations

    shown = screen(runs=True, verbose=verbose)
    dataset = open_data(checked.data_path, shown)
    if not resume:
        try:
            create_search(experiment, checked, dataset)
        except InputError as error:
            raise with_locations(error, spec, overridden=[key for key, _ in pairs]) from None
    changes = pairs if resume else []
    summary = resumable(
        experiment, experiment.resume_command, lambda: run_search(experiment, checked, dataset, shown, changes)
    )
    _show_summary(experiment, summary, as_json)


@click.command(epilog="\b\nExample:\n  twinhead retrain first --epochs 30")
@click.argument("name")
@click.option("--epochs", type=int, help="Epochs of the retraining; those of a whole trial when left out.")
@click.option("--cpus", type=int, help="CPUs of the retraining; the fastest measured number when left out.")
@plugins_option
@storage_option
@verbose_option
@json_option
def retrain(
    name: str, epochs: int | None, cpus: int | None, storage: Path | Location, verbose: bool, as_json: bool
) -> None:
    """Retrain the best configuration of a search, and test it.

    It trains on train + validation, so that no images are left to choose between two retrained networks: the new one
    replaces the earlier one once it is complete. The test results of both are printed.
    """
    from search.study.experiment import Experiment

    experiment = Experiment(storage=storage, name=name)
    spec = experiment.spec().with_retraining(epochs, cpus)
    earlier = experiment.summary().retrained

    from search.data import open_data
    from search.run.run import retrain_again

    shown, objective = screen(runs=True, verbose=verbose), spec.plan.objective
    dataset = open_data(spec.data_path, shown)
    given = [word for pair in (("--epochs", epochs), ("--cpus", cpus)) if pair[1] is not None for word in pair]
    command = experiment.command("retrain", *given)
    if earlier is not None:
        shown.say(f"replaces '{experiment.retrained}' when it is complete: {_test_value(earlier, objective)}")
    summary = resumable(experiment, command, lambda: retrain_again(experiment, spec, dataset, shown, command))
    if earlier is not None and summary.retrained is not None:
        before, after = (_test_value(network, objective) for network in (earlier, summary.retrained))
        shown.say(f"replaced the earlier retrained network, {before}, by one with {after}")
    _show_summary(experiment, summary, as_json)


def overridden(
    overrides: Sequence[str], *, trials: int | None = None, study: str | None = None, share: float | None = None
) -> list[tuple[str, str]]:
    """The keys and values of --set, --study, --trials and --share.

    Raises:
        InputError: if a key is set twice, or a value of --set is not KEY=VALUE.
    """
    pairs = [pair(override) for override in overrides]
    options = {"search.study": study, "budget.trials": trials, "resources.share": share}
    for key, value in options.items():
        refuse_twice(pairs, key, f"--{key.partition('.')[2]}", value)
    return pairs + [(key, json.dumps(value)) for key, value in options.items() if value is not None]


def _test_value(network: Retrained, objective: Objective) -> str:
    epochs = counted(network.epochs, "epoch")
    return f"test {objective.key} {objective.value(network.metrics):.4f} after {epochs}"


def _dry_run(spec: SearchSpec, storage: Path | Location, as_json: bool) -> None:
    from search.cli.tables import show_dry_run
    from search.data import open_data
    from search.run.dry_run import dry_run

    shown = screen()
    dataset = open_data(spec.data_path, shown)
    shown.say("measuring a step of the smallest and of the largest network")
    found = dry_run(spec, dataset, storage).as_plain()
    print_result(found, as_json, lambda: show_dry_run(console(), found))


def checked_spec(spec: Path | None, pairs: Sequence[tuple[str, str]], data: str | None) -> SearchSpec:
    """The spec of a new search, with an absolute path of its data set.

    Raises:
        InputError: if it cannot be read, or has wrong keys or values.
    """
    from search.spec.spec import load_spec
    from trainable.config import ConfigError

    refuse_twice(pairs, "data.path", "--data", data)
    try:
        return load_spec(spec, pairs, data_path=data).with_absolute_path()
    except ConfigError as error:
        raise _with_count(error, spec) from None


def default_name(spec: Path | None) -> str:
    """The name of a search whose user gave none: that of its file.

    Raises:
        InputError: if there is no file.
    """
    if spec is None:
        raise InputError("The name of the search is missing; give --name.")
    return spec.stem


def _with_count(error: ConfigError, spec: Path | None) -> InputError:
    """The first of a spec's problems, with the command that lists the others."""
    more = len(error.problems) - 1
    if spec is None or not more:
        return error
    command = cited(shell_command("twinhead", "spec", "--check", spec))
    return InputError(f"{error} ({command} names this and {more} more.)")


def _show_summary(experiment: Experiment, summary: Summary, as_json: bool) -> None:
    from search.cli.tables import show_summary

    print_result(summary.as_plain(), as_json, lambda: show_summary(console(), experiment, summary))
