"""The sections of a model card that describe data, training, intended use and limits."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from data.splits.splits import KEYS
from search.spec.spec import SearchSpec
from search.study.trials import TrialRecord
from trainable.config.describe import describe
from trainable.loop.checkpoint_files import CONFIG, METRICS, Origin
from trainable.metrics.objective import SCORE, Objective

WIDTH = 120

INTENDED_USE = """## Intended use

Masks of objects, and relative depth, in photographs of a scene that was also photographed without the objects, from the
same position: a fixed camera, or two shots from a tripod. It is not meant for distances in metres, for decisions about
people, or where an error can do harm.
"""

LIMITS = """## Limits

The network is valid only for scenes like those in its training data, and its depth has no unit. Check its predictions
on your own images before you rely on them. `twinhead evaluate` measures it on a data set of them, with intervals, the
values of each image, and the worst predictions. Moved cameras, changed light, shadows and reflections between the two
photographs can appear as objects.
"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a model card says beyond what its checkpoint contains; what is empty is left out."""

    data: str = ""
    """The data set: a directory or an address."""
    samples: Mapping[str, int] = field(default_factory=dict)
    """Number of samples by part."""
    trained_on: str = "train"
    """The parts that the weights were trained on, joined by '+'."""
    recipe: str = ""
    """Origin of the configuration, as the predicate of a sentence: 'is the recipe birender-cnn'."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    """Seeds by their use, beside that of the training."""
    objective: Objective = SCORE
    """What the search looked for."""


def facts_of_trial(
    spec: SearchSpec, name: str, trial: TrialRecord, *, samples: Mapping[str, int], trained_on: str = "train"
) -> Facts:
    """What the card of a search's network says.

    Args:
        spec: of the search.
        name: of the search.
        trial: whose configuration the network has.
        samples: number of samples by part; empty if unknown.
        trained_on: the parts that the weights were trained on.
    """
    return Facts(
        data=spec.data_path,
        samples=samples,
        trained_on=trained_on,
        recipe=f"is that of trial {trial.number} of the search `{name}`, {trial.origin}",
        seeds={"search": spec.plan.search.seed},
        objective=spec.plan.objective,
    )


def data_section(origin: Origin, facts: Facts) -> str:
    """Data set and split, as Markdown."""
    data, shares = origin.config.data, origin.config.data.shares
    name = f"Data set `{facts.data}`, with the" if facts.data else "The data set has the"
    by = f"by the published split '{data.split_by}'"
    if data.split_by in KEYS:
        by = f"by the hash of the {data.split_by} id, so that each {data.split_by} is in one part"
    by += f"; the shares of train, val and test are {', '.join(f'{share:g}' for share in shares)}"
    if data.split_by == "stored":
        by = "by the split that came with it"
    counts = ", ".join(f"{count:,} {part}" for part, count in facts.samples.items())
    parts = " + ".join(
        {"train": "training", "val": "validation"}.get(part, part) for part in facts.trained_on.split("+")
    )
    return "## Data\n\n" + _filled(
        f"{name} fingerprint `{origin.data_fingerprint}`.",
        f"It is divided {by}{f' ({counts} images)' if counts else ''}.",
        f"The weights were trained on the {parts} images, at {' × '.join(map(str, data.sides))} pixels "
        "(height × width).",
    )


def training_section(origin: Origin, facts: Facts) -> str:
    """Recipe, epochs, precision and seeds, as Markdown."""
    config = origin.config
    seeds = ", ".join(f"{name} {seed}" for name, seed in {"training": config.seed, **facts.seeds}.items())
    split = "; the split is a hash and has none" if config.data.split_by in KEYS else ""
    return "## Training\n\n" + _filled(
        f"Recipe: {describe(config)}; batches of {config.data.batch_size}, {config.model.precision}; {origin.epoch} of "
        f"{config.epochs} epochs.",
        f"The configuration {facts.recipe}." if facts.recipe else "",
        f"Seeds: {seeds}{split}.",
        f"`{CONFIG}` has the whole configuration, `{METRICS}` every metric.",
    )


def _filled(*sentences: str) -> str:
    text = " ".join(sentence for sentence in sentences if sentence)
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"
