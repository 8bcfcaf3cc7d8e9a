"""`RungSearcher`: proposals from the scores at each rung, also after an interruption."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from search.strategy.proposer import MIN_RESULTS
from search.strategy.searcher import RungSearcher
from search.study.trials import note_epoch, trial_records
from trainable.metrics.objective import Objective
from trainable.report import TrialReport

RUNGS = [1, 3, 9]
Curve = Callable[[dict[str, Any], int], float]


def line(trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0.0, 1.0)


def conditional(trial: optuna.Trial) -> None:
    if trial.suggest_categorical("name", ["sgd", "adamw"]) == "sgd":
        trial.suggest_float("lr@sgd", 0.1, 1.0, log=True)
    else:
        trial.suggest_float("lr@adamw", 1e-4, 1e-2, log=True)


def searcher_of(
    space: Callable[[optuna.Trial], dict[str, Any] | None] = line,
    *,
    seed: int = 0,
    mode: str = "max",
    study: optuna.Study | None = None,
) -> RungSearcher:
    return RungSearcher(
        space, objective=Objective.of("score" if mode == "max" else "-score"), rungs=RUNGS, seed=seed, study=study
    )


def run_trial(searcher: RungSearcher, trial_id: str, curve: Curve, epochs: Sequence[int] = RUNGS) -> dict[str, Any]:
    """As Tune runs a trial: each report but the last by itself, the last with the trial's end."""
    config = searcher.suggest(trial_id)
    results = [{"epoch": epoch, "score": curve(config, epoch)} for epoch in epochs]
    for result in results[:-1]:
        searcher.on_trial_result(trial_id, result)
    searcher.on_trial_complete(trial_id, results[-1])
    return config


def proposals(searcher: RungSearcher, count: int, curve: Curve, epochs: Sequence[int] = RUNGS) -> list[dict[str, Any]]:
    return [run_trial(searcher, f"trial-{number}", curve, epochs) for number in range(count)]


def journal_study(path: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
    return optuna.create_study(study_name="s", storage=storage, direction="maximize", load_if_exists=True)


def misleading(config: dict[str, Any], epoch: int) -> float:
    """Curves that cross: after one epoch a small x is best, after nine a large one."""
    wanted = 0.1 if epoch == 1 else 0.9
    return 1 - abs(float(config["x"]) - wanted)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["max", "min"])
def test_highest_rung_guides_proposals(mode: str) -> None:
    """Were all reports one quantity, the many low scores would draw the search to where trials only start well."""
    sign = 1 if mode == "max" else -1
    late = []
    for seed in range(5):
        configs = proposals(searcher_of(seed=seed, mode=mode), 40, lambda c, epoch: sign * misleading(c, epoch))
        late.append(mean(abs(config["x"] - 0.9) for config in configs[-20:]))

    assert mean(late) < 0.2  # uniform proposals lie 0.41 away, those that follow the first epoch 0.8


@pytest.mark.slow
def test_lower_rung_guides_without_results_of_a_higher_one() -> None:
    """At the start of a search ASHA has stopped almost everything after an epoch: that must still teach something."""
    late = []
    for seed in range(5):
        configs = proposals(searcher_of(seed=seed), 40, misleading, epochs=[1])
        late.append(mean(abs(config["x"] - 0.1) for config in configs[-20:]))

    assert mean(late) < 0.2


@pytest.mark.slow
def test_few_full_curves_outweigh_many_short_ones() -> None:
    """Curves that cross are recognised by those that were seen to their end, though ASHA lets few get there."""
    late = []
    for seed in range(5):
        proposals(searcher := searcher_of(seed=seed), MIN_RESULTS - 1, misleading)
        configs = [run_trial(searcher, f"short-{number}", misleading, [1]) for number in range(40)]
        late.append(mean(abs(config["x"] - 0.9) for config in configs[-20:]))

    assert mean(late) < 0.25  # those that follow the first epoch lie 0.8 away


@pytest.mark.slow
def test_every_tenth_proposal_is_random() -> None:
    """No region is given up for good; the random ones do not depend on any score."""
    good = proposals(searcher_of(), 30, misleading)
    bad = proposals(searcher_of(), 30, lambda config, epoch: -misleading(config, epoch))

    assert [good[turn] for turn in (9, 19, 29)] == [bad[turn] for turn in (9, 19, 29)]
    assert good[20:29] != bad[20:29]


def test_origin_of_each_trial_is_recorded() -> None:
    """Whoever reads the trials sees what was refined, and what was drawn without regard to scores."""
    searcher = searcher_of()
    searcher.study.enqueue_trial({"x": 0.5}, user_attrs={"recipe": "a"})
    proposals(searcher, MIN_RESULTS + 6, misleading)
    origins = [record.proposed_by for record in trial_records(searcher.study)]

    assert origins == ["recipe", *["exploration"] * 5, *["model"] * 3, "exploration", *["model"] * 2]


@pytest.mark.slow
def test_same_seed_gives_same_proposals() -> None:
    """A search is to be repeated by its seed alone."""
    first, again = (proposals(searcher_of(seed=3), 25, misleading) for _ in range(2))
    other = proposals(searcher_of(seed=4), 25, misleading)

    assert first == again
    assert first != other


def test_enqueued_trials_are_completed_by_the_seed() -> None:
    """A configuration to start from may leave parameters open; they too are drawn from the seed."""
    drawn = []
    for _ in range(2):
        study = optuna.create_study(direction="maximize")
        study.enqueue_trial({"name": "sgd"})
        drawn.append(searcher_of(conditional, seed=5, study=study).suggest("a"))

    assert drawn[0]["name"] == "sgd"
    assert drawn[0] == drawn[1]


def test_concurrent_trials_get_different_configurations() -> None:
    """Tune requests many configurations before the first trial ends, and their reports are interleaved."""
    searcher = searcher_of()
    configs = {name: searcher.suggest(name) for name in "abcdefgh"}
    for name, config in configs.items():
        searcher.on_trial_result(name, {"epoch": 1, "score": config["x"]})
    for name in reversed(configs):
        searcher.on_trial_complete(name, {"epoch": 3, "score": configs[name]["x"] + 1})

    assert len({config["x"] for config in configs.values()}) == len(configs)
    for trial in searcher.study.trials:
        assert trial.intermediate_values == {1: trial.params["x"], 3: trial.params["x"] + 1}
        assert trial.value == trial.params["x"] + 1


def test_searcher_uses_the_best_epoch_of_a_trial() -> None:
    """A network that got worse in its last epoch is exported at its best one."""
    searcher = searcher_of()
    run_trial(searcher, "a", lambda _, epoch: {1: 0.2, 3: 0.8, 9: 0.5}[epoch])
    lowest = searcher_of(mode="min")
    run_trial(lowest, "a", lambda _, epoch: {1: 0.2, 3: 0.8, 9: 0.5}[epoch])

    assert searcher.study.trials[0].value == 0.8
    assert lowest.study.trials[0].value == 0.2


def test_final_report_is_used() -> None:
    """Tune does not pass on the report after which a scheduler stops a trial: the rung would stay empty."""
    searcher = searcher_of()
    config = searcher.suggest("a")
    searcher.on_trial_complete("a", {"epoch": 1, "score": 0.25})

    assert searcher.study.trials[0].params == config
    assert searcher.study.trials[0].intermediate_values == {1: 0.25}
    assert searcher.study.trials[0].state == TrialState.COMPLETE


def test_duplicate_report_is_used_once() -> None:
    """A crashed trial resumes from its checkpoint, and reports some epochs a second time."""
    searcher = searcher_of()
    searcher.suggest("a")
    for score in (0.25, 0.75):
        searcher.on_trial_result("a", {"epoch": 1, "score": score})
    searcher.on_trial_complete("a", {"epoch": 3, "score": 0.5})

    assert searcher.study.trials[0].intermediate_values == {1: 0.25, 3: 0.5}


def test_report_without_the_objective_is_ignored() -> None:
    """Tune reports of its own accord when a trial's function returns."""
    searcher = searcher_of()
    searcher.suggest("a")
    searcher.on_trial_result("a", {"epoch": 1, "score": 0.5})
    searcher.on_trial_complete("a", {"done": True})

    assert searcher.study.trials[0].intermediate_values == {1: 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("fails", ["diverges", "crashes"])
def test_failing_region_is_avoided(tmp_path: Path, fails: str, resumed: bool) -> None:
    """A model without failures would treat their region as unexplored."""
    late = []
    for seed in range(5):
        searcher = searcher_of(seed=seed, study=journal_study(tmp_path / str(seed)))
        for number in range(32):
            if resumed and number == 25:
                searcher = searcher_of(seed=seed, study=journal_study(tmp_path / str(seed)))
            x = searcher.suggest(str(number))["x"]
            if x > 0.5:
                searcher.on_trial_complete(str(number), {"epoch": 9, "score": x - 2})
            elif fails == "diverges":
                searcher.on_trial_complete(str(number), {"epoch": 1, "score": math.nan})
            else:
                searcher.on_trial_complete(str(number), error=True)
        late += [trial.params["x"] > 0.5 for trial in searcher.study.trials[-7:]]
        assert all((trial.params["x"] > 0.5) == (trial.state == TrialState.COMPLETE) for trial in searcher.study.trials)

    assert mean(late) > 0.75


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [False, True])
def test_region_that_diverges_before_the_first_rung_is_avoided(resumed: bool) -> None:
    """A trial that diverged has the score 0, but no rung at which it is compared."""
    late = []
    for seed in range(5):
        searcher = RungSearcher(line, rungs=[3, 9], seed=seed)
        for number in range(32):
            if resumed and number == 25:
                searcher = RungSearcher(line, rungs=[3, 9], seed=seed, study=searcher.study)
            x = searcher.suggest(str(number))["x"]
            if x <= 0.5:
                note_outcome(searcher, str(number), "diverged")
            searcher.on_trial_complete(str(number), {"epoch": 9 if x > 0.5 else 1, "score": x - 0.5 if x > 0.5 else 0})
        late += [trial.params["x"] > 0.5 for trial in searcher.study.trials[-7:]]
        assert {trial.state for trial in searcher.study.trials} == {TrialState.COMPLETE}

    assert mean(late) > 0.75


def note_outcome(searcher: RungSearcher, trial_id: str, outcome: str) -> None:
    """As the recorder stores a report."""
    trial = searcher.running(trial_id)
    assert trial is not None
    note_epoch(trial, TrialReport(epoch=1, metrics={"score": 0.0}, outcome=outcome))


def test_search_continues_when_all_trials_fail() -> None:
    """Tune takes None for 'no more trials': a proposal is made whatever happened before."""
    searcher = searcher_of()
    configs = []
    for number in range(3 * MIN_RESULTS):
        configs.append(searcher.suggest(str(number)))
        searcher.on_trial_complete(str(number), error=True)

    assert all(0 <= config["x"] <= 1 for config in configs)
    assert {trial.state for trial in searcher.study.trials} == {TrialState.FAIL}


@pytest.mark.slow
def test_conditional_spaces_are_learned() -> None:
    """Only the sampled optimizer gets a learning rate, and each optimizer's is modelled separately."""
    late = []
    for seed in range(5):
        configs = proposals(
            searcher_of(conditional, seed=seed),
            50,
            lambda config, _: 0.0 if config["name"] == "sgd" else 1 - abs(math.log10(config["lr@adamw"] / 1e-3)),
        )
        assert all(set(config) == {"name", f"lr@{config['name']}"} for config in configs)
        late += [abs(math.log10(config["lr@adamw"] / 1e-3)) for config in configs[-20:] if config["name"] == "adamw"]

    assert len(late) > 70  # of 100; without learning, half
    assert mean(late) < 0.3  # in decades; without learning, a half


def test_space_of_constants_is_supported() -> None:
    """Spaces that were written for Ray's OptunaSearch return None, or what is to be added to the drawn values."""

    def with_constants(trial: optuna.Trial) -> dict[str, Any]:
        return {"doubled": 2 * trial.suggest_float("x", 0.0, 1.0)}

    plain, added = searcher_of().suggest("a"), searcher_of(with_constants).suggest("a")

    assert set(plain) == {"x"}
    assert added == {"x": plain["x"], "doubled": 2 * plain["x"]}


def test_describe_determines_the_configuration_for_tune() -> None:
    """The tuner adds a trial's name and directory to what the space returned."""
    searcher = RungSearcher(
        lambda trial: {"nested": {"x": trial.suggest_float("x", 0, 1)}},
        rungs=RUNGS,
        describe=lambda trial, values: {"number": trial.number, **values},
    )

    given = [searcher.suggest(name) for name in "ab"]

    assert [config["number"] for config in given] == [0, 1]
    assert set(given[0]) == {"number", "nested"}


def test_searcher_knows_the_study_trial_of_a_running_trial() -> None:
    """What is recorded of a running trial goes to its place in the study."""
    searcher = searcher_of()
    searcher.suggest("a")
    searcher.suggest("b")

    assert [trial.number for name in "ab" if (trial := searcher.running(name))] == [0, 1]
    searcher.on_trial_complete("b", {"epoch": 1, "score": 0.5})
    assert searcher.running("b") is None


def test_resume_continues_interrupted_trials(tmp_path: Path) -> None:
    """After Ctrl-C nothing is lost: what ran comes first again, with the number and values that it had."""
    before = searcher_of(study=journal_study(tmp_path / "j"))
    run_trial(before, "done", misleading)
    running = {name: before.suggest(name) for name in "ab"}
    before.on_trial_result("a", {"epoch": 1, "score": 0.5})
    before.interrupt()
    before.on_trial_complete("a", {"epoch": 3, "score": 0.75})
    before.on_trial_complete("b")

    after = searcher_of(study=journal_study(tmp_path / "j"))
    again = [after.suggest(name) for name in "cd"]
    new = after.suggest("e")

    assert again == list(running.values())
    assert [trial.number for name in "cde" if (trial := after.running(name))] == [1, 2, 3]
    assert new not in again
    assert [trial.state for trial in after.study.trials] == [TrialState.COMPLETE, *[TrialState.RUNNING] * 3]
    assert after.study.trials[1].intermediate_values == {1: 0.5, 3: 0.75}


def test_resumed_trial_is_completed_once(tmp_path: Path) -> None:
    """Its curve is that of both runs, without the epochs that it went through again."""
    before = searcher_of(study=journal_study(tmp_path / "j"))
    before.suggest("a")
    before.on_trial_result("a", {"epoch": 1, "score": 0.5})
    before.on_trial_result("a", {"epoch": 2, "score": 0.9})

    after = searcher_of(study=journal_study(tmp_path / "j"))
    after.suggest("b")
    for epoch, score in ((2, 0.1), (3, 0.6)):
        after.on_trial_result("b", {"epoch": epoch, "score": score})
    after.on_trial_complete("b", {"epoch": 4, "score": 0.7})

    [trial] = journal_study(tmp_path / "j").trials
    assert trial.state == TrialState.COMPLETE
    assert trial.intermediate_values == {1: 0.5, 2: 0.9, 3: 0.6, 4: 0.7}
    assert trial.value == 0.9


def test_end_that_failed_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a short fault of the storage: Tune starts such a trial again, and ends it once more."""
    searcher = searcher_of()
    searcher.suggest("a")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="away"):
        patch.setattr(searcher.study, "tell", lambda *_, **__: raise_away())
        searcher.on_trial_complete("a", {"epoch": 1, "score": 0.5})
    searcher.on_trial_result("a", {"epoch": 2, "score": 0.6})
    searcher.on_trial_complete("a", {"epoch": 3, "score": 0.7})
    searcher.on_trial_result("a", {"epoch": 4, "score": 0.8})  # if another callback failed after the end

    [trial] = searcher.study.get_trials()
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.7)


def raise_away() -> None:
    raise OSError("the storage is away")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["gp", "tpe", "QMCSampler"])
def test_search_goes_on_after_interrupted_trials(tmp_path: Path, sampler: str) -> None:
    """Such a trial is read from the study, and added again when it is resumed: it must count once."""

    def opened() -> RungSearcher:
        study = journal_study(tmp_path / "j")
        return RungSearcher(line, rungs=RUNGS, study=study, sampler=sampler)

    def report(searcher: RungSearcher, name: str, epoch: int) -> None:
        searcher.on_trial_result(name, {"epoch": epoch, "score": 0.1 * epoch})
        if (trial := searcher.running(name)) is not None and not trial.constraints:
            trial.set_constraint("milliseconds", trial.params["x"] - 0.5)

    def finish(searcher: RungSearcher, name: str) -> None:
        for epoch in RUNGS:
            report(searcher, name, epoch)
        searcher.on_trial_complete(name)

    before = opened()
    for number in range(2 * MIN_RESULTS):
        before.suggest(f"first-{number}")
        finish(before, f"first-{number}")
    for name in ("interrupted", "too"):
        before.suggest(name)
        report(before, name, 1)

    after = opened()
    names = ["resumed", "resumed too", *(f"new-{number}" for number in range(4))]
    for name in names[:2]:
        after.suggest(name)
    for name, following in zip(names, names[2:], strict=False):
        finish(after, name)
        after.suggest(following)

    states = [trial.state for trial in after.study.get_trials()]
    assert states == [TrialState.COMPLETE] * (2 * MIN_RESULTS + 4) + [TrialState.RUNNING] * 2


@pytest.mark.slow
def test_resumed_search_uses_earlier_results(tmp_path: Path) -> None:
    """It starts where the first left: in the good region, not with random trials."""
    near = []
    for seed in range(3):
        journal = tmp_path / f"j{seed}"
        proposals(searcher_of(seed=seed, study=journal_study(journal)), 25, misleading)
        configs = proposals(searcher_of(seed=seed, study=journal_study(journal)), 4, misleading)
        near.append(mean(abs(config["x"] - 0.9) for config in configs))

    assert mean(near) < 0.2


def test_resumed_search_repeats_no_configuration(tmp_path: Path) -> None:
    """With the seed alone it would begin with the trials of its start, and pay for each a second time."""
    first = proposals(searcher_of(study=journal_study(tmp_path / "j")), 3, misleading)
    more = proposals(searcher_of(study=journal_study(tmp_path / "j")), 3, misleading)

    assert len({config["x"] for config in first + more}) == 6


def test_trial_lost_before_sampling_is_sampled_on_resume(tmp_path: Path) -> None:
    """A process can die between the study's entry and its first parameter."""
    study = journal_study(tmp_path / "j")
    study.enqueue_trial({"x": 0.125})
    study.ask()

    searcher = searcher_of(study=journal_study(tmp_path / "j"))

    assert searcher.suggest("a") == {"x": 0.125}
    assert len(searcher.study.trials) == 1


@pytest.mark.slow
def test_scale_of_the_objective_does_not_matter() -> None:
    """An error in millimetres is searched as one in metres is; a power of two changes no digit."""
    curve = lambda scale: lambda config, epoch: scale * misleading(config, epoch)  # noqa: E731

    assert proposals(searcher_of(), 20, curve(1.0)) == proposals(searcher_of(), 20, curve(1024.0))


@pytest.mark.slow
def test_minimising_is_maximising_the_negative() -> None:
    """An objective of which smaller is better gets the same proposals."""
    negative = proposals(searcher_of(), 20, lambda config, epoch: -misleading(config, epoch))

    assert proposals(searcher_of(mode="min"), 20, misleading) == negative


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [False, True])
def test_region_of_infinite_errors_is_avoided(tmp_path: Path, resumed: bool) -> None:
    """A trial that diverges before the first rung has no finite error; its absence alone would draw the search back."""

    def opened() -> RungSearcher:
        study = journal_study(tmp_path / "journal")
        return RungSearcher(line, objective=Objective.of("-score"), rungs=[3, 9], study=study)

    def drawn(searcher: RungSearcher, names: Sequence[str]) -> list[float]:
        found = []
        for name in names:
            x = float(searcher.suggest(name)["x"])  # type: ignore[arg-type]
            if x <= 0.5:
                searcher.on_trial_result(name, {"epoch": 3, "score": 1 - x / 2})
            searcher.on_trial_complete(
                name, {"epoch": 9, "score": 1 - x} if x <= 0.5 else {"epoch": 1, "score": math.inf}
            )
            found.append(x)
        return found

    searcher = opened()
    drawn(searcher, [f"early-{number}" for number in range(30)])
    late = drawn(opened() if resumed else searcher, [f"late-{number}" for number in range(10)])

    assert sum(x > 0.5 for x in late) <= 3  # one in ten proposals is random, others lie at the edge
    states = {trial.state for trial in searcher.study.get_trials() if trial.params["x"] > 0.5}
    assert states == {TrialState.FAIL}


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("rungs", [[3, 9], [1, 3, 9]])
def test_trial_that_is_not_trained_says_nothing_about_the_objective(rungs: list[int], resumed: bool) -> None:
    """Its constraint is modelled; an infinite error as well would spoil the neighbourhood of the limit."""

    def space(trial: optuna.Trial) -> None:
        x = trial.suggest_float("x", 0.0, 1.0)
        trial.set_constraint("limit", x - 0.5)

    configs = {}
    for value in (math.inf, 1.0):
        searcher = RungSearcher(space, objective=Objective.of("-score"), rungs=rungs)
        for x in (0.6, 0.7, 0.8, 0.9):
            searcher.study.enqueue_trial({"x": x})
            searcher.suggest(f"excluded-{x}")
            running = searcher.running(f"excluded-{x}")
            assert running is not None
            running.set_user_attr("outcome", "constraint")
            searcher.on_trial_complete(f"excluded-{x}", {"epoch": 1, "score": value, "outcome": "constraint"})
        for number in range(MIN_RESULTS):
            run_trial(searcher, f"trial-{number}", lambda config, _: 1 - float(config["x"]), [3, 9])
        if resumed:
            searcher = RungSearcher(space, objective=Objective.of("-score"), rungs=rungs, study=searcher.study)
        configs[value] = [searcher.suggest(f"late-{number}") for number in range(8)]

    assert configs[math.inf] == configs[1.0]


def test_limit_that_a_trial_measures_says_nothing_about_the_objective() -> None:
    """Tune passes the report to the searcher before the study has what was measured."""
    searcher = searcher_of()
    for number in range(MIN_RESULTS):
        searcher.suggest(f"slow-{number}")
        searcher.on_trial_result(f"slow-{number}", {"epoch": 1, "score": 0.0, "outcome": "constraint"})
        trial = searcher.running(f"slow-{number}")
        assert trial is not None
        trial.set_constraint("ms_per_picture", 0.5)
        searcher.on_trial_complete(f"slow-{number}", {"epoch": 1, "score": 0.0, "outcome": "constraint"})
    searcher.suggest("next")

    assert searcher.study.trials[-1].user_attrs["proposed_by"] == "exploration"  # no score yet
