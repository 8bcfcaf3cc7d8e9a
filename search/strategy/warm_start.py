"""The first trials of a search: recipes, and the best trials of earlier searches, that are within its space.

Their configurations are exact, except for values that all trials of a search share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from search.spec.conditions import has_effect, is_present
from search.spec.constraints import broken_limits
from search.spec.domains import Choices, Per, Range
from search.spec.spec import SearchSpec, check_spec
from search.spec.tree import at, leaves, replace_leaf
from search.strategy.earlier import KEYWORDS, EarlierTrial, best_trials, is_earlier
from search.strategy.space import FIXED, default_parameters, parameter, per_keys
from search.study.trials import RECIPE
from search.terminal import Screen
from trainable.config import ConfigError, TrialConfig, build
from trainable.recipes import RECIPES, load_recipe

EARLIER = "earlier"
"""Attribute of a trial: the trial of an earlier search that it repeats, as SEARCH:NUMBER."""
SHARED_KEYS = frozenset({"data.image_size", "data.resize", "data.split_by"})
"""Keys, besides those of `data.split`, that all trials of a search share; their values never come from a start."""
SHARED_KEYS_OF_RECIPES = SHARED_KEYS | {"data.batch_size"}
"""The same for recipes, which were published for other image sizes and another memory."""
OUTSIDE = "starts_outside"
"""Attribute of a study: for each start that is not within the space, by name, the reason."""


class OutsideError(ValueError):
    """A start is not within the space."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A recipe, or a trial of an earlier search, as a point of the space."""

    recipe: str = ""
    """Name of the recipe; '' for an earlier trial."""
    earlier: str = ""
    """The earlier trial, as SEARCH:NUMBER; '' for a recipe."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Optuna's parameters of all searched leaves."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Values by dotted key that differ from those that the space fixes by default."""


def check_starts(spec: SearchSpec, storage: Path) -> None:
    """Check, before a search is created, that the earlier searches of `search.start_from` can be used.

    Raises:
        ConfigError: if one does not exist, or has no trial to start from.
        InputError: if the study of one cannot be read.
    """
    for index, name in enumerate(spec.plan.search.start_from):
        if is_earlier(name):
            best_trials(storage, name, key=f"search.start_from.{index}")


def start(study: optuna.Study, spec: SearchSpec, storage: Path, screen: Screen) -> None:
    """Enqueue the first trials of a new study and print their names; do nothing for a study with trials.

    Raises:
        InputError: as `check_starts`.
    """
    if study.get_trials(deepcopy=False):
        return
    outside = enqueue_starts(study, spec, storage)
    study.set_user_attr(OUTSIDE, outside)
    attributes = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
    recipes, earlier = ([held[kind] for held in attributes if kind in held] for kind in (RECIPE, EARLIER))
    if recipes:
        epochs = spec.plan.scheduler.max_epochs
        screen.say(f"the first trials are recipes, with their policies scaled to {epochs} epochs: {', '.join(recipes)}")
    if earlier:
        screen.say(f"the first trials repeat trials of earlier searches (SEARCH:TRIAL): {', '.join(earlier)}")
    for name, reason in outside.items():
        screen.say(f"the {'trial' if is_earlier(name) else 'recipe'} {name} is outside the space: {reason}")


def outside_of(study: optuna.Study) -> dict[str, dict[str, str]]:
    """Starts that are outside the space of a study, with the reasons, for the summary."""
    outside = study.user_attrs.get(OUTSIDE, {})
    return {
        "recipes_outside": {name: reason for name, reason in outside.items() if not is_earlier(name)},
        "earlier_outside": {name: reason for name, reason in outside.items() if is_earlier(name)},
    }


def enqueue_starts(study: optuna.Study, spec: SearchSpec, storage: Path) -> dict[str, str]:
    """Enqueue the first trials of a new study, from `search.start_from`.

    Args:
        study: a new study.
        spec: of its search.
        storage: directory of the earlier searches.

    Returns:
        For each start outside the space, by name, the reason.

    Raises:
        InputError: as `check_starts`.
    """
    names = spec.plan.search.start_from
    starts, outside = find_starts(spec, [name for name in names if name != "default"], storage)
    for start in starts:
        named = {RECIPE: start.recipe} if start.recipe else {EARLIER: start.earlier}
        study.enqueue_trial(start.parameters, user_attrs={**named, FIXED: start.fixed})
    default = _with_image_size(TrialConfig().model_dump(), spec)
    if "default" in names and not broken_limits(default, spec.plan.constraints):
        study.enqueue_trial(default_parameters(spec))
    return outside


def find_starts(spec: SearchSpec, names: Sequence[str], storage: Path) -> tuple[list[Start], dict[str, str]]:
    """Convert recipes, and the best trials of earlier searches, to points of the space.

    A searched leaf must contain the start's value, and a leaf that the spec fixes to another value than the default
    must equal it. Leaves that are fixed by default, such as augmentation or a loss that is not searched, take the
    start's value. Image size and split are always those of the search, and so is the batch size of a recipe (the
    searched one nearest to the default). A recipe's policy is scaled to the whole trial. A start must be within the
    limits of the search. A start that equals an earlier one is left out.

    Args:
        spec: of the search.
        names: of recipes and earlier searches; 'recipes' means all recipes.
        storage: directory of the earlier searches.

    Returns:
        The starts within the space, and for each other one, by its name or SEARCH:NUMBER, the reason.

    Raises:
        InputError: as `check_starts`.
    """
    by_default = dict(leaves(check_spec({}, source="the defaults", data_path=spec.data_path).space))
    starts: list[Start] = []
    outside = {}
    for name, found in _named(names, storage).items():
        try:
            start = _of_earlier(found, spec, by_default) if found else _of_recipe(name, spec, by_default)
        except OutsideError as error:
            outside[name] = str(error)
            continue
        if all((start.parameters, start.fixed) != (other.parameters, other.fixed) for other in starts):
            starts.append(start)
    return starts, outside


def _named(names: Sequence[str], storage: Path) -> dict[str, EarlierTrial | None]:
    """The distinct starts in order, by name: None for a recipe, or an earlier trial."""
    wanted: dict[str, EarlierTrial | None] = {}
    for name in names:
        if is_earlier(name):
            wanted |= {trial.name: trial for trial in best_trials(storage, name)}
        elif name not in KEYWORDS:
            wanted[name] = None
        elif name == "recipes":
            wanted |= dict.fromkeys(RECIPES)
    return wanted


def _of_recipe(name: str, spec: SearchSpec, by_default: Mapping[tuple[str, ...], Any]) -> Start:
    values = load_recipe(name).scaled(spec.plan.scheduler.max_epochs).model_dump()
    for stage in values["data"]["progression"]:
        stage["batch_size"] = None
    return _fit(Start(recipe=name), values, spec, by_default, SHARED_KEYS_OF_RECIPES)


def _of_earlier(trial: EarlierTrial, spec: SearchSpec, by_default: Mapping[tuple[str, ...], Any]) -> Start:
    epochs = {"epochs": spec.plan.scheduler.max_epochs}
    try:
        config = build(TrialConfig, {**trial.config, **epochs}, source=f"trial {trial.name}")
    except ConfigError as error:  # another version ran it
        raise OutsideError(str(error).removesuffix(".")) from None
    return _fit(Start(earlier=trial.name), config.model_dump(), spec, by_default, SHARED_KEYS)


def _fit(
    start: Start,
    values: Mapping[str, Any],
    spec: SearchSpec,
    by_default: Mapping[tuple[str, ...], Any],
    shared: frozenset[str],
) -> Start:
    """Set the parameters of a start from its values, except those of the `shared` keys.

    Raises:
        OutsideError: if the start is outside the space.
    """
    if wrong := broken_limits(_with_image_size(values, spec), spec.plan.constraints):
        raise OutsideError(wrong)
    decisive = per_keys(spec)
    for path, leaf in leaves(spec.space):
        key = ".".join(path)
        if path[:2] == ("data", "split") or not is_present(values, path):
            continue
        case = at(values, leaf.key) if isinstance(leaf, Per) else None
        domain = leaf.domains.get(str(case)) if isinstance(leaf, Per) else leaf
        if isinstance(domain, Range | Choices):
            if key in decisive or has_effect(values, path):
                value = _nearest(domain, at(TrialConfig().model_dump(), key)) if key in shared else at(values, key)
                start.parameters.update(_parameters(key, domain, value, parameter(key, leaf, case)))
        elif key not in shared and at(values, key) != domain:
            if leaf == by_default[path]:
                start.fixed[key] = at(values, key)
            elif has_effect(values, path):
                raise OutsideError(f"its {key} is {at(values, key)}, and the space has {domain}")
    if values["depth_policy"]:
        start.fixed["depth_policy"] = values["depth_policy"]
    return start


def _parameters(key: str, domain: Range | Choices, value: Any, name: str) -> dict[str, Any]:
    """Optuna's parameters of a searched leaf; `name` is the name of the main one."""
    if not domain.has(value):
        raise OutsideError(f"its {key} is {value}, and the space has {_shown(domain)}")
    return domain.parameters(name, value)


def _with_image_size(values: Mapping[str, Any], spec: SearchSpec) -> dict[str, Any]:
    """The values with the image size of the search."""
    return replace_leaf(values, ("data", "image_size"), at(spec.space, "data.image_size"))


def _nearest(domain: Range | Choices, default: Any) -> Any:
    """The value of a domain that is nearest to a default."""
    if isinstance(domain, Range):
        return domain.nearest(default)
    if domain.has(default) or not isinstance(default, int | float):
        return default if domain.has(default) else domain.values[0]
    return min(domain.values, key=lambda value: abs(value - default))  # type: ignore[operator]


def _shown(domain: Range | Choices) -> str:
    if isinstance(domain, Range):
        return f"{'0 or ' if domain.or_zero else ''}{domain.low:g} to {domain.high:g}"
    return ", ".join(str(value) for value in domain.values)
