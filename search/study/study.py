"""Optuna's study of an experiment: in a journal beside its spec, or in the database that its spec names.

A search has one study. The study keeps the first name of the search when the directory is renamed or copied.
`optuna-dashboard` opens the journal as well as the URL.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import TrialState

from data.dataset.storage import Location
from data.dataset.transfer import listing, remove_tree
from data.errors import InputError, UnfinishedError
from search.commands import JOB_VARIABLE, cited
from search.spec.spec import SearchSpec
from search.spec.study_url import masked
from search.study.database import named_errors, open_database, reason_of
from search.study.experiment import Experiment
from search.study.journal import Journal
from search.study.trials import note_objective
from trainable.config import ConfigError

OWNER = "experiment"
"""Attribute of a study in a database: the ID of its experiment."""
DIRECTORY = "directory"
"""Attribute of a study in a database: the absolute path of its experiment."""


def open_study(experiment: Experiment) -> optuna.Study:
    """Open the experiment's study, or create it. An existing study is not changed.

    A damaged journal is reported on standard error.

    Raises:
        InputError: if the database cannot be used, has a study of this name that belongs to another search, or belongs
            to an experiment of which this one is a copy.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = experiment.study_url
    if url is None:
        return _open_journal(experiment)
    source = f"search.study in '{experiment.spec_file}'"
    storage = open_database(url, source)
    with named_errors(url, source):
        study = _open_own(experiment, storage, f"The database '{masked(url)}' of {source}")
    weakref.finalize(study, storage.engine.dispose)
    return study


def open_existing_study(experiment: Experiment) -> optuna.Study:
    """Open the study of a search that exists.

    Raises:
        InputError: if there is no such search, or as `open_study`.
    """
    experiment.spec()  # raises if there is no such search
    return open_study(experiment)


def check_study(experiment: Experiment, spec: SearchSpec) -> None:
    """Check, before a search is created, that its database can be used and has no study of its name.

    Raises:
        ConfigError: if not.
    """
    url = spec.plan.search.study
    if url is None:
        return
    try:
        storage = open_database(url, "search.study")
        weakref.finalize(storage, storage.engine.dispose)
        with named_errors(url, "search.study"):
            is_there = experiment.name in optuna.get_all_study_names(storage)
    except InputError as error:
        raise ConfigError.about("search.study", str(error)) from None
    if is_there:
        raise ConfigError.about("search.study", _taken(experiment, f"The database '{masked(url)}' of search.study"))


def study_location(experiment: Experiment) -> str:
    """The path of the journal relative to the experiment, or the URL of the database without its password."""
    url = experiment.study_url
    return masked(url) if url else experiment.relative(experiment.study_file)


@contextmanager
def held_study(experiment: Experiment) -> Iterator[optuna.Study]:
    """Open the experiment's study for the duration of a run; a lost database becomes one error message.

    Raises:
        InputError: as `open_study`.
        UnfinishedError: if the database is lost within the context, also where Ray Tune has wrapped its error.
    """
    with removing_if_unstarted(experiment):
        study = open_study(experiment)
    try:
        yield study
    except Exception as error:
        lost = _cause(error)
        if lost is None:
            raise
        raise UnfinishedError(
            f"The study of '{experiment.name}' in '{study_location(experiment)}' was lost ({reason_of(lost)}); when it "
            f"is available again, continue with {cited(experiment.resume_command)}."
        ) from None


@contextmanager
def removing_if_unstarted(experiment: Experiment, study: optuna.Study | None = None) -> Iterator[None]:
    """On an error within the context, remove a search that has started no trial, so that its name can be used again.

    Ctrl-C removes nothing: such a search can be resumed. A submitted one stays too, with the reason in its log.

    Args:
        experiment: the search.
        study: its study; None if it is not open yet.
    """
    try:
        yield
    except Exception:
        if not os.environ.get(JOB_VARIABLE):
            with contextlib.suppress(Exception):  # the original error is the informative one
                _remove_if_unstarted(experiment, study)
        raise


def _remove_if_unstarted(experiment: Experiment, study: optuna.Study | None) -> None:
    if _has_started(experiment):
        return
    if study is None:
        if not _has_records(experiment.study_file) and experiment.study_url is None:
            experiment.remove()
        return
    if any(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
        return
    _remove(experiment, study)


def remove_search(experiment: Experiment) -> None:
    """Remove a search with all its files, and its study if that is in a database.

    Raises:
        InputError: if there is no such search, or its database cannot be used.
    """
    _remove(experiment, open_existing_study(experiment))


def _remove(experiment: Experiment, study: optuna.Study) -> None:
    if experiment.study_url is not None:
        # First the trials, without which a study that is gone counts as one that was never there.
        for trials in (experiment.in_storage(experiment.trials), Location.of_storage(experiment.trials)):
            remove_tree(trials)
        optuna.delete_study(study_name=study.study_name, storage=study._storage)
    experiment.remove()


def _has_started(experiment: Experiment) -> bool:
    """Whether Ray Tune has made the directory of the trials."""
    if experiment.trials.exists():
        return True
    return experiment.mirror is not None and bool(listing(experiment.in_storage(experiment.trials)))


def _has_records(journal: Path) -> bool:
    return journal.exists() and journal.stat().st_size > 0


def _open_journal(experiment: Experiment) -> optuna.Study:
    """The only study of the journal, whatever its name; of several, the one with trials or the experiment's name.

    Earlier versions added an empty study to the journal of a renamed directory.
    """
    storage = JournalStorage(Journal(experiment.study_file, _say_once, mode=experiment.objective.mode))
    studies = storage.get_all_studies()
    used = [study for study in studies if storage.get_all_trials(study._study_id, deepcopy=False)] or studies
    named = [study for study in used if study.study_name == experiment.name]
    if len(used) > 1 and not named:
        names = ", ".join(f"'{study.study_name}'" for study in used)
        raise InputError(
            f"The journal '{experiment.study_file}' has the trials of several searches, {names}; rename the directory "
            f"'{experiment.root}' to one of them."
        )
    if not used:
        return _create(experiment, storage, load_if_exists=True)
    return _load((named or used)[0].study_name, storage)


@functools.cache
def _say_once(sentence: str) -> None:
    """Write to standard error; a command may open a study several times."""
    if sys.stderr is not None:  # the calling program closed it
        sys.stderr.write(f"{sentence}\n")


def _open_own(experiment: Experiment, storage: RDBStorage, which: str) -> optuna.Study:
    own = experiment.study_id
    name = experiment.name if experiment.name in optuna.get_all_study_names(storage) else _name_of(storage, own)
    if name is None or _is_abandoned(name, storage):
        if _has_started(experiment):
            raise InputError(
                f"{which} no longer has a study '{experiment.name}', but '{experiment.trials}' has its trials; "
                "restore the study, or start a new search under another --name."
            )
        try:
            study = _create(experiment, storage, load_if_exists=name is not None)
        except DuplicatedStudyError:
            raise InputError(_taken(experiment, which)) from None
        study.set_user_attr(OWNER, own)
        study.set_user_attr(DIRECTORY, str(experiment.location))
        return study
    study = _load(name, storage)
    if study.user_attrs.get(OWNER) != own:
        raise InputError(_taken(experiment, which))
    _refuse_copy(experiment, study)
    return study


def _is_abandoned(name: str, storage: RDBStorage) -> bool:
    """Whether the process that created a study was killed before it named the owner."""
    study = _load(name, storage)
    return OWNER not in study.user_attrs and not study.get_trials(deepcopy=False)


def _refuse_copy(experiment: Experiment, study: optuna.Study) -> None:
    """Refuse a copied directory, since two directories with one study would mix their trials; accept a moved one.

    Earlier versions did not record the directory: then the original is expected beside this one, under its first name.
    """
    here, kept = experiment.location, study.user_attrs.get(DIRECTORY)
    before = Location.of_storage(kept) if kept else here.parent / study.study_name
    if kept == str(here):
        return
    original = Experiment(storage=before.parent, name=before.name)
    if _is_of(original, experiment.study_id) and not _is_same(before, here):
        raise InputError(
            f"The search '{experiment.name}' in '{experiment.storage}' is a copy of '{before}', whose trials are in "
            f"the database '{study_location(experiment)}', and two directories cannot share them; use the original, or "
            f"start a new search from its best trials, with --set 'search.start_from=[{before.name}]'."
        )
    study.set_user_attr(DIRECTORY, str(here))


def _is_same(one: Location, other: Location) -> bool:
    """Whether both are the same directory, such as by a symbolic link."""
    if one.local is None or other.local is None:
        return one == other
    return one.local.samefile(other.local)


def _is_of(experiment: Experiment, study_id: str) -> bool:
    try:
        return experiment.study_id == study_id
    except (InputError, OSError):
        return False


def _name_of(storage: RDBStorage, own: str) -> str | None:
    """The name of the study of the experiment with the ID `own`, whose directory was renamed; None if there is none."""
    return next((study.study_name for study in storage.get_all_studies() if study.user_attrs.get(OWNER) == own), None)


def _load(name: str, storage: BaseStorage) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())


def _create(experiment: Experiment, storage: BaseStorage, *, load_if_exists: bool) -> optuna.Study:
    study = optuna.create_study(
        study_name=experiment.name,
        storage=storage,
        direction=experiment.objective.direction,
        sampler=optuna.samplers.RandomSampler(),
        load_if_exists=load_if_exists,
    )
    note_objective(study, experiment.objective)
    return study


def _taken(experiment: Experiment, which: str) -> str:
    return (
        f"{which} has a study '{experiment.name}' of another search; choose another --name or another database, or "
        f"remove that study with 'optuna delete-study --study-name {experiment.name}'."
    )


def _cause(error: BaseException | None) -> BaseException | None:
    """The database error in the chain of an error that Ray Tune raised; None if there is none."""
    from sqlalchemy.exc import SQLAlchemyError

    while error is not None and not isinstance(error, StorageInternalError | SQLAlchemyError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error
