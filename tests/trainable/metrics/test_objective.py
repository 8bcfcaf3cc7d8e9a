"""The objective of a search as a function of the metrics of an epoch."""

from __future__ import annotations

import math
import pickle

import pytest

from trainable.metrics.names import METRICS
from trainable.metrics.objective import SCORE, Objective

RMSE = Objective.of("-depth_rmse")
WEIGHTED = Objective.of({"mask_iou": 7, "depth_delta1": 3})
METRICS_OF_EPOCH = {"score": 0.55, "mask_iou": 0.5, "depth_delta1": 0.6, "depth_rmse": 0.2}


def test_value_is_natural_and_rank_is_larger_for_better() -> None:
    """People read the value; everything that compares uses the rank."""
    assert (SCORE.value(METRICS_OF_EPOCH), SCORE.rank(METRICS_OF_EPOCH)) == (0.55, 0.55)
    assert (RMSE.value(METRICS_OF_EPOCH), RMSE.rank(METRICS_OF_EPOCH)) == (0.2, -0.2)
    assert (SCORE.direction, RMSE.direction) == ("maximize", "minimize")


def test_weights_make_a_mean() -> None:
    """It stays in 0..1, as the metrics are."""
    assert WEIGHTED.value(METRICS_OF_EPOCH) == pytest.approx(0.7 * 0.5 + 0.3 * 0.6)
    assert WEIGHTED.name == "0.7 mask_iou + 0.3 depth_delta1"
    assert WEIGHTED.with_value(METRICS_OF_EPOCH)["objective"] == WEIGHTED.value(METRICS_OF_EPOCH)
    assert RMSE.with_value(METRICS_OF_EPOCH) == METRICS_OF_EPOCH


@pytest.mark.parametrize("objective", [SCORE, RMSE, WEIGHTED], ids=str)
def test_what_was_not_measured_is_the_worst(objective: Objective) -> None:
    """A NaN compares with nothing: the first trial with one would stay the best."""
    assert math.isnan(objective.value({}))
    assert objective.rank({}) == -math.inf
    assert objective.rank(dict.fromkeys(METRICS_OF_EPOCH, math.nan)) == -math.inf


@pytest.mark.parametrize("objective", [SCORE, Objective.of("mask_iou"), RMSE, WEIGHTED], ids=str)
def test_diverged_trial_is_the_worst(objective: Objective) -> None:
    """It reports the key that Tune looks for, and keeps the score of 0 that it always had."""
    worst = objective.worst_metrics()
    bad = dict.fromkeys(METRICS, 1e-9 if objective.sign > 0 else 1e9)

    assert worst["score"] == 0
    assert objective.key in worst
    assert objective.rank(worst) < objective.rank(bad)


@pytest.mark.parametrize("notation", ["score", "-depth_rmse", {"mask_iou": 0.7, "depth_delta1": 0.3}], ids=str)
def test_notation_survives_a_round_trip(notation: str | dict[str, float]) -> None:
    """A stored spec is read again on resume; trials get the objective pickled."""
    objective = Objective.of(notation)
    assert objective.plain == notation
    assert Objective.of(objective.plain) == pickle.loads(pickle.dumps(objective)) == objective  # noqa: S301
