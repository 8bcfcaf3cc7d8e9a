"""Export of a search's networks, and evaluation of an exported network on a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from data.errors import InputError
from search.commands import cited, shell_command
from search.results.damaged import naming_alternatives
from search.results.export import copy_export, export_checkpoint, refuse_other_files, refuse_other_source
from search.results.summary import find_trial
from search.run.prepare import open_data
from search.study.experiment import Experiment
from search.study.study import open_study
from search.terminal import Screen
from trainable.config import DataConfig
from trainable.evaluation.evaluate import evaluate_baselines_on, evaluate_checkpoint
from trainable.job import TrialData
from trainable.loop.checkpoint import check_loads, load_model, source_of, verify
from trainable.loop.loaders import sample_count
from trainable.loop.precision import as_recorded
from trainable.loop.state import default_device
from trainable.threads import use_fastest_threads


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


def export_network(experiment: Experiment, out: Path, trial: int | None) -> str:
    """Export the retrained network, or a trial's own, to the directory `out`.

    Returns:
        What was exported, as text.

    Raises:
        InputError: if the search or trial has no network, or `out` holds other files or another network.
    """
    experiment.spec()
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
    )
    return f"trial {trial} of '{experiment.name}', epoch {found.epoch.epoch}"


def evaluate_with_baselines(checkpoint: Path, data_path: str, part: str, screen: Screen) -> Evaluated:
    """Metrics of an exported network on a part of a data set, and of the baselines on the same images.

    The split is that of the network's configuration, so that 'test' holds images that it was not trained on.

    Raises:
        InputError: if the checkpoint or the data set cannot be used, or the part has no samples.
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
    device = default_device()
    config = as_recorded(origin.config)
    samples = sample_count(config.data, data, part)
    use_fastest_threads(config, device, limit=torch.get_num_threads(), samples=samples)
    return Evaluated(
        checkpoint=str(checkpoint),
        data=data_path,
        split=part,
        metrics=evaluate_checkpoint(checkpoint, data, part, device=device),
        baselines=_baselines(origin.config.data, data, part, screen),
        same_data=fingerprint == origin.data_fingerprint,
        verified=verified,
    )


def _baselines(config: DataConfig, data: TrialData, part: str, screen: Screen) -> dict[str, dict[str, float]] | None:
    """The baselines, fitted to the data set's training part; None if that part is empty."""
    try:
        return evaluate_baselines_on(config, data, part)
    except InputError as error:
        screen.say(f"no baselines, because they are fitted to the training part: {error}")
        return None


def _how_to_retrain(experiment: Experiment) -> str:
    if experiment.summary_file.is_file() and experiment.summary().complete:
        command = shell_command("twinhead", "retrain", experiment.name, "--storage", experiment.storage)
        return f"create one with {cited(command)}"
    return f"finish it with {cited(experiment.resume_command)}"
