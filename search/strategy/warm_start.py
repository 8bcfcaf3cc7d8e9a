"""What a search tries first: the recipes, and the best of earlier searches, that fit its space.

They are exact but for what all trials of a search have alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from search.spec.conditions import exists, matters
from search.spec.constraints import broken
from search.spec.domains import Choices, Per, Range
from search.spec.spec import SearchSpec, check_spec
from search.spec.tree import at, leaves, replace_leaf
from search.strategy.earlier import WORDS, EarlierTrial, best_trials, is_earlier
from search.strategy.space import FIXED, deciding, default_parameters, parameter
from search.study.trials import RECIPE
from search.terminal import Screen
from trainable.config import ConfigError, TrialConfig, build
from trainable.recipes import RECIPES, load_recipe

EARLIER = "earlier"
"""Attribute of a study's trial: the trial of an earlier search that it repeats, as SEARCH:NUMBER."""
OWN = frozenset({"data.image_size", "data.resize", "data.split_by"})
"""What a search never takes from a start, with the shares of the split: all its trials have it alike."""
OWN_OF_RECIPES = OWN | {"data.batch_size"}
"""The same, for a recipe: it was published for pictures of another size and another memory."""


OUTSIDE = "starts_outside"
"""Attribute of a study: why recipes and earlier trials are not among its first ones, by their names."""


class OutsideError(ValueError):
    """A start has a value that the space does not."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A recipe, or a trial of an earlier search, as a point of the space."""

    recipe: str = ""
    """Its name; '' for what is none."""
    earlier: str = ""
    """The trial, as SEARCH:NUMBER; '' for what is none."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Optuna's: of every leaf that is searched."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """By dotted key, where it differs from what the space fixes without having been told to."""


def check_starts(spec: SearchSpec, storage: Path) -> None:
    """See to it, before a search begins, that the earlier searches are there that it starts from.

    Raises:
        ConfigError: if one is not, or has no trial to start from.
        InputError: if the study of one cannot be read.
    """
    for place, name in enumerate(spec.plan.search.start_from):
        if is_earlier(name):
            best_trials(storage, name, key=f"search.start_from.{place}")


def start(study: optuna.Study, spec: SearchSpec, storage: Path, screen: Screen) -> None:
    """Make a new study's first trials, and say which are among them; nothing for a study that has trials.

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
        screen.say(f"tried first, of earlier searches (SEARCH:TRIAL): {', '.join(earlier)}")
    for name, reason in outside.items():
        screen.say(f"the {'trial' if is_earlier(name) else 'recipe'} {name} lies outside of the space: {reason}")


def outside_of(study: optuna.Study) -> dict[str, dict[str, str]]:
    """Why recipes, and trials of earlier searches, are not among a study's first ones, by their names, as JSON."""
    outside = study.user_attrs.get(OUTSIDE, {})
    return {
        "recipes_outside": {name: reason for name, reason in outside.items() if not is_earlier(name)},
        "earlier_outside": {name: reason for name, reason in outside.items() if is_earlier(name)},
    }


def enqueue_starts(study: optuna.Study, spec: SearchSpec, storage: Path) -> dict[str, str]:
    """Make the first trials of a new study: what `search.start_from` names.

    Args:
        study: the new one.
        spec: of its search.
        storage: where the earlier searches lie.

    Returns:
        For each recipe, and each trial of an earlier search, that lies outside of the space, why.

    Raises:
        InputError: as `check_starts`.
    """
    names = spec.plan.search.start_from
    starts, outside = find_starts(spec, [name for name in names if name != "default"], storage)
    for start in starts:
        named = {RECIPE: start.recipe} if start.recipe else {EARLIER: start.earlier}
        study.enqueue_trial(start.parameters, user_attrs={**named, FIXED: start.fixed})
    default = _on_own_pictures(TrialConfig().model_dump(), spec)
    if "default" in names and not broken(default, spec.plan.constraints):
        study.enqueue_trial(default_parameters(spec))
    return outside


def find_starts(spec: SearchSpec, names: Sequence[str], storage: Path) -> tuple[list[Start], dict[str, str]]:
    """Place recipes, and the best trials of earlier searches, in the space.

    A leaf that the spec searches must allow the start's value, and one that it fixes otherwise than by default must
    have it. What the spec leaves fixed by default is the start's own: augmentation, normalisation, a loss that is
    not searched. Picture size and split are the search's. So is the batch size of a recipe (where the spec searches
    batch sizes, the one nearest to the default), whose policy's horizon is the whole trial. A start must keep to the
    search's limits too. What comes to the same as one before it is left out.

    Args:
        spec: the search.
        names: of recipes and earlier searches; 'recipes' stands for all recipes.
        storage: where the earlier searches lie.

    Returns:
        The starts within the space, and for each of the others, by its name or SEARCH:NUMBER, why it is not.

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
    """What is wanted, once each and in its order, by its own name: a recipe, which is None, or an earlier trial."""
    wanted: dict[str, EarlierTrial | None] = {}
    for name in names:
        if is_earlier(name):
            wanted |= {trial.name: trial for trial in best_trials(storage, name)}
        elif name not in WORDS:
            wanted[name] = None
        elif name == "recipes":
            wanted |= dict.fromkeys(RECIPES)
    return wanted


def _of_recipe(name: str, spec: SearchSpec, by_default: Mapping[tuple[str, ...], Any]) -> Start:
    values = load_recipe(name).scaled(spec.plan.scheduler.max_epochs).model_dump()
    for stage in values["data"]["progression"]:
        stage["batch_size"] = None
    return _place(Start(recipe=name), values, spec, by_default, OWN_OF_RECIPES)


def _of_earlier(trial: EarlierTrial, spec: SearchSpec, by_default: Mapping[tuple[str, ...], Any]) -> Start:
    epochs = {"epochs": spec.plan.scheduler.max_epochs}
    try:
        config = build(TrialConfig, {**trial.config, **epochs}, source=f"trial {trial.name}")
    except ConfigError as error:  # it was run by another version
        raise OutsideError(str(error).removesuffix(".")) from None
    return _place(Start(earlier=trial.name), config.model_dump(), spec, by_default, OWN)


def _place(
    start: Start,
    values: Mapping[str, Any],
    spec: SearchSpec,
    by_default: Mapping[tuple[str, ...], Any],
    own: frozenset[str],
) -> Start:
    """Give a start its parameters; `own` are the keys that it leaves to the search."""
    if wrong := broken(_on_own_pictures(values, spec), spec.plan.constraints):
        raise OutsideError(wrong)
    decisive = deciding(spec)
    for path, leaf in leaves(spec.space):
        key = ".".join(path)
        if path[:2] == ("data", "split") or not exists(values, path):
            continue
        case = at(values, leaf.key) if isinstance(leaf, Per) else None
        domain = leaf.domains.get(str(case)) if isinstance(leaf, Per) else leaf
        if isinstance(domain, Range | Choices):
            if key in decisive or matters(values, path):
                value = _nearest(domain, at(TrialConfig().model_dump(), key)) if key in own else at(values, key)
                start.parameters.update(_drawn(key, domain, value, parameter(key, leaf, case)))
        elif key not in own and at(values, key) != domain:
            if leaf == by_default[path]:
                start.fixed[key] = at(values, key)
            elif matters(values, path):
                raise OutsideError(f"its {key} is {at(values, key)}, and the space has {domain}")
    if values["depth_policy"]:
        start.fixed["depth_policy"] = values["depth_policy"]
    return start


def _drawn(key: str, domain: Range | Choices, value: Any, name: str) -> dict[str, Any]:
    """Optuna's parameters of a leaf that is searched; `name` is that of its own one."""
    if not domain.has(value):
        raise OutsideError(f"its {key} is {value}, and the space has {_shown(domain)}")
    return domain.parameters(name, value)


def _on_own_pictures(values: Mapping[str, Any], spec: SearchSpec) -> dict[str, Any]:
    """A start's values on pictures of the search's size."""
    return replace_leaf(values, ("data", "image_size"), at(spec.space, "data.image_size"))


def _nearest(domain: Range | Choices, default: Any) -> Any:
    """What a domain has that is nearest to a default."""
    if isinstance(domain, Range):
        return domain.nearest(default)
    if domain.has(default) or not isinstance(default, int | float):
        return default if domain.has(default) else domain.values[0]
    return min(domain.values, key=lambda value: abs(value - default))  # type: ignore[operator]


def _shown(domain: Range | Choices) -> str:
    if isinstance(domain, Range):
        return f"{'0 or ' if domain.or_zero else ''}{domain.low:g} to {domain.high:g}"
    return ", ".join(str(value) for value in domain.values)
