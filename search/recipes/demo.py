"""A small search end to end: rendered scenes, trials, retraining and test; a few minutes on two cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from data.dataset.dataset import Dataset, write_dataset
from data.dataset.manifest import MANIFEST_NAME
from data.dataset.storage import AnyPath, Location
from data.errors import InputError
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from search.data import open_data
from search.run.run import create_search, run_search
from search.spec.spec import check_spec
from search.study.experiment import Experiment
from search.study.names import free_name
from search.study.summary import Summary
from search.terminal import Screen
from trainable.config.settings import Value

SCENES = SceneSet(seed=7, backgrounds=80, per_background=6, size=96)
SPEC: Mapping[str, Value] = {
    "data": {"image_size": 64},
    "model": {"family": "resunet", "width": {"choices": [4, 8, 16]}},
    "scheduler": {"max_epochs": 9},
    "budget": {"trials": 8},
    "search": {"start_from": []},
}
"""Narrower than the default space, so that two cores suffice."""


def prepare_demo(storage: Path | Location, screen: Screen) -> tuple[Experiment, Callable[[], Summary]]:
    """Render scenes and create a search on them; later runs reuse the data set.

    Args:
        storage: directory or address for the data set and the experiment.
        screen: shows the progress.

    Returns:
        The experiment, and what searches, retrains and tests.
    """
    data = storage / "demo-scenes"
    if not _is_rendered(data):
        render_dataset(SCENES, data, screen)
    spec = check_spec(SPEC, source="the demo", data_path=str(data)).with_absolute_path()
    experiment = Experiment(storage=storage, name=free_name(storage, "demo"))
    dataset = open_data(spec.data_path, screen)
    create_search(experiment, spec, dataset)
    return experiment, lambda: run_search(experiment, spec, dataset, screen)


def render_dataset(scenes: SceneSet, destination: AnyPath, screen: Screen) -> None:
    """Render `scenes` into a data set.

    Raises:
        InputError: if the destination exists.
    """
    source = {"kind": "render", "seed": scenes.seed, "size": scenes.size}
    with screen.bar("rendering", len(scenes), "samples") as move:
        write_dataset(render(scenes), destination, source=source, on_sample=lambda _: move(1, ""))


def _is_rendered(path: Path | Location) -> bool:
    """Whether the demo's data set exists and is complete."""
    if not (path.exists() if isinstance(path, Path) else (path / MANIFEST_NAME).is_file()):
        return False
    try:
        info = Dataset.open(path).info
    except InputError as error:
        raise InputError(
            f"'{path}' is not the demo's data set ({error}) Remove it, or give another --storage."
        ) from None
    return info.counts.samples == len(SCENES)
