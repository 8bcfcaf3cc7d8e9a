"""The directory that TensorBoard reads: a run for each trial, with its event files and its row of the HParams table.

The experiment itself is not changed. Event files of a local experiment are linked; those of a remote one are copied
from its mirror, where a download replaces files, while TensorBoard follows files that grow. All attempts of a trial
are one run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from search.results.tensorboard.hparams import (
    Dimension,
    differing_dimensions,
    end_event,
    result_events,
    result_names,
    searched_dimensions,
    start_event,
    table_event,
)
from search.study.experiment import Experiment
from search.study.mirror import EVENTS
from search.study.study import open_study
from search.study.trials import TrialRecord

_TRIAL = re.compile(r"(\d+)(-\d+)?")
"""Name of a trial's directory: its number and its attempt."""


class LogDirectory:
    """A directory with the runs of an experiment, which `refresh` keeps up to date.

    Args:
        experiment: a search, comparison or training.
        directory: an empty directory.

    Raises:
        InputError: if there is no such experiment, or its study cannot be opened.
    """

    def __init__(self, experiment: Experiment, directory: Path) -> None:
        if not experiment.fixed_file.is_file():
            experiment.spec()  # raises if there is neither
        self._experiment, self._directory = experiment, directory
        self._study, self._objective = open_study(experiment), experiment.objective
        self._dimensions: Sequence[Dimension] | None = None
        self._epochs: dict[int, int] = {}
        """The last epoch in the table, by trial."""
        self._ended: set[int] = set()

    def refresh(self) -> None:
        """Add what is new in the experiment.

        Raises:
            UnavailableError: if a remote storage cannot be used.
            OSError: if this directory cannot be written to.
        """
        if mirror := self._experiment.mirror:
            mirror.refresh()
            mirror.refresh_curves()
        for path in sorted(self._experiment.root.glob(EVENTS)):
            if match := _TRIAL.fullmatch(path.parent.name):
                run = self._run(int(match[1])) / f"{path.name}{match[2] or ''}"
                if mirror:
                    _append_rest(path, run)
                elif not run.is_symlink():
                    run.symlink_to(path.absolute())
        started = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
        new = [trial for trial in started if trial.number not in self._ended]
        if new and self._dimensions is None:
            self._write_table(started)
        for trial in new:
            self._write_trial(trial)

    def _write_table(self, trials: Sequence[FrozenTrial]) -> None:
        """Write the columns, once the first epoch names the metrics."""
        records = [TrialRecord.of(trial) for trial in trials]
        # The worst report of a trial that diverged has the objective alone.
        metrics = max(([*epoch.metrics] for record in records for epoch in record.epochs), key=len, default=[])
        if len(metrics) < 2:
            return
        if self._experiment.fixed_file.is_file():
            self._dimensions = differing_dimensions(record.config for record in records)
        else:
            self._dimensions = searched_dimensions(self._experiment.spec().space)
        created = min((trial.datetime_start.timestamp() for trial in trials if trial.datetime_start), default=0.0)
        event = table_event(self._dimensions, result_names(metrics, self._objective), created)
        self._write(self._run(trials[0].number), [event])  # a directory of its own would be listed as a run

    def _write_trial(self, trial: FrozenTrial) -> None:
        record = TrialRecord.of(trial)
        if self._dimensions is None or not record.config:
            return
        run, events = self._run(trial.number), []
        if trial.number not in self._epochs:
            self._epochs[trial.number] = 0
            events.append(start_event(run.name, trial, self._dimensions))
        events += result_events(trial, self._epochs[trial.number], self._objective)
        self._epochs[trial.number] = record.last_epoch
        if trial.state.is_finished():
            self._ended.add(trial.number)
            events.append(end_event(trial))
        self._write(run, events)

    def _run(self, number: int) -> Path:
        run = self._directory / f"{number:05d}"
        run.mkdir(exist_ok=True)
        return run

    def _write(self, run: Path, events: Sequence[Event]) -> None:
        """Append events to a run's file of the table."""
        if not events:
            return
        run.mkdir(exist_ok=True)
        path = run / "events.out.tfevents.0000000000.table"
        with path.open("ab") as file:
            writer = RecordWriter(file)
            if file.tell() == 0:
                writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            for event in events:
                writer.write(event.SerializeToString())


def _append_rest(source: Path, copy: Path) -> None:
    """Append to `copy` what `source` has beyond it; event files only grow."""
    with source.open("rb") as read, copy.open("ab") as written:
        read.seek(written.tell())
        written.write(read.read())
