"""Alternatives to a damaged checkpoint, for the error message about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.cache.remote import mirror_of
from data.dataset.storage import Location
from data.errors import InputError
from data.folders import from_here
from search.commands import cited, default_storage
from search.results.summary import find_best
from search.study.experiment import Experiment
from search.study.mirror import mirrored
from search.study.study import open_study
from search.study.trials import TrialRecord, trial_records
from trainable.loop.checkpoint import load_model
from trainable.loop.checkpoint_files import DamagedCheckpointError, source_of


@contextmanager
def naming_alternatives() -> Iterator[None]:
    """Within the context, the error for a damaged checkpoint also names alternatives.

    Raises:
        InputError: if a checkpoint is damaged.
    """
    try:
        yield
    except DamagedCheckpointError as error:
        raise with_alternatives(error) from None


def with_alternatives(error: DamagedCheckpointError) -> InputError:
    """The error with intact copies of the same network, or the next best one, if its experiment can be found."""
    checkpoint = error.file.parent
    if isinstance(checkpoint, Location):
        checkpoint = mirror_of(checkpoint)
    found = _experiment_of(checkpoint)
    advice = _alternatives(found, checkpoint) if found else ""
    return InputError(f"The file '{error.file}' {error.problem}; {advice}.") if advice else error


def _experiment_of(checkpoint: Path) -> Experiment | None:
    """The experiment that contains a checkpoint, or from which it was exported; None if it cannot be found."""
    for above in checkpoint.absolute().parents:
        remote = mirrored(above)
        found = Experiment(storage=remote.parent if remote else from_here(above.parent), name=above.name)
        if found.spec_file.is_file() or found.fixed_file.is_file():
            return found
    if name := source_of(checkpoint).get("search"):
        found = Experiment(storage=default_storage(), name=str(name))
        return found if found.spec_file.is_file() else None
    return None


def _alternatives(experiment: Experiment, checkpoint: Path) -> str:
    """A clause for each way to get an intact network; '' if there is none."""
    trials = trial_records(open_study(experiment), experiment.objective)
    number = _trial_of(experiment, checkpoint, trials)
    own = find_best(experiment, [trial for trial in trials if trial.number == number])
    if experiment.fixed_file.is_file():
        return f"'{own.checkpoint}' has an intact copy of the network" if own else ""
    ways = []
    if own is None and number is not None and _is_copy(experiment, number, trials):
        copy = experiment.storage / experiment.name / experiment.best.name
        ways.append(f"'{copy}' has an intact copy of the network")
    if number is None:
        ways.append(f"train the network again with {cited(experiment.command('retrain'))}")
    best = own or find_best(experiment, trials)
    if best is not None:
        export = experiment.command("best", "--trial", best.trial.number)
        which = "the intact copy in trials/" if own else "the best trial with an intact checkpoint"
        ways.append(f"export {which}, with {cited(export)}")
    return ", or ".join(ways)


def _is_copy(experiment: Experiment, number: int, trials: list[TrialRecord]) -> bool:
    """Whether best/ has the weights of a trial and is intact."""
    try:
        load_model(experiment.checkpoints.fetch(experiment.best))
    except InputError:
        return False
    return _trial_of(experiment, experiment.best, trials) == number


def _trial_of(experiment: Experiment, checkpoint: Path, trials: list[TrialRecord]) -> int | None:
    """Number of the trial that a checkpoint is of; None if it was retrained."""
    number = source_of(checkpoint).get("trial")
    if isinstance(number, int):
        return number
    for trial in trials:
        paths = (record.checkpoint for record in trial.epochs if record.checkpoint)
        if any((experiment.root / path).absolute() == checkpoint.absolute() for path in paths):
            return trial.number
    if checkpoint.absolute() == experiment.best.absolute() and experiment.summary_file.is_file():
        best = experiment.summary().best
        return best.trial if best else 0
    return None
