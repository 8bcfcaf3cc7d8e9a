"""The sections of a spec that are never searched: scheduler, budget, resources, constraints, search, retraining."""

from __future__ import annotations

import itertools
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, field_validator, model_validator

from data.errors import InputError
from search.spec.objectives import check_objective, check_objectives, split_objectives
from search.spec.sampler import OURS, check_sampler
from trainable.config import Section
from trainable.config.settings import Scalar
from trainable.metrics.objective import Notation, Objective
from trainable.plugins.active import PluginRecord

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A valid name of a search, which is also the name of its directory."""
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _objective(notation: object, info: ValidationInfo) -> Notation:
    """An objective of a `Plan`, which may be a metric of its plugins."""
    return check_objective(notation, [own for record in info.data.get("plugins", ()) for own in record.metrics])


def _share_or_auto(value: object) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValueError("be 'auto' or a number of at least 0")


def _range_or_auto(value: object) -> int | tuple[int, int] | Literal["auto"]:
    if value == "auto":
        return "auto"
    if type(value) is int and value >= 1:
        return value
    match value:
        case (int(low), int(high)) if 1 <= low <= high:
            return low, high
    raise ValueError("be 'auto', an integer of at least 1, or a pair [MIN, MAX] of them")


def _count_or_auto(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if type(value) is int and value >= 1:
        return value
    raise ValueError("be 'auto' or an integer of at least 1")


def _is_not_hyperband(name: object) -> object:
    if name == "hyperband":
        raise ValueError(
            "be one of halving, asha, median, none (Ray's HyperBand stops no trial here: its brackets do not fill "
            "while paused trials count as running)"
        )
    return name


class SchedulerConfig(Section):
    """How long trials run, and when the scheduler stops them.

    On six tasks of a published surrogate (see `tests/benchmarks/search_quality.py`), of 52 epochs, a search of 10 and
    of 40 full trainings was worth 829 and 4,031 random ones with a grace of 3 epochs and a factor of 3; with 3 and 4,
    945 and 4,079; with 5 and 2, 341 and 5,165; with 1 and 3, 81 and 2,334; with 1 and 4, 55 and 1,509. One standard
    error is about a third of each.
    """

    name: Annotated[Literal["halving", "asha", "median", "none"], BeforeValidator(_is_not_hyperband)] = "halving"
    """What stops trials: successive halving as described in docs/search.md; 'asha', Ray's ASHAScheduler as it is;
    'median', Ray's MedianStoppingRule after grace_epochs; 'none' lets each trial run to its end."""
    max_epochs: Annotated[int, Field(ge=1)] = 9
    """Epochs of a full trial."""
    grace_epochs: Annotated[int, Field(ge=1)] = 3
    """No trial is stopped before this epoch; default: 3, or max_epochs if that is smaller.

    After a single epoch, the result of a policy with warm-up is misleading.
    """
    reduction_factor: Annotated[float, Field(ge=1.5, allow_inf_nan=False)] = 3
    """At each rung, one in this many trials continues; the epoch of the next rung is this many times as large."""

    @model_validator(mode="before")
    @classmethod
    def _short_trials_have_short_grace(cls, values: Any) -> Any:
        epochs = values.get("max_epochs") if isinstance(values, dict) else None
        if isinstance(epochs, int) and 1 <= epochs < cls.model_fields["grace_epochs"].default:
            return {"grace_epochs": epochs, **values}
        return values

    @model_validator(mode="after")
    def _grace_fits(self) -> SchedulerConfig:
        if self.grace_epochs > self.max_epochs:
            raise ValueError(f"have grace_epochs at most max_epochs, which is {self.max_epochs}")
        return self

    @property
    def rungs(self) -> list[int]:
        """The epochs at which trials are compared, and the last one, ascending."""
        return rung_epochs(
            max_epochs=self.max_epochs, grace_epochs=self.grace_epochs, reduction_factor=self.reduction_factor
        )


def rung_epochs(*, max_epochs: int, grace_epochs: int, reduction_factor: float) -> list[int]:
    """The epochs at which ASHA compares trials, and the last one."""
    reached = (grace_epochs * reduction_factor**number for number in itertools.count())
    before_the_end = itertools.takewhile(lambda epoch: epoch < max_epochs, reached)
    # A rung between two epochs is rounded up.
    return sorted({*(math.ceil(epoch) for epoch in before_the_end), max_epochs})


class BudgetConfig(Section):
    """When the search ends: at the first of these limits. Running trials are then stopped."""

    trials: Annotated[int, Field(ge=1)] = 20
    hours: Limit | None = None
    """Wall time of the search, without the retraining; default: no limit."""
    gpu_hours: Limit | None = None
    """GPU time of all trials: the time of each times its GPUs; default: no limit."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """The search ends after this many consecutive trials without a new best one; default: no limit."""


class ResourcesConfig(Section):
    """Resources of each trial."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Processes of a trial. Each of several workers has its own GPUs, or none."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float | Literal["auto"], PlainValidator(_share_or_auto)] = "auto"
    """With a fraction, several trials of one worker share a GPU; 'auto' is one GPU per worker, if there are any."""
    concurrent: Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)] = "auto"
    """Number of concurrent trials; 'auto' is as many as fit, also as nodes join and leave."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the cluster that the search may take, if others run there."""


class ConstraintsConfig(Section):
    """Limits on the network; none by default.

    Parameters and multiply-adds are known before a trial starts: a trial over a limit is not trained.
    """

    parameters: Limit | None = None
    """Maximum number of parameters, such as 2e6."""
    macs: Limit | None = None
    """Maximum multiply-adds for one pair of images at `data.image_size`, such as 1e9."""
    ms_per_picture: Limit | None = None
    """Maximum milliseconds for one pair of images with batch size 1, measured by each trial on its device before
    training."""


class SearchConfig(Section):
    """How configurations are proposed."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the proposals, and of the weights and the order of samples of every trial."""
    sampler: Annotated[str | dict[str, dict[str, Scalar]], PlainValidator(check_sampler)] = OURS
    """What proposes configurations: 'gp', our model of learning curves; 'tpe', 'random', or the class of one of
    Optuna's samplers: CmaEsSampler, GPSampler, NSGAIISampler, NSGAIIISampler, QMCSampler, RandomSampler, TPESampler;
    with arguments, {TPESampler: {multivariate: false}}."""
    start_from: list[str] = Field(default=["portfolio", "recipes"])
    """First trials within the space, in order: 'portfolio' for eight configurations that did well on other data, or
    names of them; 'recipes' for all recipes, or names of recipes; 'default' for the default configuration, clipped to
    the space. Any other name is an earlier search in the same storage: its five best trials, ordered by epochs, then by
    the objective."""
    study: str | None = None
    """URL of a database for Optuna's study, such as postgresql+psycopg://USER@HOST/DATABASE; default: a journal in the
    search's directory. Give the password in $PGPASSWORD or ~/.pgpass, not in the spec."""

    @field_validator("start_from")
    @classmethod
    def _are_names(cls, names: list[str]) -> list[str]:
        if wrong := [name for name in names if not NAME.fullmatch(name)]:
            raise ValueError(
                f"contain 'recipes', 'portfolio', 'default', names of recipes or earlier searches, not '{wrong[0]}'"
            )
        return names


class RetrainConfig(Section):
    """Retraining of the best configuration."""

    enabled: bool = True
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs of the retraining; default: those of a full trial."""
    cpus: Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)] = "auto"
    """CPUs of each worker of the retraining and of the evaluation after it. On one machine without a GPU, 'auto' is the
    CPUs of all concurrent trials, but at most the number measured as fastest; otherwise the CPUs of a trial."""
    workers: Annotated[int | tuple[int, int] | Literal["auto"], PlainValidator(_range_or_auto)] = "auto"
    """Processes of the retraining, each with its own GPU, if trials use GPUs. With a pair [MIN, MAX], it uses up to MAX
    as nodes join and leave, and goes on with MIN. 'auto' is [1, the GPUs of the cluster], with at least 8 samples of a
    batch for each; without GPUs, the processes of a trial."""
    scale: Literal["batch", "linear"] = "batch"
    """What stays the same with more workers than a trial has: the 'batch', which they share; with 'linear', the samples
    per worker, so that batch size and learning rate grow with the number of workers."""


class LoggingConfig(Section):
    """Other tools that record the trials while the search runs; none by default. Secrets come from the environment."""

    mlflow: str | None = None
    """URI of an MLflow server, such as http://HOST:5000, or of its database; each trial is a run of the experiment with
    the name of the search. Credentials: $MLFLOW_TRACKING_USERNAME and $MLFLOW_TRACKING_PASSWORD, or
    $MLFLOW_TRACKING_TOKEN. Needs pip install 'twinhead[mlflow]'."""
    wandb: str | None = None
    """Weights & Biases: PROJECT, or ENTITY/PROJECT; each trial is a run of the group with the name of the search. The
    key is in $WANDB_API_KEY, or known after 'wandb login'; $WANDB_MODE=offline writes files alone. Needs
    pip install 'twinhead[wandb]'."""


class Plan(Section):
    """The sections that are never searched."""

    plugins: list[PluginRecord] = Field(default=[])
    """Python files with model families, losses and metrics of your own: paths relative to this file, such as [own.py].
    A search stores their SHA-256 and the names that they define."""
    objectives: list[Annotated[Notation, PlainValidator(_objective)]] = Field(default=["score"])
    """The objectives of the search: up to three metrics or costs, with '-' where smaller is better, such as
    [score, -macs]. The first one, a metric or weights of metrics such as {mask_iou: 0.7, depth_delta1: 0.3}, decides
    which trials are stopped and which is the best; objective: -depth_rmse is short for objectives: [-depth_rmse]. With
    several, the search looks for the Pareto front, which `twinhead front` shows."""
    scheduler: SchedulerConfig = SchedulerConfig()
    budget: BudgetConfig = BudgetConfig()
    resources: ResourcesConfig = ResourcesConfig()
    constraints: ConstraintsConfig = ConstraintsConfig()
    search: SearchConfig = SearchConfig()
    retrain: RetrainConfig = RetrainConfig()
    logging: LoggingConfig = LoggingConfig()

    @field_validator("objectives", mode="before")
    @classmethod
    def _split(cls, objectives: object) -> object:
        """Accept 'score,-macs' as a list, like `twinhead front`."""
        if not isinstance(objectives, str):
            return objectives
        try:
            return split_objectives(objectives)
        except InputError:
            raise ValueError("be a list such as [score, -macs]") from None

    @field_validator("objectives")
    @classmethod
    def _fit_together(cls, objectives: list[Notation]) -> list[Notation]:
        check_objectives(objectives)
        return objectives

    @property
    def objective(self) -> Objective:
        """The first objective."""
        return Objective.of(self.objectives[0])
