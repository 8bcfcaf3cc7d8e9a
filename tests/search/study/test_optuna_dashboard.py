"""optuna-dashboard opens a study as it is, by the commands of the documents: what its own HTTP API answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import note_epoch, note_start, trial_records
from tests.servers import ask, server
from trainable.report import TrialReport

pytestmark = pytest.mark.slow
DASHBOARD = str(Path(sys.executable).with_name("optuna-dashboard"))


@pytest.fixture(params=["journal", "database"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Experiment, str]]:
    """A search with a trial that ended and one that runs, and the address of the dashboard."""
    url = f"sqlite:///{tmp_path}/study.db" if request.param == "database" else None
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(overrides=[("search.study", url)] if url else [], data_path="set"))
    study = open_study(experiment)
    for score in (0.25, 0.5):
        trial = study.ask()
        note_start(trial, {"optimizer": {"lr": trial.suggest_float("optimizer.lr", 0.1, 0.2)}})
        trial.report(score, 1)
        note_epoch(trial, TrialReport(epoch=1, metrics={"score": score}, outcome="trained"))
        if score < 0.5:
            study.tell(trial, score)
    command = [DASHBOARD, url or str(experiment.study_file), "--host", "127.0.0.1", "--port", "{port}"]
    with server(command, "api/studies") as address:
        yield experiment, f"{address}/api"


def test_dashboard_shows_the_study_and_may_annotate_it(opened: tuple[Experiment, str]) -> None:
    """Parameters, curves and states; a note that a user writes there does not harm a search that runs."""
    experiment, api = opened
    [shown] = ask(f"{api}/studies")["study_summaries"]
    ended, running = ask(f"{api}/studies/{shown['study_id']}?after=0")["trials"]
    ask(f"{api}/studies/{shown['study_id']}/note", {"body": "a note", "version": 1}, method="PUT")
    study = open_study(experiment)
    third = study.ask()
    third.report(0.75, 1)
    note_epoch(third, TrialReport(epoch=1, metrics={"score": 0.75}, outcome="trained"))
    note = ask(f"{api}/studies/{shown['study_id']}?after=0")["note"]

    assert (shown["study_name"], shown["directions"]) == ("first", ["maximize"])
    assert (ended["state"], ended["values"], running["state"]) == ("Complete", [0.25], "Running")
    assert [parameter["name"] for parameter in ended["params"]] == ["optimizer.lr"]
    assert [(point["step"], point["value"]) for point in running["intermediate_values"]] == [(1, 0.5)]
    assert note["body"] == "a note"
    assert [record.epochs[0].score for record in trial_records(study)] == [0.25, 0.5, 0.75]
