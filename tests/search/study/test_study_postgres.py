"""A study in a real PostgreSQL server: stored, with clear errors, and with waiting while the server is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from data.errors import InputError, UnfinishedError
from search.run.tuner import new_request
from search.spec.spec import load_spec
from search.strategy.searcher import RungSearcher
from search.study import database
from search.study.experiment import Experiment
from search.study.study import held_study, open_study
from search.study.trials import TrialRecord, note_epoch, note_start
from tests.commands import LONG, kill_all, records, started, twinhead, wait_for
from tests.postgres import Server, running_server
from trainable.report import TrialReport

pytestmark = pytest.mark.postgres

Command = Callable[..., Any]
NUMBERS = count()
RUNGS = (1, 3)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    """A new database."""
    return server.create(f"db{next(NUMBERS)}")


def experiment_in(storage: Path, url: str) -> Experiment:
    experiment = Experiment(storage=storage, name="first")
    experiment.create(load_spec(overrides=[("search.study", f"'{url}'")], data_path="set"))
    return experiment


def database_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def read_plainly(url: str, name: str) -> list[FrozenTrial]:
    """What Optuna alone finds in the database."""
    storage = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name=name, storage=storage).get_trials()
    finally:
        storage.engine.dispose()


def searcher_of(experiment: Experiment) -> RungSearcher:
    """As a search has it, on a space of one number."""

    def space(trial: optuna.Trial) -> dict[str, Any]:
        return {"x": trial.suggest_float("x", 0, 1)}

    return RungSearcher(space, rungs=RUNGS, study=open_study(experiment), describe=partial(new_request, experiment))


def run(searcher: RungSearcher, name: str, epochs: int) -> None:
    """A trial up to an epoch; it ends at the last rung."""
    values = searcher.suggest(name)["trial"]
    trial = searcher.running(name)
    assert trial is not None
    done = max(trial.study.trials[trial.number].intermediate_values, default=0)
    for epoch in range(done + 1, epochs + 1):
        result = {"epoch": epoch, "score": values["x"] + epoch / 10}
        searcher.on_trial_result(name, result)
        note_epoch(trial, TrialReport(epoch=epoch, metrics={"score": result["score"]}))
    if epochs == RUNGS[-1]:
        searcher.on_trial_complete(name, {"epoch": epochs, "score": values["x"] + epochs / 10})


def test_search_resumes_from_the_server(tmp_path: Path, url: str) -> None:
    """Finished trials stay, the running one resumes, and plain Optuna reads every curve."""
    experiment = experiment_in(tmp_path, url)
    first = searcher_of(experiment)
    for name in ("a", "b"):
        run(first, name, 3)
    run(first, "c", 1)
    del first
    again = searcher_of(experiment)
    run(again, "c", 3)
    for number in range(8):
        run(again, f"new-{number}", 3)
    plain = read_plainly(url, "first")

    assert [trial.state for trial in plain] == [TrialState.COMPLETE] * 11
    assert [record.attempt for record in map(TrialRecord.of, plain)] == [0, 0, 1, *[0] * 8]
    for trial in plain:
        curve = {epoch: trial.params["x"] + epoch / 10 for epoch in (1, 2, 3)}
        assert trial.intermediate_values == pytest.approx(curve)
        assert [record.score for record in TrialRecord.of(trial).epochs] == pytest.approx(list(curve.values()))


def test_refused_connections_are_named(server: Server, tmp_path: Path, url: str) -> None:
    """Each has another remedy: the password, the database, the server."""
    name = database_of(url)
    sentences = {
        server.url(name, password="wrong"): r"password authentication failed .*\); give the right user, and the pass",  # noqa: S106
        server.url(name, password=None): r"no password supplied\); give the right user, and the password in \$PGPASSWO",
        server.url("nowhere"): r'database "nowhere" does not exist\); create it with \'createdb nowhere\', or correct',
        server.url(name).replace("host=", "port=1&host="): r"No such file or directory\); check that it exists and can",
    }
    for number, (wrong, sentence) in enumerate(sentences.items()):
        experiment = experiment_in(tmp_path / str(number), wrong)
        with pytest.raises(InputError, match=sentence) as caught:
            open_study(experiment)
        assert "wrong" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_password_may_come_from_the_environment(
    server: Server, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it lies in no spec."""
    monkeypatch.setenv("PGPASSWORD", "p%ss wörd")
    name = database_of(url)
    study = open_study(experiment_in(tmp_path, server.url(name, password=None)))

    assert study.trials == []


def test_missing_permission_to_create_tables_is_reported(server: Server, tmp_path: Path, url: str) -> None:
    """As PostgreSQL has it since version 15, a database is its owner's."""
    guest = server.guest(database_of(url))

    with pytest.raises(InputError, match=r"permission denied .*\); allow its user to create tables, or give another"):
        open_study(experiment_in(tmp_path, guest))


def test_unavailable_server_is_waited_for(server: Server, tmp_path: Path, url: str) -> None:
    """It is restarted for an update, and the network has its moments: hours of training must not end for that."""
    searcher = searcher_of(experiment_in(tmp_path, url))
    run(searcher, "a", 3)
    server.stop()
    back = threading.Timer(1.0, server.start)
    back.start()
    run(searcher, "b", 3)
    back.join()

    assert [trial.state for trial in searcher.study.trials] == [TrialState.COMPLETE] * 2
    assert searcher.study.trials[1].intermediate_values.keys() == {1, 2, 3}


def test_permanently_unavailable_server_ends_the_search_with_a_message(
    server: Server, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored trials are safe, and the error shows the command that continues."""
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.0)
    experiment = experiment_in(tmp_path, url)
    try:
        with (
            pytest.raises(
                UnfinishedError,
                match=r"The study of 'first' in .* was lost \(.*\); when it is available again, continue",
            ),
            held_study(experiment) as study,
        ):
            trial = study.ask()
            note_start(trial, {})
            server.stop()
            trial.report(0.5, 1)
    finally:
        server.start()

    assert open_study(experiment).trials[0].user_attrs["attempt"] == 0


@pytest.mark.cluster
def test_killed_search_resumes_from_its_database(drawn: Path, tmp_path: Path, url: str) -> None:
    """As with a journal, nothing that finished is lost; and the password is nowhere but in the spec."""
    experiment = Experiment(storage=tmp_path, name="killed")
    data = ("--data", str(drawn), "--name", experiment.name, "--storage", str(tmp_path))
    with started("search", *data, "--study", url, *LONG, "--trials", "3") as process:
        wait_for(process, r"trial \d+: score")
        kill_all(process)
    before = {trial.number: trial for trial in records(experiment)}
    printed = twinhead("search", "--resume", experiment.name, "--storage", str(tmp_path), "--json")
    plain = read_plainly(url, "killed")

    finished = [number for number, trial in before.items() if trial.state == TrialState.COMPLETE]
    assert finished
    assert [trial.number for trial in plain] == [0, 1, 2]
    for trial in plain:
        assert trial.state == TrialState.COMPLETE
        assert list(trial.intermediate_values) == list(range(1, 41))
        went_on = trial.number in before and trial.number not in finished
        assert TrialRecord.of(trial).attempt == int(went_on)
    secret = url.partition("//searcher:")[2].partition("@")[0]
    texts = [path.read_bytes() for path in experiment.root.rglob("*") if path.is_file()]
    assert secret not in printed
    assert sum(secret.encode() in text for text in texts) == 1
    assert not experiment.study_file.exists()
