"""Optuna's study of an experiment: in a journal beside its spec, or in the database that its spec names.

A search has one study, which is called as the search is: `optuna-dashboard` opens the file as well as the URL.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from data.errors import InputError, UnfinishedError
from search.commands import cited
from search.spec.spec import SearchSpec
from search.spec.study_url import masked
from search.study.database import named_errors, open_database, reason_of
from search.study.experiment import Experiment
from search.study.journal import Journal
from trainable.config import ConfigError
from trainable.metrics.names import MODE

OWNER = "experiment"
"""Attribute of a study in a database: which experiment's it is."""


def open_study(experiment: Experiment) -> optuna.Study:
    """The experiment's study, made when it is not there.

    Raises:
        InputError: if its database cannot be used, or has another search's study in its place.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = experiment.study_url
    if url is None:
        return _create(experiment, JournalStorage(Journal(experiment.study_file)), load_if_exists=True)
    source = f"search.study in '{experiment.spec_file}'"
    storage = open_database(url, source)
    with named_errors(url, source):
        study = _open_own(experiment, storage, f"The database '{masked(url)}' of {source}")
    weakref.finalize(study, storage.engine.dispose)
    return study


def check_study(experiment: Experiment, spec: SearchSpec) -> None:
    """See to it, before a search begins, that its database can be used and has no study of its name.

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
            is_there = _has(storage, experiment.name)
    except InputError as error:
        raise ConfigError.about("search.study", str(error)) from None
    if is_there:
        raise ConfigError.about("search.study", _taken(experiment, f"The database '{masked(url)}' of search.study"))


def study_place(experiment: Experiment) -> str:
    """Where the study lies, for people and for `optuna-dashboard`; without the password."""
    url = experiment.study_url
    return masked(url) if url else experiment.relative(experiment.study_file)


@contextmanager
def held_study(experiment: Experiment) -> Iterator[optuna.Study]:
    """The experiment's study, for a search that runs: where its database is lost, the search ends with a sentence.

    Raises:
        InputError: as `open_study`.
        UnfinishedError: in the place of the database's own error, and of what Ray Tune makes of it.
    """
    study = open_study(experiment)
    try:
        yield study
    except Exception as error:
        lost = _cause(error)
        if lost is None:
            raise
        raise UnfinishedError(
            f"The study of '{experiment.name}' in '{study_place(experiment)}' was lost ({reason_of(lost)}); when it is "
            f"back, go on with {cited(experiment.resume_command)}."
        ) from None


@contextmanager
def leaving_nothing(experiment: Experiment, study: optuna.Study) -> Iterator[None]:
    """Within it, an InputError removes a search that has no trial yet: its name is free again once that is corrected.

    Raises:
        InputError: the same.
    """
    try:
        yield
    except InputError:
        if not study.get_trials(deepcopy=False) and not experiment.trials.exists():
            if experiment.study_url is not None:
                optuna.delete_study(study_name=study.study_name, storage=study._storage)
            experiment.remove()
        raise


def _open_own(experiment: Experiment, storage: RDBStorage, which: str) -> optuna.Study:
    own = experiment.study_id
    if not _has(storage, experiment.name):
        if experiment.trials.exists():
            raise InputError(
                f"{which} has no study '{experiment.name}' any more, although it has trials in '{experiment.trials}'; "
                "bring it back, or start anew under another --name."
            )
        try:
            study = _create(experiment, storage, load_if_exists=False)
        except DuplicatedStudyError:
            raise InputError(_taken(experiment, which)) from None
        study.set_user_attr(OWNER, own)
        return study
    study = _create(experiment, storage, load_if_exists=True)
    if study.user_attrs.get(OWNER) != own:
        raise InputError(_taken(experiment, which))
    return study


def _create(experiment: Experiment, storage: BaseStorage, *, load_if_exists: bool) -> optuna.Study:
    return optuna.create_study(
        study_name=experiment.name,
        storage=storage,
        direction="maximize" if MODE == "max" else "minimize",
        sampler=optuna.samplers.RandomSampler(),
        load_if_exists=load_if_exists,
    )


def _has(storage: RDBStorage, name: str) -> bool:
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


def _taken(experiment: Experiment, which: str) -> str:
    return (
        f"{which} has a study '{experiment.name}' of another search; choose another --name or another database, or "
        f"remove that study with 'optuna delete-study --study-name {experiment.name}'."
    )


def _cause(error: BaseException | None) -> BaseException | None:
    """The database's error behind what Ray Tune raised; None if that is not it."""
    while error is not None and not isinstance(error, StorageInternalError | SQLAlchemyError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error
