"""A search from a program: run it, load it, continue it, and read its results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from data.dataset.storage import AnyPath, Location
from data.errors import InputError
from search.api.network import Network
from search.api.session import interruptible, load_given, pairs_of, prepare, screen_of, storage_of
from search.data import open_data
from search.results.summary import find_trial
from search.results.trials_table import TrialRow, trial_rows
from search.run.run import create_search, run_search
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.summary import Summary
from trainable.config.settings import Value
from trainable.metrics.names import CONSTRAINT, DIVERGED
from trainable.plugins.active import PluginSource, active_plugins
from trainable.plugins.load import use_plugins

if TYPE_CHECKING:
    import pandas as pd


class Search:
    """A search in its storage, running or ended; `twinhead.search` and `twinhead.load` return it."""

    def __init__(self, experiment: Experiment, plugins: tuple[PluginSource, ...]) -> None:
        self._experiment, self._plugins = experiment, plugins

    @property
    def name(self) -> str:
        """Name of the search, and of its directory in the storage."""
        return self._experiment.name

    @property
    def storage(self) -> Path | Location:
        """Directory or address of its storage."""
        return self._experiment.storage

    @property
    def spec(self) -> dict[str, Value]:
        """The spec as run, which `twinhead.search` accepts."""
        return self._experiment.spec().as_plain()

    @property
    def summary(self) -> Summary:
        """The results, as in `summary.json`.

        Raises:
            InputError: if there are none yet.
        """
        return self._experiment.summary()

    def trials(self) -> list[TrialRow]:
        """All trials so far, the best first."""
        return trial_rows(self._experiment)

    def frame(self) -> pd.DataFrame:
        """All trials so far, the best first, with a column for each metric, and for each parameter by dotted key.

        Raises:
            InputError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise InputError(
                "The trials as a frame need pandas, which is not installed; install it with pip install "
                "'twinhead[pandas]', or use trials()."
            ) from None
        rows = []
        for trial in self.trials():
            plain = trial.as_plain()
            plain.pop("params")
            rows.append(plain | dict(trial.params))
        return pd.DataFrame(rows).set_index("number") if rows else pd.DataFrame()

    @property
    def best(self) -> TrialRow:
        """The best trial so far, at its best epoch.

        Raises:
            InputError: if no trial has a result.
        """
        key = self._experiment.objective.key
        for trial in self.trials():
            value = trial.number_of(key)
            if trial.outcome not in {DIVERGED, CONSTRAINT} and value is not None and not math.isnan(value):
                return trial
        is_running = self._experiment.is_running
        advice = (
            "wait for it, since it still runs" if is_running else f"continue it with {type(self).__name__}.resume()"
        )
        raise InputError(f"The search '{self.name}' has no trial with a result yet; {advice}.")

    def network(self, trial: int | None = None) -> Network:
        """The retrained network; that of the best trial if there is none.

        Args:
            trial: number of a trial whose own network is loaded instead.

        Raises:
            InputError: if there is none whose checkpoint loads, or a plugin is missing.
        """
        use_plugins(self._plugins)
        experiment = self._experiment
        experiment.spec()
        if trial is None and experiment.checkpoints.exists(experiment.retrained):
            return Network._of(experiment.checkpoints.fetch(experiment.retrained), self._plugins)
        number = self.best.number if trial is None else trial
        return Network._of(find_trial(experiment, open_study(experiment), number).checkpoint, self._plugins)

    def resume(self, settings: Mapping[str, Value] | None = None, *, progress: bool = True) -> Search:
        """Continue the search after an interruption, or with a larger budget.

        Args:
            settings: keys of the budget, such as {'budget.trials': 24}.
            progress: whether to print it.

        Raises:
            InputError: if it cannot be continued, another process runs it, or a setting is not of the budget.
            UnfinishedError: if no trial reached a result, or what the search uses was lost.
            KeyboardInterrupt: after Ctrl-C, once all results are stored.
        """
        prepare()
        use_plugins(self._plugins)
        experiment, shown = self._experiment, screen_of(progress)
        pairs = pairs_of(settings)
        spec = experiment.extended(pairs) if pairs else experiment.spec()
        dataset = open_data(spec.data_path, shown)
        with interruptible(experiment):
            run_search(experiment, spec, dataset, shown, pairs)
        return self

    def __repr__(self) -> str:
        return f"Search({self.name!r}, storage={str(self.storage)!r})"


def search(
    spec: str | Path | Mapping[str, Value] | None = None,
    *,
    data: AnyPath | None = None,
    name: str | None = None,
    storage: AnyPath | None = None,
    settings: Mapping[str, Value] | None = None,
    plugins: Iterable[str | Path] = (),
    progress: bool = True,
) -> Search:
    """Run a search to its end: trials, retraining of the best configuration, and its test, as `twinhead search`.

    It joins the Ray cluster of this program or that of $RAY_ADDRESS; otherwise it starts one, and stops it at the end.

    Args:
        spec: a YAML file, or its values as nested dicts; keys that are left out have the values of `twinhead spec`.
        data: the data set, in place of `data.path`.
        name: of the search, in place of `name`; that of the file when both are left out.
        storage: directory or address of the searches; $TWINHEAD_STORAGE, else `artifacts`, when left out.
        settings: values by dotted key, in place of those of the spec, such as {'budget.trials': 12}.
        plugins: Python files with model families, losses and metrics, beside those of the spec.
        progress: whether to print it on standard error.

    Raises:
        InputError: if the spec has wrong keys or values, the name is in use, or the data set cannot be used.
        UnfinishedError: if no trial reached a result, or what the search uses was lost.
        KeyboardInterrupt: after Ctrl-C, once all results are stored; `load(name).resume()` continues.
    """
    prepare()
    load_given(plugins)
    source = Path(spec) if isinstance(spec, str | Path) else spec
    checked = load_spec(
        source, pairs_of(settings), data_path=None if data is None else str(data), name=name
    ).with_absolute_path()
    named = checked.subject.name or (source.stem if isinstance(source, Path) else None)
    if named is None:
        raise InputError("The name of the search is missing; give name='...'.")
    experiment = Experiment(storage=storage_of(storage), name=named)
    experiment.refuse_existing()
    shown = screen_of(progress)
    dataset = open_data(checked.data_path, shown)
    create_search(experiment, checked, dataset)
    found = Search(experiment, tuple(plugin.source for plugin in active_plugins()))
    with interruptible(experiment):
        run_search(experiment, checked, dataset, shown)
    return found


def load(name: str, storage: AnyPath | None = None, *, plugins: Iterable[str | Path] = ()) -> Search:
    """A search by its name.

    Args:
        name: of the search.
        storage: directory or address of the searches; $TWINHEAD_STORAGE, else `artifacts`, when left out.
        plugins: the Python files that the search uses; needed only for its networks and to continue it.

    Raises:
        InputError: if there is no such search; the message lists those that there are.
    """
    experiment = Experiment(storage=storage_of(storage), name=name)
    experiment.spec()
    return Search(experiment, load_given(plugins))
