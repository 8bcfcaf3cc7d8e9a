"""The commands that show searches on a cluster: `list`, `status` and `logs`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.errors import InputError
from search.cli.cluster.common import (
    address_option,
    end_with,
    existing,
    follow_log,
    follow_option,
    note_storage_alone,
    reachable,
)
from search.cli.shared import INTERRUPTED, console, json_option, print_result, storage_option
from trainable.metrics.names import OBJECTIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from data.dataset.storage import Location
    from search.results.status import BestTrial, SearchStatus

WATCH_SECONDS = 2.0


@click.command("list", epilog="\b\nExamples:\n  twinhead list --storage s3://bucket/searches\n  twinhead list --json")
@storage_option
@address_option
@json_option
def list_(storage: Path | Location, address: str | None, as_json: bool) -> None:
    """List the searches of a storage with their states."""
    from search.cluster.status import list_searches

    if isinstance(storage, Path) and not storage.exists():
        raise InputError(f"The directory '{storage}' does not exist; give --storage that of the searches.")
    found = list_searches(storage, reachable(address))
    print_result([each.as_plain() for each in found], as_json, lambda: _show_list(storage, found))


@click.command(
    epilog="\b\nExamples:\n  twinhead status first --storage s3://bucket/searches\n  twinhead status first --watch"
)
@click.argument("name")
@click.option("--watch", is_flag=True, help="Show the state anew until the search ends.")
@storage_option
@address_option
@json_option
def status(name: str, watch: bool, storage: Path | Location, address: str | None, as_json: bool) -> None:
    """Show a search, comparison or training: state, trials, best."""
    experiment = existing(storage, name, or_training=True)

    from search.cluster.status import search_status

    cluster = reachable(address)
    lost: InputError | None = None

    def read() -> SearchStatus:
        nonlocal lost
        lost = None
        try:
            return search_status(experiment, cluster, address=address)
        except InputError as error:
            if cluster is None or address is not None:
                raise
            lost = error
            return search_status(experiment)

    found = read()
    if watch and not as_json:
        try:
            found = _watch(found, read)
        except KeyboardInterrupt:
            click.echo(f"'{name}' goes on", err=True)
            end_with(INTERRUPTED)
    if lost is not None:
        note_storage_alone(lost)
    print_result(found.as_plain(), as_json, lambda: _show_status(found))


@click.command(
    epilog="\b\nExamples:\n  twinhead logs first --follow\n  twinhead logs first 12 --since 10m\n\n"
    "The exit code is that of the search, and 3 while it runs."
)
@click.argument("name")
@click.argument("trial", type=click.IntRange(0), required=False)
@click.option("--since", metavar="TIME", help="Show the lines of the last time only, such as 30s, 10m, 2h or 1d.")
@follow_option
@storage_option
@address_option
def logs(
    name: str, trial: int | None, since: str | None, follow: bool, storage: Path | Location, address: str | None
) -> None:
    """Show the log of a search, or of one of its trials."""
    experiment = existing(storage, name)

    from search.cli.tables import show_summary
    from search.cluster.logs import clean, driver_log, lines_since, seconds_of, trial_log
    from search.cluster.submission import latest_job

    seconds = None if since is None else seconds_of(since)
    cluster = reachable(address)
    job = latest_job(cluster, experiment) if cluster else None
    log = driver_log(experiment, cluster, job) if trial is None else trial_log(experiment, trial, cluster)
    if follow:
        code = follow_log(experiment, log, address, since=seconds)
    else:
        code, text = log.exit_code(), clean(log.read())
        click.echo(text if seconds is None else lines_since(text, time.time() - seconds), nl=False)
    if trial is None and job is None and code == 0:
        show_summary(console(), experiment, experiment.summary())  # which the log of a job ends with
    end_with(code)


def _show_list(storage: Path | Location, found: Sequence[SearchStatus]) -> None:
    from search.terminal import print_table
    from search.view import in_words, spent

    if not found:
        click.echo(f"there are no searches in '{storage}'", err=True)
        return
    has_others = any(each.best and each.best.objective != OBJECTIVE for each in found)
    best = "best" if has_others else "best score"
    rows = [
        {
            "name": each.name,
            "state": in_words(each),
            "trials": f"{each.budget.trials} of {each.budget.max_trials}",
            best: _value(each.best) if each.best else "–",
            "age": _ago(each.started),
            "used": spent(each),
            "restarts": str(each.recoveries),
        }
        for each in found
    ]
    print_table(console(), rows, left=["name", "state"], optional=["restarts", "used", "age"])
    for each in found:
        if each.reason:
            click.echo(f"{each.name}: {each.reason}", err=True)


def _watch(found: SearchStatus, read: Callable[[], SearchStatus]) -> SearchStatus:
    """Show a search until it does not run any more; return its last state."""
    from search.live import live
    from search.results.status import LIVE
    from search.terminal import Screen

    out = console()
    with live(Screen(out, stamped=not out.is_terminal), lambda: found) as changed:
        while found.state in LIVE:
            changed()
            _pause()
            found = read()
    return found


def _pause() -> None:
    time.sleep(WATCH_SECONDS)


def _show_status(found: SearchStatus) -> None:
    """Print the state of a search, and the next command on a line of its own, to be copied."""
    from search.terminal import print_line
    from search.view import TITLE_COLUMNS, view

    out = console()
    out.print(view(found, out.width), highlight=False)
    lines = {
        "restarts": str(found.recoveries),
        "reported": f"{_ago(found.reported)} ago{f', from {found.host}' if found.host else ''}"
        if found.reported
        else "never",
    }
    lines |= {"job": found.job} if found.job else {}
    for name, text in lines.items():
        print_line(out, f"{name:<{TITLE_COLUMNS}}{text}")
    if found.command:
        print_line(out, found.command, title=f"{'next':<{TITLE_COLUMNS}}")


def _value(best: BestTrial) -> str:
    """The value of the objective, with its name if it is not the score."""
    return f"{best.value:.4f}" if best.objective == OBJECTIVE else f"{best.objective} {best.value:.4f}"


def _ago(at: float | None) -> str:
    from search.terminal import clock

    return "–" if at is None else clock(max(0.0, time.time() - at))
