"""Objectives of a search: names of metrics or costs, with a '-' if smaller is better.

The first objective decides on stopping, checkpoints and the best trial. No objective depends on the weights of the
losses, so that any two trials can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data.errors import InputError
from search.spec.costs import COSTS, cost
from trainable.config.settings import Settings
from trainable.metrics.names import METRICS, OBJECTIVE

MILLISECONDS = "ms_per_picture"
"""A cost that trials measure only if it is an objective or a constraint."""
MAX_OBJECTIVES = 3


@dataclass(frozen=True)
class Objective:
    """An objective of a search."""

    name: str
    """Name of the metric or cost."""
    sign: int
    """1 if larger is better, -1 if smaller is better."""

    @classmethod
    def of(cls, text: str) -> Objective:
        """Parse text such as 'score' or '-macs'."""
        return cls(text.removeprefix("-"), -1 if text.startswith("-") else 1)

    def __str__(self) -> str:
        """As written in a spec."""
        return self.name if self.sign > 0 else f"-{self.name}"

    def oriented(self, value: float) -> float:
        """The value times the sign, so that larger is better."""
        return self.sign * value


def known_objectives(own: Iterable[str] = ()) -> dict[str, str]:
    """All objectives: the notation of a spec, such as '-macs', by name.

    Args:
        own: notations of the metrics of plugins.
    """
    costs = (*COSTS, MILLISECONDS)
    fewer = {name for name in (*METRICS, *costs) if name in costs or name.endswith(("_rmse", "_mae"))}
    built_in = {name: f"-{name}" if name in fewer else name for name in (*METRICS, *costs)}
    return built_in | {text.removeprefix("-"): text for text in own}


def check_objective(text: str, own: Iterable[str] = ()) -> str:
    """Return `text` if it is an objective; `own` as for `known_objectives`.

    Raises:
        ValueError: if not, with a message that continues "must", such as "be one of ...".
    """
    known = known_objectives(own)
    objective = Objective.of(text)
    if objective.name not in known:
        raise ValueError(f"be one of {', '.join(known.values())}")
    if text != known[objective.name]:
        better = "larger" if objective.sign < 0 else "smaller"
        raise ValueError(f"be '{known[objective.name]}', since {better} is better")
    return text


def check_objectives(texts: Sequence[str]) -> None:
    """Check that valid objectives can be combined.

    Raises:
        ValueError: if not, with a message that continues "must".
    """
    if not 1 <= len(texts) <= MAX_OBJECTIVES:
        raise ValueError(f"hold 1 to {MAX_OBJECTIVES} objectives")
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise ValueError(f"name '{twice[0]}' once")
    if texts[0] != OBJECTIVE:
        raise ValueError(f"begin with '{OBJECTIVE}', which decides on stopping, checkpoints and the best trial")


def known_costs(objectives: Sequence[str], settings: Settings) -> dict[str, float]:
    """The objectives that are costs known before a trial runs, by name.

    Args:
        objectives: such as 'score' and '-macs'.
        settings: of a trial; see `costs.cost`.
    """
    names = [Objective.of(text).name for text in objectives]
    return {name: float(cost(name, settings)) for name in names if name in COSTS}


def parse_objectives(text: str, own: Iterable[str] = ()) -> list[str]:
    """Parse the objectives of a command line, such as 'score,-macs'; `own` as for `known_objectives`.

    Raises:
        InputError: if one is unknown, or they cannot be combined.
    """
    texts = [part.strip() for part in text.split(",")]
    wrong = text
    try:
        for wrong in texts:
            check_objective(wrong, own)
        wrong = text
        check_objectives(texts)
    except ValueError as error:
        raise InputError(f"The value of --objectives is '{wrong}', but must {error}; correct it.") from None
    return texts
