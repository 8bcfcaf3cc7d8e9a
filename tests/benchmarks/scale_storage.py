"""What the driver of a large search asks of a remote storage: requests a minute, bytes, and how late they are.

python tests/benchmarks/scale_storage.py [--concurrent 64] [--epoch-seconds 60] [--seconds 120] [--delays 0 30]

A driver publishes to an S3 server on the loopback through a proxy that counts and, in the second run, answers late. The
trials train nothing, but report at the pace of the wall clock; what they write themselves bypasses the proxy. Before
it is measured, a run goes through the first epochs as fast as it can, so that trials end all the time. Then journals of
several sizes are published, each once.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
from ray import tune
from ray.tune.experiment import Trial
from results import Row, arguments, publish, write
from scale import MIB, Ignored, Trivial, driver, make_spec, peak_memory
from tune_loop import Result, run

sys.path.append(str(Path(__file__).parents[2]))

from data.dataset.storage import Location
from search.driver import TrialCallback
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.mirror import Mirror
from search.study.running import running
from tests.s3 import Store, failing_store

WARM_UP_EPOCHS = 2
MAX_REPORTS = 9
"""A trial ends after any number of reports up to this one, each as likely."""
SCHEDULE = {"max_epochs": MAX_REPORTS, "grace_epochs": 3, "reduction_factor": 3}
JOURNALS_MIB = (1, 18, 53, 176)
"""About those of 60, 1,000, 3,000 and 10,000 trials, as `scale.py` measured them."""
KINDS = {
    "heartbeat": "heartbeat.json",
    "journal": "study.journal",
    "logs of trials": "scale/logs/",
    "TensorBoard": "/events",
    "checkpoints": "scale/trials",
    "checkpoints, several at once": "?delete",
}
"""A part of the path of each kind of request."""
OTHERS = "others"


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a driver did in the measured time."""

    seconds: float
    reports: int
    ended: int
    publications: int
    longest: float
    """Seconds of the longest publication."""
    beats: int
    silence: float
    """Longest time without a heartbeat, in seconds."""
    settling: float
    """Seconds that the removals take which are still to be done."""
    journal_mib: float


def main() -> None:
    """Measure a driver for each delay, then the publication of journals, and print what was asked of the storage."""
    parser = arguments(__doc__)
    parser.add_argument("--concurrent", type=int, default=64, help="trials at a time")
    parser.add_argument("--epoch-seconds", type=float, default=60.0)
    parser.add_argument("--seconds", type=float, default=120.0, help="measured time of a run")
    parser.add_argument("--delays", type=int, nargs="*", default=[0, 30], metavar="MS", help="of an answer")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    table, figures = [], dict[str, float]()
    for delay in options.delays:
        window, asked = measure(delay / 1000, options.concurrent, options.epoch_seconds, options.seconds)
        table += rows(delay, window, asked)
        figures |= {f"{name}_{delay}ms": float(value) for name, value in vars(window).items()}
    if table:
        publish(table, figures, options.json)
    for line in measure_journals():
        write(line)


def measure(delay: float, concurrent: int, epoch_seconds: float, seconds: float) -> tuple[Window, Counter[str]]:
    """What a driver did in so many seconds, and its requests by kind."""
    with failing_store() as store:
        store.faults.delay = delay
        with _process(drive, store, concurrent, epoch_seconds, seconds) as child:
            child.recv()
            store.faults.paths.clear()
            window = child.recv()
            asked = Counter(store.faults.paths)
            child.send("counted")
            window = replace(window, settling=child.recv())
    by_kind: Counter[str] = Counter()
    for path, count in asked.items():
        by_kind[_kind(path)] += count
        if _kind(path) == OTHERS:
            write(f"{count} times {path}")
    return window, by_kind


def measure_journals() -> Iterator[str]:
    """A line for each size of a journal: its publication."""
    with failing_store() as store, _process(publish_journals, store) as child:
        for size in JOURNALS_MIB:
            child.recv()
            store.faults.requests.clear()
            child.send("go")
            seconds, memory = child.recv()
            asked = ", ".join(f"{count} {command}" for command, count in sorted(store.faults.requests.items()))
            yield f"a journal of {size} MiB: {asked}; {seconds:.1f} s, peak memory of the process {memory:.0f} MiB"


def drive(child: Connection, address: str, direct: str, concurrent: int, epoch_seconds: float, seconds: float) -> None:
    """Run a search at the pace of the wall clock. Sends a word before the measured time, and a `Window` after it."""
    experiment = Experiment(storage=Location.of_storage(address), name="scale")
    spec = make_spec(SCHEDULE)
    experiment.create(spec)
    trials = Trivial(experiment, MAX_REPORTS, endpoint=direct)
    paced = Paced(trials, child, warm_up=WARM_UP_EPOCHS * concurrent, interval=epoch_seconds / concurrent)
    ended = Ended()
    with Timed(Mirror, "publish") as publications, Timed(Heartbeat, "write") as beats:

        def begin() -> None:
            experiment.checkpoints.settle()
            for counted in (publications.calls, beats.calls, ended.numbers):
                counted.clear()

        paced.when_measured = begin
        with running(experiment, write), driver(experiment, spec, 10**6, ended) as search:
            search = replace(search, scheduler=Ignored(search.scheduler), stopper=paced.until(seconds))
            run(search, paced, concurrent=concurrent)
            window = Window(
                seconds=time.monotonic() - paced.started,
                reports=paced.reports,
                ended=len(ended.numbers),
                publications=len(publications.calls),
                longest=max((end - start for start, end in publications.calls), default=0.0),
                beats=len(beats.calls),
                silence=beats.longest_gap(paced.started),
                settling=0.0,
                journal_mib=experiment.study_file.stat().st_size / MIB,
            )
            child.send(window)
            child.recv()
            started = time.monotonic()
            experiment.checkpoints.settle()
            child.send(time.monotonic() - started)
            os._exit(0)  # without publishing the rest


def publish_journals(child: Connection, address: str, _: str) -> None:
    """Publish a journal of each size. Sends its seconds and the peak memory of the process, in MiB."""
    experiment = Experiment(storage=Location.of_storage(address), name="scale")
    experiment.create(make_spec(SCHEDULE))
    mirror = experiment.mirror
    assert mirror is not None
    line = os.urandom(500).hex().encode() + b"\n"
    for size in JOURNALS_MIB:
        with experiment.study_file.open("wb") as file:
            for _ in range(size * MIB // len(line)):
                file.write(line)
        child.send("ready")
        child.recv()
        started = time.monotonic()
        mirror.publish()
        child.send((time.monotonic() - started, peak_memory()))


def rows(delay: int, window: Window, asked: Counter[str]) -> list[Row]:
    """A row for each kind of request: how many a minute, a report and an ended trial."""
    counts = {kind: asked[kind] for kind in (*KINDS, OTHERS)} | {"together": asked.total()}
    return [
        {
            "answers after": f"{delay} ms",
            "requests": kind,
            "a minute": count / window.seconds * 60,
            "a report": count / max(window.reports, 1),
        }
        for kind, count in counts.items()
    ]


class Paced:
    """Trials that report at the pace of the wall clock, after a warm-up without one."""

    def __init__(self, trials: Trivial, child: Connection, *, warm_up: int, interval: float) -> None:
        self._trials, self._child = trials, child
        self._warm_up, self._interval = warm_up, interval
        self.reports = -warm_up
        """Negative during the warm-up."""
        self.started = float("inf")
        self.when_measured: Callable[[], object] = lambda: None

    def __call__(self, config: dict[str, Any]) -> Iterator[Result]:
        length = int(np.random.default_rng(int(config["name"])).integers(1, MAX_REPORTS + 1))
        for report in itertools.islice(self._trials(config), length):
            if self.reports == 0:
                self.when_measured()
                self._child.send("measured from now on")
                self.started = time.monotonic()
            self.reports += 1
            if self.reports > 0:
                time.sleep(max(0.0, self.started + self.reports * self._interval - time.monotonic()))
            yield report

    def until(self, seconds: float) -> tune.Stopper:
        """Ends the run so many seconds after the warm-up."""
        return _Until(lambda: time.monotonic() > self.started + seconds)


class _Until(tune.Stopper):
    def __init__(self, is_over: Callable[[], bool]) -> None:
        self.stop_all = is_over  # type: ignore[method-assign]

    def __call__(self, *_: object) -> bool:
        return False


class Ended(TrialCallback):
    """Counts the trials that end."""

    def __init__(self) -> None:
        self.numbers: list[str] = []

    def completed(self, trial: Trial) -> None:
        """Count one."""
        self.numbers.append(trial.trial_id)


class Timed:
    """Notes the start and the end of each call of a method within the context, by `time.monotonic`."""

    def __init__(self, owner: type, method: str) -> None:
        self._owner, self._method = owner, method
        self._original = getattr(owner, method)
        self.calls: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        original, calls = self._original, self.calls

        def timed(*given: Any, **named: Any) -> Any:
            started = time.monotonic()
            returned = original(*given, **named)
            calls.append((started, time.monotonic()))
            return returned

        setattr(self._owner, self._method, timed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._method, self._original)

    def longest_gap(self, since: float) -> float:
        """Longest time without the end of a call, in seconds, until now."""
        ends = [since, *(end for _, end in self.calls), time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(ends))


class _process:  # noqa: N801 - a context manager that reads as a function
    """A process of its own that runs `target` with a connection, the addresses of the store, and further arguments."""

    def __init__(self, target: Callable[..., None], store: Store, *given: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._cache = tempfile.TemporaryDirectory()
        os.environ["TWINHEAD_CACHE"] = self._cache.name
        self._here, there = context.Pipe()
        self._process = context.Process(target=target, args=(there, store.address(), store.direct, *given))

    def __enter__(self) -> Connection:
        self._process.start()
        return self._here

    def __exit__(self, *_: object) -> None:
        self._process.join()
        self._cache.cleanup()


def _kind(path: str) -> str:
    decoded = unquote(path)
    return next((kind for kind, part in KINDS.items() if part in decoded), OTHERS)


if __name__ == "__main__":
    main()
