"""Estimate of a search's cost before it starts: trials, epochs, hours, disk, and the first configurations."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch

from data.cache.cache import decoded_bytes
from data.dataset.dataset import Dataset
from search.run.cluster import plan
from search.run.prepare import OPTIMIZER_COPIES, data_config, split_counts
from search.run.steps import steps_of_search
from search.spec.checks import largest_values
from search.spec.constraints import broken_limits, widths_of
from search.spec.spec import SearchSpec
from search.strategy.searcher import RungSearcher
from search.strategy.space import define_space, largest_trials
from search.strategy.warm_start import EARLIER, enqueue_starts
from search.study.trials import RECIPE
from trainable.config import TrialConfig, build
from trainable.loop.precision import choose_precision
from trainable.metrics.names import MODE, OBJECTIVE
from trainable.models import build_model
from trainable.models.cost import multiply_adds, parameter_count

FIRST_CONFIGURATIONS = 10
EVALUATION_SHARE = 1 / 3
"""Evaluation time of an image relative to a training step: a ResUNet's forward pass took 33 % (`twinhead profile`)."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """The smallest or largest network of the space, with measurements."""

    config: TrialConfig
    parameters: int
    multiply_adds: int
    """For one pair of images."""
    image_seconds: float
    """Of a training step, per image, in the faster precision."""

    def as_plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "family": self.config.model.family,
            "width": self.config.model.width,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "samples_per_second": 1 / self.image_seconds,
        }


def dry_run(spec: SearchSpec, dataset: Dataset, storage: Path) -> dict[str, Any]:
    """Estimate what `spec` would cost on this machine, from a measured step of its smallest and largest network.

    Networks that break the limits of parameters and multiply-adds are left out.

    Returns:
        `trials`; `epochs`, the fewest (if the reduction factor decides at each rung) and the most; `optimizer_steps` of
        a whole trial, the fewest and the most, with a warning if they are too few; `hours` and `gpu_hours` at the
        fewest epochs, for the smallest and for the largest network; `bytes` of checkpoints and decoded images; the two
        `networks`; the `first` configurations; and in `outside`, why recipes and earlier trials are not among them.

    Raises:
        InputError: if a split has no samples, an earlier search to start from is not in `storage`, or no trial fits on
            this machine.
    """
    first, outside = _first(spec, storage)
    data = data_config(spec)
    counts = split_counts(dataset, data, samples=spec.subject.samples, seed=spec.plan.search.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers, concurrent = plan(spec.plan.resources, _this_machine())
    torch.set_num_threads(workers.cpus)
    ends = [_measured(config, device) for config in _ends(list(_bounds(spec)))]
    epochs = _epochs(spec)
    samples = counts["train"] + EVALUATION_SHARE * counts["val"]
    hours = [epochs["fewest"] * samples * end.image_seconds / workers.count / concurrent / 3600 for end in ends]
    gpus = workers.count * workers.gpus * concurrent
    kept, live = spec.plan.budget.trials + 3, concurrent * 2 * OPTIMIZER_COPIES
    return {
        "trials": spec.plan.budget.trials,
        "concurrent": concurrent,
        "samples": counts,
        "epochs": epochs,
        "optimizer_steps": steps_of_search(spec, counts["train"], workers.count).as_plain(),
        "hours": hours,
        "gpu_hours": [value * gpus for value in hours],
        "bytes": {
            "checkpoints": 4 * ends[1].parameters * (kept + live),
            "decoded": decoded_bytes(dataset.info.counts.samples, dataset.info.counts.backgrounds, data.image_size),
        },
        "networks": {"smallest": ends[0].as_plain(), "largest": ends[1].as_plain()},
        "first": first,
        "outside": outside,
    }


def first_configurations(spec: SearchSpec, storage: Path) -> list[dict[str, Any]]:
    """The first configurations that the search would run, with their `parameters` and origin.

    The origin is a `recipe`, or a trial of an `earlier` search in `storage` as SEARCH:NUMBER; both are '' for a
    proposal of the searcher.
    """
    return _first(spec, storage)[0]


def _first(spec: SearchSpec, storage: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The first configurations, and why recipes and earlier trials are not among them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler())
    outside = enqueue_starts(study, spec, storage)
    searcher = RungSearcher(
        define_space(spec),
        metric=OBJECTIVE,
        mode=MODE,
        rungs=spec.plan.scheduler.rungs,
        seed=spec.plan.search.seed,
        study=study,
        describe=lambda trial, values: {
            "recipe": trial.user_attrs.get(RECIPE, ""),
            "earlier": trial.user_attrs.get(EARLIER, ""),
            "parameters": dict(trial.params),
            "config": values,
        },
    )
    first = [searcher.suggest(str(number)) for number in range(min(FIRST_CONFIGURATIONS, spec.plan.budget.trials))]
    return first, outside


def _epochs(spec: SearchSpec) -> dict[str, int]:
    """Epochs of all trials."""
    trials, factor = spec.plan.budget.trials, spec.plan.scheduler.reduction_factor
    rungs = [0, *spec.plan.scheduler.rungs]
    steps = enumerate(itertools.pairwise(rungs))
    fewest = sum((end - begin) * max(1, round(trials / factor**number)) for number, (begin, end) in steps)
    return {"fewest": fewest, "most": trials * spec.plan.scheduler.max_epochs}


def _bounds(spec: SearchSpec) -> Iterator[TrialConfig]:
    """For each family, its narrowest and its widest network within the limits, if there is one."""
    for values in largest_trials(spec):
        family = values["model"]["family"]
        widths = widths_of(spec.space, family)
        trial = partial(_of_width, spec, family)
        within = bisect.bisect_right(
            widths, 0, key=lambda width: bool(broken_limits(trial(width), spec.plan.constraints))
        )
        for width in (widths[0], widths[within - 1]) if within else ():
            yield build(TrialConfig, trial(width), source="the spec")


def _of_width(spec: SearchSpec, family: str, width: int) -> dict[str, Any]:
    return largest_values(spec.space, {"model.family": family, "model.width": width})


def _ends(configs: Sequence[TrialConfig]) -> list[TrialConfig]:
    """The configurations with the fewest and the most multiply-adds."""
    costs = [_multiply_adds(config) for config in configs]
    return [configs[costs.index(min(costs))], configs[costs.index(max(costs))]]


def _multiply_adds(config: TrialConfig) -> int:
    with torch.device("meta"):
        return multiply_adds(build_model(config.model), config.data.image_size)


def _measured(config: TrialConfig, device: torch.device) -> Network:
    found = choose_precision(config, device)
    with torch.device("meta"):
        parameters = parameter_count(build_model(config.model))
    return Network(
        config=config,
        parameters=parameters,
        multiply_adds=_multiply_adds(config),
        image_seconds=found.step_seconds / found.images,
    )


def _this_machine() -> list[dict[str, float]]:
    return [{"CPU": len(os.sched_getaffinity(0)), "GPU": torch.cuda.device_count()}]
