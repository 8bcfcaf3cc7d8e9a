"""The commands that end a search on a cluster: `stop` and `rm`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.errors import InputError, UnfinishedError
from search.cli.cluster.common import address_option, confirm, existing, insecure_option, reachable, yes_option
from search.cli.shared import storage_option
from search.commands import cited

if TYPE_CHECKING:
    from data.dataset.storage import Location

KILL_SECONDS = 30
"""Time after which Ray has killed what did not end by itself."""


@click.command(epilog="\b\nExample:\n  twinhead stop first --storage s3://bucket/searches")
@click.argument("name")
@storage_option
@address_option
@insecure_option
def stop(name: str, storage: Path | Location, address: str | None, insecure: bool) -> None:
    """Stop a search, with its checkpoints and summary written."""
    experiment = existing(storage, name)

    from search.cluster.client import Cluster, UnreachableError
    from search.cluster.status import search_status
    from search.cluster.submission import STOP_SECONDS, latest_job
    from search.results.status import ACTIVE

    try:
        cluster = Cluster.connect(address, insecure=insecure)
    except UnreachableError:
        if search_status(experiment).state == "finished":
            raise InputError(f"The search '{name}' does not run: it is finished.") from None
        raise
    job = latest_job(cluster, experiment)
    if job is None or not job.is_live:
        found = search_status(experiment, cluster)
        if found.state in ACTIVE:
            raise InputError(
                f"The search '{name}' runs outside of a job, on '{found.host}'; stop it with Ctrl-C there."
            )
        raise InputError(f"The search '{name}' does not run: it is {found.state}.")
    cluster.stop(job.id)
    click.echo(f"stopping '{name}': it has {STOP_SECONDS} s to write what it has", err=True)
    end = time.monotonic() + STOP_SECONDS + KILL_SECONDS
    while cluster.job(job.id).is_live:
        if time.monotonic() > end:
            raise UnfinishedError(f"The job {job.id} still runs; 'ray status' shows whether its node is there.")
        time.sleep(1)
    found = search_status(experiment, cluster)
    best = f", best {found.best.objective} {found.best.value:.4f} (trial {found.best.trial})" if found.best else ""
    click.echo(f"stopped '{name}': {found.budget.trials} of {found.budget.max_trials} trials ended{best}")
    click.echo(f"{'resume':<12}{experiment.command('resume', address=address)}")


@click.command(epilog="\b\nExample:\n  twinhead rm first --storage s3://bucket/searches")
@click.argument("name")
@storage_option
@address_option
@yes_option
def rm(name: str, storage: Path | Location, address: str | None, yes: bool) -> None:
    """Remove a search with its trials and networks from the storage."""
    experiment = existing(storage, name)

    from search.cluster.status import search_status
    from search.results.status import LIVE
    from search.study.study import remove_search

    found = search_status(experiment, reachable(address))
    if found.state in LIVE:
        raise InputError(
            f"The search '{name}' is {found.state}; stop it first, with "
            f"{cited(experiment.command('stop', address=address))}."
        )
    confirm(
        f"Remove '{name}' with {found.budget.trials} trials and all networks from '{storage}'? It is {found.state}.",
        yes=yes,
    )
    remove_search(experiment)
    click.echo(f"removed '{name}' from '{storage}'")
