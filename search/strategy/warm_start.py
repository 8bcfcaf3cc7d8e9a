"""The first trials of a search, within its space: recipes, the portfolio, and the best trials of earlier searches.

Their configurations are exact, except for values that all trials of a search share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import TrialState

from data.dataset.storage import Location
from search.spec.conditions import has_effect, is_present
from search.spec.constraints import broken_limits
from search.spec.default_space import is_argument
from search.spec.domains import Choices, Leaves, Range, as_plain, representatives, resolve
from search.spec.spec import SearchSpec, check_spec
from search.strategy.earlier import DEFAULT, GROUPS, EarlierTrial, best_trials, is_earlier
from search.strategy.space import FIXED, default_parameters, per_keys
from search.study.trials import PROPOSED_BY, RECIPE
from search.terminal import Screen
from trainable.config import ConfigError, TrialConfig, build
from trainable.config.settings import Settings, Value, flatten
from trainable.metrics.objective import Objective
from trainable.recipes import PORTFOLIO, RECIPES, load_recipe

PORTFOLIO_MEMBER = "portfolio"
"""Attribute of a trial: its configuration of the portfolio, by name."""
EARLIER = "earlier"
"""Attribute of a trial: the trial of an earlier search that it repeats, as SEARCH:NUMBER."""
_PROPOSED_BY = {RECIPE: {}, PORTFOLIO_MEMBER: {PROPOSED_BY: "portfolio"}, EARLIER: {PROPOSED_BY: "earlier search"}}
_SPLIT = {"data.split_by", "data.split.train", "data.split.val", "data.split.test"}
SHARED_KEYS = frozenset({"data.image_size", "data.resize", "data.fit"} | _SPLIT)
"""Keys that all trials of a search share; their values never come from a start."""
SHARED_KEYS_OF_RECIPES = SHARED_KEYS | {"data.batch_size"}
"""The same for recipes, which were published for other image sizes and another memory."""
_WHAT = {
    RECIPE: "the first trials are recipes, with their policies scaled to {epochs} epochs",
    PORTFOLIO_MEMBER: "the first trials are configurations that did well on other data",
    EARLIER: "the first trials repeat trials of earlier searches (SEARCH:TRIAL)",
}
"""What is said of the first trials of each kind."""
OUTSIDE = "starts_outside"
"""Attribute of a study: for each start that is not within the space, by name, the reason."""


class OutsideError(ValueError):
    """A start is not within the space."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A configuration from elsewhere, as a point of the space."""

    kind: str
    """`RECIPE`, `PORTFOLIO_MEMBER` or `EARLIER`."""
    name: str
    """Of the recipe, or of the configuration of the portfolio, or the earlier trial as SEARCH:NUMBER."""
    parameters: dict[str, Value] = field(default_factory=dict)
    """Optuna's parameters of all searched leaves."""
    fixed: dict[str, Value] = field(default_factory=dict)
    """Values by dotted key that differ from those that the space fixes by default."""


def check_starts(spec: SearchSpec, storage: Path | Location) -> None:
    """Check, before a search is created, that the earlier searches of `search.start_from` can be used.

    Raises:
        ConfigError: if one does not exist, or has no trial to start from.
        InputError: if the study of one cannot be read.
    """
    for index, name in enumerate(spec.plan.search.start_from):
        if is_earlier(name):
            best_trials(storage, name, spec.plan.objective, key=f"search.start_from.{index}")


def start(study: optuna.Study, spec: SearchSpec, storage: Path | Location, screen: Screen) -> None:
    """Enqueue the first trials of a study and print their names; do nothing if they are.

    Raises:
        InputError: as `check_starts`.
    """
    if OUTSIDE in study.user_attrs or any(
        each.state != TrialState.WAITING for each in study.get_trials(deepcopy=False)
    ):
        return
    for name in filter(is_earlier, spec.plan.search.start_from):
        ranked_by = best_trials(storage, name, spec.plan.objective)[0].ranked_by
        if ranked_by != spec.plan.objective:
            screen.say(
                f"the trials of '{name}' did not measure {spec.plan.objective.name}: {ranked_by.name} picks them"
            )
    outside = enqueue_starts(study, spec, storage)
    study.set_user_attr(OUTSIDE, outside)
    attributes = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
    for kind, what in _WHAT.items():
        if found := [held[kind] for held in attributes if kind in held]:
            screen.say(f"{what.format(epochs=spec.plan.scheduler.max_epochs)}: {', '.join(found)}")
    trials = spec.plan.budget.trials
    if attributes and trials <= len(attributes):
        screen.say(
            f"budget.trials is {trials}, and there are {len(attributes)} first trials: the searcher proposes none; "
            f"give more than {len(attributes)}, or fewer in search.start_from"
        )
    if outside:
        screen.say(
            f"outside the search space, and therefore not tried: {_listed(outside)}; --dry-run gives the reasons"
        )


def _listed(outside: Mapping[str, str]) -> str:
    """The names of starts; all recipes together, and the whole portfolio, have one name."""
    wholes = {"all recipes": RECIPES, "the whole portfolio": PORTFOLIO}
    whole = {text: names for text, names in wholes.items() if outside.keys() >= set(names)}
    return ", ".join([*whole, *(name for name in outside if not any(name in names for names in whole.values()))])


def outside_of(study: optuna.Study) -> dict[str, dict[str, str]]:
    """Starts that are outside the space of a study, with the reasons, for the summary."""
    outside = study.user_attrs.get(OUTSIDE, {})
    return {
        "recipes_outside": {name: reason for name, reason in outside.items() if name in RECIPES},
        "portfolio_outside": {name: reason for name, reason in outside.items() if name in PORTFOLIO},
        "earlier_outside": {name: reason for name, reason in outside.items() if is_earlier(name)},
    }


def enqueue_starts(study: optuna.Study, spec: SearchSpec, storage: Path | Location) -> dict[str, str]:
    """Enqueue the first trials of a study, from `search.start_from`.

    Args:
        study: a new study, or one with some of them, after an interruption.
        spec: of its search.
        storage: directory of the earlier searches.

    Returns:
        For each start outside the space, by name, the reason.

    Raises:
        InputError: as `check_starts`.
    """
    names = spec.plan.search.start_from
    starts, outside = find_starts(spec, names, storage)
    attributes = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
    for start in starts:
        if all(held.get(start.kind) != start.name for held in attributes):
            enqueue(study, start)
    has_default = any(held.get(PROPOSED_BY) == DEFAULT for held in attributes)
    if DEFAULT in names and DEFAULT not in outside and not has_default:
        study.enqueue_trial(default_parameters(spec), user_attrs={PROPOSED_BY: DEFAULT})
    return outside


def enqueue(study: optuna.Study, start: Start) -> None:
    """Let a study try a start next."""
    origin = {start.kind: start.name, **_PROPOSED_BY[start.kind]}
    study.enqueue_trial(start.parameters, user_attrs={**origin, FIXED: start.fixed})


def find_starts(spec: SearchSpec, names: Sequence[str], storage: Path | Location) -> tuple[list[Start], dict[str, str]]:
    """Convert recipes, the portfolio, and the best trials of earlier searches to points of the space.

    A searched leaf must contain the start's value, and a leaf that the spec fixes to another value than the default
    must equal it. Leaves that are fixed by default, such as augmentation or a loss that is not searched, take the
    start's value. Image size and split are always those of the search, and so is the batch size of a recipe (the
    searched one nearest to the default). A recipe's policy is scaled to the whole trial. A start must be within the
    limits of the search. A start that equals an earlier one is left out.

    Args:
        spec: of the search.
        names: of recipes, of configurations of the portfolio, and of earlier searches; 'recipes' and 'portfolio' mean
            all of them. 'default' is no start, and outside if it breaks a limit.
        storage: directory of the earlier searches.

    Returns:
        The starts within the space, and for each other one, by its name or SEARCH:NUMBER, the reason.

    Raises:
        InputError: as `check_starts`.
    """
    by_default = default_leaves(spec)
    starts: list[Start] = []
    outside = {}
    for name, found in _named(names, storage, spec.plan.objective).items():
        try:
            start = _of_earlier(found, spec, by_default) if found else _of_recipe(name, spec, by_default)
        except OutsideError as error:
            outside[name] = str(error)
            continue
        if all((start.parameters, start.fixed) != (other.parameters, other.fixed) for other in starts):
            starts.append(start)
    if DEFAULT in names:
        default = _with_image_size(flatten(TrialConfig().model_dump()), spec)
        if wrong := broken_limits(default, spec.plan.constraints):
            outside[DEFAULT] = wrong
    return starts, outside


def starts_within(spec: SearchSpec) -> tuple[int, dict[str, str]]:
    """How many first trials are within the space, and why the others are not, without those of earlier searches."""
    names = [name for name in spec.plan.search.start_from if not is_earlier(name)]
    starts, outside = find_starts(spec, names, Path())
    return len(starts) + (DEFAULT in names and DEFAULT not in outside), outside


def default_leaves(spec: SearchSpec) -> Leaves:
    """The space of a spec that says nothing but its plugins."""
    own: dict[str, Value] = {"plugins": spec.plan.model_dump()["plugins"]}
    return check_spec(own, source="the defaults", data_path=spec.data_path).space


def _named(names: Sequence[str], storage: Path | Location, objective: Objective) -> dict[str, EarlierTrial | None]:
    """The distinct starts in order, by name: None for a recipe or a configuration of the portfolio."""
    wanted: dict[str, EarlierTrial | None] = {}
    for name in names:
        if is_earlier(name):
            wanted |= {trial.name: trial for trial in best_trials(storage, name, objective)}
        elif name != DEFAULT:
            wanted |= dict.fromkeys(GROUPS.get(name, (name,)))
    return wanted


def _of_recipe(name: str, spec: SearchSpec, by_default: Leaves) -> Start:
    config = load_recipe(name).scaled(spec.plan.scheduler.max_epochs)
    stages = [stage.model_copy(update={"batch_size": None}) for stage in config.data.progression]
    config = config.model_copy(update={"data": config.data.model_copy(update={"progression": stages})})
    if name in PORTFOLIO:
        return fit(Start(kind=PORTFOLIO_MEMBER, name=name), config, spec, by_default)
    return fit(Start(kind=RECIPE, name=name), config, spec, by_default, SHARED_KEYS_OF_RECIPES)


def _of_earlier(trial: EarlierTrial, spec: SearchSpec, by_default: Leaves) -> Start:
    epochs = {"epochs": spec.plan.scheduler.max_epochs}
    try:
        config = build(TrialConfig, {**trial.config, **epochs}, source=f"trial {trial.name}")
    except ConfigError as error:  # another version ran it
        raise OutsideError(str(error).removesuffix(".")) from None
    return fit(Start(kind=EARLIER, name=trial.name), config, spec, by_default)


def fit(
    start: Start, config: TrialConfig, spec: SearchSpec, by_default: Leaves, shared: frozenset[str] = SHARED_KEYS
) -> Start:
    """Set the parameters of a start from its configuration, except those of the `shared` keys.

    Args:
        start: without parameters.
        config: its configuration, for the number of epochs of the search.
        spec: of the search.
        by_default: `default_leaves` of the spec.
        shared: keys that take the value of the search.

    Raises:
        OutsideError: if the start is outside the space.
    """
    defaults = spec.defaults
    settings = {**defaults, **flatten(config.model_dump(), leaves=spec.space)}
    if wrong := broken_limits(_with_image_size(settings, spec), spec.plan.constraints):
        raise OutsideError(wrong)
    decisive = per_keys(spec)
    for key, leaf in spec.space.items():
        if not is_present(settings, key):
            continue
        value, (name, domain) = settings[key], resolve(key, leaf, settings)
        if isinstance(domain, Range | Choices):
            if key in decisive or has_effect(settings, key):
                value = _nearest(domain, defaults[key]) if key in shared else value
                start.parameters.update(_parameters(key, name, domain, value))
        elif key not in shared and value != domain:
            if leaf == by_default.get(key):
                start.fixed[key] = value
            elif has_effect(settings, key):
                raise OutsideError(f"its {key} is {value}, and the space has {domain}")
    start.fixed.update({key: value for key, value in settings.items() if is_argument(key) and key not in spec.space})
    if config.depth_policy:
        start.fixed["depth_policy"] = config.depth_policy.model_dump()
    return start


def _parameters(key: str, name: str, domain: Range | Choices, value: Value) -> dict[str, Value]:
    """Optuna's parameters of a searched leaf; `name` is the name of the main one."""
    if not domain.has(value):
        raise OutsideError(f"its {key} is {value}, and the space has {_shown(domain)}")
    return domain.parameters(name, value)


def _with_image_size(settings: Settings, spec: SearchSpec) -> Settings:
    """The settings with the image size of the search."""
    return {**settings, "data.image_size": as_plain(spec.space["data.image_size"])}


def _nearest(domain: Range | Choices, default: Value) -> Value:
    """The value of a domain that is nearest to a default."""
    if domain.has(default):
        return default
    if isinstance(domain, Range) and isinstance(default, int | float):
        return domain.nearest(default)
    values = representatives(domain)
    if not isinstance(default, int | float):
        return values[0]
    return min((value for value in values if isinstance(value, int | float)), key=lambda value: abs(value - default))


def _shown(domain: Range | Choices) -> str:
    if isinstance(domain, Range):
        return f"{'0 or ' if domain.or_zero else ''}{domain.low:g} to {domain.high:g}"
    return ", ".join(str(value) for value in domain.values)
