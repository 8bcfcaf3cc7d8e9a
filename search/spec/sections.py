"""The sections of a spec that are never searched: how long, how many, on what, from where, and what comes after."""

from __future__ import annotations

import itertools
import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, field_validator, model_validator

from search.spec.objectives import check_objective, check_objectives
from trainable.config import Section

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a search may be called: it is the name of a directory."""
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _share_or_auto(value: Any) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    if type(value) in (int, float) and 0 <= value < math.inf:
        return float(value)
    raise ValueError("be 'auto' or a number of at least 0")


def _count_or_auto(value: Any) -> int | Literal["auto"]:
    if value == "auto" or (type(value) is int and value >= 1):
        return value  # type: ignore[no-any-return]
    raise ValueError("be 'auto' or a whole number of at least 1")


class SchedulerConfig(Section):
    """How long trials run, and when the scheduler stops them.

    On six tasks of a published surrogate (see `search.proposals`), of 52 epochs, a search of 10 and of 40 full
    trainings was worth 829 and 4,031 random ones with a grace of 3 epochs and a factor of 3; with 3 and 4, 945 and
    4,079; with 5 and 2, 341 and 5,165; with 1 and 3, 81 and 2,334; with 1 and 4, 55 and 1,509. One standard error is
    about a third of each.
    """

    max_epochs: Annotated[int, Field(ge=1)] = 9
    """Epochs of a whole trial."""
    grace_epochs: Annotated[int, Field(ge=1)] = 3
    """No trial is stopped before it ran so many epochs; without a word, 3 or all of a shorter trial.

    After a single epoch, a policy that warms up looks worse than it will be.
    """
    reduction_factor: Annotated[float, Field(ge=1.5, allow_inf_nan=False)] = 3
    """Of the trials that reach a rung, one in so many goes on; the next rung is so many times as far."""

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
        return rung_epochs(**self.model_dump())


def rung_epochs(*, max_epochs: int, grace_epochs: int, reduction_factor: float) -> list[int]:
    """The epochs at which ASHA compares trials, and the last one."""
    reached = (grace_epochs * reduction_factor**number for number in itertools.count())
    before_the_end = itertools.takewhile(lambda epoch: epoch < max_epochs, reached)
    # A rung between two epochs is compared at the later one.
    return sorted({*(math.ceil(epoch) for epoch in before_the_end), max_epochs})


class BudgetConfig(Section):
    """When the search ends, whichever comes first; trials that run then are stopped."""

    trials: Annotated[int, Field(ge=1)] = 20
    hours: Limit | None = None
    """Wall time of the search, without the retraining; no limit when left out."""
    gpu_hours: Limit | None = None
    """Of all trials together: the time of each times its GPUs; no limit when left out."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """The search ends when so many trials in a row did not improve on the best; no limit when left out."""


class ResourcesConfig(Section):
    """What each trial may use."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that share a trial; each of several has GPUs of its own, or none."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float | Literal["auto"], PlainValidator(_share_or_auto)] = "auto"
    """A fraction lets several trials of one worker share a GPU; 'auto' is one GPU a worker where there are any."""
    concurrent: Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)] = "auto"
    """Trials at a time; 'auto' is as many as fit."""


class ConstraintsConfig(Section):
    """What a network must keep to; no limits by default.

    Parameters and multiply-adds are known before a trial starts: one that breaks a limit is not trained.
    """

    parameters: Limit | None = None
    """Most parameters, such as 2e6."""
    macs: Limit | None = None
    """Most multiply-adds of one pair of pictures at `data.image_size`, such as 1e9."""
    ms_per_picture: Limit | None = None
    """Most milliseconds for one pair of pictures, alone in its batch, on the device of the trial, which measures it
    before it trains."""


class SearchConfig(Section):
    """How configurations are proposed."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the proposals and of every trial's weights and order of samples."""
    start_from: list[str] = Field(default=["recipes"])
    """Configurations to try first: 'recipes' are all that lie within the space, or name some of them; 'default' is that
    of `TrialConfig`, moved into the space. Any other name is that of an earlier search in the same storage: its five
    best trials, those that ran for the most epochs before the others, as far as they lie within the space."""
    study: str | None = None
    """The database that Optuna's study lies in, such as postgresql+psycopg://USER@HOST/DATABASE; a journal in the
    search's directory when left out. Give the password in $PGPASSWORD or ~/.pgpass, for a spec is read by many."""

    @field_validator("start_from")
    @classmethod
    def _are_names(cls, names: list[str]) -> list[str]:
        if wrong := [name for name in names if not NAME.fullmatch(name)]:
            raise ValueError(f"hold 'recipes', 'default' or names of recipes or earlier searches, not '{wrong[0]}'")
        return names


class RetrainConfig(Section):
    """What happens to the best configuration."""

    enabled: bool = True
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs of the retraining; as many as a whole trial when left out."""
    cpus: Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)] = "auto"
    """CPUs of each worker of the retraining and of the evaluation after it. On a single machine without a GPU, 'auto'
    is those of all concurrent trials, but no more than are measured to be fastest; elsewhere, those of a trial."""


class Plan(Section):
    """The sections that are never searched."""

    objectives: list[Annotated[str, AfterValidator(check_objective)]] = Field(default=["score"])
    """The objectives of the search: up to three metrics or costs, with '-' where smaller is better, such as
    [score, -macs]. With several, the search looks for the Pareto front, which `twinhead front` shows. Trials are
    stopped, and the best is picked, by the first one, which is the score."""
    scheduler: SchedulerConfig = SchedulerConfig()
    budget: BudgetConfig = BudgetConfig()
    resources: ResourcesConfig = ResourcesConfig()
    constraints: ConstraintsConfig = ConstraintsConfig()
    search: SearchConfig = SearchConfig()
    retrain: RetrainConfig = RetrainConfig()

    @field_validator("objectives", mode="before")
    @classmethod
    def _split(cls, objectives: Any) -> Any:
        """'score,-macs' is taken for a list, as `twinhead front` takes it."""
        return [part.strip() for part in objectives.split(",")] if isinstance(objectives, str) else objectives

    @field_validator("objectives")
    @classmethod
    def _fit_together(cls, objectives: list[str]) -> list[str]:
        check_objectives(objectives)
        return objectives
