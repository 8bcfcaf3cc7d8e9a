"""First trials from an earlier search: its best configurations, in order, as far as the new space holds them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from data.errors import InputError
from search.spec.spec import SearchSpec, check_spec
from search.strategy.earlier import best_trials
from search.strategy.space import define_space
from search.strategy.warm_start import EARLIER, check_starts, enqueue_starts, find_starts, outside_of, start
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import RECIPE, note_epoch, note_start
from search.terminal import Screen
from trainable.config import TrialConfig, build
from trainable.metrics.objective import Objective
from trainable.report import TrialReport

Command = Callable[..., Any]
SPACE: dict[str, Any] = {
    "data": {"image_size": 32, "batch_size": {"choices": [8, 32]}},
    "model": {"family": "debug", "width": {"choices": [2, 4, 8]}},
    "search": {"start_from": []},
}


def spec_of(**sections: dict[str, Any]) -> SearchSpec:
    return check_spec(SPACE | sections, source="the test", data_path="set")


def from_first(**sections: dict[str, Any]) -> SearchSpec:
    return spec_of(search={"start_from": ["first"]}, **sections)


def searched(
    storage: Path,
    curves: Sequence[Sequence[float]],
    spec: SearchSpec | None = None,
    outcome: str = "trained",
    errors: Sequence[float] = (),
) -> list[TrialConfig]:
    """An earlier search 'first' whose trials reported these scores, and errors of the depth; their configurations."""
    spec = spec or spec_of()
    experiment = Experiment(storage=storage, name="first")
    if not experiment.root.exists():
        experiment.create(spec)
    study, configs = open_study(experiment), []
    study.sampler = optuna.samplers.RandomSampler(seed=len(study.trials))
    for curve in curves:
        trial = study.ask()
        values = define_space(spec)(trial)
        note_start(trial, values)
        configs.append(build(TrialConfig, values, source="the test"))
        for epoch, score in enumerate(curve, start=1):
            trial.report(score, epoch)
            metrics = {"score": score} | ({"depth_rmse": errors[trial.number]} if errors else {})
            note_epoch(trial, TrialReport(epoch=epoch, metrics=metrics, outcome=outcome))
        if curve:
            study.tell(trial, max(curve))
        else:
            study.tell(trial, state=TrialState.FAIL)
    return configs


def first_trials(spec: SearchSpec, storage: Path) -> list[tuple[dict[str, Any], TrialConfig]]:
    """Attributes and configuration of every trial that waits in a new study."""
    study = optuna.create_study()
    enqueue_starts(study, spec, storage)
    drawn = [(trial := study.ask(), define_space(spec)(trial)) for _ in study.get_trials()]
    return [(trial.user_attrs, build(TrialConfig, values, source="a start")) for trial, values in drawn]


def test_longest_and_best_trials_come_first(tmp_path: Path) -> None:
    """A score after one epoch says little against one after nine; what failed or diverged is no start."""
    searched(tmp_path, [[0.9], [0.1] * 9, [], [0.2, 0.6], [0.3] * 8 + [0.2], [0.5, 0.4], [0.8], [0.7]])
    searched(tmp_path, [[1.0] * 9], outcome="diverged")

    names = [trial.name for trial in best_trials(tmp_path, "first")]
    assert names == ["first:4", "first:1", "first:3", "first:5", "first:0"]


def test_earlier_configuration_is_used_once(tmp_path: Path) -> None:
    """A search of few choices tries some again, and its best would be tried five times over."""
    searched(tmp_path, [[0.5] * 9])
    study = open_study(Experiment(storage=tmp_path, name="first"))
    trial = study.ask()
    note_start(trial, study.trials[0].user_attrs["config"])
    note_epoch(trial, TrialReport(epoch=9, metrics={"score": 0.6}, outcome="trained"))

    assert [found.name for found in best_trials(tmp_path, "first")] == ["first:1"]


def test_best_trial_of_an_earlier_search_is_repeated(tmp_path: Path) -> None:
    """Batch size and all; and it is no recipe, which ASHA would let run on."""
    configs = searched(tmp_path, [[0.1 * number] * 9 for number in range(7)])
    found = first_trials(from_first(), tmp_path)

    assert [attributes[EARLIER] for attributes, _ in found] == [f"first:{number}" for number in (6, 5, 4, 3, 2)]
    assert [config for _, config in found] == [configs[number] for number in (6, 5, 4, 3, 2)]
    assert not any(RECIPE in attributes for attributes, _ in found)


def test_earlier_configuration_is_adapted_to_image_size_and_epochs(tmp_path: Path) -> None:
    """A search on large images, for long, starts from a quick one on small images."""
    [earlier] = searched(tmp_path, [[0.5] * 9])
    data = {**SPACE["data"], "image_size": 64, "split_by": "sample"}
    [(_, config)] = first_trials(from_first(data=data, scheduler={"max_epochs": 27}), tmp_path)

    assert (config.data.image_size, config.data.split_by, config.epochs) == (64, "sample", 27)
    assert (config.data.batch_size, config.model) == (earlier.data.batch_size, earlier.model)
    assert (config.loss, config.optimizer, config.policy) == (earlier.loss, earlier.optimizer, earlier.policy)


def test_values_outside_the_new_space_are_named(tmp_path: Path) -> None:
    """After narrowing the space, users must see what it leaves out, and why; the summary shows it, too."""
    widths = [config.model.width for config in searched(tmp_path, [[0.1 * number] * 9 for number in range(5)])]
    spec = from_first(model={"family": "debug", "width": {"choices": [2, 4]}})
    study, said = optuna.create_study(), io.StringIO()
    start(study, spec, tmp_path, Screen(Console(file=said, width=500)))
    within = [trial.user_attrs[EARLIER] for trial in study.trials]

    assert 8 in widths
    assert sorted(within) == [f"first:{number}" for number, width in enumerate(widths) if width != 8]
    assert outside_of(study) == {
        "recipes_outside": {},
        "portfolio_outside": {},
        "earlier_outside": {
            f"first:{number}": "its model.width is 8, and the space has 2, 4"
            for number in (4, 3, 2, 1, 0)
            if widths[number] == 8
        },
    }
    [line] = [line for line in said.getvalue().splitlines() if "outside" in line]
    names = ", ".join(f"first:{number}" for number in (4, 3, 2, 1, 0) if widths[number] == 8)
    assert line == f"outside the search space, and therefore not tried: {names}; --dry-run gives the reasons"


def test_resumed_search_adds_no_first_trials(tmp_path: Path) -> None:
    """Its first trials are there already."""
    searched(tmp_path, [[0.5] * 9, [0.6] * 9])
    study = optuna.create_study()
    for _ in range(2):
        start(study, from_first(), tmp_path, Screen())

    assert len(study.trials) == 2


def test_recipe_of_an_earlier_search_is_tried_once(tmp_path: Path) -> None:
    """It is the same point of the space, and keeps the name of the recipe."""
    wide = check_spec({}, source="the test", data_path="set")
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(wide)
    alone = check_spec({"search": {"start_from": ["birender-cnn"]}}, source="the test", data_path="set")
    [(_, recipe)] = first_trials(alone, tmp_path)
    trial = open_study(experiment).ask()
    note_start(trial, recipe.model_dump(mode="json"))
    note_epoch(trial, TrialReport(epoch=9, metrics={"score": 0.5}, outcome="trained"))
    starts, outside = find_starts(wide, ["birender-cnn", "first"], tmp_path)

    assert [(found.kind, found.name) for found in starts] == [("recipe", "birender-cnn")]
    assert outside == {}


@pytest.mark.slow
def test_missing_search_is_named(refused: Command, experiment: Experiment, scenes: Path) -> None:
    """With the searches that there are, at the place of the name; and nothing is left of what was refused."""
    Path("spec.yaml").write_text(f"data: {{path: {scenes}}}\nsearch:\n  start_from: [recipes, frist]\n")
    sentence = refused("search", "spec.yaml", "--name", "second")

    assert sentence.startswith(
        "twinhead: spec.yaml:3:25: The value of 'search.start_from' contains 'frist', but there is"
    )
    assert "no such recipe and no such search in 'artifacts', which has first; give one of them" in sentence
    assert [path.name for path in experiment.storage.iterdir()] == ["first"]


def test_a_search_without_a_score_is_named(tmp_path: Path) -> None:
    """There is nothing to start from yet."""
    searched(tmp_path, [[]])

    with pytest.raises(
        InputError, match="contains 'first', but that search has no trial with a score yet; wait for it"
    ):
        check_starts(from_first(), tmp_path)


def test_earlier_trials_are_ranked_by_the_new_objective(tmp_path: Path) -> None:
    """Every epoch has all metrics, so that a search for the depth starts from the best depths."""
    searched(tmp_path, [[0.9] * 9, [0.5] * 9, [0.1] * 9], errors=[0.3, 0.1, 0.2])

    found = best_trials(tmp_path, "first", Objective.of("-depth_rmse"))
    assert [trial.name for trial in found] == ["first:1", "first:2", "first:0"]
    assert [trial.name for trial in best_trials(tmp_path, "first")] == ["first:0", "first:1", "first:2"]


def test_earlier_trials_without_the_objective_keep_their_own_order(tmp_path: Path) -> None:
    """A metric that an earlier search did not measure is no reason to refuse it, but a line says so."""
    searched(tmp_path, [[0.2] * 9, [0.4] * 9])
    spec = check_spec(
        SPACE | {"search": {"start_from": ["first"]}, "objective": "-depth_rmse"}, source="the test", data_path="set"
    )
    lines = io.StringIO()
    study = optuna.create_study()
    start(study, spec, tmp_path, Screen(Console(file=lines, width=500)))

    assert [trial.user_attrs[EARLIER] for trial in study.get_trials()] == ["first:1", "first:0"]
    assert "the trials of 'first' did not measure depth_rmse: score picks them" in lines.getvalue()


def test_transforms_of_an_earlier_trial_are_repeated(tmp_path: Path) -> None:
    """They are its own, like other augmentation that the new search does not search."""
    transforms = {"GridDistortion": {"distort_limit": {"low": 0.1, "high": 0.4}, "p": 0.5}, "CLAHE": {"p": 0.2}}
    data = {**SPACE["data"], "augment": {"transforms": transforms}}
    [earlier] = searched(tmp_path, [[0.5] * 9], spec_of(data=data))
    [(_, config)] = first_trials(from_first(), tmp_path)

    assert list(config.data.augment.transforms) == ["GridDistortion", "CLAHE"]
    assert config.data.augment.transforms == earlier.data.augment.transforms
