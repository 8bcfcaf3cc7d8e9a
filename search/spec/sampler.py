"""Which method proposes configurations: ours, or one of Optuna's samplers with its arguments."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from data.errors import did_you_mean
from trainable.config import Problem
from trainable.config.settings import Scalar

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SamplerNotation = str | Mapping[str, Mapping[str, Scalar]]
"""A name, or a class of Optuna with its arguments, such as {TPESampler: {multivariate: false}}."""

OURS = "gp"
SHORT_NAMES = {"tpe": "TPESampler", "random": "RandomSampler"}
CLASSES = (
    "CmaEsSampler",
    "GPSampler",
    "NSGAIISampler",
    "NSGAIIISampler",
    "QMCSampler",
    "RandomSampler",
    "TPESampler",
)
"""Optuna's samplers for any space: its GridSampler and BruteForceSampler need a finite one, and its PartialFixedSampler
another sampler."""
NAMES = (OURS, *SHORT_NAMES, *CLASSES)
WITH_STATE = frozenset({"CmaEsSampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler"})
"""Classes whose next proposal follows from the ones before, and not from the trials alone."""
SINGLE_OBJECTIVE = frozenset({"CmaEsSampler"})
PACKAGES_OF_CLASSES = {"CmaEsSampler": "cmaes"}
"""What a class needs beside Optuna, by its name."""
_SCALARS = {"bool": (bool,), "int": (int,), "float": (float, int), "str": (str,), "None": (type(None),)}


def check_sampler(notation: object) -> SamplerNotation:
    """Check the value of `search.sampler`.

    Raises:
        ValueError: if it is unknown; the message is the end of a sentence that names the value.
    """
    if isinstance(notation, Mapping) and len(notation) == 1:
        name, arguments = next(iter(notation.items()))
        if name not in CLASSES:
            meant = did_you_mean(str(name), CLASSES)
            raise ValueError(f"name one of Optuna's classes {', '.join(CLASSES)}, not '{name}'{meant}")
        if isinstance(arguments, Mapping):
            _check_arguments(name, arguments)
            return {name: dict(arguments)}
    if isinstance(notation, str) and notation in NAMES:
        return notation
    meant = did_you_mean(notation, NAMES) if isinstance(notation, str) else ""
    known = ", ".join(NAMES)
    raise ValueError(f"be one of {known}, or a class with arguments such as {{TPESampler: {{group: true}}}}{meant}")


def name_of(notation: SamplerNotation) -> str:
    """The name in a spec, without arguments."""
    return notation if isinstance(notation, str) else next(iter(notation))


def class_of(notation: SamplerNotation) -> str:
    """The name of Optuna's class; 'gp' for our method."""
    name = name_of(notation)
    return SHORT_NAMES.get(name, name)


def build_sampler(notation: SamplerNotation, seed: int) -> BaseSampler:
    """Optuna's sampler for a checked notation, which is not 'gp'."""
    import optuna  # takes half a second, and most specs name our method

    arguments = {} if isinstance(notation, str) else next(iter(notation.values()))
    with warnings.catch_warnings(action="ignore"):  # experimental and deprecated arguments
        sampler: BaseSampler = getattr(optuna.samplers, class_of(notation))(**arguments, seed=seed)
    return sampler


def problems_of_sampler(notation: SamplerNotation, objectives: int, source: str) -> Iterator[Problem]:
    """Problems if the sampler cannot propose for so many objectives."""
    name = class_of(notation)
    if objectives > 1 and name in SINGLE_OBJECTIVE:
        able = [each for each in NAMES if class_of(each) not in SINGLE_OBJECTIVE]
        sentence = (
            f"The value of 'search.sampler' is {name}, which proposes for one objective, but the search has "
            f"{objectives}; keep one of them in {source}, or use one of {', '.join(able)}."
        )
        yield Problem(key="search.sampler", sentence=sentence)


def _check_arguments(name: str, arguments: Mapping[str, Scalar]) -> None:
    types = _argument_types(name)
    for key, value in arguments.items():
        if key not in types:
            meant = did_you_mean(str(key), types)
            raise ValueError(f"give arguments of {name}: {', '.join(types)}; not '{key}'{meant}")
        allowed = tuple(kind for each in types[key] for kind in _SCALARS[each])
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise ValueError(f"have {' or '.join(types[key])} as {key} of {name}, not {value!r}")
    try:
        build_sampler({name: arguments}, seed=0)
    except ValueError as error:
        raise ValueError(f"have arguments that {name} accepts: {str(error).rstrip('.')}") from None


def _argument_types(name: str) -> dict[str, list[str]]:
    """The arguments of a class that a spec can hold, with the names of their types; search.seed is the seed."""
    import optuna

    parameters = inspect.signature(getattr(optuna.samplers, name)).parameters
    types = {key: str(parameter.annotation).split(" | ") for key, parameter in parameters.items()}
    return {key: names for key, names in types.items() if key != "seed" and set(names) <= _SCALARS.keys()}
