"""The default search space: all published families, and the hyperparameters in which their authors differ."""

from __future__ import annotations

from search.spec.domains import Choices, Leaves, Per, Range

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
