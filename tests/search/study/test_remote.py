"""An experiment in a remote storage: readable from anywhere, resumed on any machine, run by one driver at a time."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from data.dataset.dataset import Dataset
from data.dataset.storage import Location, UnavailableError
from data.errors import InputError
from search.run.run import run_search
from search.spec.spec import load_spec
from search.study import mirror as mirroring
from search.study import running as driving
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.names import free_name, search_names
from search.study.running import running
from search.study.study import open_existing_study, open_study
from search.study.summary import Summary
from search.study.trials import TrialRecord, best_epoch, keep_best, note_epoch, note_start, trial_records
from search.terminal import Screen, append_line
from tests.s3 import BUCKET, Store, failing_store
from tests.search.conftest import CONFIGURATION, METRICS
from trainable.config import TrialConfig
from trainable.loop.checkpoint import save
from trainable.loop.checkpoint_files import STATE, WEIGHTS, DamagedCheckpointError, Origin
from trainable.models import build_model
from trainable.report import TrialReport

SOON = 60.0
"""Seconds after which something does not happen any more."""


@pytest.fixture(scope="module")
def _server() -> Iterator[Store]:
    with failing_store() as store:
        yield store


@pytest.fixture
def store(_server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose requests fail without long pauses, and a driver that looks often."""
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(driving, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(driving, "CLAIM_SECONDS", 0.01)
    monkeypatch.setattr(driving, "CHANGE_SECONDS", 0.01)
    monkeypatch.setattr("data.dataset.transfer.FIRST_PAUSE_SECONDS", 0.01)
    yield _server
    _server.faults.__init__()  # type: ignore[misc]


Move = Callable[[], None]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """Go to another machine, which has an empty cache."""
    machines = iter(range(100))

    def move() -> None:
        monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / f"cache-{next(machines)}"))

    return move


@pytest.fixture
def storage(store: Store, request: pytest.FixtureRequest) -> Location:
    return Location.of_storage(store.address(re.sub(r"\W+", "-", request.node.name)))


def created(storage: Location, name: str = "first") -> Experiment:
    experiment = Experiment(storage=storage, name=name)
    experiment.create(load_spec(data_path="set"))
    return experiment


def checkpoint_at(directory: Path, epoch: int, *, width: int = 2) -> None:
    config = TrialConfig.model_validate(CONFIGURATION.model_dump() | {"model": {"family": "debug", "width": width}})
    origin = Origin(config=config, data_fingerprint="ab12", epoch=epoch)
    save(directory, build_model(config.model), origin, METRICS, state={"epoch": epoch})


def uploaded(experiment: Experiment, relative: str, tmp_path: Path, epoch: int) -> None:
    """A checkpoint in the storage, as Tune writes it there, and not in the mirror."""
    checkpoint_at(tmp_path / "raw", epoch)
    for file in (tmp_path / "raw").iterdir():
        with (experiment.location / relative / file.name).open_output() as opened:
            opened.write(file.read_bytes())
    shutil.rmtree(tmp_path / "raw")


def with_trial(experiment: Experiment, tmp_path: Path, scores: list[float]) -> TrialRecord:
    """A trial with a checkpoint after each epoch."""
    trial = open_study(experiment).ask()
    note_start(trial, CONFIGURATION.model_dump())
    for epoch, score in enumerate(scores, start=1):
        relative = f"trials/{trial.number:05d}/checkpoint_{epoch - 1:06d}"
        uploaded(experiment, relative, tmp_path, epoch)
        note_epoch(trial, TrialReport(epoch=epoch, metrics=METRICS | {"score": score}, outcome="trained"), relative)
    return TrialRecord.of(trial)


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.slow
def test_a_search_is_found_from_another_machine(storage: Location, elsewhere: Move) -> None:
    """With its spec, and by its name."""
    spec = created(storage).spec()
    created(storage, "second")
    elsewhere()

    assert search_names(storage) == ["first", "second"]
    assert free_name(storage, "first") == "first-2"
    assert Experiment(storage=storage, name="first").spec() == spec
    with pytest.raises(InputError, match=r"no search 'third' in 's3://.*'; there are first, second"):
        Experiment(storage=storage, name="third").spec()


@pytest.mark.slow
def test_a_name_in_use_is_refused(storage: Location, elsewhere: Move) -> None:
    """From another machine as well, although its mirror is empty."""
    created(storage)
    elsewhere()

    with pytest.raises(InputError, match=r"The name 'first' is in use in 's3://.*--storage 's3://"):
        created(storage)


def test_a_name_that_was_taken_meanwhile_is_refused(storage: Location, elsewhere: Move) -> None:
    """The name is checked before the data set is verified, and another machine may be at the same."""
    late = Experiment(storage=storage, name="first")
    late.refuse_existing()
    elsewhere()
    other = created(storage)

    with pytest.raises(InputError, match="The name 'first' is in use"):
        late.create(load_spec(data_path="another"))
    assert Experiment(storage=storage, name="first").spec() == other.spec()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../first", "a/b", "", ".."])
def test_a_name_cannot_leave_the_storage(storage: Location, name: str) -> None:
    """Nor the mirror, which is a directory of that name."""
    with pytest.raises(InputError, match="is not a valid name"):
        Experiment(storage=storage, name=name).spec()
    with pytest.raises(InputError, match="is not a valid name"):
        _ = Experiment(storage=storage, name=name).root


def test_a_whole_bucket_is_a_storage(store: Store) -> None:
    """A bucket of searches needs no prefix."""
    experiment = Experiment(storage=Location.of_storage(store.address()), name="in-bucket")
    experiment.create(load_spec(data_path="set"))

    assert store.names("in-bucket") == ["spec.yaml"]
    experiment.remove()
    assert store.names("in-bucket") == []
    assert not experiment.mirror or not experiment.mirror.directory.exists()


@pytest.mark.slow
def test_a_password_is_not_written_to_a_storage(storage: Location, store: Store) -> None:
    """Whoever reads the bucket would read it."""
    spec = load_spec(None, [("search.study", '"postgresql://me:s3cr3t@here/db"')], data_path="set")

    with pytest.raises(InputError, match="contains a password") as refused:
        Experiment(storage=storage, name="first").create(spec)

    assert "s3cr3t" not in str(refused.value)
    assert store.names(storage.name) == []


@pytest.mark.slow
def test_what_the_driver_writes_is_published(storage: Location, store: Store, elsewhere: Move) -> None:
    """Within seconds, whole, and readable from elsewhere while it runs."""
    experiment = created(storage)
    with running(experiment, lambda _: None):
        trial = open_study(experiment).ask()
        note_start(trial, CONFIGURATION.model_dump())
        journal = f"{storage.name}/first/study.journal"
        until(lambda: "study.journal" in store.names(f"{storage.name}/first") and b'"attempt"' in store.read(journal))
        beat = Heartbeat.read(experiment)
        assert beat is not None
        assert beat.is_alive()
        elsewhere()
        other = Experiment(storage=storage, name="first")
        assert [record.attempt for record in trial_records(open_existing_study(other))] == [0]
        experiment.write_summary(Summary(trials=1))
        (experiment.trials / "00000").mkdir(parents=True)
        (experiment.trials / "00000" / "events.1").write_bytes(b"curve")

    beat = Heartbeat.read(experiment)
    assert beat is not None
    assert (beat.state, beat.reason) == ("ended", "")
    assert store.names(f"{storage.name}/first") == [
        "heartbeat.json",
        "spec.yaml",
        "study.journal",
        "summary.json",
        "trials/00000/events.1",
    ]


@pytest.mark.slow
def test_a_journal_is_published_up_to_its_last_whole_line(storage: Location, store: Store) -> None:
    """The driver may be writing while the publisher reads."""
    experiment = created(storage)
    with running(experiment, lambda _: None):
        open_study(experiment).ask()
        whole = experiment.study_file.read_bytes()
        with experiment.study_file.open("ab") as file:
            file.write(b'{"op_code":')
    assert store.read(f"{storage.name}/first/study.journal") == whole


def test_a_failed_run_says_so_in_its_heartbeat(storage: Location) -> None:
    """Whoever looks later knows why it ended."""
    experiment = created(storage)
    with pytest.raises(RuntimeError), running(experiment, lambda _: None):
        raise RuntimeError("the trial exploded")

    beat = Heartbeat.read(experiment)
    assert beat is not None
    assert (beat.state, beat.reason) == ("failed", "the trial exploded")


@pytest.mark.slow
def test_a_search_is_resumed_from_the_storage_alone(storage: Location, elsewhere: Move, tmp_path: Path) -> None:
    """On another machine, with the same trials and the newest checkpoint of each."""
    experiment = created(storage)
    with running(experiment, lambda _: None):
        before = with_trial(experiment, tmp_path, [0.1, 0.3, 0.2])
    elsewhere()

    again = Experiment(storage=storage, name="first")
    with running(again, lambda _: None):
        (record,) = trial_records(open_study(again))
        newest = record.newest(again)

    assert record == before
    assert newest == again.root / "trials/00000/checkpoint_000002"
    assert str(again.in_storage(newest)).startswith(f"s3://{BUCKET}/")


@pytest.mark.slow
def test_changes_that_were_not_published_are_kept(storage: Location, store: Store) -> None:
    """A driver that was killed wrote them here; the next one on this machine publishes them."""
    experiment = created(storage)
    with running(experiment, lambda _: None):
        open_study(experiment).ask()
    open_study(experiment).ask()

    again = Experiment(storage=storage, name="first")
    with running(again, lambda _: None):
        assert len(trial_records(open_study(again))) == 2
    assert store.read(f"{storage.name}/first/study.journal") == again.study_file.read_bytes()


def test_an_upload_without_its_answer_loses_nothing(storage: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage has more than the index knows, as after a driver that was killed while it published."""
    monkeypatch.setattr(driving, "FLUSH_SECONDS", 0.0)
    experiment = created(storage)
    with running(experiment, lambda _: None):
        open_study(experiment).ask()
        experiment.driver_log.write_text("one\n")
    write = mirroring.write_whole

    def unanswered(file: Location, content: bytes) -> None:
        write(file, content)
        raise UnavailableError("The storage does not answer; check the network.")

    monkeypatch.setattr(mirroring, "write_whole", unanswered)
    with running(experiment, lambda _: None):
        open_study(experiment).ask()
    open_study(experiment).ask()
    experiment.driver_log.write_text("one\ntwo\n")
    monkeypatch.setattr(mirroring, "write_whole", write)

    again = Experiment(storage=storage, name="first")
    with running(again, lambda _: None):
        assert len(trial_records(open_study(again))) == 3
        assert again.driver_log.read_text() == "one\ntwo\n"
    with (storage / "first/study.journal").open_input() as opened:
        assert opened.read() == again.study_file.read_bytes()


def test_what_a_cache_lost_stays_in_the_storage(storage: Location, store: Store) -> None:
    """A cache may be emptied at any time; only what the driver removed itself is removed."""
    experiment = created(storage)
    with running(experiment, lambda _: None):
        for directory, name in ((experiment.retrained, "model.safetensors"), (experiment.trials / "00000", "events.1")):
            directory.mkdir(parents=True)
            (directory / name).write_bytes(b"kept")
    shutil.rmtree(experiment.retrained)
    shutil.rmtree(experiment.trials)

    again = Experiment(storage=storage, name="first")
    kept = ["retrained/model.safetensors", "trials/00000/events.1"]
    with running(again, lambda _: None):
        again.driver_log.write_text("")
        until(lambda: "driver.log" in store.names(f"{storage.name}/first"))
        again.driver_log.unlink()
    assert store.names(f"{storage.name}/first") == sorted(["heartbeat.json", "spec.yaml", *kept])


@pytest.mark.slow
def test_what_another_machine_published_is_read(storage: Location, elsewhere: Move, tmp_path: Path) -> None:
    """A mirror of an earlier run is not taken for the search."""
    mine = created(storage)
    first = tmp_path / "cache"
    with running(mine, lambda _: None):
        open_study(mine).ask()
    elsewhere()
    theirs = Experiment(storage=storage, name="first")
    with running(theirs, lambda _: None):
        open_study(theirs).ask()
        theirs.write_summary(Summary(trials=2))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWINHEAD_CACHE", str(first))
        here = Experiment(storage=storage, name="first")
        assert len(trial_records(open_existing_study(here))) == 2
        assert here.summary().trials == 2


def test_logs_of_a_trial_go_on_on_another_machine(storage: Location, elsewhere: Move) -> None:
    """They are published as whole files, which must not begin anew."""
    mine = created(storage)
    with running(mine, lambda _: None):
        mine.logs.mkdir()
        append_line(mine.trial_log(3), "starts")
    elsewhere()
    theirs = Experiment(storage=storage, name="first")
    with running(theirs, lambda _: None):
        append_line(theirs.trial_log(3), "is resumed")

    with (storage / "first/logs/00003.log").open_input() as opened:
        lines = opened.read().decode().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["starts", "is resumed"]


def test_a_removed_search_is_gone_everywhere(storage: Location, elsewhere: Move) -> None:
    """Its mirror on another machine must not bring it back."""
    experiment = created(storage)
    elsewhere()
    Experiment(storage=storage, name="first").remove()

    with pytest.raises(InputError, match="no search 'first'"):
        Experiment(storage=storage, name="first").spec()
    with pytest.raises(InputError, match="no search 'first'"):
        Experiment(storage=storage, name=experiment.name).spec()


def test_a_killed_removal_is_repeated(storage: Location, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a search until everything else is gone: a new one of its name would start with its trials."""
    experiment = created(storage)
    with running(experiment, lambda _: None):
        open_study(experiment).ask()
        experiment.retrained.mkdir()
        (experiment.retrained / "model.safetensors").write_bytes(b"network")
    remove = mirroring.remove_tree

    def remove_or_be_killed(directory: Location) -> None:
        if directory == experiment.location:
            raise KeyboardInterrupt
        remove(directory)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(mirroring, "remove_tree", remove_or_be_killed)
        experiment.remove()
    assert store.names(f"{storage.name}/first") == ["spec.yaml"]
    assert search_names(storage) == ["first"]
    Experiment(storage=storage, name="first").remove()
    assert store.names(storage.name) == []


@pytest.mark.slow
def test_an_experiment_that_was_removed_by_its_driver_is_gone(storage: Location, store: Store) -> None:
    """One that fails before its first trial is removed, and no heartbeat of that moment is left."""
    experiment = created(storage)
    with running(experiment, lambda _: None):
        experiment.remove()
        Heartbeat.of_this_process().write(experiment)

    assert store.names(storage.name) == []
    assert free_name(storage, "first") == "first"


@pytest.mark.slow
@pytest.mark.parametrize("relative", ["trials/../../../../out/checkpoint_000000", "/out/checkpoint_000000"])
def test_a_checkpoint_cannot_lead_out_of_the_mirror(
    storage: Location, store: Store, tmp_path: Path, relative: str
) -> None:
    """A study may come from anyone; neither it nor the names of objects decide where files are written."""
    experiment = created(storage)
    with running(experiment, lambda _: None):
        trial = open_study(experiment).ask()
        note_start(trial, CONFIGURATION.model_dump())
        note_epoch(trial, TrialReport(epoch=1, metrics=METRICS, outcome="trained"), relative)
        record = TrialRecord.of(trial)

        assert record.kept(experiment) == record.kept(experiment, at_once=True) == []
        assert record.newest(experiment) is None


def beating(experiment: Experiment, **changes: object) -> None:
    """A heartbeat of a driver on another machine."""
    values = Heartbeat.of_this_process().as_plain() | {"host": "elsewhere", "pid": 7, "processes": "pid:[1]"} | changes
    Heartbeat(**values).write(experiment)


def test_a_second_driver_is_refused(storage: Location) -> None:
    """Two drivers would mix their trials; a storage has no locks, so the heartbeat counts."""
    experiment = created(storage)
    beating(experiment)

    sentence = r"'first' in 's3://.*' is running on 'elsewhere' \(process 7, last heard of \d+ s ago\); stop it there"
    with pytest.raises(InputError, match=sentence), running(experiment, lambda _: None):
        pass


@pytest.mark.parametrize("ahead", [-75.0, 600.0])
def test_a_second_driver_is_refused_whatever_the_clock_of_the_first(storage: Location, ahead: float) -> None:
    """By a clock that is a minute behind, each heartbeat is old; that it changes shows a driver that runs."""
    experiment, said = created(storage), list[str]()
    beating(experiment, written=time.time() + ahead)

    def say(line: str) -> None:
        said.append(line)
        beating(experiment, written=time.time() + ahead + 10.0)

    with pytest.raises(InputError, match=r"is running on 'elsewhere' \(.* 0 s ago\)"), running(experiment, say):
        pass
    assert said == ["waiting 0 s to see whether the driver on 'elsewhere' still runs"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"state": "ended"}, {"written": time.time() - 61.0}, {"written": time.time() + 3600.0}]
)
def test_a_driver_that_is_gone_is_followed(storage: Location, changes: dict[str, object]) -> None:
    """One that ended, that was not heard of for a minute, or whose heartbeat by a fast clock does not change."""
    experiment = created(storage)
    beating(experiment, **changes)

    with running(experiment, lambda _: None):
        beat = Heartbeat.read(experiment)
        assert beat is not None
        assert beat.host != "elsewhere"


@pytest.mark.slow
def test_a_driver_that_was_replaced_ends(storage: Location, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept for minutes must not write over what the next driver did."""
    monkeypatch.setattr(driving, "BEAT_SECONDS", 0.1)
    experiment, said = created(storage), list[str]()
    with pytest.raises(KeyboardInterrupt), running(experiment, said.append):
        beating(experiment)
        experiment.write_summary(Summary(trials=1))
        time.sleep(SOON)

    assert said == [
        "the search 'first' was taken over by a driver on 'elsewhere' (process 7); this one ends, and publishes "
        "nothing more"
    ]
    beat = Heartbeat.read(experiment)
    assert beat is not None
    assert beat.host == "elsewhere"


@pytest.mark.slow
def test_a_storage_that_refuses_for_a_while_is_waited_for(storage: Location, store: Store) -> None:
    """It is said once, and what changed meanwhile is published when it answers."""
    experiment, said = created(storage), list[str]()
    with running(experiment, said.append):
        store.faults.refuses = "busy"
        experiment.write_summary(Summary(trials=1))
        until(lambda: bool(said))
        experiment.write_summary(Summary(trials=2))
        store.faults.refuses = ""
        until(lambda: len(said) == 2)
        assert store.read(f"{storage.name}/first/summary.json") == experiment.summary_file.read_bytes()

    assert "failed" in said[0]
    assert said[0].endswith("what changes is kept on this machine, and published when the storage answers")
    assert said[1].startswith("the storage answers again after")
    assert len(said) == 2


@pytest.mark.slow
def test_a_storage_that_does_not_answer_at_the_end_is_named(
    storage: Location, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are not lost: the sentence says where they are."""
    monkeypatch.setattr(driving, "FLUSH_SECONDS", 0.0)
    experiment, said = created(storage), list[str]()
    with running(experiment, said.append):
        store.faults.refuses = "denied"
        experiment.write_summary(Summary(trials=1))
    store.faults.refuses = ""

    assert experiment.mirror is not None
    assert f"the last changes are in '{experiment.mirror.directory}' alone" in said[-1]
    assert "twinhead search --resume first" in said[-1]
    again = Experiment(storage=storage, name="first")
    with running(again, lambda _: None):
        pass
    assert json.loads(store.read(f"{storage.name}/first/summary.json"))["trials"] == 1


def test_a_larger_budget_is_in_the_storage(storage: Location, elsewhere: Move) -> None:
    """`twinhead resume` writes it here, and the job that it submits reads it on another machine."""
    created(storage).extend([("budget.trials", "99")])
    elsewhere()

    assert Experiment(storage=storage, name="first").spec().plan.budget.trials == 99


@pytest.mark.slow
def test_a_complete_search_is_published_by_its_resumption(
    storage: Location, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing else to do, and it is the command that was named."""
    monkeypatch.setattr(driving, "FLUSH_SECONDS", 0.0)
    experiment = created(storage)
    with running(experiment, lambda _: None):
        store.faults.refuses = "denied"
        experiment.write_summary(Summary(complete=True, trials=experiment.spec().plan.budget.trials))
    store.faults.refuses = ""

    again, unused = Experiment(storage=storage, name="first"), cast("Dataset", None)
    assert run_search(again, again.spec(), unused, Screen()).complete
    assert json.loads(store.read(f"{storage.name}/first/summary.json"))["complete"]


def test_a_storage_that_refuses_is_a_sentence(storage: Location, store: Store, elsewhere: Move) -> None:
    """Before anything is read, and without anything half-read."""
    created(storage)
    elsewhere()
    store.faults.refuses = "denied"
    with pytest.raises(UnavailableError, match="was denied"):
        Experiment(storage=storage, name="first").spec()
    store.faults.refuses = ""
    assert Experiment(storage=storage, name="first").spec()


def test_a_heartbeat_that_cannot_be_read_is_not_a_missing_one(storage: Location, store: Store) -> None:
    """A second driver would start beside the first."""
    experiment = created(storage)
    Heartbeat.of_this_process().write(experiment)
    store.faults.refuses = "denied"
    with pytest.raises(UnavailableError, match="was denied"):
        Heartbeat.read(experiment)
    store.faults.refuses = ""
    assert Heartbeat.read(experiment) is not None


@pytest.mark.slow
def test_superseded_checkpoints_are_removed(storage: Location, store: Store, tmp_path: Path) -> None:
    """As on a disk: a finished trial keeps the weights of its best epoch."""
    experiment = created(storage)
    with running(experiment, lambda _: None):
        record = with_trial(experiment, tmp_path, [0.1, 0.3, 0.2])
        experiment.checkpoints.remove("trials/00000/checkpoint_000000")
        experiment.checkpoints.settle()
        best = best_epoch(record.kept(experiment, at_once=True))
        assert best is not None
        assert best.epoch == 2
        keep_best(experiment, record, at_once=True)

    assert store.names(f"{storage.name}/first/trials/00000") == [
        "checkpoint_000001/checksums.json",
        "checkpoint_000001/config.json",
        "checkpoint_000001/metrics.json",
        "checkpoint_000001/model.safetensors",
    ]
    assert record.newest(experiment) is None


@pytest.mark.slow
def test_a_removal_lists_the_storage_anew(
    storage: Location, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for all removals, and so for its own end, when the last listing was too old."""
    monkeypatch.setattr("search.study.checkpoints.SNAPSHOT_SECONDS", 0.0)
    experiment = created(storage)
    with running(experiment, lambda _: None):
        record = with_trial(experiment, tmp_path, [0.1, 0.3, 0.2])
        keep_best(experiment, record)

    assert not [name for name in store.names(f"{storage.name}/first/trials/00000") if name.endswith("state.pt")]


@pytest.mark.slow
def test_a_checkpoint_is_fetched_without_its_state(storage: Location, store: Store, tmp_path: Path) -> None:
    """An export needs a third of it; a resumed trial needs all of it."""
    experiment = created(storage)
    uploaded(experiment, "trials/00000/checkpoint_000000", tmp_path, 1)
    checkpoint = experiment.trials / "00000" / "checkpoint_000000"

    experiment.checkpoints.fetch(checkpoint)
    assert not (checkpoint / STATE).exists()
    store.faults.requests.clear()
    experiment.checkpoints.fetch(checkpoint, state=True)
    assert (checkpoint / STATE).is_file()
    weights = store.read(f"{storage.name}/first/trials/00000/checkpoint_000000/{WEIGHTS}")
    assert (checkpoint / WEIGHTS).read_bytes() == weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("altered", r"The file 's3://.*/model.safetensors\?.*' is truncated or altered: its SHA-256"),
        ("cut", r"The file 's3://.*/model.safetensors\?.*' is truncated or altered: its SHA-256"),
        ("missing", r"The file 's3://.*/model.safetensors\?.*' is missing"),
        ("unsealed", r"The file 's3://.*/checksums.json\?.*' is missing, so the checkpoint is incomplete"),
    ],
)
def test_an_altered_checkpoint_is_refused(
    storage: Location, store: Store, tmp_path: Path, damage: str, sentence: str
) -> None:
    """Whatever happened to its bytes, they are not taken for a network."""
    experiment = created(storage)
    relative = "trials/00000/checkpoint_000000"
    uploaded(experiment, relative, tmp_path, 1)
    file = f"{storage.name}/first/{relative}/{WEIGHTS}"
    content = store.read(file)
    if damage == "altered":
        store.write(file, content[:-5] + b"x" + content[-4:])
    elif damage == "cut":
        store.write(file, content[: len(content) // 2])
    else:
        name = file if damage == "missing" else f"{storage.name}/first/{relative}/checksums.json"
        store.behind().delete_file(f"{BUCKET}/{name}")

    with pytest.raises(DamagedCheckpointError, match=sentence):
        experiment.checkpoints.fetch(experiment.root / relative)

    if damage == "altered":  # a copy that was fetched before must not be kept for good either
        store.write(file, content)
        experiment.checkpoints.fetch(experiment.root / relative)
