"""The fixed configurations that a training or a comparison trains, made from recipes and checked.

Without torch and Ray, which take seconds to import, so that a mistyped argument is refused at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from data.errors import InputError, did_you_mean
from data.fitting.sizes import size_text
from data.quantities import counted
from search.spec.default_space import TRANSFORMS, is_argument
from search.study.experiment import Experiment
from trainable.config import TrialConfig, build
from trainable.config.text import parse_yaml
from trainable.families import check_model
from trainable.plugins.active import PluginRecord, active_records, own_losses
from trainable.recipes import RECIPES, Evaluation, load_recipe

Kind = Literal["compare", "train"]


class RecipeOrigin(BaseModel):
    """Where a configuration comes from."""

    source: str
    """Author and place of publication."""
    faithful: bool
    """Whether it keeps the published errors."""


class FixedConfigs(BaseModel):
    """Fixed configurations to train on a data set, the content of given.yaml."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    data: str
    """Path or address of the data set."""
    faithful: bool
    """Whether the recipes keep their published errors."""
    metric: str = "none"
    """The project's own metric of the recipe that `train` trains."""
    evaluation: Evaluation = Evaluation()
    """How that metric is computed."""
    workers: int = 1
    """Processes that share a training."""
    origins: dict[str, RecipeOrigin] = {}
    """By recipe name."""
    notes: list[str] = []
    """Changes to the recipes, as clauses."""
    plugins: list[PluginRecord] = []
    """Plugins with families, losses and metrics that are not built in."""
    trials: dict[str, TrialConfig]
    """By recipe name."""


def make_training(
    recipe: str,
    data_path: str,
    *,
    epochs: int | None,
    overrides: Sequence[tuple[str, str]],
    faithful: bool,
    workers: int = 1,
) -> FixedConfigs:
    """The configuration that `twinhead train` trains: the recipe with its own epochs, step counts and data settings.

    Args:
        recipe: a name, or a file.
        data_path: the data set.
        epochs: in place of the recipe's; learning-rate policies keep their published step counts.
        overrides: (dotted key, YAML text) pairs, in place of the recipe's values.
        faithful: whether the recipe keeps its published errors.
        workers: processes that share the training.

    Raises:
        InputError: if the recipe is not known, or an override does not fit.
    """
    found = load_recipe(recipe, faithful=faithful or None)
    config = found.config if epochs is None else found.config.model_copy(update={"epochs": epochs})
    config = with_overrides(config, overrides, found.file)
    return FixedConfigs(
        kind="train",
        data=data_path,
        trials={found.name: config},
        faithful=found.faithful,
        metric=found.metric,
        evaluation=found.evaluation,
        workers=workers,
        notes=[f"{key} is {text}" for key, text in overrides],
        plugins=active_records(),
    )


def make_comparison(
    data_path: str, recipes: Sequence[str], *, epochs: int, overrides: Sequence[tuple[str, str]], faithful: bool
) -> FixedConfigs:
    """The configurations of a comparison: all recipes with the same image size, split and number of epochs.

    Args:
        data_path: the data set.
        recipes: names, files, or 'all'.
        epochs: of each training; the learning-rate policies are scaled to them.
        overrides: (dotted key, YAML text) pairs for all recipes.
        faithful: whether the recipes keep their published errors.

    Raises:
        InputError: if a recipe is not known, two have the same name, or an override does not fit.
    """
    if not recipes:
        raise InputError(f"The value of --recipes is empty; give 'all', or some of {', '.join(RECIPES)} or YAML files.")
    trials: dict[str, TrialConfig] = {}
    origins: dict[str, RecipeOrigin] = {}
    common = TrialConfig().data
    for name in RECIPES if list(recipes) == ["all"] else recipes:
        recipe = load_recipe(name, faithful=faithful or None)
        if recipe.name in trials:
            raise InputError(f"The recipe '{recipe.name}' is given twice in --recipes; give each file its own 'name:'.")
        config = recipe.scaled(epochs)
        same = {key: getattr(common, key) for key in ("image_size", "resize", "fit", "split_by", "split")}
        config = config.model_copy(update={"data": config.data.model_copy(update=same)})
        origins[recipe.name] = RecipeOrigin(source=recipe.source, faithful=recipe.faithful)
        trials[recipe.name] = with_overrides(config, overrides, recipe.file)
    some = next(iter(trials.values()))  # overrides are the same for all
    smaller = " and ".join(name for name, config in trials.items() if config.data.progression)
    notes = [
        f"every learning-rate policy is scaled to {counted(some.epochs, 'epoch')}",
        f"all use images of {size_text(some.data.image_size)} px with the same resizing and split"
        + (f", after smaller ones for {smaller}" if smaller else ""),
        "batch sizes are the recipes' own" if not _sets_batch(overrides) else "",
        *(f"{key} is {text} for all" for key, text in overrides),
    ]
    return FixedConfigs(
        kind="compare",
        data=data_path,
        trials=trials,
        faithful=faithful,
        origins=origins,
        notes=[note for note in notes if note],
        plugins=active_records(),
    )


def load_fixed_configs(experiment: Experiment) -> FixedConfigs:
    """The configurations that an experiment trains.

    Raises:
        InputError: if there is no such experiment, or its file is damaged.
    """
    return build(FixedConfigs, experiment.fixed(), source=str(experiment.fixed_file))


def with_overrides(config: TrialConfig, overrides: Sequence[tuple[str, str]], file: str) -> TrialConfig:
    """A recipe's configuration with the values at some keys replaced.

    Args:
        config: the recipe's.
        overrides: (dotted key, YAML text) pairs.
        file: the recipe's file, for error messages.

    Raises:
        InputError: if a key is not known, or a value does not fit.
    """
    values = config.model_dump()
    for weights in (values["loss"]["mask"], values["loss"]["depth"]):
        weights |= {name: 0.0 for name in own_losses() if name not in weights}
    source = f"--set, or in {file}" if overrides else file
    for key, text in overrides:
        *sections, leaf = key.split(".")
        node: Any = values
        is_open = key == TRANSFORMS or is_argument(key)
        for section in sections:
            node = node.setdefault(section, {}) if is_open else node.get(section)
            if not isinstance(node, dict):
                meant = did_you_mean(section, values)
                raise InputError(
                    f"The key '{key}' of --set is not known; use sections such as {', '.join(values)}{meant}."
                )
        if leaf not in node and not is_open:
            meant = did_you_mean(leaf, node)
            raise InputError(f"The key '{key}' of --set is not known; use one of {', '.join(node)} there{meant}.")
        if isinstance(node.get(leaf), dict) and not is_open:
            raise InputError(f"The key '{key}' of --set is a section; set one of {', '.join(node[leaf])} in it.")
        node[leaf] = parse_yaml(text, f"--set {key}")
    if _sets_batch(overrides):
        for stage in values["data"]["progression"]:
            stage["batch_size"] = None
    config = build(TrialConfig, values, source=source)
    check_model(config.model, source)
    return config


def _sets_batch(overrides: Sequence[tuple[str, str]]) -> bool:
    return any(key == "data.batch_size" for key, _ in overrides)
