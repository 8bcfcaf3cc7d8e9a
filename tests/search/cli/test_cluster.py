"""The commands for searches on a cluster, where no cluster answers: they read the storage, and start nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from search.cli.cluster import watch
from search.cluster.client import Job, UnreachableError
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.summary import Summary
from search.terminal import append_line
from tests.search.conftest import Said

Command = Callable[..., Said]
Refused = Callable[..., str]

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", NOWHERE)


@pytest.fixture
def stopped(experiment: Experiment) -> Experiment:
    """A search that was stopped, with the logs of its run."""
    replace(Heartbeat.of_this_process(), state="interrupted", job="twinhead-first-0-1").write(experiment)
    experiment.logs.mkdir()
    append_line(experiment.driver_log, "trial 0: score 0.5000 at epoch 1")
    append_line(experiment.trial_log(0), "epoch 1: score 0.5")
    return experiment


def test_list_shows_what_is_in_the_storage(twinhead: Command, stopped: Experiment) -> None:
    """A line for each search."""
    said = twinhead("list", "--storage", stopped.storage)

    assert said.code == 0
    assert said.out.splitlines()[1].split()[:6] == ["first", "stopped", "0", "of", "20", "0.5000"]


def test_list_and_status_name_the_state_alike(twinhead: Command, experiment: Experiment) -> None:
    """`running` for what `status` said to be searching."""
    Heartbeat.of_this_process().write(experiment)
    listed = twinhead("list", "--storage", experiment.storage)
    status = twinhead("status", "first", "--storage", experiment.storage)

    assert listed.out.splitlines()[1].split()[:2] == ["first", "searching"]
    assert "first: searching" in status.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["list WHERE", "status first WHERE", "logs first WHERE", "trials first WHERE", "spec", "inspect DATA"]
)
def test_what_only_reads_imports_neither_torch_nor_ray(
    command: str, stopped: Experiment, scenes: Path, tmp_path: Path
) -> None:
    """They take seconds to import, and people run these commands again and again while a search runs."""
    words = command.replace("WHERE", f"--storage {stopped.storage}").replace("DATA", str(scenes)).split()
    code = (
        f"import sys; sys.argv[1:] = {words!r}\nfrom search.cli.main import main\ntry: main()\n"
        "finally: print(*sorted({'torch', 'ray', 'pandas', 'sqlalchemy'} & {*sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode in {0, 130}, done.stderr  # `logs` ends as the search did
    assert done.stderr.splitlines()[-1] == ""


@pytest.fixture
def web_server(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a web server that is no dashboard, in $RAY_ADDRESS; its parameter is what it answers."""
    answer: bytes | None = getattr(request, "param", None)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if answer is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("RAY_ADDRESS", f"http://127.0.0.1:{server.server_port}")
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("command", "code"), [("list", 0), ("status first", 0), ("logs first", 130)])
def test_another_web_server_is_noted(
    twinhead: Command, refused: Refused, stopped: Experiment, web_server: str, command: str, code: int
) -> None:
    """A command without its result: port 8265 may be that of anything, and the storage has the answer."""
    said = twinhead(*command.split(), "--storage", stopped.storage)

    assert (said.code, "0.5000" in said.out) == (code, True)
    assert said.err.startswith(f"note: The cluster at '{web_server}' refused a request (")
    assert said.err.endswith(" What follows is from the storage alone.\n")
    assert "refused a request" in refused(*command.split(), "--storage", stopped.storage, "--address", web_server)


@pytest.mark.parametrize("web_server", [b"<html>", b"[]", b"{}"], indirect=True)
def test_another_web_server_is_no_cluster(twinhead: Command, stopped: Experiment, web_server: str) -> None:
    """A traceback: not every answer with code 200 is that of a dashboard."""
    said = twinhead("list", "--storage", stopped.storage)

    assert (said.code, "0.5000" in said.out, said.err) == (0, True, "")


@pytest.mark.parametrize("address", [None, "http://head:8265"])
def test_a_cluster_that_goes_away_ends_no_watch(
    twinhead: Command, stopped: Experiment, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    """A command without its result: the storage knows how the search ended, unless another cluster was asked for."""

    class Leaving:
        is_gone = False

        def jobs(self, _: str) -> list[Job]:
            if self.is_gone:
                raise UnreachableError("No Ray cluster answers.")
            return []

    cluster = Leaving()

    def leave() -> None:
        cluster.is_gone = True
        replace(Heartbeat.of_this_process(), state="interrupted").write(stopped)

    Heartbeat.of_this_process().write(stopped)
    monkeypatch.setattr(watch, "reachable", lambda _: cluster)
    monkeypatch.setattr(watch, "_pause", leave)
    where = ("--address", address) if address else ()
    said = twinhead("status", "first", "--watch", "--storage", stopped.storage, *where)

    if address:
        assert (said.code, said.err) == (2, "twinhead: No Ray cluster answers.\n")
        return
    assert (said.code, "first: stopped" in said.out) == (0, True)
    assert said.err == "note: No Ray cluster answers. What follows is from the storage alone.\n"


def test_list_says_that_a_storage_is_empty(twinhead: Command, tmp_path: Path) -> None:
    """Not an error: the first search is still to come."""
    assert twinhead("list", "--storage", tmp_path) == (0, "", f"there are no searches in '{tmp_path}'\n")
    assert json.loads(twinhead("list", "--storage", tmp_path, "--json").out) == []


def test_a_storage_that_does_not_exist_is_named(refused: Refused, tmp_path: Path) -> None:
    """A mistyped path has no searches either, but that is not what is wrong."""
    said = refused("list", "--storage", tmp_path / "artefacts")

    assert f"The directory '{tmp_path / 'artefacts'}' does not exist" in said


def test_watching_into_a_pipe_writes_lines(
    twinhead: Command, stopped: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their times, for as long as the search runs; then its state."""
    Heartbeat.of_this_process().write(stopped)
    monkeypatch.setattr(
        watch, "_pause", lambda: replace(Heartbeat.of_this_process(), state="interrupted").write(stopped)
    )
    said = twinhead("status", "first", "--watch", "--storage", stopped.storage)

    lines = said.out.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ searching: 0 of 20 trials ended, .*", lines[0])
    assert lines[1] == "search      first: stopped"


def test_ctrl_c_ends_the_display_alone(twinhead: Command, stopped: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search runs somewhere else."""

    def press() -> None:
        raise KeyboardInterrupt

    Heartbeat.of_this_process().write(stopped)
    monkeypatch.setattr(watch, "_pause", press)
    said = twinhead("status", "first", "--watch", "--storage", stopped.storage)

    assert (said.code, said.err) == (130, "'first' goes on\n")


def test_status_keeps_the_address_in_the_next_command(
    twinhead: Command, stopped: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, the command would go to another cluster."""
    address = "http://127.0.0.1:1"
    monkeypatch.setattr(watch, "reachable", lambda _: None)  # a cluster without jobs
    shown = twinhead("status", "first", "--storage", stopped.storage, "--address", address)

    assert f"twinhead resume first --storage {stopped.storage} --address {address}\n" in shown.out


def test_status_names_the_command_that_resumes(twinhead: Command, stopped: Experiment) -> None:
    """For people and, as JSON, for programs."""
    command = f"twinhead resume first --storage {stopped.storage}"
    shown = twinhead("status", "first", "--storage", stopped.storage)
    plain = json.loads(twinhead("status", "first", "--storage", stopped.storage, "--json").out)

    assert (shown.code, "first: stopped" in shown.out, command in shown.out) == (0, True, True)
    assert (plain["state"], plain["command"], plain["best"]["score"]) == ("stopped", command, 0.5)


def test_logs_have_the_exit_code_of_the_search(twinhead: Command, stopped: Experiment) -> None:
    """That of Ctrl-C for a stopped one; a log of a trial belongs to the search too."""
    whole = twinhead("logs", "first", "--storage", stopped.storage)
    followed = twinhead("logs", "first", "--storage", stopped.storage, "--follow")
    trial = twinhead("logs", "first", "0", "--storage", stopped.storage, "--since", "1h")

    assert (whole.code, followed.code, trial.code) == (130, 130, 130)
    assert whole.out == followed.out == stopped.driver_log.read_text()
    assert trial.out.endswith("Z epoch 1: score 0.5\n")


@pytest.fixture
def finished(stopped: Experiment) -> Experiment:
    """A search that is complete."""
    trials = stopped.spec().plan.budget.trials
    summary = Summary(name="first", complete=True, trials=trials, epochs=7, outcomes={"finished": trials})
    stopped.write_summary(summary)
    replace(Heartbeat.of_this_process(), state="ended").write(stopped)
    return stopped


def test_the_log_of_a_finished_search_ends_with_its_summary(twinhead: Command, finished: Experiment) -> None:
    """As that of its job does, which the cluster forgets."""
    trials = finished.spec().plan.budget.trials
    for options in ((), ("--follow",)):
        said = twinhead("logs", "first", "--storage", finished.storage, *options)

        assert said.code == 0
        log, found, rest = said.out.partition(f"\nfirst: {trials} trials ({trials} finished), 7 epochs")
        assert (log, bool(found)) == (finished.driver_log.read_text(), True)
        assert str(finished.summary_file) in rest


def test_stop_knows_without_a_cluster_that_a_search_is_finished(refused: Refused, finished: Experiment) -> None:
    """A cluster that is gone is no reason to look for it then."""
    assert refused("stop", "first", "--storage", finished.storage).endswith("does not run: it is finished.")


def test_a_trial_without_a_log_is_named(refused: Refused, stopped: Experiment) -> None:
    """Nothing is not an answer."""
    assert "Trial 7 of 'first' has no log" in refused("logs", "first", "7", "--storage", stopped.storage)


def test_rm_asks_before_it_removes(refused: Refused, twinhead: Command, stopped: Experiment) -> None:
    """Networks that took days are gone afterwards."""
    assert refused("rm", "first", "--storage", stopped.storage).endswith("give -y to confirm.")
    assert stopped.spec_file.is_file()

    assert twinhead("rm", "first", "--storage", stopped.storage, "-y").code == 0
    assert not stopped.root.exists()


def test_rm_refuses_a_search_that_runs(refused: Refused, stopped: Experiment) -> None:
    """Its driver would go on writing."""
    Heartbeat.of_this_process().write(stopped)

    assert "is running; stop it first" in refused("rm", "first", "--storage", stopped.storage, "-y")


@pytest.mark.parametrize("command", ["stop", "resume"])
def test_what_needs_a_cluster_says_that_none_answers(
    refused: Refused, stopped: Experiment, command: str, scenes: Path
) -> None:
    """With the address that was tried."""
    text = stopped.spec_file.read_text()
    stopped.spec_file.write_text(text.replace("path: set", f"path: {scenes}"))

    assert f"No Ray cluster answers at '{NOWHERE}'" in refused(command, "first", "--storage", stopped.storage)


def test_submit_creates_nothing_without_a_cluster(refused: Refused, scenes: Path, tmp_path: Path) -> None:
    """The name stays free for the next attempt."""
    storage = tmp_path / "searches"
    said = refused("submit", "--data", scenes, "--name", "first", "--storage", storage, "-y")

    assert f"No Ray cluster answers at '{NOWHERE}'" in said
    assert not storage.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--env", "A"), "The value of --env is 'A', but must be KEY=VALUE"),
        (("--trials", 3, "--set", "budget.trials=4"), "The key 'budget.trials' is set twice; leave out --trials"),
        (("--share", "0.5", "--set", "resources.share=0.2"), "The key 'resources.share' is set twice"),
        (("--set", "data.path=elsewhere"), "The key 'data.path' is set twice; leave out --data or --set data.path"),
        (("--set", "name=second"), "The key 'name' is set twice"),
        (("--env", "RAY_AUTH_TOKEN=1"), "The variable 'RAY_AUTH_TOKEN' cannot be given with --env"),
        (("--share", "1.5"), "The value of 'resources.share' is 1.5, but must be"),
        (("--name", "../first"), "The name '../first' is not a valid name"),
    ],
)
def test_what_submit_refuses_at_once(
    refused: Refused, scenes: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """Before a cluster is looked for."""
    where = ("--data", scenes, "--name", "first", "--storage", tmp_path / "searches", "-y")

    assert sentence in refused("submit", *where, *arguments)
