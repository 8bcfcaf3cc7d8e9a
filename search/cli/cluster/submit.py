"""The commands that start a search on a cluster: `submit` and `resume`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.errors import InputError
from search.cli.cluster.common import (
    address_option,
    announce,
    confirm,
    end_with,
    env_option,
    existing,
    follow_log,
    follow_option,
    insecure_option,
    yes_option,
)
from search.cli.search import checked_spec, default_name, overridden
from search.cli.shared import plugins_option, refuse_twice, storage_option
from search.commands import cited

if TYPE_CHECKING:
    from data.dataset.dataset import Dataset
    from data.dataset.storage import Location
    from search.cluster.client import Cluster
    from search.cluster.code import Archive
    from search.spec.spec import SearchSpec
    from search.study.experiment import Experiment


@click.command(
    epilog="\b\nExamples:\n  twinhead submit spec.yaml --name first --storage s3://bucket/searches\n"
    "  twinhead submit spec.yaml --name second --after first --follow -y\n"
    "  twinhead submit --data s3://bucket/classroom --name third --share 0.5"
)
@click.argument("spec", type=click.Path(path_type=Path), required=False)
@click.option("--data", help="The data set to search on.")
@click.option("--name", help="Name of the search; its directory in the storage.")
@click.option("--trials", type=int, help="Total number of configurations to try.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a key of the spec; may be repeated.")
@click.option("--after", metavar="NAME", help="Wait until this search of the same storage ended.")
@click.option("--share", type=float, help="Share of the cluster that the search may take, such as 0.5.")
@env_option
@plugins_option
@follow_option
@storage_option
@address_option
@insecure_option
@yes_option
def submit(
    spec: Path | None,
    data: str | None,
    name: str | None,
    trials: int | None,
    overrides: tuple[str, ...],
    after: str | None,
    share: float | None,
    env: tuple[str, ...],
    follow: bool,
    storage: Path | Location,
    address: str | None,
    insecure: bool,
    yes: bool,
) -> None:
    """Run a search as a job of a cluster.

    The spec, the data set and the storage are checked from here, and the plan is shown. The job runs this code.
    Submitting twice starts nothing twice.
    """
    from search.study.experiment import Experiment

    pairs = overridden(overrides, trials=trials, share=share)
    refuse_twice(pairs, "name", "--name", name)
    checked = checked_spec(spec, pairs, data)
    experiment = Experiment(storage=storage, name=name or checked.subject.name or default_name(spec))
    variables = _variables(env)

    from data.dataset.dataset import Dataset
    from data.dataset.transfer import stored
    from search.cluster.client import Cluster
    from search.cluster.submission import code_archive
    from search.study.names import SPEC_NAME

    is_new = stored(experiment.location / SPEC_NAME) is None
    if is_new:
        experiment.refuse_existing()  # its name, or its storage
    dataset = Dataset.open(checked.data_path)
    cluster = Cluster.connect(address, insecure=insecure)
    if not is_new and not _is_to_submit(experiment, checked, cluster, address):
        if follow:
            _follow(experiment, cluster, address)
        return
    _check_after(experiment, after)
    archive = click.get_current_context().with_resource(code_archive(checked.plan.plugins))
    _show_plan(cluster, experiment, checked, dataset, archive, after)
    confirm(f"Submit '{experiment.name}'?", yes=yes)
    if is_new:
        from search.run.run import create_search
        from search.spec.locate import with_locations

        try:
            create_search(experiment, checked, dataset)
        except InputError as error:
            raise with_locations(error, spec, overridden=[key for key, _ in pairs]) from None
    _submit(experiment, cluster, archive, variables, address, after=after, follow=follow)


@click.command(
    epilog="\b\nExamples:\n  twinhead resume first --storage s3://bucket/searches\n"
    "  twinhead resume first --trials 24 -y"
)
@click.argument("name")
@click.option("--trials", type=int, help="Total number of configurations to try.")
@click.option("--set", "overrides", multiple=True, metavar="budget.KEY=VALUE", help="Change the budget.")
@click.option("--after", metavar="NAME", help="Wait until this search of the same storage ended.")
@env_option
@plugins_option
@follow_option
@storage_option
@address_option
@insecure_option
@yes_option
def resume(
    name: str,
    trials: int | None,
    overrides: tuple[str, ...],
    after: str | None,
    env: tuple[str, ...],
    follow: bool,
    storage: Path | Location,
    address: str | None,
    insecure: bool,
    yes: bool,
) -> None:
    """Continue a search as a job of a cluster, from its storage."""
    experiment = existing(storage, name)
    spec, pairs = experiment.spec(), overridden(overrides, trials=trials)
    variables = _variables(env)

    from data.dataset.dataset import Dataset
    from search.cluster.client import Cluster
    from search.cluster.status import search_status
    from search.cluster.submission import code_archive
    from search.results.status import LIVE

    dataset = Dataset.open(spec.data_path)
    cluster = Cluster.connect(address, insecure=insecure)
    state = search_status(experiment, cluster).state
    if state in LIVE and pairs:
        raise InputError(
            f"The search '{name}' is {state}, and its budget cannot be changed now; stop it first, with "
            f"{cited(experiment.command('stop', address=address))}, or wait for its end."
        )
    if state in LIVE:
        _say_live(experiment, cluster, address)
        return
    if pairs:
        spec = experiment.extended(pairs)
    elif state == "finished":
        raise InputError(f"The search '{name}' is finished; give --trials or --set budget.KEY=VALUE for a larger one.")
    _check_after(experiment, after)
    archive = click.get_current_context().with_resource(code_archive(spec.plan.plugins))
    _show_plan(cluster, experiment, spec, dataset, archive, after)
    confirm(f"Continue '{name}'?", yes=yes)
    if pairs:
        experiment.extend(pairs)
    _submit(experiment, cluster, archive, variables, address, after=after, follow=follow)


def _variables(env: tuple[str, ...]) -> dict[str, str]:
    from search.cluster.submission import check_env

    found = {}
    for text in env:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(
                f"The value of --env is '{text}', but must be KEY=VALUE, such as TWINHEAD_CACHE=/data/cache."
            )
        found[key] = value
    return check_env(found)


def _is_to_submit(experiment: Experiment, checked: SearchSpec, cluster: Cluster, address: str | None) -> bool:
    """Whether an existing search is the one to submit and waits for it; says so if it is there already.

    Raises:
        InputError: if its name belongs to another search, or it ran before.
    """
    from search.cluster.status import search_status
    from search.cluster.submission import spec_digest
    from search.results.status import LIVE

    state = search_status(experiment, cluster).state
    if spec_digest(experiment.spec()) != spec_digest(checked):
        raise InputError(
            f"The name '{experiment.name}' is in use in '{experiment.storage}' by a search with another spec; "
            "choose another --name."
        )
    if state in LIVE:
        _say_live(experiment, cluster, address)
        return False
    if state != "new":
        raise InputError(
            f"The search '{experiment.name}' exists in '{experiment.storage}' and is {state}; choose another --name, "
            f"or continue with {cited(experiment.command('resume', address=address))}."
        )
    return True


def _say_live(experiment: Experiment, cluster: Cluster, address: str | None) -> None:
    from search.cluster.submission import latest_job

    job = latest_job(cluster, experiment)
    if job is None:
        click.echo(f"'{experiment.name}' runs already, outside of a job of this cluster")
        return
    click.echo(f"'{experiment.name}' is submitted already, as job {job.id}")
    announce(experiment, cluster, job, address)


def _check_after(experiment: Experiment, after: str | None) -> None:
    if after == experiment.name:
        raise InputError(f"The search '{after}' cannot wait for itself; give --after another one.")
    if after is not None:
        existing(experiment.storage, after)


def _show_plan(
    cluster: Cluster, experiment: Experiment, spec: SearchSpec, dataset: Dataset, archive: Archive, after: str | None
) -> None:
    from search.cluster.plan import submission_plan

    found = submission_plan(cluster, experiment, spec, dataset, archive)
    lines = found.lines | ({"after": after} if after else {})
    for name, text in lines.items():
        click.echo(f"{name:<12}{text}", err=True)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)


def _submit(
    experiment: Experiment,
    cluster: Cluster,
    archive: Archive,
    variables: dict[str, str],
    address: str | None,
    *,
    after: str | None,
    follow: bool,
) -> None:
    from search.cluster.submission import submit

    submitted = submit(cluster, experiment, archive, env=variables, after=after)
    how = "submitted" if submitted.is_new else "is submitted already,"
    click.echo(f"'{experiment.name}' {how} as job {submitted.job.id}")
    announce(experiment, cluster, submitted.job, address)
    if follow:
        _follow(experiment, cluster, address)


def _follow(experiment: Experiment, cluster: Cluster, address: str | None) -> None:
    from search.cluster.logs import driver_log
    from search.cluster.submission import latest_job

    log = driver_log(experiment, cluster, latest_job(cluster, experiment))
    end_with(follow_log(experiment, log, address))
