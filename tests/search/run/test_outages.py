"""A search waits for unavailable resources at growing intervals, and ends when they do not return."""

from __future__ import annotations

import errno
import io
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from data.dataset.storage import Location
from data.errors import DiskError, EnvironmentFaultError, InputError, UnfinishedError
from search.run import outages as waiting
from search.run.outages import Outages
from search.run.tuner import Stopper
from search.signals import InterruptedSearchError
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.terminal import Screen
from tests.s3 import Store
from trainable.job import TrialData


@dataclass
class Scene:
    """A search on a data set that can be moved away, and a clock that only waiting moves on."""

    data: Path
    experiment: Experiment
    outages: Outages
    stopper: Stopper
    said: io.StringIO
    seconds: list[float]
    looks: list[float] = field(default_factory=list)
    later: dict[float, Callable[[], object]] = field(default_factory=dict)
    """What happens when so many seconds have passed."""

    @property
    def lines(self) -> list[str]:
        return self.said.getvalue().splitlines()

    def away(self) -> None:
        self.data.rename(self.data.with_name("away"))

    def back(self) -> None:
        self.data.with_name("away").rename(self.data)

    def work(self) -> str:
        """What fails as long as the data set is away."""
        if not self.data.exists():
            raise EnvironmentFaultError(f"The data set '{self.data}' does not exist; give another.")
        return "done"


@pytest.fixture
def scene(scenes: Path, trial_data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    data = tmp_path / "set"
    data.mkdir()
    for file in scenes.iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    experiment = Experiment(storage=tmp_path / "storage", name="s")
    experiment.create(load_spec(data_path=str(data)))
    monkeypatch.setattr(waiting, "has_one_node", lambda: True)
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TWINHEAD_OUTAGE_SECONDS", "300")
    said, seconds, stopper = io.StringIO(), [0.0], Stopper()

    def sleep(wait: float) -> None:
        before = seconds[0]
        seconds[0] += wait
        for due in [due for due in made.later if before < due <= seconds[0]]:
            made.later.pop(due)()

    outages = Outages(
        experiment,
        TrialData(path=str(data), fingerprint=trial_data.fingerprint),
        Screen(Console(file=said, width=1000)),
        stopper,
        now=lambda: seconds[0],
        sleep=sleep,
    )
    look = outages.fault

    def noted() -> EnvironmentFaultError | None:
        made.looks.append(round(seconds[0], 3))
        return look()

    monkeypatch.setattr(outages, "fault", noted)
    made = Scene(data, experiment, outages, stopper, said, seconds)
    return made


def test_work_continues_when_the_data_set_returns(scene: Scene) -> None:
    """With two sentences, and looks that grow apart."""
    scene.away()
    scene.later[100.0] = scene.back

    assert scene.outages.outlast(scene.work) == "done"
    assert scene.looks == [0, 1, 3, 7, 15, 31, 63, 123]
    assert scene.outages.seconds == pytest.approx(123)
    first, second = scene.lines
    assert re.fullmatch(
        rf"The data set '{scene.data}' does not exist; waiting since \d\d:\d\d:\d\dZ, next check in 1 s, later ones "
        r"up to 1 min 00 s apart, for at most 5 min 00 s",
        first,
    )
    assert second == "available again after 2 min 03 s; interrupted trials resume from their checkpoints"


def test_permanent_outage_ends_the_search(scene: Scene) -> None:
    """With one sentence that says how to continue, and in time."""
    scene.away()
    with pytest.raises(UnfinishedError) as raised:
        scene.outages.outlast(scene.work)

    assert scene.seconds[0] == pytest.approx(300)
    assert re.fullmatch(
        rf"The data set '{scene.data}' does not exist, since \d\d:\d\d:\d\dZ, for longer than 5 min 00 s "
        rf"\(TWINHEAD_OUTAGE_SECONDS\); once it is available again, continue with '{scene.experiment.resume_command}', "
        r"which resumes interrupted trials from their checkpoints\.",
        str(raised.value),
    )


def test_another_data_set_does_not_end_the_outage(scene: Scene) -> None:
    """Scores on different data cannot be compared."""
    scene.away()
    other = scene.data.with_name("away")
    scene.data.mkdir()
    for file in other.iterdir():
        text = file.read_bytes()
        (scene.data / file.name).write_bytes(text.replace(b'"fingerprint": "', b'"fingerprint": "f'))

    fault = scene.outages.fault()
    assert fault is not None
    assert "is another one (fingerprint f" in fault.reason


@pytest.mark.parametrize("what", ["storage", "cache"])
def test_outage_of_storage_or_cache_is_waited_for(scene: Scene, tmp_path: Path, what: str) -> None:
    """Trials write to the one and read from the other."""
    path = {"storage": scene.experiment.root, "cache": tmp_path / "cache"}[what]
    assert scene.outages.fault() is None
    path.rename(tmp_path / "kept")
    path.touch()

    def back() -> None:
        path.unlink()
        (tmp_path / "kept").rename(path)

    scene.later[5.0] = back
    attempts = []

    def work() -> str:
        attempts.append(path.is_dir())
        if not path.is_dir():
            raise FileNotFoundError(path)  # of something that writes there, without a word of the environment
        return "done"

    assert scene.outages.outlast(work) == "done"
    assert attempts == [False, True]
    assert scene.lines[0].startswith(f"The {what} '{path}' ")
    assert not list(path.glob(".probe*"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_storage_ends_the_search_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Nothing but its owner makes room there; what was written before is kept."""
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.is_relative_to(scene.experiment.root):
            raise OSError(code, errno.errorcode[code])
        return write(path, content)

    def work() -> None:
        raise EnvironmentFaultError("The storage cannot be used; bring it back.")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match=rf"^The file system of '.*' .* so '{scene.experiment.root}/") as raised:
        scene.outages.outlast(work)
    assert str(raised.value).endswith(f", then continue with '{scene.experiment.resume_command}'.")
    assert scene.seconds == [0.0]


def test_ctrl_c_ends_the_wait(scene: Scene) -> None:
    """At once, not at the next look."""
    scene.away()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    scene.later[20.0] = lambda: signal.raise_signal(signal.SIGINT)
    try:
        with pytest.raises(InterruptedSearchError):
            scene.outages.outlast(scene.work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert scene.seconds[0] == pytest.approx(20, abs=0.5)


def test_fault_invisible_to_the_driver_is_retried_with_backoff(scene: Scene) -> None:
    """Another node may have lost its disk: trials that fail there at once must not start for ever."""

    def work() -> None:
        raise EnvironmentFaultError("The cache of node 2 is gone; bring it back.")

    with pytest.raises(UnfinishedError, match=r"^The cache of node 2 is gone, since"):
        scene.outages.outlast(work)
    assert scene.seconds[0] == pytest.approx(300)
    waits = [line.partition("next check in ")[2].partition(",")[0] for line in scene.lines[::2]]
    assert waits[:7] == ["1 s", "2 s", "4 s", "8 s", "16 s", "32 s", "1 min 00 s"]


def test_later_fault_restarts_the_backoff(scene: Scene) -> None:
    """A network that fails for a minute a day does not end a search of a week."""
    faults = []

    def work() -> str:
        faults.append(scene.seconds[0])
        if len(faults) == 4:
            return "done"
        scene.seconds[0] += 1000
        raise EnvironmentFaultError("The network is down; bring it back.")

    assert scene.outages.outlast(work) == "done"
    assert faults == pytest.approx([0, 1001, 2002, 3003])


def test_waiting_time_does_not_count_as_search_time(scene: Scene) -> None:
    """budget.hours is for work: here they were over a minute ago, and two minutes were waited."""
    stopper = Stopper(seconds=-60)
    scene.outages._stopper = stopper
    scene.away()
    scene.later[100.0] = scene.back
    before = stopper.stop_all()
    stopper.reason = ""
    scene.outages.outlast(scene.work)

    assert (before, stopper.stop_all()) == (True, False)


def test_a_fault_ends_the_run_once() -> None:
    """And not the next one, which is started when all is back; Ctrl-C comes first."""
    stopper, fault = Stopper(), EnvironmentFaultError("The network is down; bring it back.")
    stopper.pause(fault)
    with pytest.raises(EnvironmentFaultError) as raised:
        stopper.stop_all()
    after = stopper.stop_all()
    stopper.pause(fault)
    stopper.interrupted = True

    assert raised.value is fault
    assert not after
    assert stopper.stop_all()


def test_bug_is_not_an_outage(scene: Scene) -> None:
    """It would be waited for in vain."""

    def work() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        scene.outages.outlast(work)
    assert scene.lines == []


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_outage_limit_must_be_a_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """And is named where it is not."""
    monkeypatch.setenv("TWINHEAD_OUTAGE_SECONDS", text)
    with pytest.raises(InputError, match=rf"'TWINHEAD_OUTAGE_SECONDS' is '{text}', but must be a number of seconds"):
        waiting.outage_limit()


def remote_outages(
    store: Store, trial_data: TrialData, monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], None]
) -> Outages:
    """Of a search in a remote storage."""
    monkeypatch.setattr(waiting, "has_one_node", lambda: False)
    experiment = Experiment(storage=Location.of_storage(store.address("runs")), name="s")
    if not experiment.root.exists():
        experiment.create(load_spec(data_path="set"))
    screen = Screen(Console(file=io.StringIO(), width=1000))
    return Outages(experiment, trial_data, screen, Stopper(), sleep=sleep)


@pytest.mark.slow
def test_a_remote_storage_that_refuses_is_waited_for(
    store: Store, trial_data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe writes to it, and leaves nothing there."""
    outages = remote_outages(store, trial_data, monkeypatch, lambda _: None)
    assert outages.fault() is None
    assert store.names("runs/s") == ["spec.yaml"]

    store.faults.refuses = "busy"
    try:
        fault = outages.fault()
    finally:
        store.faults.refuses = ""

    assert fault is not None
    assert re.match(r"A request to 's3://searches/runs/s/.probe-\d+\?.*' failed", fault.reason)


@pytest.mark.slow
def test_a_request_of_ray_that_was_refused_does_not_end_the_search(
    store: Store, trial_data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage may answer again before anyone looks."""
    calls = list[int]()
    monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.0)
    outages = remote_outages(store, trial_data, monkeypatch, lambda _: None)

    def work() -> str:
        calls.append(1)
        if len(calls) == 1:
            store.faults.refuses = "busy"
            try:
                store.behind().create_dir("searches/runs/s/trials")
            finally:
                store.faults.refuses = ""
        return "done"

    assert outages.outlast(work) == "done"
    assert len(calls) == 2
