"""What a submission will do, for its user to confirm: trials, resources, expected hours, upload."""

from __future__ import annotations

from dataclasses import dataclass

from data.dataset.dataset import Dataset
from data.errors import InputError
from data.quantities import byte_size, counted
from search.cluster.client import Cluster
from search.cluster.code import Archive
from search.cluster.submission import check_python, version_notes
from search.run.cluster import plan
from search.run.prepare import data_config, each_uses, split_counts
from search.run.steps import steps_of_search
from search.spec.spec import SearchSpec
from search.study.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class SubmissionPlan:
    """A submission in words."""

    lines: dict[str, str]
    """By their titles."""
    notes: list[str]
    """Differences of versions, what the cluster lacks now, and that trials are too short."""


def submission_plan(
    cluster: Cluster, experiment: Experiment, spec: SearchSpec, dataset: Dataset, archive: Archive
) -> SubmissionPlan:
    """Describe a submission.

    Args:
        cluster: where it runs.
        experiment: the search; it need not exist yet.
        spec: of the search.
        dataset: its data set.
        archive: the code.

    Raises:
        InputError: if the Python of the cluster is too old for the code.
    """
    info = cluster.info()
    check_python(info.python)
    nodes, notes = info.nodes, version_notes(info.ray, info.python)
    cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    there = f"{counted(len(nodes), 'node')} with {cpus:g} CPU and {gpus:g} GPU"
    try:
        workers, concurrent = plan(spec.plan.resources, nodes)
        resources = f"{each_uses(workers)} a trial, {concurrent} at a time on {there}"
    except InputError as error:
        resources = f"the cluster has {there} now"
        notes.append(f"{str(error).partition('; ')[0]} now; the search fails unless an autoscaler may start nodes")
    counts = split_counts(dataset, data_config(spec), samples=spec.subject.samples, seed=spec.plan.search.seed)
    steps = steps_of_search(spec, counts["train"], spec.plan.resources.workers)
    if steps.warning:
        notes.append(steps.warning)
    parts = ", ".join(f"{count:,} {part}" for part, count in counts.items())
    budget, scheduler = spec.plan.budget, spec.plan.scheduler
    largest = ", ".join(f"{name} {byte_size(size)}" for name, size in archive.largest)
    lines = {
        "search": f"{experiment.name}, in {experiment.storage}",
        "cluster": f"{cluster.address}, Ray {info.ray}, Python {info.python}",
        "trials": f"{budget.trials} of up to {counted(scheduler.max_epochs, 'epoch')}, {steps}, on {parts} samples",
        "resources": resources,
        "hours": _hours(spec),
        "upload": f"{byte_size(archive.bytes)} in {counted(archive.files, 'file')}; the largest: {largest}",
    }
    return SubmissionPlan(lines=lines, notes=notes)


def _hours(spec: SearchSpec) -> str:
    limits = {"hours": spec.plan.budget.hours, "GPU hours": spec.plan.budget.gpu_hours}
    known = [f"at most {value:g} {name}" for name, value in limits.items() if value is not None]
    return " and ".join(known) if known else "not known before the first trials; set budget.hours for a limit"
