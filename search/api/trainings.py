"""A training of one recipe from a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from data.dataset.storage import AnyPath
from search.api.network import Network
from search.api.session import interruptible, load_given, pairs_of, prepare, screen_of, storage_of
from search.data import open_data
from search.recipes.configs import make_training
from search.recipes.train import run_training
from search.recipes.trainings import create_training
from search.study.experiment import Experiment
from search.study.names import free_name
from search.study.summary import TrainingSummary
from trainable.config.settings import Value
from trainable.plugins.active import PluginSource


class Training:
    """A training that ended; `twinhead.train` returns it."""

    def __init__(self, experiment: Experiment, summary: TrainingSummary, plugins: tuple[PluginSource, ...]) -> None:
        self._experiment, self._plugins = experiment, plugins
        self.name = experiment.name
        """Name of the training, and of its directory in the storage."""
        self.summary = summary
        """The results, as in `summary.json`."""

    def network(self) -> Network:
        """The network after the epoch that validation picked.

        Raises:
            InputError: if its checkpoint was removed or damaged.
        """
        return Network._of(self._experiment.checkpoints.fetch(self._experiment.best), self._plugins)

    def __repr__(self) -> str:
        return f"Training({self.name!r}, recipe={self.summary.recipe!r}, epoch={self.summary.epoch})"


def train(
    recipe: str | Path,
    data: AnyPath,
    *,
    name: str | None = None,
    storage: AnyPath | None = None,
    epochs: int | None = None,
    settings: Mapping[str, Value] | None = None,
    faithful: bool = False,
    workers: int = 1,
    plugins: Iterable[str | Path] = (),
    progress: bool = True,
) -> Training:
    """Train one recipe on a data set, and evaluate it on the test images once, as `twinhead train`.

    Args:
        recipe: a name that `twinhead recipes` lists, or a YAML file like those it prints.
        data: directory or address of the data set.
        name: of the training; that of the recipe, with a number if it is in use, when left out.
        storage: directory or address for it; $TWINHEAD_STORAGE, else `artifacts`, when left out.
        epochs: in place of the recipe's.
        settings: values by dotted key, in place of the recipe's, such as {'data.image_size': 64}.
        faithful: whether to keep the published errors.
        workers: processes that share the training.
        plugins: Python files with model families, losses and metrics.
        progress: whether to print it on standard error.

    Raises:
        InputError: if the recipe is not known, a setting does not fit, or the data set cannot be used.
        UnfinishedError: if the training has no network, or what it uses was lost.
        KeyboardInterrupt: after Ctrl-C; the message is the command that continues.
    """
    prepare()
    sources = load_given(plugins)
    fixed = make_training(
        str(recipe),
        str(data),
        epochs=epochs,
        overrides=pairs_of(settings),
        faithful=faithful,
        workers=workers,
    )
    at = storage_of(storage)
    experiment = Experiment(storage=at, name=name or free_name(at, next(iter(fixed.trials))))
    experiment.refuse_existing()
    shown = screen_of(progress)
    dataset = open_data(fixed.data, shown)
    create_training(experiment, fixed, dataset)
    with interruptible(experiment):
        summary = run_training(experiment, fixed, dataset, shown)
    return Training(experiment, summary, sources)
