"""The content of `summary.json`: the results of a search, or of the training of one recipe.

A key that an earlier version did not write has its default here, and is written again only if it was there.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, JsonValue

Metrics = dict[str, int | float]
"""By name."""


class _Record(BaseModel):
    """A part of a summary; keys of other versions are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)


class StepCounts(_Record):
    """Range of optimizer steps of a whole training."""

    fewest: int
    most: int
    warning: str | None = None
    """What to do if they are too few; None if they suffice."""


class TrialSummary(_Record):
    """A trial at its best epoch."""

    trial: int
    """Its number."""
    recipe: str | None = None
    """Name of its recipe; None if it is none."""
    epoch: int
    score: float
    """The metric of this name on validation, whatever the objective is."""
    value: float | None = None
    """Of the objective, on validation; None in summaries of earlier versions."""
    config: dict[str, JsonValue] = {}
    """Values of its `TrialConfig`, in the version that ran it."""
    metrics: Metrics = {}
    """On validation."""
    checkpoint: str = ""
    """Directory relative to the experiment."""
    test: Metrics = {}
    """Empty before the retraining."""


class Difference(_Record):
    """The difference of a metric, with its 95 % interval over backgrounds; None if it cannot be computed."""

    value: float | None
    low: float | None
    high: float | None
    probability: float | None = None
    """That the best trial is better than the recipe on other backgrounds; None in summaries of earlier versions."""


class Retrained(_Record):
    """The network that was trained on train + validation."""

    metrics: Metrics
    """On test."""
    checkpoint: str
    """Directory relative to the experiment."""
    epochs: int
    optimizer_steps: StepCounts | None = None
    threads: int | None = None


class FrontRow(_Record):
    """A trial on the Pareto front."""

    trial: int
    recipe: str | None
    family: str
    width: int
    epoch: int
    objectives: Metrics
    checkpoint: str | None
    """Directory relative to the experiment."""


class _Stored(_Record):
    """What `summary.json` holds."""

    name: str = ""
    complete: bool = False
    """False until the retraining is complete, if there is one."""

    def as_plain(self) -> dict[str, object]:
        """As JSON values, in the order of the fields."""
        return self.model_dump(exclude_unset=True)


class Summary(_Stored):
    """The results of a search."""

    objective: str | dict[str, float] = "score"
    """The first objective, as in a spec."""
    trials: int = 0
    """Number of trials."""
    outcomes: dict[str, int] = {}
    """Number of trials by outcome; see `search.results.summary.outcomes`."""
    retried: int = 0
    """Number of trials that were retried after a crash."""
    epochs: int = 0
    """Of all trials."""
    best: TrialSummary | None = None
    recipe: TrialSummary | None = None
    """The best recipe that ran for all epochs."""
    beyond_recipe: dict[str, Difference] | None = None
    """By metric: the best trial's test metrics less the recipe's."""
    retrained: Retrained | None = None
    baselines: dict[str, Metrics] | None = None
    """On test, by baseline."""
    seconds: float = 0.0
    versions: dict[str, str] = {}
    seeds: dict[str, int] = {}
    data: str = ""
    data_fingerprint: str = ""
    recipes_outside: dict[str, str] = {}
    """Recipes outside the space, with the reasons."""
    portfolio_outside: dict[str, str] = {}
    """Configurations of the portfolio outside the space, with the reasons."""
    earlier_outside: dict[str, str] = {}
    """Trials of earlier searches outside the space, with the reasons."""
    study: str = ""
    """The journal relative to the experiment, or the URL of the database without its password."""
    ended_by: str = ""
    """'trials', or the key of `budget` that ended the search."""
    limit: float | None = None
    """The value of that key of `budget`; None for 'trials', and in summaries of earlier versions."""
    optimizer_steps: StepCounts | None = None
    """Of a trial that runs for all epochs."""
    front: list[FrontRow] = []
    """The best by the first objective first."""


class TrainingSummary(_Stored):
    """The result of the training of one recipe."""

    recipe: str
    faithful: bool
    notes: list[str]
    """Changes to the recipe, as clauses."""
    config: dict[str, JsonValue]
    epoch: int
    """The best epoch on validation."""
    epochs: int
    """Of the training."""
    optimizer_steps: StepCounts
    threads: int
    metrics: Metrics
    """On test."""
    published: Metrics
    """The project's own metric on test."""
    baselines: dict[str, Metrics]
    """On test, by baseline."""
    checkpoint: str
    """Directory relative to the experiment."""
    seconds: float
    versions: dict[str, str]
    data: str
    data_fingerprint: str
