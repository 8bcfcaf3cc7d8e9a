"""How a search ran: times, hosts, rank correlations of rungs, and what early stopping saved."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from search.report.findings import Findings, findings_of
from search.report.history import epoch_times, rankings, spans, spending
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import TrialRecord, note_epoch, note_start, trial_records
from tests.search.conftest import CONFIGURATION
from tests.search.report.studies import START, search_of
from trainable.report import TrialReport


@pytest.fixture(scope="module")
def findings(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return findings_of(search_of(tmp_path_factory.mktemp("storage"), scenes, 40))


@pytest.mark.slow
def test_rank_correlation_of_a_rung_is_spearmans(findings: Findings) -> None:
    """Over the trials that reached the last rung, of which alone both scores are known."""
    curves = [{epoch.epoch: epoch.score for epoch in trial.epochs} for trial in findings.trials]
    complete = [curve for curve in curves if 27 in curve]
    found = rankings(findings)

    assert [ranking.rung for ranking in found] == [3, 9]
    for ranking in found:
        expected = spearmanr([curve[ranking.rung] for curve in complete], [curve[27] for curve in complete])
        assert ranking.trials == len(complete) == 8
        assert ranking.correlation == pytest.approx(expected.statistic, abs=1e-4)
        assert -1 <= ranking.low <= ranking.correlation <= ranking.high <= 1  # type: ignore[operator]


def test_rank_correlation_needs_four_trials(scenes: Path, tmp_path: Path) -> None:
    """Three are in the right order by chance once in six."""
    found = rankings(findings_of(search_of(tmp_path, scenes, 12)))

    assert {ranking.trials for ranking in found} == {3}
    assert {ranking.correlation for ranking in found} == {None}


def test_trials_at_a_time_on_a_host_are_in_lanes(findings: Findings) -> None:
    """Two trials that overlap on a host never share a row, and rows are reused."""
    found = spans(findings.trials)
    by_lane: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for span in found:
        by_lane.setdefault((span.host, span.lane), []).append((span.start, span.end))

    assert len(found) == 40
    assert {host for host, _ in by_lane} == {"node-1", "node-2"}
    assert {lane for _, lane in by_lane} == {1, 2}
    assert all(one[1] <= other[0] for lane in by_lane.values() for one, other in itertools.pairwise(lane))


def test_time_of_epochs_is_the_recorded_one_or_counted_back_from_the_end(findings: Findings) -> None:
    """Studies of earlier versions have the end of a trial and the durations of its epochs."""
    trial = findings.trials[0]
    expected = [START.timestamp() + 6 * epoch for epoch in range(1, 28)]
    without = [
        type(epoch)(epoch=epoch.epoch, metrics=epoch.metrics, checkpoint=epoch.checkpoint) for epoch in trial.epochs
    ]
    earlier = TrialRecord(**{**vars(trial), "epochs": without})

    assert epoch_times(trial) == pytest.approx(expected)
    assert epoch_times(earlier) == pytest.approx(expected)
    assert trial.started == START
    assert trial.ended == START + timedelta(seconds=6 * 27)


def test_saved_time_is_that_of_the_epochs_that_were_not_trained(findings: Findings) -> None:
    """Trials that were stopped, at their own pace; those that diverged or failed would not have run on."""
    found = spending(findings)
    stopped = [trial for trial in findings.trials if findings.outcome(trial) == "stopped"]

    assert found.saved == pytest.approx(sum(6.0 * (27 - trial.last_epoch) for trial in stopped))
    assert found.trained["stopped"] == pytest.approx(sum(6.0 * trial.last_epoch for trial in stopped))
    assert found.trained.keys() == {"finished", "stopped", "diverged", "failed"}


def test_running_trial_lasts_until_its_last_report(scenes: Path, tmp_path: Path) -> None:
    """It has no end yet."""
    search: Experiment = search_of(tmp_path, scenes, 4)
    trial = open_study(search).ask()
    note_start(trial, CONFIGURATION.model_dump())
    report = TrialReport(epoch=1, metrics={"score": 0.5, "seconds": 1.0}, outcome="trained", host="node-3")
    recorded = note_epoch(trial, report).time
    [span] = [span for span in spans(trial_records(open_study(search))) if span.trial == 4]

    assert span.host == "node-3"
    assert span.end == pytest.approx(np.float64(recorded))  # type: ignore[arg-type]
