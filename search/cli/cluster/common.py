"""Shared by the commands for searches on a cluster: options, the connection, and the commands that are printed."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from data.errors import InputError
from search.cli.shared import INTERRUPTED, is_terminal

if TYPE_CHECKING:
    from pathlib import Path

    from data.dataset.storage import Location
    from search.cluster.client import Cluster, Job
    from search.cluster.logs import Log
    from search.study.experiment import Experiment

address_option = click.option(
    "--address", metavar="URL", help="Dashboard of the cluster; default: $RAY_ADDRESS, or http://localhost:8265."
)
insecure_option = click.option("--insecure", is_flag=True, help="Accept a cluster that answers without a token.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
env_option = click.option(
    "--env", multiple=True, metavar="KEY=VALUE", help="Set a variable for the search and its trials; may be repeated."
)
follow_option = click.option("--follow", is_flag=True, help="Show the progress until the search ends.")


def existing(storage: Path | Location, name: str, *, or_training: bool = False) -> Experiment:
    """A search in a storage.

    Args:
        storage: of the search.
        name: of the search.
        or_training: whether it may be a comparison or a training.

    Raises:
        InputError: if there is none of this name.
    """
    from search.study.experiment import Experiment
    from search.study.names import check_name

    check_name(name)
    experiment = Experiment(storage=storage, name=name)
    if not or_training or not experiment.fixed_file.is_file():
        experiment.spec()
    return experiment


def reachable(address: str | None) -> Cluster | None:
    """The cluster, if one answers and can be used; the storage alone is read otherwise.

    Raises:
        InputError: if an address was given, and the cluster there cannot be used.
    """
    from search.cluster.client import Cluster, UnreachableError

    try:
        return Cluster.connect(address, insecure=True)
    except InputError as error:
        if address is not None:
            raise
        if not isinstance(error, UnreachableError):
            note_storage_alone(error)
        return None


def note_storage_alone(error: InputError) -> None:
    """Say why a cluster is not looked at."""
    click.echo(f"note: {error} What follows is from the storage alone.", err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation, unless `yes`.

    Raises:
        InputError: if standard input is no terminal.
        click.Abort: if the user declines.
    """
    if yes:
        return
    if not is_terminal(sys.stdin):
        raise InputError(f"{question} Standard input is not a terminal, so nobody can answer; give -y to confirm.")
    click.confirm(question, abort=True, err=True)


def announce(experiment: Experiment, cluster: Cluster, job: Job, address: str | None) -> None:
    """Print the commands that follow a submission."""
    lines = {
        "status": experiment.command("status", address=address),
        "logs": experiment.command("logs", "--follow", address=address),
        "stop": experiment.command("stop", address=address),
        "dashboard": f"{cluster.address}/#/jobs/{job.id}",
    }
    for name, text in lines.items():
        click.echo(f"{name:<12}{text}")


def follow_log(experiment: Experiment, log: Log, address: str | None, *, since: float | None = None) -> int:
    """Show a log until the search ends; return its exit code. Ctrl-C ends the display, not the search."""
    from search.cluster.logs import follow

    earliest = None if since is None else time.time() - since
    try:
        return follow(log, lambda text: click.echo(text, nl=False), partial(click.echo, err=True), earliest=earliest)
    except KeyboardInterrupt:
        click.echo(
            f"\nThe search '{experiment.name}' goes on.\n"
            f"follow it   {experiment.command('logs', '--follow', address=address)}\n"
            f"stop it     {experiment.command('stop', address=address)}",
            err=True,
        )
        return INTERRUPTED


def end_with(code: int) -> None:
    """Exit with a code that is not 0."""
    if code:
        sys.exit(code)
