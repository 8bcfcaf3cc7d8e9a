"""Train the configurations that the table of curves lacks. It can be ended at any time and started again.

python tests/benchmarks/curves/train.py SETS [--workers 2] [--device auto] [--seconds 3600] [--trainings 100]
python tests/benchmarks/curves/train.py --merge FILE.parquet      # adds the trainings of a table from another machine

SETS is the directory that `sets.py` made. Trainings run in parallel processes at the lowest priority, without Ray. The
rows of a finished training are a file of their own in --work, and are merged into --table; only the trainings that run
are lost. Their order keeps a table that is cut off balanced: both data sets and, in each run of eight configurations,
all families; every tenth configuration is trained with three seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from table import DIVERGED, TABLE, TRAINED, Key, merge, rows_of, trainings, write

from data.dataset.dataset import Dataset
from data.loader import Loader
from data.parallel import open_pool
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.loop import EpochEnd, NonFiniteLossError
from trainable.loop.state import DistributedContext, Training
from trainable.measurements import machine_kind

CONFIGURATIONS = Path(__file__).with_name("configurations.json")
SAMPLES = 250
"""Training samples of each data set, the same ones in all trainings."""
REPEATED = 10
"""Every such configuration is trained with `SEEDS` seeds."""
SEEDS = 3
MERGE_SECONDS = 20.0
GRACE_SECONDS = 10.0
"""After the end of a run, trainings may end their epoch for so long."""
MAX_RESTARTS = 3
"""Restarts of the processes after one died."""
STOPPED, FAILED = "stopped", "failed"
"""Ends of a training that leave no rows, in addition to the values of the column `outcome`."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training, as sent to a process."""

    key: Key
    values: dict[str, Any]
    data: TrialData
    device: str
    precision: str
    workers: int
    last: int | None
    """The last epoch that is trained, of those that its policy is made for; None for all."""
    work: Path
    """Directory of the file with its rows."""
    ends_at: float
    """`time.monotonic()` at which it stops after its epoch."""

    @property
    def file(self) -> Path:
        """The file with its rows."""
        return self.work / ("{}-{:03d}-{}.parquet".format(*self.key))


def main() -> int:
    """Train, or merge tables; 1 if a training failed, else 0."""
    options = _options()
    if options.merge:
        _write(f"{merge(options.table, options.merge)} trainings added to {options.table}")
        return 0
    os.nice(max(0, options.nice - os.nice(0)))
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    for mark in options.work.glob(f"*.{FAILED}"):
        mark.unlink()
    progress = _Progress(options.table, options.work)
    for restart in range(MAX_RESTARTS + 1):
        progress.merge()  # what an earlier run left
        try:
            _train_all(_jobs(options, progress.ends_at(options.seconds)), options.workers, progress)
            break
        except BrokenProcessPool:
            _write(f"a process died; restart {restart + 1} of {MAX_RESTARTS}")
    progress.merge()
    progress.write()
    return int(progress.ends[FAILED] > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="?", help="directory of the data sets")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--work", type=Path, default=Path("artifacts/curves"), help="for files of finished trainings")
    parser.add_argument("--workers", type=int, default=1, help="trainings at the same time")
    parser.add_argument("--device", default="auto", help="'cpu', 'cuda', or 'auto' for the GPU if there is one")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time")
    parser.add_argument("--nice", type=int, default=19, help="priority; 19 is the lowest, beside other work")
    parser.add_argument("--trainings", type=int, help="maximum number of trainings")
    parser.add_argument("--epochs", type=int, help="for a test of the script: other than in the configurations")
    parser.add_argument("--last", type=int, metavar="EPOCH", help="end each training after it, as if it were stopped")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="training samples")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of every tenth configuration")
    parser.add_argument("--configurations", type=Path, default=CONFIGURATIONS)
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE", help="only add the trainings of these tables")
    options = parser.parse_args()
    if not options.merge and options.sets is None:
        parser.error("name the directory of the data sets that sets.py made")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def _jobs(options: argparse.Namespace, ends_at: float) -> list[Job]:
    """The trainings that the table lacks, in their order; not those that failed in this run."""
    done = trainings(options.table)
    sets = {}
    for path in sorted(each for each in options.sets.iterdir() if each.is_dir()):
        fingerprint = Dataset.open(path).info.fingerprint
        sets[path.name] = TrialData(path=str(path), fingerprint=fingerprint, samples=options.samples)
    configurations = json.loads(options.configurations.read_text(encoding="utf-8"))
    jobs = [
        Job(
            key=key,
            values=configurations[key[1]] | ({"epochs": options.epochs} if options.epochs else {}),
            data=sets[key[0]],
            device=options.device,
            precision=options.precision,
            workers=options.workers,
            last=options.last,
            work=options.work,
            ends_at=ends_at,
        )
        for key in planned(list(sets), len(configurations), options.seeds)
        if key not in done
    ]
    return [job for job in jobs if not job.file.with_suffix(f".{FAILED}").exists()][: options.trainings]


def planned(sets: Sequence[str], configurations: int, seeds: int = SEEDS) -> Iterator[Key]:
    """Yield the keys of all trainings, in their order."""
    for number in range(configurations):
        for seed in range(seeds if number % REPEATED == 0 else 1):
            for name in sets:
                yield name, number, seed


def _train_all(jobs: Iterable[Job], workers: int, progress: _Progress) -> None:
    """Run `jobs` on a pool of processes until the time is up.

    Raises:
        BrokenProcessPool: if a process died.
    """
    waiting, running = iter(jobs), set[Future[tuple[str, int]]]()
    with open_pool(workers) as pool:
        try:
            while time.monotonic() < progress.last + GRACE_SECONDS:
                while len(running) < workers and time.monotonic() < progress.last and (job := next(waiting, None)):
                    running.add(pool.submit(train, job))
                if not running:
                    return
                done, running = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    progress.count(*future.result())
                progress.merge_sometimes()
            progress.end(0)
        except KeyboardInterrupt:
            progress.end(130)


class _Progress:
    """Counts trainings, and merges the files of the finished ones into the table from time to time."""

    def __init__(self, table: Path, work: Path) -> None:
        self._table, self._work = table, work
        self._started = self._merged = time.monotonic()
        self.last = float("inf")
        """No training starts after this time."""
        self.ends: Counter[str] = Counter()
        self._epochs = 0

    def ends_at(self, seconds: float) -> float:
        """The time at which a run of `seconds` ends."""
        self.last = self._started + seconds
        return self.last

    def count(self, end: str, epochs: int) -> None:
        """Count a training that ended."""
        self.ends[end] += 1
        self._epochs += epochs

    def merge_sometimes(self) -> None:
        """Merge, and write a line, if the last time is long ago."""
        if time.monotonic() >= self._merged + MERGE_SECONDS:
            self.merge()
            self.write()

    def end(self, code: int) -> None:
        """Merge, and end this process with all of the pool, whose trainings the pool would wait for."""
        self.merge()
        self.write()
        os._exit(code)

    def merge(self) -> None:
        """Move the rows of all finished trainings into the table."""
        parts = sorted(self._work.glob("*.parquet"))
        if parts:
            merge(self._table, parts)
        for part in parts:
            part.unlink()
        self._merged = time.monotonic()

    def write(self) -> None:
        """Write how far it is."""
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        seconds = time.monotonic() - self._started
        _write(f"{seconds:.0f} s: {self._epochs} epochs; {ends or 'none'}; table: {len(trainings(self._table))}")


def train(job: Job) -> tuple[str, int]:
    """Train in this process and write the rows to the job's file; return how it ended and its number of epochs."""
    torch.set_num_threads(1)
    epochs: list[dict[str, float] | None] = []

    def report(end: EpochEnd, _training: Training, _val: Loader | None) -> None:
        epochs.append(end.metrics)
        if end.epoch == job.last:
            raise _LastEpochError
        if time.monotonic() > job.ends_at and end.epoch < config.epochs:
            raise _TimeUpError

    device, outcome = torch.device(job.device), TRAINED
    try:
        config = build(TrialConfig, _complete(job), source="configurations.json")
        with trial.releasing_memory(device):
            trial.run(config, job.data, context=DistributedContext(device=device), report=report)
    except _LastEpochError:
        pass
    except _TimeUpError:
        return STOPPED, len(epochs)
    except NonFiniteLossError:
        outcome = DIVERGED
        epochs.append(None)
    except Exception:  # noqa: BLE001 - one training must not end the others
        return _fail(job), len(epochs)
    texts = {
        "outcome": outcome,
        "device": machine_kind(device),
        "precision": job.precision,
        "fingerprint": job.data.fingerprint,
        "configuration": json.dumps(job.values),
    }
    write(job.file, rows_of(job.key, texts, job.workers, epochs))
    return outcome, len(epochs)


class _LastEpochError(Exception):
    """The training has run as far as it should."""


class _TimeUpError(Exception):
    """The run ends; this training is lost."""


def _complete(job: Job) -> dict[str, Any]:
    """The values of the trial: on one device and in one precision, whatever is faster at the moment."""
    values = job.values
    return values | {
        # OpenCV needs no kernels: a step at this size waits for their launches, not for the GPU.
        "data": values["data"] | {"augment_on": "cpu"},
        "model": values["model"] | {"precision": job.precision},
        "seed": job.key[2],
    }


def _fail(job: Job) -> str:
    """Write the current error, and leave a mark so that this run does not try again."""
    text = traceback.format_exc()
    job.work.mkdir(parents=True, exist_ok=True)
    job.file.with_suffix(f".{FAILED}").write_text(text, encoding="utf-8")
    _write(f"{job.file.stem} failed: {text}")
    if job.device != "cpu":
        os._exit(1)  # after an error of CUDA, the process cannot go on
    return FAILED


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
