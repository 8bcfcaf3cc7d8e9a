"""The main job, small: rendered scenes, a search, the retraining, a test; some minutes on two cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.dataset.dataset import Dataset, write_dataset
from data.errors import InputError
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from search.run.prepare import open_data
from search.run.run import begin, run_search
from search.spec.spec import check_spec
from search.study.experiment import Experiment, free_name
from search.terminal import Screen

SCENES = SceneSet(seed=7, backgrounds=80, per_background=6, size=96)
SPEC: dict[str, Any] = {
    "data": {"image_size": 64},
    "model": {"family": "resunet", "width": {"choices": [4, 8, 16]}},
    "scheduler": {"max_epochs": 9},
    "budget": {"trials": 8},
    "search": {"start_from": []},
}
"""Narrower than the default space, for two cores."""


def run_demo(storage: Path, screen: Screen) -> tuple[Experiment, dict[str, Any]]:
    """Render, search, retrain and measure; the data is drawn once and used again.

    Args:
        storage: directory for the data set and the experiment.
        screen: where to show how far it is.

    Returns:
        The experiment and its summary.
    """
    data = storage / "demo-scenes"
    if not _is_drawn(data):
        draw(SCENES, data, screen)
    spec = check_spec(SPEC, source="the demo", data_path=str(data)).anywhere()
    experiment = Experiment(storage=storage, name=free_name(storage, "demo"))
    dataset = open_data(spec.data_path, screen)
    begin(experiment, spec, dataset)
    return experiment, run_search(experiment, spec, dataset, screen)


def draw(scenes: SceneSet, destination: Path, screen: Screen) -> None:
    """Render `scenes` into a data set.

    Raises:
        InputError: if the destination exists.
    """
    source = {"kind": "render", "seed": scenes.seed, "size": scenes.size}
    with screen.bar("rendering", len(scenes), "samples") as move:
        write_dataset(render(scenes), destination, source=source, on_sample=lambda _: move(1, ""))


def _is_drawn(path: Path) -> bool:
    """Whether the demo's data set is there already, and whole."""
    if not path.exists():
        return False
    try:
        info = Dataset.open(path).info
    except InputError as error:
        raise InputError(
            f"'{path}' is not the demo's data set ({error}) Remove it, or give another --storage."
        ) from None
    return info.counts.samples == len(SCENES)
