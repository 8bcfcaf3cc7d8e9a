"""The published projects as recipes: a YAML file each, which a user can read, copy and change.

A recipe is corrected by default. Its file lists the corrections; `faithful` undoes those that can be undone.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from data.errors import InputError
from trainable.config import Section, TrialConfig, build
from trainable.config.text import parse_yaml

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
"""Names, in the order in which they are shown and tried."""


class Correction(Section):
    """A published error that was corrected, or a way in which the recipe differs from what was published."""

    what: str
    """What was published, in one or two sentences."""
    published: dict[str, Any] | None = None
    """Values by dotted key of the recipe that reproduce it."""
    because: str | None = None
    """Why it cannot be, or need not be, reproduced."""

    @model_validator(mode="after")
    def _has_one_outcome(self) -> Self:
        if bool(self.published) == bool(self.because):
            raise ValueError("have either 'published' or 'because'")
        return self


class Evaluation(Section):
    """How the project's own metric is computed."""

    on: Literal["probability", "logits"] = "probability"
    """On the outputs of the heads after their activations, or before."""
    average: Literal["pictures", "batches"] = "images"
    """Over all images and pixels, or over batches with equal weight."""


class _File(Section):
    """The keys of a recipe's file that are not sections of `TrialConfig`."""

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
    """A configuration with its origin."""

    name: str
    source: str
    """Whose it is, and where it was published."""
    metric: str
    """The project's own metric: 'none', 'ssim-accuracy', 'delta-rms' or 'iou-75'."""
    faithful: bool
    """Whether the published errors are turned on in `config` and `evaluation`."""
    config: TrialConfig
    evaluation: Evaluation
    corrected: Sequence[Correction]
    text: str
    """The file."""
    file: str
    """What to call the file in an error."""

    def scaled(self, epochs: int) -> TrialConfig:
        """The configuration for another number of epochs, with each policy's horizon scaled to them."""
        return _scaled(self.config, epochs)


def load_recipe(name_or_path: str, *, faithful: bool | None = None) -> Recipe:
    """A recipe by its name, or from a file like those that `twinhead recipes NAME` prints.

    Args:
        name_or_path: one of `RECIPES`, or a YAML file.
        faithful: whether to train as published, errors included; the file's own value when None.

    Raises:
        InputError: if there is neither such a recipe nor such a file, or something in the file does not fit.
    """
    text, source = _text(name_or_path)
    values = parse_yaml(text, source)
    if not isinstance(values, Mapping):
        raise InputError(f"There is no recipe in {source}, which must hold keys such as 'name:'; correct it.")
    own = {key: value for key, value in values.items() if key in _File.model_fields}
    trial = {str(key): value for key, value in values.items() if key not in _File.model_fields}
    file = build(_File, own, source=source)
    config = build(TrialConfig, trial, source=source)
    changed = {"config": config.model_dump(), "evaluation": file.evaluation.model_dump()}
    for correction in file.corrected:
        for key, value in (correction.published or {}).items():
            _change(changed, key, value, source)
    published = build(TrialConfig, changed["config"], source=f"what {source} lists as published")
    evaluation = build(Evaluation, changed["evaluation"], source=f"what {source} lists as published")
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
    """A recipe's file and how to name it."""
    if name_or_path in RECIPES:
        file = resources.files(__package__) / f"{name_or_path}.yaml"
        return file.read_text(encoding="utf-8"), f"the recipe '{name_or_path}'"
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"} and not path.exists():
        raise InputError(
            f"There is no recipe '{name_or_path}'; give one of {', '.join(RECIPES)}, or a YAML file of your own."
        )
    try:
        return path.read_text(encoding="utf-8"), f"'{path}'"
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The recipe '{path}' cannot be read ({error}); give a YAML file.") from None


def _change(values: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set what lies at a dotted key: of the evaluation, or of the configuration."""
    *sections, leaf = key.split(".")
    node: Any = values if sections[:1] == ["evaluation"] else values["config"]
    for section in sections:
        node = node.get(section) if isinstance(node, dict) else None
    if not isinstance(node, dict) or leaf not in node:
        raise InputError(f"The key '{key}' under 'corrected' is not known; correct it in {source}.")
    node[leaf] = copy.deepcopy(value)


def _scaled(config: TrialConfig, epochs: int) -> TrialConfig:
    whole = {"horizon_epochs": None, "horizon_batches": None}
    depth = config.depth_policy.model_copy(update=whole) if config.depth_policy else None
    changes = {"policy": config.policy.model_copy(update=whole), "depth_policy": depth, "epochs": epochs}
    return config.model_copy(update=changes)
