"""What a search aims at: names of figures, with a '-' where smaller is better.

The first decides on single trials. All are figures that do not depend on the weights of the losses, so that any two
trials can be compared by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.errors import InputError
from search.spec.costs import SHOWN, cost
from trainable.metrics.names import METRICS, OBJECTIVE

MILLISECONDS = "ms_per_picture"
"""The figure that trials measure only where it is asked for."""
MOST = 3


@dataclass(frozen=True)
class Aim:
    """One of a search's aims."""

    name: str
    """Of the figure."""
    sign: int
    """1 if larger is better, -1 if smaller is."""

    @classmethod
    def of(cls, text: str) -> Aim:
        """From its text, such as 'score' or '-macs'."""
        return cls(text.removeprefix("-"), -1 if text.startswith("-") else 1)

    def __str__(self) -> str:
        """As a spec holds it."""
        return self.name if self.sign > 0 else f"-{self.name}"

    def goodness(self, value: float) -> float:
        """The figure's value, so that larger is better."""
        return self.sign * value


def known_objectives() -> dict[str, str]:
    """Every figure that can be aimed at, by its name as a spec holds it: with '-' where smaller is better."""
    costs = (*SHOWN, MILLISECONDS)
    fewer = {name for name in (*METRICS, *costs) if name in costs or name.endswith(("_rmse", "_mae"))}
    return {name: f"-{name}" if name in fewer else name for name in (*METRICS, *costs)}


def check_objective(text: str) -> str:
    """`text`, if it can be aimed at.

    Raises:
        ValueError: if it cannot; the message says what it would have to do.
    """
    known = known_objectives()
    aim = Aim.of(text)
    if aim.name not in known:
        raise ValueError(f"be one of {', '.join(known.values())}")
    if text != known[aim.name]:
        raise ValueError(f"be '{known[aim.name]}', for {'larger' if aim.sign < 0 else 'smaller'} is better")
    return text


def check_objectives(texts: Sequence[str]) -> None:
    """See to it that objectives that are right by themselves are right together.

    Raises:
        ValueError: if they are not; the message says what they would have to do.
    """
    if not 1 <= len(texts) <= MOST:
        raise ValueError(f"hold 1 to {MOST} objectives")
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise ValueError(f"name '{twice[0]}' once")
    if texts[0] != OBJECTIVE:
        raise ValueError(f"begin with '{OBJECTIVE}', by which trials are stopped, checkpoints kept and the best picked")


def known_before(objectives: Sequence[str], values: Mapping[str, Any]) -> dict[str, float]:
    """Of some objectives, the figures that are known before a trial is trained, by name.

    Args:
        objectives: such as 'score' and '-macs'.
        values: of a `TrialConfig`, nested.
    """
    names = [Aim.of(text).name for text in objectives]
    return {name: float(cost(name, values)) for name in names if name in SHOWN}


def parse_objectives(text: str) -> list[str]:
    """Objectives from a command line, such as 'score,-macs'.

    Raises:
        InputError: if they cannot be aimed at.
    """
    texts = [part.strip() for part in text.split(",")]
    wrong = text
    try:
        for wrong in texts:
            check_objective(wrong)
        wrong = text
        check_objectives(texts)
    except ValueError as error:
        raise InputError(f"The value of --objectives is '{wrong}', but must {error}; correct it.") from None
    return texts
