"""The paths of an experiment, local or remote: the only module that knows the names of its files.

STORAGE/NAME/
    spec.yaml        the spec as run; given.yaml instead for fixed configurations
    study.journal    Optuna's study: trials, parameters, curves; study.id instead if the study is in a database
    trials/          Ray Tune's directories, one per trial, with checkpoints and TensorBoard events
    groups/          checkpoints of trials with several workers
    measurements.json   measurements of networks, such as the precision that each is trained in
    best/            the weights of the best trial
    retrained/       the best configuration, trained on train + validation
    summary.json     the results
    heartbeat.json   the last sign of life of the driver
    driver.log       the progress of all runs, each line with its time
    logs/            the reports and errors of each trial
    measured/        the metrics of networks on each test image
    comparison.*     the results of a comparison as tables, with pictures/ of each network
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.dataset.storage import Location
from search.study.checkpoints import Checkpoints
from search.study.mirror import HEARTBEAT_NAME, JOURNAL_NAME, LOCK_NAME, LOGS_NAME, Mirror
from search.study.names import FIXED_NAME, SPEC_NAME, check_name

MEASURED = ("baselines", "retrained", "best", "recipe")
"""Names of what a search measures on each test image: the baselines, the retrained network, the best trial, and the
best recipe, if there is one. A comparison measures each of its recipes, by their names."""


class _Path:
    """An attribute of `Experiment`: a path in its directory."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, experiment: ExperimentPaths, _: object) -> Path:
        return experiment.root / self._name


@dataclass(frozen=True, kw_only=True)
class ExperimentPaths:
    """The paths of an experiment, and its storage.

    Args:
        storage: a directory, or the address of a remote storage.
        name: of the directory in it.
    """

    storage: Path | Location
    name: str

    spec_file = _Path(SPEC_NAME)
    """The spec as run."""
    fixed_file = _Path(FIXED_NAME)
    """The fixed configurations of an experiment without a spec."""
    study_file = _Path(JOURNAL_NAME)
    """Optuna's journal."""
    trials = _Path("trials")
    """Ray Tune's directory of the search."""
    retraining = _Path("retraining")
    """Ray Tune's directory of the retraining."""
    groups = _Path("groups")
    """Checkpoints of trials with several workers."""
    measurements = _Path("measurements.json")
    """Measurements of networks by trials, such as the precision that each is trained in."""
    best = _Path("best")
    """The weights of the best trial."""
    retrained = _Path("retrained")
    """The best configuration, trained on train + validation."""
    test_grid = _Path("pictures.png")
    """A grid of the retrained network's predictions on test images."""
    summary_file = _Path("summary.json")
    """The results."""
    heartbeat_file = _Path(HEARTBEAT_NAME)
    """The last sign of life of the driver."""
    logs = _Path(LOGS_NAME)
    """The log of each trial."""
    comparison_page = _Path("comparison.html")
    """The results of a comparison; the last of its files."""
    driver_log = _Path("driver.log")
    """The lines of progress of all runs, each with its time."""
    _study_id_file = _Path("study.id")

    @cached_property
    def location(self) -> Location:
        """The experiment's directory in its storage, local or remote."""
        return Location.of_storage(self.storage).absolute() / self.name

    @property
    def root(self) -> Path:
        """The experiment's directory; that of a remote storage is a mirror, which is refreshed when it is first used.

        Raises:
            UnavailableError: if the remote storage cannot be used.
        """
        return self.mirror.refreshed() if self.mirror else Path(self.location.path)

    @cached_property
    def mirror(self) -> Mirror | None:
        """The mirror of an experiment in a remote storage; None for a local one.

        Raises:
            InputError: if the name is invalid.
        """
        if self.location.local is not None:
            return None
        check_name(self.name)  # the mirror is a directory of this name
        return Mirror(self.location)

    @property
    def lock_file(self) -> Path:
        """The lock of the driver, on this machine."""
        return (self.mirror.directory if self.mirror else self.root) / LOCK_NAME

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of all trials."""
        return Checkpoints(self.location, self.root)

    def in_storage(self, path: Path) -> Location:
        """The location in the storage of a file or directory of the experiment."""
        return Location.of_storage(path) if self.location.local else self.location / self.relative(path)

    def pull(self, *paths: Path) -> None:
        """Download files that other processes wrote to a remote storage; raises as `Mirror.pull`."""
        if self.mirror:
            self.mirror.pull(*paths)

    def measured(self, name: str) -> Path:
        """Metrics of a network on each test image: one of `MEASURED`, or a recipe of a comparison."""
        return self.root / "measured" / f"{name}.npz"

    def grid(self, trial: str) -> Path:
        """A grid of a trial's predictions on test images."""
        return self.root / "pictures" / f"{trial}.png"

    def trial_log(self, number: int) -> Path:
        """The reports and errors of a trial, each with its time."""
        return self.logs / f"{number:05d}.log"

    def relative(self, path: Path | str) -> str:
        """A path relative to the experiment, as its files contain it, so that the directory can be moved.

        Args:
            path: of this machine, or in the file system of a remote storage.
        """
        if self.mirror and str(path).startswith(f"{self.location.path}/"):
            return str(path).removeprefix(f"{self.location.path}/")
        return str(Path(path).relative_to(self.root))
