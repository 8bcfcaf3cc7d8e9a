"""Location of a study: the journal or a database, its owner, and that no password is shown."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from data.errors import InputError
from search.commands import JOB_VARIABLE
from search.results.trials_table import trial_rows
from search.spec.spec import load_spec
from search.spec.study_url import masked, problems_of_study
from search.spec.template import summary_lines
from search.study.experiment import Experiment
from search.study.study import OWNER, check_study, open_study, remove_search, removing_if_unstarted, study_location

Command = Callable[..., Any]


def experiment_in(storage: Path, url: str | None, name: str = "first") -> Experiment:
    experiment = Experiment(storage=storage, name=name)
    overrides = [("search.study", url)] if url else []
    experiment.create(load_spec(overrides=overrides, data_path="set"))
    return experiment


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database in a file."""
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.mark.slow
def test_study_is_stored_where_the_spec_says(tmp_path: Path, url: str) -> None:
    """Whoever has the URL opens it with Optuna alone, by the name of the search; nothing lies beside the spec."""
    experiment = experiment_in(tmp_path / "storage", url)
    trial = open_study(experiment).ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.report(0.5, 1)
    plain = optuna.load_study(study_name="first", storage=url)

    assert plain.trials[0].intermediate_values == {1: 0.5}
    assert study_location(experiment) == url
    assert not experiment.study_file.exists()
    assert study_location(experiment_in(tmp_path / "other", None)) == "study.journal"


@pytest.mark.slow
def test_reading_commands_find_the_study(tmp_path: Path, url: str) -> None:
    """`twinhead trials` and its like know the storage and the name alone."""
    experiment = experiment_in(tmp_path / "storage", url)
    open_study(experiment).ask()
    rows = trial_rows(Experiment(storage=tmp_path / "storage", name="first"), sort="number")

    assert [row.number for row in rows] == [0]


@pytest.mark.slow
def test_study_of_another_search_is_refused(tmp_path: Path, url: str) -> None:
    """Two people who call their searches the same, in one database, must not mix their trials."""
    mine, other = experiment_in(tmp_path / "mine", url), Experiment(storage=tmp_path / "other", name="first")
    open_study(mine).ask()

    with pytest.raises(InputError, match=r"of search.study has a study 'first' of another search; choose another"):
        check_study(other, mine.spec())
    other.create(mine.spec())
    with pytest.raises(InputError, match=r"of search.study in '.*spec.yaml' has a study 'first' of another search"):
        open_study(other)
    assert len(open_study(mine).trials) == 1


@pytest.mark.slow
def test_study_of_a_killed_creation_is_continued(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no owner yet, and no trials; a study with trials and without an owner is somebody's own."""
    experiment = experiment_in(tmp_path / "storage", url)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(optuna.Study, "set_user_attr", kill)
        open_study(experiment)
    open_study(experiment)
    assert optuna.load_study(study_name="first", storage=url).user_attrs[OWNER] == experiment.study_id

    optuna.create_study(study_name="other", storage=url, direction="maximize").ask()
    with pytest.raises(InputError, match="has a study 'other' of another search"):
        open_study(experiment_in(tmp_path / "storage", url, "other"))


@pytest.mark.slow
def test_one_database_holds_many_searches(tmp_path: Path, url: str) -> None:
    """Each is found by its name."""
    for name in ("first", "second"):
        experiment = experiment_in(tmp_path / "storage", url, name)
        check_study(experiment, experiment.spec())
        open_study(experiment).set_user_attr("said", name)

    found = {name: optuna.load_study(study_name=name, storage=url).user_attrs["said"] for name in ("first", "second")}
    assert found == {"first": "first", "second": "second"}


def test_missing_study_is_not_created_again(tmp_path: Path, url: str) -> None:
    """A database that was emptied, or a URL that was changed, would make a search of trials start from nothing."""
    experiment = experiment_in(tmp_path / "storage", url)
    open_study(experiment)
    experiment.trials.mkdir()
    optuna.delete_study(study_name="first", storage=url)

    with pytest.raises(InputError, match="no longer has a study 'first', but"):
        open_study(experiment)


def test_study_url_added_to_a_search_with_a_journal_is_refused(tmp_path: Path, url: str) -> None:
    """Its trials would stay behind in the journal."""
    experiment = experiment_in(tmp_path / "storage", None)
    experiment.spec_file.write_text(experiment.spec_file.read_text().replace("study: null", f"study: {url}"))

    with pytest.raises(InputError, match=r"'first' was started without a database for its study; remove search\.study"):
        open_study(experiment)


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["file", "database"])
def test_a_search_that_cannot_start_frees_its_name(tmp_path: Path, url: str, kept: str) -> None:
    """What was wrong is corrected and the same command given again; a search that has trials is never removed."""
    experiment = experiment_in(tmp_path / "storage", url if kept == "database" else None)
    study = open_study(experiment)
    with pytest.raises(InputError, match="too many CPUs"), removing_if_unstarted(experiment, study):
        raise InputError("too many CPUs")
    assert not experiment.root.exists()

    again = experiment_in(tmp_path / "storage", url if kept == "database" else None)
    study = open_study(again)
    study.ask()
    with pytest.raises(InputError, match="too many CPUs"), removing_if_unstarted(again, study):
        raise InputError("too many CPUs")
    assert len(open_study(again).trials) == 1


@pytest.mark.slow
def test_a_killed_removal_is_repeated(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study may be gone from its database before the directory."""
    experiment = experiment_in(tmp_path / "storage", url)
    open_study(experiment)
    experiment.trials.mkdir()

    def kill(_: Experiment) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Experiment, "remove", kill)
        remove_search(experiment)
    assert optuna.get_all_study_names(url) == []
    remove_search(experiment)

    assert not experiment.root.exists()
    assert optuna.get_all_study_names(url) == []


@pytest.mark.slow
def test_a_submitted_search_that_cannot_start_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who submitted it is on another machine, and finds the reason in its log."""
    monkeypatch.setenv(JOB_VARIABLE, "twinhead-first-1")
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    with pytest.raises(InputError, match="too many CPUs"), removing_if_unstarted(experiment, open_study(experiment)):
        raise InputError("A trial needs too many CPUs.")

    assert experiment.spec_file.is_file()
    assert experiment.resume_command == f"twinhead resume first --storage {tmp_path}"


def test_search_without_its_study_keeps_its_checkpoints(tmp_path: Path) -> None:
    """An empty study beside trials is one that was lost, not one that never began."""
    experiment = experiment_in(tmp_path / "storage", None)
    experiment.trials.mkdir()
    with pytest.raises(InputError, match="other data"), removing_if_unstarted(experiment, open_study(experiment)):
        raise InputError("other data")

    assert experiment.trials.exists()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql+psycopg://me:secret@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("postgresql+psycopg://me:sec:ret@with@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://:secret@/db?host=/run", "postgresql://:***@/db?host=/run"),
        (
            "postgresql://me@host/db?password=secret&sslmode=require&sslpassword=secret",
            "postgresql://me@host/db?password=***&sslmode=require&sslpassword=***",
        ),
        ("postgresql://me@server:secret@host/db", "postgresql://me@server:***@host/db"),
        ("postgresql://me:se/cr@with@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host:5432/db?application_name=mine", "postgresql://me@host:5432/db?application_name=mine"),
        ("mysql+pymysql://me@host/db?passwd=secret&charset=utf8", "mysql+pymysql://me@host/db?passwd=***&charset=utf8"),
        ("mssql+pyodbc://me@host/db?PWD=secret&x=1", "mssql+pyodbc://me@host/db?PWD=***&x=1"),
        ("mssql+pyodbc:///?odbc_connect=Server%3Dh%3BPWD%3Dsecret", "mssql+pyodbc:///?odbc_connect=***"),
        ("postgresql+psycopg://me@host/db", "postgresql+psycopg://me@host/db"),
        ("sqlite:////home/me/study.db", "sqlite:////home/me/study.db"),
    ],
)
def test_a_password_is_never_shown(given: str, shown: str) -> None:
    """Logs and screens are seen by many."""
    spec = load_spec(overrides=[("search.study", f"'{given}'")], data_path="set") if "@with" not in given else None

    assert masked(given) == shown
    assert spec is None or f"study: {shown}" in list(summary_lines(spec))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("study.db", "'study.db', but must be the URL of a database, such as postgresql"),
        ("postgres://me:secret@host/db", "'postgres://me:***@host/db', but must be the URL of a database"),
        (
            "postgresql://me:s@cret@host/db",
            "'postgresql://me:***@host/db', but .* special characters of a password percent-encoded",
        ),
        ("postgresql+asyncpg://me:secret@host/db", "must be the URL of a database"),
        ("postgresql://me:secret@host:port/db", "must be the URL of a database"),
        ("sqlite://", "must name a file, as in"),
        ("sqlite:///:memory:", "must name a file, as in"),
        ("sqlite:///study.db", "must name an absolute path"),
    ],
)
def test_invalid_url_is_named(tmp_path: Path, url: str, sentence: str) -> None:
    """It is found with the other slips of a spec, at its line and column, and shown without its password."""
    (tmp_path / "spec.yaml").write_text(f"search:\n  study: '{url}'\n")
    with pytest.raises(InputError, match=sentence.replace("***", r"\*\*\*")) as caught:
        load_spec(tmp_path / "spec.yaml", data_path="set")

    assert str(caught.value).startswith(f"{tmp_path / 'spec.yaml'}:2:10: The value of 'search.study' is ")
    assert "cret" not in str(caught.value)
    assert list(problems_of_study(None, "the spec")) == []


def test_missing_database_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: not everybody has a database."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    experiment = experiment_in(tmp_path, "postgresql+psycopg://me:secret@host/db")

    with pytest.raises(InputError, match=r"'postgresql\+psycopg://me:\*\*\*@host/db' of .* pip install 'psycopg\[bin"):
        open_study(experiment)


@pytest.mark.parametrize(("password", "mode"), [(":secret", 0o600), ("", 0o644)])
def test_spec_with_a_password_is_readable_by_its_owner_only(tmp_path: Path, password: str, mode: int) -> None:
    """A resumed search needs it, other commands do not."""
    before = Path(tmp_path / "any")
    before.touch()
    usual = stat.S_IMODE(before.stat().st_mode)
    experiment = experiment_in(tmp_path, f"postgresql+psycopg://me{password}@host/db")
    modes = [stat.S_IMODE(experiment.spec_file.stat().st_mode)]
    experiment.extend([("budget.trials", "30")])
    modes.append(stat.S_IMODE(experiment.spec_file.stat().st_mode))

    assert modes == [mode & usual] * 2


def test_unreachable_database_frees_the_name(refused: Command, scenes: Path) -> None:
    """Exit code 2 and one sentence, which names the URL without its password; the name stays free."""
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/db"
    Path("spec.yaml").write_text(f"data: {{path: {scenes}}}\nsearch:\n  study: {url}\n")
    from_file = refused("search", "spec.yaml", "--name", "first")
    from_option = refused("search", "--data", scenes, "--name", "first", "--study", url)

    assert from_file.startswith("twinhead: spec.yaml:3:10: The database 'postgresql+psycopg://me:***@127.0.0.1:1/db'")
    for sentence in (from_file, from_option):
        assert "of search.study cannot be used" in sentence
        assert "Connection refused" in sentence
        assert "check that it exists and can be reached from here" in sentence
        assert "secret" not in sentence
    assert not Path("artifacts").exists()


def test_resumed_search_keeps_its_database(refused: Command, experiment: Experiment) -> None:
    """Its trials lie there."""
    sentence = refused("search", "--resume", experiment.name, "--study", "sqlite:////study.db")

    assert "The key 'search.study' cannot be changed after the start of 'first'" in sentence
