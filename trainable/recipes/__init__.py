"""The published projects, and a portfolio of our own, as recipes: YAML files that users can copy and change.

A recipe is corrected by default. Its file lists the corrections; `faithful` reverts those that can be reverted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from data.errors import InputError
from trainable.config import Section, TrialConfig, build
from trainable.config.loss import check_losses
from trainable.config.settings import flatten, nest
from trainable.config.text import parse_yaml
from trainable.plugins.active import own_losses

RECIPES = (
    "raguram-resunet",
    "raguram-resunet-lite",
    "divyansh-pair",
    "birender-cnn",
    "birender-cnn-v1",
    "birender-resnet",
    "ramana-dnn",
    "monimoyd-unet",
)
"""Names of the recipes, in the order in which they are shown and tried."""
PORTFOLIO = tuple(f"portfolio-{number}" for number in range(1, 9))
"""Names of our own configurations: complementary ones, chosen by `tests/benchmarks/curves/portfolio.py`."""


class Correction(Section):
    """A corrected error of the publication, or another difference from it."""

    what: str
    """Description of what was published, in one or two sentences."""
    published: dict[str, Any] | None = None
    """Values by dotted key that reproduce the publication."""
    because: str | None = None
    """Reason why it is not reproduced."""

    @model_validator(mode="after")
    def _has_one_outcome(self) -> Self:
        if bool(self.published) == bool(self.because):
            raise ValueError("have either 'published' or 'because'")
        return self


class Evaluation(Section):
    """How the metric of the project is computed."""

    on: Literal["probability", "logits"] = "probability"
    """Whether to use the outputs of the heads after their activations, or before."""
    average: Literal["pictures", "batches"] = "pictures"
    """Whether to average over all images and pixels, or over batches with equal weight."""


class _File(Section):
    """The keys of a recipe file that are not sections of `TrialConfig`."""

    name: str
    source: str
    metric: Literal["none", "ssim-accuracy", "delta-rms", "iou-75"] = "none"
    faithful: bool = False
    evaluation: Evaluation = Evaluation()
    corrected: list[Correction] = []  # noqa: RUF012  pydantic copies it

    @field_validator("name")
    @classmethod
    def _can_name_a_file(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError("be up to 100 letters, digits, '.', '_' and '-', starting with a letter or digit")
        return name


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published configuration and its origin."""

    name: str
    source: str
    """Author and place of publication."""
    metric: str
    """Metric of the project: 'none', 'ssim-accuracy', 'delta-rms' or 'iou-75'."""
    faithful: bool
    """Whether `config` and `evaluation` have the published errors."""
    config: TrialConfig
    evaluation: Evaluation
    corrected: Sequence[Correction]
    text: str
    """Content of the file."""
    file: str
    """Description of the file for error messages."""

    def scaled(self, epochs: int) -> TrialConfig:
        """The configuration for another number of epochs, with the whole run as the horizon of each policy."""
        no_horizon = {"horizon_epochs": None, "horizon_batches": None}
        config, depth = self.config, self.config.depth_policy
        changes = {
            "policy": config.policy.model_copy(update=no_horizon),
            "depth_policy": depth.model_copy(update=no_horizon) if depth else None,
            "epochs": epochs,
        }
        return config.model_copy(update=changes)


def load_recipe(name_or_path: str, *, faithful: bool | None = None) -> Recipe:
    """Load a recipe by name, or from a file in the format of `twinhead recipes NAME`.

    Args:
        name_or_path: one of `RECIPES` or `PORTFOLIO`, or a YAML file.
        faithful: whether to train as published, including errors; None for the value in the file.

    Raises:
        InputError: if there is no such recipe or file, or the file is invalid.
    """
    text, source = _text(name_or_path)
    values = parse_yaml(text, source)
    if not isinstance(values, Mapping):
        raise InputError(f"There is no recipe in {source}, which must hold keys such as 'name:'; correct it.")
    about = {key: value for key, value in values.items() if key in _File.model_fields}
    trial = {str(key): value for key, value in values.items() if key not in _File.model_fields}
    file = build(_File, about, source=source)
    config = build(TrialConfig, trial, source=source)
    check_losses(config.loss, own_losses(), source)
    published, evaluation = _published(config, file, source)
    is_faithful = file.faithful if faithful is None else faithful
    return Recipe(
        name=file.name,
        source=file.source,
        metric=file.metric,
        faithful=is_faithful,
        config=published if is_faithful else config,
        evaluation=evaluation if is_faithful else file.evaluation,
        corrected=file.corrected,
        text=text,
        file=source,
    )


def _text(name_or_path: str) -> tuple[str, str]:
    """The text of a recipe file, and its description for error messages."""
    if name_or_path in (*RECIPES, *PORTFOLIO):
        folder = "portfolio/" if name_or_path in PORTFOLIO else ""
        file = resources.files(__package__) / f"{folder}{name_or_path}.yaml"
        return file.read_text(encoding="utf-8"), f"the recipe '{name_or_path}'"
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"} and not path.exists():
        known = f"{', '.join(RECIPES)}, {PORTFOLIO[0]} to {PORTFOLIO[-1]}"
        raise InputError(f"There is no recipe '{name_or_path}'; give one of {known}, or a YAML file of your own.")
    try:
        return path.read_text(encoding="utf-8"), f"'{path}'"
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The recipe '{path}' cannot be read ({error}); give a YAML file.") from None


def _published(config: TrialConfig, file: _File, source: str) -> tuple[TrialConfig, Evaluation]:
    """The configuration and the evaluation with the published values of all corrections."""
    settings = flatten({**config.model_dump(), "evaluation": file.evaluation.model_dump()})
    for correction in file.corrected:
        for key, value in (correction.published or {}).items():
            others = {other: kept for other, kept in settings.items() if not f"{other}.".startswith(f"{key}.")}
            if len(others) == len(settings):
                raise InputError(f"The key '{key}' under 'corrected' is not known; correct it in {source}.")
            settings = others | flatten({key: value})
    inner = {key: value for key, value in settings.items() if key.startswith("evaluation.")}
    values = nest({key: value for key, value in settings.items() if key not in inner})
    listed = f"what {source} lists as published"
    published = build(TrialConfig, values, source=listed)
    evaluation = {key.removeprefix("evaluation."): value for key, value in inner.items()}
    return published, build(Evaluation, evaluation, source=listed)
