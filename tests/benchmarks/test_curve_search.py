"""The surrogate of the table of curves, and searches on it: errors, noise, references and what a search returns."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from tests.benchmarks import search_quality
from tests.benchmarks.curves import portfolio, regressions, simulation
from tests.benchmarks.curves.regressions import Forest, GaussianProcesses, NearestOfFamily, Regression
from tests.benchmarks.curves.simulation import (
    Chosen,
    Outcome,
    Reference,
    Side,
    best_epoch_scores,
    reference,
    search_of,
    simulate,
)
from tests.benchmarks.curves.surrogate import EPOCHS, CurveSurrogate, Table, features, noise
from tests.benchmarks.curves.table import Curve, read_curves
from trainable.config import TrialConfig, build
from trainable.recipes import PORTFOLIO, load_recipe

FAMILIES = 8
SETTING = {"max_epochs": EPOCHS, "grace_epochs": 3, "reduction_factor": 3}


@pytest.fixture(scope="module")
def curves() -> list[Curve]:
    """Every fourth configuration of one data set, and all of those with three seeds."""
    return [
        curve
        for curve in read_curves()
        if curve.data_set == "nyu" and 0 in (curve.configuration_id % 4, curve.configuration_id % 10)
    ]


@pytest.fixture(scope="module")
def surrogate(curves: list[Curve]) -> CurveSurrogate:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(regressions, "TREES", 20)
        return CurveSurrogate("nyu", curves=curves)


def changed(values: Mapping[str, Any], **sections: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with other values in some sections."""
    return {**values, **{name: {**values[name], **section} for name, section in sections.items()}}


def test_the_encoding_has_every_searched_value(curves: list[Curve]) -> None:
    """Two configurations that differ in one value differ in the encoding, and all numbers are in 0..1 or near."""
    values = curves[0].values
    encoded = np.stack([features(curve.values) for curve in curves])
    others = [
        changed(values, data={"batch_size": 32}),
        changed(values, model={"width": 16}),
        changed(values, optimizer={"lr": 0.5}),
        changed(values, optimizer={"weight_decay": 0.01}),
        changed(values, policy={"name": "cosine"}),
        changed(values, loss={"combine": "sum"}),
        changed(values, loss={"mask": {**values["loss"]["mask"], "dice": 0.0}}),
    ]

    assert np.isfinite(encoded).all()
    assert encoded.min() >= -1
    assert encoded.max() <= 1
    assert len({features(each).tobytes() for each in (values, *others)}) == len(others) + 1
    assert features(json.loads(json.dumps(values))).tobytes() == features(values).tobytes()


def test_values_outside_the_space_do_not_leave_the_encoding(curves: list[Curve]) -> None:
    """Recipes have values beside the space, such as a learning rate above its range."""
    values = changed(curves[0].values, optimizer={"lr": 100.0}, data={"batch_size": 64})
    inside = changed(curves[0].values, optimizer={"lr": 1.0})

    assert features(values).max() <= 1
    assert np.isclose(features(values), features(inside)).sum() >= len(features(values)) - 1  # but for the batch size


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [GaussianProcesses(), Forest(), NearestOfFamily(2)], ids=lambda one: type(one).__name__
)
def test_what_is_left_out_is_not_seen(model: Regression, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stated error would be too small otherwise: here the targets of a configuration follow from nothing else."""
    monkeypatch.setattr(regressions, "TREES", 100)
    rng = np.random.default_rng(0)
    family = np.eye(2)[np.arange(48) % 2]
    known, targets = np.concatenate([family, rng.random((48, 3))], axis=1), rng.normal(size=(48, 2))

    left_out = model.left_out(known, targets)
    model.fit(known, targets)

    assert np.corrcoef(left_out[:, 0], targets[:, 0])[0, 1] < 0.4
    if not isinstance(model, GaussianProcesses):  # it takes the targets for noise, as it should
        assert np.corrcoef(model.predict(known)[:, 0], targets[:, 0])[0, 1] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [GaussianProcesses(), Forest(), NearestOfFamily(2)], ids=lambda one: type(one).__name__
)
def test_a_regression_finds_a_dependency(model: Regression, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a smooth function, each kind predicts what it has not seen far better than the mean does."""
    monkeypatch.setattr(regressions, "TREES", 100)
    rng = np.random.default_rng(0)
    family = np.eye(2)[np.arange(96) % 2]
    numbers = rng.random((96, 2))
    targets = np.stack([family[:, 0] + numbers[:, 0], numbers[:, 0] - numbers[:, 1]], axis=1)

    error = model.left_out(np.concatenate([family, numbers], axis=1), targets) - targets

    assert (np.sqrt((error**2).mean(0)) < 0.5 * targets.std(0)).all()


@pytest.mark.slow
def test_predictions_are_near_the_trainings(surrogate: CurveSurrogate, curves: list[Curve]) -> None:
    """Of configurations that it was fitted to: the rank of the final score, and the time of an epoch."""
    predicted = surrogate.score_curves([curve.values for curve in curves])
    seconds = np.array([surrogate.seconds(curve.values) for curve in curves])

    assert predicted.shape == (len(curves), EPOCHS)
    assert predicted.min() >= 0
    assert predicted.max() <= 1
    assert np.corrcoef(predicted[:, -1], [curve.scores[-1] for curve in curves])[0, 1] > 0.8
    measured = np.array([curve.numbers["seconds"].mean() for curve in curves])
    assert np.corrcoef(np.log(seconds), np.log(measured))[0, 1] > 0.8


@pytest.mark.slow
def test_the_same_configuration_and_seed_have_the_same_curve(surrogate: CurveSurrogate, curves: list[Curve]) -> None:
    """All sides of a seed meet the same noise."""
    one, other = curves[0].values, changed(curves[0].values, optimizer={"lr": 0.5})

    first = surrogate.observed(one, seed=3)
    assert surrogate.observed(json.loads(json.dumps(one)), seed=3).tolist() == first.tolist()
    assert any(surrogate.observed(one, seed=seed).tolist() != first.tolist() for seed in range(4, 8))
    assert surrogate.observed(other, seed=3).tolist() != first.tolist()


@pytest.mark.slow
def test_the_noise_is_that_of_the_seeds(surrogate: CurveSurrogate, curves: list[Curve]) -> None:
    """A configuration as good as a repeated one has a whole residual curve of the table."""
    table = Table.of(curves)
    residuals = table.residuals.reshape(-1, EPOCHS)
    worst = min(curves, key=lambda curve: surrogate.score_curves([curve.values])[0, -1])
    (mean,) = surrogate.score_curves([worst.values])
    differences = [surrogate.observed(worst.values, seed) - mean for seed in range(20)]

    # The worst one has more room above it than most of the repeated ones, so that little is scaled.
    alike = [max(float(np.corrcoef(one, residual)[0, 1]) for residual in residuals) for one in differences]
    assert np.median(alike) > 0.99
    assert 0.01 < noise(table)[-1] < 0.1
    assert len({tuple(one) for one in differences}) > 10


def test_noise_does_not_lift_trainings_above_what_any_reached(surrogate: CurveSurrogate, curves: list[Curve]) -> None:
    """Else a search would rather find lucky trainings of configurations whose seeds differ much."""
    best = Table.of(curves).best
    values = list({curve.configuration_id: curve.values for curve in curves}.values())
    means = surrogate.score_curves(values)
    observed = np.stack([[surrogate.observed(each, seed) for each in values] for seed in range(3)])

    # A residual is scaled from the mean of three seeds to one training, and reaches a little above its training.
    assert (observed - np.maximum(best, means)).max() < 0.03
    real = np.quantile([curve.scores.max() for curve in curves], [0.5, 0.9])
    assert np.quantile(observed.max(2), [0.5, 0.9]) == pytest.approx(real, abs=0.03)


def test_residuals_have_the_variance_of_single_trainings() -> None:
    """The mean of three seeds would take a third of it."""
    rng = np.random.default_rng(0)
    known = read_curves()[0]
    curves = [
        Curve(
            **{**vars(known), "configuration_id": number, "seed": seed, "numbers": {"score": scores, "seconds": scores}}
        )
        for number in range(400)
        for seed, scores in enumerate(rng.normal(0.5, 0.1, (3, EPOCHS)).astype(np.float32))
    ]

    assert noise(Table.of(curves)).mean() == pytest.approx(0.1, rel=0.02)


def test_a_reference_gives_regret_and_worth() -> None:
    """Better than all of 99 random trainings is worth 100, better than half of them 2."""
    known = Reference(best=1.0, random=np.arange(1, 100) / 100)

    assert known.regret(0.75) == pytest.approx(0.25)
    assert known.worth(0.995) == pytest.approx(100)
    assert known.worth(0.505) == pytest.approx(2)
    assert known.worth(0.0) == pytest.approx(1)


def test_the_best_possible_configuration_is_climbed_to() -> None:
    """A narrow peak that random configurations miss."""

    def space(trial: optuna.Trial) -> None:
        for name in "abcd":
            trial.suggest_float(name, 0, 1)

    def score(configurations: Sequence[Mapping[str, Any]]) -> np.ndarray:
        return np.array([-max(abs(config[name] - 0.3) for name in "abcd") for config in configurations])

    found = reference(space, score, trainings=200, rounds=5, neighbours=60)

    assert found.best > -0.03
    assert found.random[-1] < found.best - 0.02
    assert len(found.random) == 200
    assert (np.diff(found.random) >= 0).all()


def test_the_first_of_the_best_observed_epochs_is_chosen() -> None:
    """As in the summary of a search."""
    chosen = Chosen()
    for name, score in (("a", 0.2), ("b", 0.5), ("c", 0.5), ("a", 0.4), ("c", 0.6)):
        chosen.observe(name, {"name": name}, score)
    outcomes = chosen.outcomes(
        [1, 4, 5], lambda configs: np.array([{"a": 0.3, "b": 0.1, "c": 0.2}[config["name"]] for config in configs])
    )

    assert [config["name"] for config in chosen.configs] == ["a", "b", "b", "b", "c"]
    assert [outcomes[budget].chosen for budget in (1, 4, 5)] == [0.3, 0.1, 0.2]
    assert [outcomes[budget].best_tried for budget in (1, 4, 5)] == [0.3, 0.3, 0.3]


def test_a_configuration_counts_as_tried_from_its_first_epoch() -> None:
    chosen = Chosen()
    for name, score in (("a", 0.2), ("a", 0.5), ("b", 0.1)):
        chosen.observe(name, {"name": name}, score)
    outcomes = chosen.outcomes(
        [2, 3], lambda configs: np.array([{"a": 0.3, "b": 0.6}[config["name"]] for config in configs])
    )

    assert [outcomes[budget].best_tried for budget in (2, 3)] == [0.3, 0.6]
    assert [outcomes[budget].chosen for budget in (2, 3)] == [0.3, 0.3]


class OneAfterTheOther(Searcher):
    """Proposes a list of configurations."""

    def __init__(self, configurations: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(metric="score", mode="max")
        self._left = list(configurations)

    def suggest(self, trial_id: str) -> dict[str, Any]:  # noqa: ARG002 - Ray's signature
        return {"trial": self._left.pop(0)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass


@pytest.mark.slow
def test_a_search_returns_what_it_observed_and_is_judged_without_noise(
    surrogate: CurveSurrogate, curves: list[Curve]
) -> None:
    """Noise may make it return a worse configuration than the best one that it tried."""
    tried = list({curve.configuration_id: curve.values for curve in curves}.values())[:16]
    means = best_epoch_scores(surrogate, tried)
    budget, returned, expected = 60 * EPOCHS, [], []
    for seed in range(6):
        observed = [surrogate.observed(values, seed).max() for values in tried]
        # The first one again and again, which changes nothing, until the slowest of the others has ended.
        searcher = OneAfterTheOther([*tried, *[tried[0]] * 100])
        returned.append(simulate(surrogate, (searcher, FIFOScheduler()), seed, budgets=[budget])[budget].chosen)
        expected.append(means[int(np.argmax(observed))])

    assert returned == pytest.approx(expected)
    assert min(returned) < means.max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "first"),
    [
        (Side(sampler="gp", scheduler="halving"), []),
        (Side(sampler="gp", scheduler="halving", start_from=("recipes",)), ["recipe"] * 8),
        (Side(sampler="gp", scheduler="halving", start_from=("portfolio", "recipes")), ["portfolio", "recipe"]),
        (Side(sampler="", scheduler="asha"), []),
    ],
    ids=["ours", "recipes first", "portfolio first", "OptunaSearch"],
)
def test_a_simulated_search_is_the_same_again(
    surrogate: CurveSurrogate, side: Side, first: list[str], monkeypatch: pytest.MonkeyPatch, curves: list[Curve]
) -> None:
    """And has spent its budget; recipes and portfolio are its first trials."""
    monkeypatch.setattr(simulation, "portfolio", lambda *_: curves[:1])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = []
    for _ in range(2):
        searcher, scheduler = search_of(side, SETTING, 1, "nyu")
        found.append(simulate(surrogate, (searcher, scheduler), 1, budgets=[20, 60]))
        if side.sampler:
            trials = searcher.study.get_trials()  # type: ignore[attr-defined]
            kinds = [kind for trial in trials for kind in ("recipe", "portfolio") if kind in trial.user_attrs]
            assert kinds[: len(first)] == first
            assert len(kinds) == (len(first) if "portfolio" not in first else 9)
            assert sum(len(trial.intermediate_values) for trial in trials) == 60

    assert found[0] == found[1]
    assert set(found[0]) == {20, 60}


def test_an_epoch_lasts_as_long_as_in_the_table(surrogate: CurveSurrogate, curves: list[Curve]) -> None:
    """In the time of one epoch of the slowest configuration, the fastest has several."""
    by_seconds = sorted(curves, key=lambda curve: surrogate.seconds(curve.values))
    fast, slow = by_seconds[0].values, by_seconds[-1].values
    ratio = surrogate.seconds(slow) / surrogate.seconds(fast)
    seen: list[Mapping[str, Any]] = []

    class Observed(OneAfterTheOther):
        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:  # noqa: ARG002 - Ray's signature
            seen.append(result)

    searcher = Observed([slow, fast, *([slow] * 8)])
    simulate(surrogate, (searcher, FIFOScheduler()), 0, budgets=[20])
    fast_epochs = sum(result["trial_id"] == "t00001" for result in seen[: int(ratio) - 1])

    assert ratio > 3
    assert fast_epochs == int(ratio) - 1


def test_rows_have_regret_worth_and_ratios() -> None:
    """Over all data sets and for each, in hundredths of the score."""
    references = {name: Reference(best=0.7, random=np.arange(1, 100) / 200) for name in ("nyu", "rooms")}
    found = [
        search_quality.Found(
            job=search_quality.Job(on="curves", task=task, seed=seed, side=side, setting={}, kind="mixed"),
            outcomes={budget: Outcome(chosen=0.4 + better, best_tried=0.65) for budget in (10, 40)},
            log_worth={},
            seconds=1.0,
        )
        for task in references
        for seed in range(3)
        for side in search_quality.SIDES["curves"]
        for better in [0.2 if side == search_quality.DEFAULT else 0.0]
    ]

    rows = search_quality.rows_of("curves", found, references)
    ratios = search_quality.ratios_of("curves", rows)

    assert {row["on"] for row in rows} == {"curves", "curves nyu", "curves rooms"}
    (ours,) = (row for row in rows if (row["on"], row["side"], row["budget"]) == ("curves", search_quality.DEFAULT, 10))
    assert ours["regret"] == pytest.approx(10)
    assert ours["worth"] == pytest.approx(100)
    assert ours["regret_10"] == pytest.approx(10)
    assert ours["regret_tried"] == pytest.approx(5)
    assert ratios["curves_regret_random_asha_10"] == pytest.approx(1 / 3)
    bounds = search_quality.intervals_of(found, references)
    assert [bounds[f"curves_regret_random_asha_10_{end}"] for end in ("low", "high")] == pytest.approx([1 / 3, 1 / 3])
    assert ratios["curves_random_asha_10"] == pytest.approx(100 / (100 / 20))


def test_the_spread_is_that_over_seeds() -> None:
    """Tasks of different difficulty are none."""
    references = {name: Reference(best=0.7, random=np.arange(1, 100) / 200) for name in ("nyu", "rooms")}
    found = [
        search_quality.Found(
            job=search_quality.Job(on="curves", task=task, seed=seed, side="", setting={}, kind="mixed"),
            outcomes={10: Outcome(chosen=0.4, best_tried=0.4)},
            log_worth={10: easy + seed},
            seconds=1.0,
        )
        for task, easy in (("nyu", 0.0), ("rooms", 5.0))
        for seed in range(3)
    ]

    assert search_quality.row_of("curves", "", 10, found, references)["spread"] == pytest.approx(math.exp(1.6))


def test_a_portfolio_has_the_best_of_each_task_first() -> None:
    """The first is best on average, and each next one helps where those before it are worst."""
    good, alike, other, poor = [0.9, 0.9, 0.2], [0.8, 0.8, 0.2], [0.1, 0.1, 0.9], [0.3, 0.3, 0.3]
    scores = np.array([poor, alike, other, good]).T

    assert portfolio.greedy(scores, 2) == [3, 2]
    assert sorted(portfolio.greedy(scores, 4)) == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", PORTFOLIO)
def test_a_portfolio_file_is_a_configuration_of_the_table(name: str) -> None:
    """A file that was edited would be a configuration that nobody has trained."""
    text = load_recipe(name).text
    number = int(text.split(maxsplit=3)[2])
    trained = [curve for curve in read_curves() if curve.configuration_id == number]

    assert load_recipe(name).config == build(TrialConfig, trained[0].values, source="the table")
    assert text == portfolio.as_text(name, trained[0], trained)
