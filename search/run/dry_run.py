"""Estimate of a search's cost before it starts: trials, epochs, hours, disk, and the first configurations."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import optuna
import torch

from data.cache.cache import cache_bytes
from data.dataset.dataset import Dataset
from data.dataset.storage import Location
from search.run.cluster import plan
from search.run.prepare import BESIDE_TRIALS, checkpoint_bytes, data_config, split_counts
from search.run.steps import Steps, steps_of_search
from search.spec.constraints import broken_limits, widths_of
from search.spec.spec import SearchSpec
from search.strategy.searcher import RungSearcher
from search.strategy.space import define_space
from search.strategy.warm_start import EARLIER, PORTFOLIO_MEMBER, enqueue_starts
from search.study.trials import RECIPE, TrialRecord
from trainable.config import TrialConfig
from trainable.config.settings import flatten
from trainable.loop.precision import choose_precision
from trainable.loop.state import reserved_device
from trainable.models import build_on_meta, multiply_adds, parameter_count

FIRST_CONFIGURATIONS = 20
EVALUATION_SHARE = 1 / 3
"""Evaluation time of an image relative to a training step: a ResUNet's forward pass took 33 % (`twinhead profile`)."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """The smallest or largest network of the space, with measurements."""

    family: str
    width: int
    parameters: int
    multiply_adds: int
    """For one pair of images."""
    samples_per_second: float
    """Of a training step, in the faster precision."""


@dataclass(frozen=True, kw_only=True)
class FirstTrial:
    """One of the first trials that a search would run."""

    recipe: str
    """Name of the recipe; '' if it is none."""
    portfolio: str
    """Name of the configuration of the portfolio; '' if it is none."""
    earlier: str
    """The trial of an earlier search that it repeats, as SEARCH:NUMBER; '' if it is none."""
    proposed_by: str
    """As in `TrialRecord`."""
    parameters: Mapping[str, object]
    """Optuna's parameters."""
    config: Mapping[str, object]
    """Values of its `TrialConfig`."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a search would cost on this machine."""

    trials: int
    concurrent: int
    samples: Mapping[str, int]
    """By part of the split."""
    epochs: Mapping[str, int]
    """Of all trials: the `fewest`, if the reduction factor decides at each rung, and the `most`."""
    optimizer_steps: Steps
    """Of a whole trial."""
    hours: Sequence[float]
    """At the fewest epochs, if all trials had the smallest or the largest network."""
    gpu_hours: Sequence[float]
    bytes: Mapping[str, int]
    """Of `checkpoints` and `decoded` images."""
    networks: Mapping[str, Network]
    """The `smallest` and the `largest`."""
    first: Sequence[FirstTrial]
    outside: Mapping[str, str]
    """Why recipes, configurations of the portfolio, earlier trials or the default are not among the first trials."""

    def as_plain(self) -> dict[str, object]:
        """As JSON holds it."""
        return asdict(self) | {"optimizer_steps": self.optimizer_steps.as_plain()}


def dry_run(spec: SearchSpec, dataset: Dataset, storage: Path | Location) -> Estimate:
    """Estimate what `spec` would cost on this machine, from a measured step of its smallest and largest network.

    Networks that break the limits of parameters and multiply-adds are left out.

    Raises:
        InputError: if a split has no samples, an earlier search to start from is not in `storage`, or no trial fits on
            this machine.
    """
    first, outside = first_trials(spec, storage)
    data = data_config(spec)
    counts = split_counts(dataset, data, samples=spec.subject.samples, seed=spec.plan.search.seed)
    workers, concurrent = plan(spec.plan.resources, _this_machine())
    torch.set_num_threads(workers.cpus)
    device = reserved_device(workers.gpus)
    smallest, largest = (_measured(config, device) for config in _ends(list(_bounds(spec))))
    epochs = _epochs(spec)
    samples = counts["train"] + EVALUATION_SHARE * counts["val"]
    work = epochs["fewest"] * samples / workers.count / concurrent / 3600
    hours = [work / network.samples_per_second for network in (smallest, largest)]
    return Estimate(
        trials=spec.plan.budget.trials,
        concurrent=concurrent,
        samples=counts,
        epochs=epochs,
        optimizer_steps=steps_of_search(spec, counts["train"], workers.count),
        hours=hours,
        gpu_hours=[value * workers.count * workers.gpus * concurrent for value in hours],
        bytes={
            "checkpoints": checkpoint_bytes(largest.parameters, spec.plan.budget.trials + BESIDE_TRIALS, concurrent),
            "decoded": cache_bytes(dataset, data.image_size, has_border=data.fit == "pad"),
        },
        networks={"smallest": smallest, "largest": largest},
        first=first,
        outside=outside,
    )


def first_trials(spec: SearchSpec, storage: Path | Location) -> tuple[list[FirstTrial], dict[str, str]]:
    """The first trials that a search would run, and why other starts are not among them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objective = spec.plan.objective
    study = optuna.create_study(direction=objective.direction, sampler=optuna.samplers.RandomSampler())
    outside = enqueue_starts(study, spec, storage)
    first: list[FirstTrial] = []

    def describe(trial: optuna.Trial, values: Mapping[str, object]) -> dict[str, object]:
        origin = {name: trial.user_attrs.get(name, "") for name in (RECIPE, PORTFOLIO_MEMBER, EARLIER)}
        proposed_by = TrialRecord.of(trial).proposed_by
        first.append(FirstTrial(**origin, proposed_by=proposed_by, parameters=trial.params, config=values))
        return dict(values)

    searcher = RungSearcher(
        define_space(spec),
        objective=objective,
        rungs=spec.plan.scheduler.rungs,
        seed=spec.plan.search.seed,
        objectives=spec.plan.objectives[1:],
        sampler=spec.plan.search.sampler,
        study=study,
        describe=describe,
    )
    for number in range(min(FIRST_CONFIGURATIONS, spec.plan.budget.trials)):
        searcher.suggest(str(number))
    return first, outside


def _epochs(spec: SearchSpec) -> dict[str, int]:
    """Epochs of all trials."""
    trials, scheduler = spec.plan.budget.trials, spec.plan.scheduler
    most = trials * scheduler.max_epochs
    if scheduler.name == "none":
        return {"fewest": most, "most": most}
    if scheduler.name == "median":  # which keeps no number of trials
        return {"fewest": trials * scheduler.grace_epochs, "most": most}
    steps = enumerate(itertools.pairwise([0, *scheduler.rungs]))
    factor = scheduler.reduction_factor
    fewest = sum((end - begin) * max(1, round(trials / factor**number)) for number, (begin, end) in steps)
    return {"fewest": fewest, "most": most}


def _bounds(spec: SearchSpec) -> Iterator[TrialConfig]:
    """For each family, its narrowest and its widest network within the limits, if there is one."""
    for largest in spec.largest_trials():
        family = largest.model.family
        trials = [spec.largest_trial({"model.family": family, "model.width": w}) for w in widths_of(spec.space, family)]
        within = bisect.bisect_right(trials, 0, key=lambda trial: bool(_broken(trial, spec)))
        yield from (trials[0], trials[within - 1]) if within else ()


def _broken(trial: TrialConfig, spec: SearchSpec) -> str:
    return broken_limits(flatten(trial.model_dump()), spec.plan.constraints)


def _ends(configs: Sequence[TrialConfig]) -> list[TrialConfig]:
    """The configurations with the fewest and the most multiply-adds."""
    costs = [multiply_adds(build_on_meta(config.model), config.data.image_size) for config in configs]
    return [configs[costs.index(min(costs))], configs[costs.index(max(costs))]]


def _measured(config: TrialConfig, device: torch.device) -> Network:
    found, network = choose_precision(config, device), build_on_meta(config.model)
    return Network(
        family=config.model.family,
        width=config.model.width,
        parameters=parameter_count(network),
        multiply_adds=multiply_adds(network, config.data.image_size),
        samples_per_second=found.images / found.step_seconds,
    )


def _this_machine() -> list[dict[str, float]]:
    return [{"CPU": len(os.sched_getaffinity(0)), "GPU": torch.cuda.device_count()}]
