"""The commands that show searches on a cluster: `list`, `status` and `logs`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.cluster.common import address_option, end_with, existing, follow_log, follow_option, reachable
from search.cli.shared import console, json_option, print_result, storage_option
from trainable.metrics.names import OBJECTIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from data.dataset.storage import Location
    from search.cluster.status import BestTrial, Budget, SearchStatus

WATCH_SECONDS = 2.0


@click.command("list", epilog="\b\nExamples:\n  twinhead list --storage s3://bucket/searches\n  twinhead list --json")
@storage_option
@address_option
@json_option
def list_(storage: Path | Location, address: str | None, as_json: bool) -> None:
    """List the searches of a storage with their states."""
    from search.cluster.status import list_searches

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
    """Show a search: state, trials, the best so far, budget."""
    experiment = existing(storage, name)

    from search.cluster.status import LIVE, search_status

    cluster = reachable(address)
    found = search_status(experiment, cluster)
    if not watch or as_json:
        print_result(found.as_plain(), as_json, lambda: _show_status(found, address))
        return
    from rich.live import Live

    with Live(_status(found), console=console(), auto_refresh=False) as live:
        while found.state in LIVE:
            time.sleep(WATCH_SECONDS)
            found = search_status(experiment, cluster)
            live.update(_status(found), refresh=True)
    _show_next(found, address)


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

    from search.cluster.logs import clean, driver_log, lines_since, seconds_of, trial_log
    from search.cluster.submission import latest_job

    seconds = None if since is None else seconds_of(since)
    cluster = reachable(address)
    if trial is not None:
        log = trial_log(experiment, trial, cluster)
    else:
        log = driver_log(experiment, cluster, latest_job(cluster, experiment) if cluster else None)
    if follow:
        end_with(follow_log(experiment, log, address, since=seconds))
        return
    code, text = log.exit_code(), clean(log.read())
    click.echo(text if seconds is None else lines_since(text, time.time() - seconds), nl=False)
    end_with(code)


def _show_list(storage: Path | Location, found: Sequence[SearchStatus]) -> None:
    from search.terminal import print_table

    if not found:
        click.echo(f"there are no searches in '{storage}'", err=True)
        return
    has_others = any(each.best and each.best.objective != OBJECTIVE for each in found)
    best = "best" if has_others else "best score"
    rows = [
        {
            "name": each.name,
            "state": each.state,
            "trials": f"{each.budget.trials} of {each.budget.max_trials}",
            best: _value(each.best) if each.best else "–",
            "age": _ago(each.started),
            "budget": _spent(each.budget),
            "recoveries": str(each.recoveries),
        }
        for each in found
    ]
    print_table(console(), rows, left=["name", "state"], optional=["recoveries", "budget", "age"])
    for each in found:
        if each.reason:
            click.echo(f"{each.name}: {each.reason}", err=True)


def _status(found: SearchStatus) -> RenderableType:
    """The state of a search as a table of titles and texts."""
    from rich.table import Table
    from rich.text import Text

    counts = ", ".join(f"{count} {name}" for name, count in found.trials.items() if count) or "none yet"
    lines = {
        "search": f"{found.name}: {found.state}{f' ({found.reason})' if found.reason else ''}",
        "trials": f"{found.budget.trials} of {found.budget.max_trials} ended ({counts})",
        "best": f"{_value(found.best)}, trial {found.best.trial} at epoch {found.best.epoch}: {found.best.settings}"
        if found.best
        else "none yet",
        "rungs": ", ".join(f"{count} at epoch {rung}" for rung, count in found.rungs.items()),
        "budget": _spent(found.budget),
        "left": _left(found),
        "busy": f"{found.cpus_busy:g} CPU and {found.gpus_busy:g} GPU"
        + (f", {found.concurrent} trials at a time" if found.concurrent else ""),
        "recoveries": str(found.recoveries),
        "reported": f"{_ago(found.reported)} ago{f', from {found.host}' if found.host else ''}"
        if found.reported
        else "never",
    }
    lines |= {"job": found.job} if found.job else {}
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=10)
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, Text(text))
    return table


def _show_status(found: SearchStatus, address: str | None) -> None:
    console().print(_status(found), highlight=False)
    _show_next(found, address)


def _show_next(found: SearchStatus, address: str | None) -> None:
    """Print the next command on a line of its own, to be copied; it needs the same cluster."""
    from search.commands import shell_command
    from search.terminal import print_line

    needs_cluster = found.command.startswith(("twinhead logs", "twinhead resume"))
    option = f" {shell_command('--address', address)}" if address and needs_cluster else ""
    print_line(console(), f"{found.command}{option}", title=f"{'next':<12}")


def _value(best: BestTrial) -> str:
    """The value of the objective, with its name if it is not the score."""
    return f"{best.value:.4f}" if best.objective == OBJECTIVE else f"{best.objective} {best.value:.4f}"


def _left(found: SearchStatus) -> str:
    from search.terminal import clock

    if found.state == "running" and found.budget.trials >= found.budget.max_trials:
        return "its trials have ended; the retraining and the test remain"
    if found.seconds_left is None:
        return "unknown before a trial ended" if found.state == "running" else "–"
    return f"about {clock(found.seconds_left)}"


def _spent(budget: Budget) -> str:
    def of(used: float, limit: float | None, unit: str) -> str:
        return f"{used:.2f}{f' of {limit:g}' if limit is not None else ''} {unit}"

    gpu = budget.gpu_hours or budget.max_gpu_hours
    return of(budget.hours, budget.max_hours, "h") + (
        f", {of(budget.gpu_hours, budget.max_gpu_hours, 'GPU h')}" if gpu else ""
    )


def _ago(at: float | None) -> str:
    from search.terminal import clock

    return "–" if at is None else clock(max(0.0, time.time() - at))
