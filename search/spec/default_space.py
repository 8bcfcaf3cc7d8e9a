"""The default search space: all published families, and the hyperparameters in which their authors differ.

Also the defaults of all leaves, with those of plugins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from data.augment.catalog import default_of
from search.spec.domains import Choices, Leaves, Per, Range
from trainable.config import TrialConfig
from trainable.config.settings import Settings, Value, flatten
from trainable.plugins.active import PluginRecord

BUILT_IN: Settings = {key: value for key, value in flatten(TrialConfig().model_dump()).items() if "." in key}
"""The default of each leaf that needs no plugin; epochs, seed and `depth_policy` of `TrialConfig` are not leaves."""
TRANSFORMS = "data.augment.transforms"
"""The section of the transforms of albumentations, which has a section for each that a spec lists."""
_WEIGHT = Range(0.0, 2.0)
"""Weight of a head's first loss."""
_OPTIONAL_WEIGHT = Range(0.1, 2.0, log=True, or_zero=True)
"""Weight of another loss, which is 0 in half of the trials; then its parameters are not searched either."""
_DROPOUT = Range(0.0, 0.3)
_NO_DROPOUT = Choices((0.0,))
_FAMILIES: dict[str, tuple[Choices, Range | Choices]] = {
    "resunet": (Choices((8, 16, 32)), _NO_DROPOUT),
    "resunet-lite": (Choices((16, 32, 64)), _NO_DROPOUT),
    "pair": (Choices((8, 16, 32)), _DROPOUT),
    "dmnet-cnn": (Choices((8, 16)), _DROPOUT),
    "dmnet-cnn-v1": (Choices((8, 16)), _DROPOUT),
    "dmnet-resnet": (Choices((8, 16)), _DROPOUT),
    "resnet-dual": (Choices((8, 16, 32)), _DROPOUT),
    "sepunet": (Choices((16, 32, 64)), _NO_DROPOUT),
    "debug": (Choices((2, 4)), _NO_DROPOUT),
}
"""Width and dropout of each family; 'debug' is searched only if a spec names it."""

_OWN_WIDTH = Choices((8, 16, 32))
"""Width of a family of a plugin."""

DEFAULT_SPACE: Leaves = {
    "data.batch_size": Choices((8, 16, 32)),
    "data.augment.jitter": Range(0.05, 0.4, or_zero=True),
    "data.augment.rotate": Range(2.0, 20.0, or_zero=True),
    "model.family": Choices(tuple(family for family in _FAMILIES if family != "debug")),
    "model.width": Per("model.family", {family: width for family, (width, _) in _FAMILIES.items()}),
    "model.dropout": Per("model.family", {family: dropout for family, (_, dropout) in _FAMILIES.items()}),
    "model.depth_activation": Choices(("linear", "sigmoid", "minmax")),
    "loss.mask.bce": _WEIGHT,
    "loss.mask.dice": _OPTIONAL_WEIGHT,
    "loss.mask.l1": _OPTIONAL_WEIGHT,
    "loss.depth.l1": _WEIGHT,
    "loss.depth.ssim": _OPTIONAL_WEIGHT,
    "loss.depth.edge": _OPTIONAL_WEIGHT,
    "loss.ssim.window": Choices((3, 7, 11)),
    "loss.combine": Choices(("sum", "sqrt", "uncertainty")),
    "optimizer.name": Choices(("sgd", "adam", "adamw")),
    "optimizer.lr": Per(
        "optimizer.name",
        {
            "sgd": Range(1e-2, 1.0, log=True),
            "adam": Range(3e-4, 2e-2, log=True),
            "adamw": Range(3e-4, 2e-2, log=True),
        },
    ),
    "optimizer.weight_decay": Choices((0.0, 1e-5, 1e-4, 1e-3, 1e-2)),
    "policy.name": Choices(("constant", "step", "plateau", "cyclic", "onecycle", "cosine")),
    "policy.warmup": Range(0.0, 0.2),
    "policy.step.every": Range(0.1, 0.5),
    "policy.step.factor": Range(0.1, 0.7),
    "policy.plateau.patience": Range(0.0, 0.3),
    "policy.plateau.factor": Range(0.1, 0.7),
    "policy.cyclic.period": Range(0.02, 1.0, log=True),
    "policy.cyclic.floor": Range(1e-3, 0.1, log=True),
    "policy.cyclic.halve": Choices((True, False)),
    "policy.onecycle.pct_start": Range(0.1, 0.5),
    "policy.onecycle.div": Range(3.0, 30.0, log=True),
    "policy.onecycle.final_div": Range(1e2, 1e4, log=True),
    "policy.onecycle.anneal": Choices(("cos", "linear")),
    "policy.cosine.floor": Range(0.0, 0.1),
}
"""Leaves that are searched by default; the others are fixed at the default of `TrialConfig`."""


def default_space(own: Mapping[str, bool]) -> Leaves:
    """`DEFAULT_SPACE` with width and dropout of the families of plugins, which are searched only if a spec names them.

    Args:
        own: their names, and whether each supports dropout.
    """
    families = _FAMILIES | {
        name: (_OWN_WIDTH, _DROPOUT if has_dropout else _NO_DROPOUT) for name, has_dropout in own.items()
    }
    return {
        **DEFAULT_SPACE,
        "model.width": Per("model.family", {family: width for family, (width, _) in families.items()}),
        "model.dropout": Per("model.family", {family: dropout for family, (_, dropout) in families.items()}),
    }


def defaults_with(plugins: Iterable[PluginRecord], arguments: Iterable[str] = ()) -> Settings:
    """The default of each leaf: `BUILT_IN`, and those of plugins and transforms.

    Args:
        plugins: the weights of their losses are 0 by default.
        arguments: dotted keys of the arguments of transforms. A transform is left out by default: its `p` is 0.
    """
    own = [name for plugin in plugins for name in plugin.losses]
    return {
        **BUILT_IN,
        **{f"loss.{head}.{name}": 0.0 for head in ("mask", "depth") for name in own},
        **{key: _default_argument(key) for key in arguments},
    }


def is_argument(key: str) -> bool:
    """Whether a dotted key is an argument of a transform of albumentations."""
    return key.startswith(f"{TRANSFORMS}.")


def _default_argument(key: str) -> Value:
    name, _, argument = key.removeprefix(f"{TRANSFORMS}.").partition(".")
    value: Value = 0.0 if argument == "p" else default_of(name, argument)
    return value


def names_of_sections(defaults: Settings) -> dict[str, list[str]]:
    """The names in each section of a space, by its dotted key; '' is the whole."""
    names: dict[str, list[str]] = {"": [], TRANSFORMS: []}
    for key in [*defaults, TRANSFORMS]:
        parts = key.split(".")
        for depth, name in enumerate(parts):
            known = names.setdefault(".".join(parts[:depth]), [])
            known += [name] if name not in known else []
    return names
