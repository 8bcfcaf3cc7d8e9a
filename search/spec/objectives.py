"""The objectives that a spec may name: metrics, weighted means of metrics, and costs, with a '-' if smaller is better.

The first objective decides on stopping, checkpoints and the best trial. No objective depends on the weights of the
losses, so that any two trials can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from data.errors import InputError, did_you_mean
from search.spec.costs import COSTS, cost
from trainable.config.loss import HeadLoss
from trainable.config.settings import Settings, Value
from trainable.config.text import parse_yaml
from trainable.metrics.names import ERRORS, METRICS
from trainable.metrics.objective import Notation, Objective

MILLISECONDS = "ms_per_picture"
"""A cost that trials measure only if it is an objective or a constraint."""
MAX_OBJECTIVES = 3


def known_objectives(own: Iterable[str] = ()) -> dict[str, str]:
    """All objectives but weighted means: the notation of a spec, such as '-macs', by name.

    Args:
        own: notations of the metrics of plugins.
    """
    costs = (*COSTS, MILLISECONDS)
    built_in = {name: f"-{name}" if name in (*ERRORS, *costs) else name for name in (*METRICS, *costs)}
    return built_in | {notation.removeprefix("-"): notation for notation in own}


def check_objective(notation: object, own: Iterable[str] = ()) -> Notation:
    """Return `notation` if it is an objective; `own` as for `known_objectives`.

    Raises:
        ValueError: if not, with a message that continues "must", such as "be one of ...".
    """
    if isinstance(notation, Mapping):
        return _check_weights(notation)
    known = known_objectives(own)
    if not isinstance(notation, str):
        choices = f"one of {', '.join(known.values())}"
        raise ValueError(f"be {choices}, or weights such as {{mask_iou: 0.7, depth_delta1: 0.3}}")  # noqa: TRY004
    name = notation.removeprefix("-")
    if name in known and notation != known[name]:
        better = "larger" if notation.startswith("-") else "smaller"
        raise ValueError(f"be '{known[name]}', since {better} is better")
    if name not in known:
        raise ValueError(f"be {_instead(name, list(known.values()))}")
    return notation


def check_objectives(notations: Sequence[Notation]) -> None:
    """Check that valid objectives can be combined.

    Raises:
        ValueError: if not, with a message that continues "must".
    """
    if not 1 <= len(notations) <= MAX_OBJECTIVES:
        raise ValueError(f"hold 1 to {MAX_OBJECTIVES} objectives")
    objectives = [Objective.of(notation) for notation in notations]
    if twice := [each for each in objectives if objectives.count(each) > 1]:
        raise ValueError(f"name '{twice[0]}' once")
    if objectives[0].key in (*COSTS, MILLISECONDS):
        raise ValueError(
            f"have a metric such as 'score' first, which decides on stopping, checkpoints and the best trial; "
            f"'{objectives[0]}' is a cost"
        )


def known_costs(objectives: Sequence[Notation], settings: Settings) -> dict[str, float]:
    """The objectives that are costs known before a trial runs, by name.

    Args:
        objectives: such as 'score' and '-macs'.
        settings: of a trial; see `costs.cost`.
    """
    names = [Objective.of(notation).name for notation in objectives]
    return {name: float(cost(name, settings)) for name in names if name in COSTS}


def split_objectives(text: str) -> list[Value]:
    """The objectives in a text such as 'score,-macs' or '{mask_iou: 0.7, depth_delta1: 0.3},-macs', unchecked.

    Raises:
        InputError: if it is not valid YAML.
    """
    found: list[Value] = parse_yaml(f"[{text}]", f"the objectives '{text}'")
    return found


def parse_objectives(text: str, own: Iterable[str] = ()) -> list[Notation]:
    """Parse the objectives of a command line; see `split_objectives`, and `known_objectives` for `own`.

    Raises:
        InputError: if one is unknown, or they cannot be combined.
    """
    wrong: object = text
    notations = split_objectives(text)
    checked: list[Notation] = []
    try:
        for wrong in notations:
            checked += [check_objective(wrong, own)]
        wrong = text
        check_objectives(checked)
    except ValueError as error:
        raise InputError(f"The value of --objectives is '{wrong}', but must {error}; correct it.") from None
    return checked


def _check_weights(weights: Mapping[object, object]) -> Notation:
    """Check the weights of metrics, which must have one range and one direction to be added."""
    allowed = [name for name in METRICS if name not in ERRORS]
    checked = {}
    for name, weight in weights.items():
        plain = str(name).removeprefix("-")
        if plain in ERRORS:
            raise ValueError(
                f"weight only metrics in 0..1 of which larger is better, not '{name}', whose scale is another; use "
                f"'-{plain}' alone, or as one of several objectives"
            )
        if name not in allowed:
            raise ValueError(f"weight {_instead(str(name), allowed)}; '{name}' is none of them")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ValueError(f"have positive weights, not {weight!r} for '{name}'")
        checked[str(name)] = float(weight)
    if not checked:
        raise ValueError("have the weight of a metric, such as {mask_iou: 0.7, depth_delta1: 0.3}")
    return checked


def _instead(name: str, known: Sequence[str]) -> str:
    """The end of a sentence on a name that is no objective."""
    choices = f"one of {', '.join(known)}"
    if "loss" in name or name in HeadLoss.model_fields:
        return f"a metric, not a loss, since trials that weight losses differently cannot be compared: {choices}"
    return f"{choices}{did_you_mean(name, known)}"
