"""Export of a search's networks, and evaluation of an exported network on a data set."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from data.atomic import replace_file
from data.dataset.dataset import Dataset
from data.errors import InputError
from search.commands import cited
from search.data import open_data
from search.results.damaged import naming_alternatives
from search.results.export import copy_export, export_checkpoint, refuse_other_files, refuse_other_source
from search.results.model_card import facts_of_trial
from search.results.summary import Best, find_trial
from search.run.prepare import data_config, split_counts
from search.spec.spec import SearchSpec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.terminal import Screen
from trainable.config import DataConfig
from trainable.evaluation.evaluate import evaluate_baselines_on, evaluate_checkpoint
from trainable.evaluation.worst import measure_images
from trainable.job import TrialData
from trainable.loop.checkpoint import check_loads, load_model
from trainable.loop.checkpoint_files import source_of, verify
from trainable.loop.loaders import sample_count
from trainable.loop.precision import as_recorded
from trainable.loop.state import default_device
from trainable.metrics.bootstrap import intervals
from trainable.metrics.pooled import pooled_figures
from trainable.threads import use_fastest_threads

EVALUATION = "evaluation.json"
"""File for the result of an evaluation, as `twinhead evaluate --json` prints it."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Metrics of an exported network on a part of a data set."""

    checkpoint: str
    data: str
    """The data set."""
    split: str
    """The part of it."""
    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]] | None
    """Metrics of the baselines on the same images; None without training images, to which they are fitted."""
    same_data: bool
    """Whether the network was trained on this data set."""
    verified: bool
    """Whether the checkpoint has checksums."""
    intervals: Mapping[str, Mapping[str, float | None]] | None = None
    """95 % intervals over backgrounds, by metric, with `value`, `low` and `high`; None without an output directory."""


def export_network(experiment: Experiment, out: Path, trial: int | None) -> str:
    """Export the retrained network, or a trial's own, to the directory `out`.

    Returns:
        What was exported, as text.

    Raises:
        InputError: if the search or trial has no network, or `out` holds other files or another network.
    """
    spec = experiment.spec()
    refuse_other_files(out)
    if trial is None:
        if not experiment.checkpoints.exists(experiment.retrained):
            raise InputError(
                f"The search '{experiment.name}' has no retrained network yet; {_how_to_retrain(experiment)}, or give "
                "--trial for a trial's own weights."
            )
        with naming_alternatives():
            check_loads(experiment.checkpoints.fetch(experiment.retrained))
        refuse_other_source(out, source_of(experiment.retrained))
        copy_export(experiment.retrained, out)
        return f"the retrained network of '{experiment.name}'"
    with naming_alternatives():
        found = find_trial(experiment, open_study(experiment), trial)
    source = {"search": experiment.name, "trial": trial}
    refuse_other_source(out, source)
    export_checkpoint(
        found.checkpoint,
        out,
        metrics={"val": dict(found.epoch.metrics)},
        title=f"{experiment.name}: trial {trial} after epoch {found.epoch.epoch}",
        source=source,
        facts=facts_of_trial(spec, experiment.name, found.trial, samples={}),
    )
    return f"trial {trial} of '{experiment.name}', epoch {found.epoch.epoch}"


def export_best(experiment: Experiment, spec: SearchSpec, best: Best, dataset: Dataset, **on_test: Any) -> None:
    """Export the best trial's network with its validation metrics and those in `on_test`; see `export_checkpoint`."""
    samples = split_counts(dataset, data_config(spec), samples=spec.subject.samples, seed=spec.plan.search.seed)
    export_checkpoint(
        best.checkpoint,
        experiment.best,
        metrics={"val": dict(best.epoch.metrics), **on_test},
        title=f"{experiment.name}: trial {best.trial.number} after epoch {best.epoch.epoch}",
        source={"search": experiment.name, "trial": best.trial.number},
        facts=facts_of_trial(spec, experiment.name, best.trial, samples=samples),
    )


def export_retrained(
    experiment: Experiment, spec: SearchSpec, best: Best, dataset: Dataset, checkpoint: Path, **on_test: Any
) -> None:
    """Export a network that was trained with the best configuration on train + validation; see `export_best`."""
    samples = split_counts(dataset, data_config(spec))
    export_checkpoint(
        checkpoint,
        experiment.retrained,
        metrics=on_test,
        title=f"{experiment.name}: the best configuration, retrained",
        pictures=experiment.test_grid,
        source={"search": experiment.name, "trial": None},
        facts=facts_of_trial(spec, experiment.name, best.trial, samples=samples, trained_on="train+val"),
    )


def evaluate_with_baselines(
    checkpoint: Path,
    data_path: str,
    part: str,
    screen: Screen,
    *,
    device: torch.device | None = None,
    out: Path | None = None,
) -> Evaluated:
    """Metrics of an exported network on a part of a data set, and of the baselines on the same images.

    The split is that of the network's configuration, so that 'test' holds images that it was not trained on. The images
    are not augmented, even with `data.augment.in_evaluation`, as those of the baselines are not.

    Args:
        checkpoint: a directory exported by `twinhead best`.
        data_path: the data set.
        part: as in `data.splits.splits.rows`.
        screen: shows progress and warnings.
        device: of the computation; the GPU if there is one when left out.
        out: directory for `EVALUATION`, and the files of `measure_images`; None to write none and compute no intervals.

    Raises:
        InputError: if the checkpoint or the data set cannot be used, the part has no samples, or `out` cannot be
            written.
    """
    with naming_alternatives():
        _, origin = load_model(checkpoint)
    if not (verified := verify(checkpoint, ())):
        screen.say(f"note: '{checkpoint}' was written by an earlier version without checksums, and was not verified")
    dataset = open_data(data_path, screen)
    fingerprint = dataset.info.fingerprint
    if fingerprint != origin.data_fingerprint:
        screen.say(
            f"warning: the data is not what the network was trained on (fingerprint {fingerprint[:12]}…, trained on "
            f"{origin.data_fingerprint[:12]}…)"
        )
    data = TrialData(path=str(dataset.path.absolute()), fingerprint=fingerprint)
    device = device or default_device()
    config = as_recorded(origin.config)
    samples = sample_count(config.data, data, part)
    use_fastest_threads(config, device, limit=torch.get_num_threads(), samples=samples)
    if out is None:
        metrics, plain = evaluate_checkpoint(checkpoint, data, part, device=device, may_augment=False), None
    else:
        with _writing_to(out):
            table = measure_images(checkpoint, data, part, out, device=device)
        metrics = pooled_figures(table)
        plain = {name: interval.as_plain() for name, interval in intervals(table).items()}
    evaluated = Evaluated(
        checkpoint=str(checkpoint),
        data=data_path,
        split=part,
        metrics=metrics,
        baselines=_baselines(origin.config.data, data, part, screen),
        same_data=fingerprint == origin.data_fingerprint,
        verified=verified,
        intervals=plain,
    )
    if out is not None:
        with _writing_to(out):
            replace_file(out / EVALUATION, json.dumps(asdict(evaluated), indent=2) + "\n")
    return evaluated


@contextlib.contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    """Report that nothing can be written to the directory `out`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"Nothing can be written to '{out}' ({error.strerror}); give another --out.") from None


def _baselines(config: DataConfig, data: TrialData, part: str, screen: Screen) -> dict[str, dict[str, float]] | None:
    """The baselines, fitted to the data set's training part; None if that part is empty."""
    try:
        return evaluate_baselines_on(config, data, part)
    except InputError as error:
        screen.say(f"no baselines, because they are fitted to the training part: {error}")
        return None


def _how_to_retrain(experiment: Experiment) -> str:
    if not experiment.is_running and experiment.summary_file.is_file() and experiment.summary().complete:
        return f"create one with {cited(experiment.command('retrain'))}"
    return experiment.how_to_continue()
