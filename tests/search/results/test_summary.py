"""Records of trials in the study, and what is computed from them: best trial, outcomes, summary."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from data.errors import InputError
from search.results.summary import (
    find_best,
    find_best_recipe,
    find_trial,
    is_complete,
    outcomes,
    progress_line,
    summarise,
    why_no_result,
    with_measurements,
)
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.summary import Difference, Retrained, Summary, TrialSummary
from search.study.trials import EpochRecord, TrialRecord, keep_best, note_epoch, note_failure, note_start, trial_records
from trainable.config import ModelConfig, TrialConfig, build
from trainable.loop.checkpoint import save
from trainable.loop.checkpoint_files import CONFIG, STATE, WEIGHTS, DamagedCheckpointError, Origin
from trainable.models import build_model
from trainable.report import TrialReport

CONFIGURATION = TrialConfig(model=ModelConfig(family="debug", width=2))
SPEC = load_spec(data_path="set")


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    experiment = Experiment(storage=tmp_path, name="s")
    experiment.create(SPEC)
    yield experiment


def checkpoint(experiment: Experiment, number: int, epoch: int) -> str:
    """Weights and state as a trial leaves them; the directory below the experiment."""
    directory = experiment.trials / f"{number:05d}" / f"checkpoint_{epoch:06d}"
    origin = Origin(config=CONFIGURATION, data_fingerprint="0", epoch=epoch)
    save(directory, build_model(CONFIGURATION.model), origin, {"score": 0.0}, state={"epoch": epoch})
    return experiment.relative(directory)


def trial_of(
    experiment: Experiment,
    study: optuna.Study,
    scores: dict[int, float],
    *,
    state: TrialState = TrialState.COMPLETE,
    kept: tuple[int, ...] = (),
    outcome: str = "trained",
    recipe: str = "",
) -> TrialRecord:
    """A trial with these scores by epoch, and checkpoints of the `kept` epochs."""
    trial = study.ask()
    trial.set_user_attr("recipe", recipe)
    note_start(trial, CONFIGURATION.model_dump())
    for epoch, score in scores.items():
        path = checkpoint(experiment, trial.number, epoch) if epoch in kept else None
        note_epoch(trial, TrialReport(epoch=epoch, metrics={"score": score}, outcome=outcome), path)
    if state != TrialState.RUNNING:
        study.tell(trial, max(scores.values()) if state == TrialState.COMPLETE else None, state=state)
    return trial_records(study)[-1]


def test_trial_record_round_trip(experiment: Experiment) -> None:
    """Another process reads the same later: epochs in order, configuration, learning rates, when and where."""
    before = time.time() - 0.001  # recorded in milliseconds
    trial = open_study(experiment).ask()
    assert note_start(trial, CONFIGURATION.model_dump()) == 0
    for epoch in (1, 2, 10):
        report = TrialReport(
            epoch=epoch,
            metrics={"score": epoch / 10, "mask_iou": 0.5},
            outcome="trained",
            lr_factors=[1.0] * epoch,
            precision="bf16",
            machine="EPYC",
            host="node-2",
        )
        note_epoch(trial, report, f"c{epoch}")

    [record] = trial_records(open_study(experiment))
    assert [epoch.epoch for epoch in record.epochs] == [1, 2, 10]
    assert record.epochs[2] == EpochRecord(epoch=10, metrics={"score": 1.0, "mask_iou": 0.5}, checkpoint="c10")
    assert record.config == CONFIGURATION.model_dump()
    assert (record.outcome, record.reason, record.lr_factors) == ("trained", "", [1.0] * 10)
    assert (record.precision, record.machine, record.host) == ("bf16", "EPYC", "node-2")
    times = [epoch.time or 0.0 for epoch in record.epochs]
    assert before <= times[0] <= times[1] <= times[2] <= time.time() + 0.001
    assert record.started is not None
    assert before - 1 <= record.started.timestamp() <= times[0] + 1
    assert record.ended is None
    assert note_start(trial, CONFIGURATION.model_dump()) == 1


def test_measured_precision_is_part_of_the_configuration_as_run(experiment: Experiment) -> None:
    """'auto' says what was wanted; a summary says what the weights were trained in."""
    study = open_study(experiment)
    for precision in ("bf16", ""):
        trial = study.ask()
        note_start(trial, CONFIGURATION.model_dump())
        note_epoch(trial, TrialReport(epoch=1, metrics={"score": 0.5}, precision=precision))
    noted, not_noted = trial_records(study)

    assert noted.config == not_noted.config == not_noted.config_as_run
    assert noted.config["model"]["precision"] == "auto"
    assert noted.config_as_run == {**noted.config, "model": {**noted.config["model"], "precision": "bf16"}}


def test_best_epoch_is_chosen_among_those_with_weights(experiment: Experiment) -> None:
    """A score without weights cannot be exported; of equal scores the earlier counts."""
    record = trial_of(experiment, open_study(experiment), {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.7}, kept=(1, 3, 4))
    best = record.best_kept(experiment)

    assert best is not None
    assert (best.epoch, best.score) == (3, 0.7)


def test_resume_uses_the_newest_checkpoint_with_state(experiment: Experiment) -> None:
    """Weights alone do not have what the optimizer needs."""
    record = trial_of(experiment, open_study(experiment), {1: 0.5, 2: 0.9, 3: 0.7}, kept=(1, 2, 3))
    assert record.newest(experiment) == experiment.root / str(record.epochs[2].checkpoint)
    (experiment.root / str(record.epochs[2].checkpoint) / STATE).unlink()

    assert record.newest(experiment) == experiment.root / str(record.epochs[1].checkpoint)
    shutil.rmtree(experiment.trials)
    assert record.newest(experiment) is None


def test_finished_trial_keeps_only_its_best_weights(experiment: Experiment) -> None:
    """Hundreds of trials share a disk."""
    record = trial_of(experiment, open_study(experiment), {1: 0.5, 2: 0.9, 3: 0.7}, kept=(1, 2, 3))
    keep_best(experiment, record)

    [left] = (experiment.trials / "00000").iterdir()
    assert left == experiment.root / str(record.epochs[1].checkpoint)
    assert (left / WEIGHTS).is_file()
    assert not (left / STATE).exists()


@pytest.mark.parametrize("reported", [{1: 0.5, 2: 0.6}, {}], ids=["some reports lost", "all reports lost"])
def test_a_trial_that_was_resumed_keeps_nothing_of_its_earlier_attempt(
    experiment: Experiment, reported: dict[int, float]
) -> None:
    """An attempt has its own directory, which nobody else removes, and not all that is in it was reported."""
    study = open_study(experiment)
    first = trial_of(experiment, study, reported, state=TrialState.RUNNING, kept=tuple(reported))
    unreported = experiment.trials / "00000" / "checkpoint_000003"
    unreported.mkdir(parents=True)  # the driver was killed before its report arrived
    later = "trials/00000-1/checkpoint_000003"
    checkpoint(experiment, 7, 3)
    (experiment.trials / "00007").rename(experiment.trials / "00000-1")
    resumed = optuna.Trial(study, study.get_trials()[first.number]._trial_id)
    assert note_start(resumed, CONFIGURATION.model_dump()) == 1
    note_epoch(resumed, TrialReport(epoch=3, metrics={"score": 0.9}, outcome="trained"), later)

    keep_best(experiment, TrialRecord.of(resumed))

    assert [experiment.relative(path) for path in experiment.trials.glob("*/checkpoint_*")] == [later]


def test_the_best_trial_is_found_by_its_best_epoch(experiment: Experiment) -> None:
    """Not by its last one, nor by the trial with the most epochs."""
    study = open_study(experiment)
    trial_of(experiment, study, {1: 0.5, 2: 0.6}, kept=(1, 2))
    trial_of(experiment, study, {1: 0.8, 2: 0.1}, kept=(1, 2))
    trial_of(experiment, study, {1: 0.9})
    best = find_best(experiment, trial_records(study))

    assert best is not None
    assert (best.trial.number, best.epoch.epoch) == (1, 1)
    assert best.checkpoint == experiment.trials / "00001" / "checkpoint_000001"


@pytest.mark.parametrize("damage", [WEIGHTS, CONFIG])
def test_trials_with_unloadable_weights_are_skipped(experiment: Experiment, damage: str) -> None:
    """A file that was cut off when the disk was full must not end the search."""
    study = open_study(experiment)
    trial_of(experiment, study, {1: 0.5}, kept=(1,))
    trial_of(experiment, study, {1: 0.8}, kept=(1,))
    path = experiment.trials / "00001" / "checkpoint_000001" / damage
    path.write_bytes(path.read_bytes()[:20])
    best = find_best(experiment, trial_records(study))

    assert best is not None
    assert best.trial.number == 0
    assert find_best(experiment, trial_records(study)[1:]) is None
    with pytest.raises(DamagedCheckpointError, match=damage):
        find_trial(experiment, study, 1)


def test_missing_trial_is_named_with_existing_ones(experiment: Experiment) -> None:
    """`--trial` takes a number that people read off a log."""
    study = open_study(experiment)
    with pytest.raises(InputError, match=r"no trial 0; give --trial one of its trials \(none yet\)"):
        find_trial(experiment, study, 0)
    for _ in range(2):
        trial_of(experiment, study, {1: 0.5}, kept=(1,))

    assert find_trial(experiment, study, 1).trial.number == 1
    with pytest.raises(InputError, match=r"no trial 7; .*\(0 to 1\)"):
        find_trial(experiment, study, 7)


def test_outcomes_are_distinguished(experiment: Experiment) -> None:
    """A search in which most trials diverged is not one in which most were stopped."""
    study = open_study(experiment)
    trial_of(experiment, study, {9: 0.5})
    trial_of(experiment, study, {3: 0.5})
    trial_of(experiment, study, {3: 0.5})
    trial_of(experiment, study, {2: 0.0}, outcome="diverged")
    trial_of(experiment, study, {1: 0.0}, outcome="constraint")
    trial_of(experiment, study, {1: 0.5}, state=TrialState.FAIL)
    trial_of(experiment, study, {1: 0.5}, state=TrialState.RUNNING)

    counts = outcomes(trial_records(study), max_epochs=9)
    assert counts == {"finished": 1, "stopped": 2, "diverged": 1, "constraint": 1, "failed": 1, "interrupted": 1}


def test_failure_is_recorded(experiment: Experiment) -> None:
    """Why nothing worked is what somebody needs whose search has no result."""
    trial = open_study(experiment).ask()
    note_start(trial, {})
    note_failure(trial, "CUDA out of memory")

    [record] = trial_records(open_study(experiment))
    assert (record.outcome, record.reason) == ("failed", "CUDA out of memory")


def test_waiting_trials_are_not_counted(experiment: Experiment) -> None:
    """The configuration to start from stands in the study before anything ran."""
    study = open_study(experiment)
    study.enqueue_trial({"x": 1})

    assert trial_records(study) == []


def test_summary_holds_the_results(experiment: Experiment) -> None:
    """It is JSON that names the best trial with its configuration, and what the numbers depend on."""
    study = open_study(experiment)
    trial_of(experiment, study, {1: 0.5, 2: 0.75}, kept=(1, 2))
    trials = trial_records(study)
    best = find_best(experiment, trials)
    summary = summarise(experiment, SPEC, trials, best, None, seconds=12.34, data_fingerprint="f")

    assert Summary.model_validate(json.loads(json.dumps(summary.as_plain()))) == summary
    assert summary.best is not None
    assert summary.best.trial == 0
    assert (summary.best.epoch, summary.best.score) == (2, 0.75)
    assert summary.best.config == CONFIGURATION.model_dump()
    assert (experiment.root / summary.best.checkpoint / WEIGHTS).is_file()
    assert (summary.trials, summary.epochs, summary.seconds) == (1, 2, 12.3)
    assert {"python", "torch", "ray", "optuna"} <= set(summary.versions)
    assert summarise(experiment, SPEC, [], None, None, seconds=0, data_fingerprint="f").best is None


def test_best_recipe_needs_the_full_budget(experiment: Experiment) -> None:
    """A recipe that was stopped early may have been ahead at the time; what it would have come to nobody knows."""
    study = open_study(experiment)
    for name, curve in (("early", {1: 0.9}), ("whole", {1: 0.3, 2: 0.5}), ("worse", {1: 0.2, 2: 0.4}), ("", {2: 0.8})):
        trial_of(experiment, study, curve, kept=tuple(curve), recipe=name)

    recipe = find_best_recipe(experiment, trial_records(study), max_epochs=2)
    assert recipe is not None
    assert recipe.trial.recipe == "whole"
    assert find_best_recipe(experiment, trial_records(study), max_epochs=3) is None


def test_summary_advises_when_all_trials_diverged(experiment: Experiment) -> None:
    """In some lines, whatever the number of trials: each of their reasons is long."""
    study = open_study(experiment)
    for number in range(40):
        values = {**CONFIGURATION.model_dump(), "optimizer": {"name": "sgd", "lr": 10.0 + number, "clip_norm": 0.0}}
        trial = study.ask()
        note_start(trial, build(TrialConfig, values, source="the test").model_dump())
        note_epoch(trial, TrialReport.worst(1, "diverged", f"The loss became nan at step {number}"))

    said = why_no_result(trial_records(study))

    assert said.startswith("40 of 40 diverged, such as trial 0 with bce")
    assert "sgd lr 10, momentum 0.9" in said
    assert "Lower optimizer.lr (these had 10 to 49), set optimizer.clip_norm to 1, or lower the weights" in said
    assert len(said) < 500


def test_further_failure_reasons_are_counted(experiment: Experiment) -> None:
    """What failed is not hidden behind what diverged."""
    study = open_study(experiment)
    for number in range(6):
        note_failure(study.ask(), f"reason {number}")

    assert why_no_result(trial_records(study)) == "reason 0; reason 1; reason 2; 3 more; correct the spec"
    assert why_no_result([]) == "none reported why; correct the spec"


def test_failure_reason_of_an_earlier_version_is_shortened(experiment: Experiment) -> None:
    """It was some 2,000 characters in every table."""
    study = open_study(experiment)
    configuration = CONFIGURATION.model_dump_json()
    note_failure(study.ask(), f"The loss became nan at step 3 with the configuration {configuration}; lower it.")

    assert trial_records(study)[0].reason == "The loss became nan at step 3; lower it."


def test_resumed_search_reports_its_progress(experiment: Experiment) -> None:
    """The bar alone would begin anew, without the best score and the numbers of earlier trials."""
    study = open_study(experiment)
    trial_of(experiment, study, {1: 0.5, 2: 0.75})
    trial_of(experiment, study, {1: 0.25})
    trial_of(experiment, study, {1: 0.5}, state=TrialState.RUNNING)
    trials = trial_records(study)

    assert progress_line(trials, 5, 2) == (
        "2 of 5 trials are done (1 finished, 1 stopped); best score 0.7500 of trial 0; unfinished: 2"
    )
    assert progress_line([], 5, 2) == "0 of 5 trials are done"


def test_progress_of_a_resumed_search_leaves_out_what_was_not_trained(experiment: Experiment) -> None:
    """A trial outside the limits has no result, and the first of two equal ones is the best."""
    study = open_study(experiment)
    note_epoch(study.ask(), TrialReport.worst(1, "constraint", "it is too large"))
    nothing = progress_line(trial_records(study), 5, 2)
    for _ in range(2):
        trial_of(experiment, study, {1: 0.5})

    assert "best" not in nothing
    assert "; best score 0.5000 of trial 1" in progress_line(trial_records(study), 5, 2)


@pytest.mark.parametrize(
    ("found", "complete"),
    [
        ({"trials": 20}, True),
        ({"trials": 20, "complete": False}, False),
        ({"trials": 20, "outcomes": {"finished": 18, "interrupted": 2}}, False),  # by an earlier version
        ({"trials": 20, "outcomes": {"interrupted": 2}, "ended_by": "hours", "limit": 1.0}, True),
        ({"trials": 12, "ended_by": "hours", "limit": 1.0}, True),
        ({"trials": 12, "ended_by": "hours", "limit": 0.5}, False),  # it may take longer now
        ({"trials": 12, "ended_by": "patience", "limit": 3}, False),  # which is not limited any more
    ],
)
def test_search_is_complete_until_its_limit_is_raised(
    experiment: Experiment, found: dict[str, object], complete: bool
) -> None:
    """Trials that its hours cut off are there to be resumed, with a larger budget as with no such limit."""
    spec = load_spec({"budget": {"trials": 20, "hours": 1.0}}, data_path="set")
    experiment.write_summary(Summary.model_validate({"complete": True, "ended_by": "trials", **found}))

    assert is_complete(experiment, spec) is complete


def test_a_stopped_run_keeps_the_results_of_the_last(experiment: Experiment) -> None:
    """The retrained network is there until another replaces it; a new best trial was not measured on test."""
    best = TrialSummary(trial=3, epoch=2, score=0.5)
    measured = best.model_copy(update={"test": {"score": 0.4}})
    beyond = {"score": Difference(value=0.1, low=0.0, high=0.2)}
    retrained = Retrained(metrics={"score": 0.45}, checkpoint="retrained", epochs=2)
    earlier = Summary(complete=True, best=measured, beyond_recipe=beyond, retrained=retrained, baselines={})

    same = with_measurements(Summary(trials=9, best=best), earlier)
    assert (same.best, same.beyond_recipe, same.retrained, same.baselines) == (measured, beyond, retrained, {})
    assert (same.complete, same.trials) == (False, 9)
    other = best.model_copy(update={"trial": 4})
    better = with_measurements(Summary(best=other), earlier)
    assert (better.best, better.beyond_recipe, better.retrained) == (other, None, retrained)
    assert with_measurements(Summary(best=best), None) == Summary(best=best)
