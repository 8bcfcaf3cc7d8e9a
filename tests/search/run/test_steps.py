"""The number of optimizer steps of a training, and the warning about too few."""

from __future__ import annotations

from typing import Any

import pytest

from search.run.steps import MIN_STEPS, steps_of, steps_of_search
from search.spec.spec import SearchSpec, load_spec
from trainable.config import TrialConfig, build


def config(**changes: Any) -> TrialConfig:
    return build(TrialConfig, {"epochs": 9, **changes}, source="the test")


def spec(*overrides: tuple[str, str]) -> SearchSpec:
    return load_spec(None, overrides, data_path="set")


def test_too_few_steps_are_reported_with_sufficient_epochs() -> None:
    """45 photographs at 9 epochs are 27 steps: the user should hear it before hours of trials, not after."""
    few = steps_of(config(), 45, setting="scheduler.max_epochs")

    assert (few.fewest, few.most) == (27, 27)
    assert few.enough_epochs == 67  # of 3 steps each
    assert few.warning == (
        "27 optimizer steps are too few to train a network, at least 200 are needed; set scheduler.max_epochs to 67 or "
        "more, lower data.batch_size, or use more data"
    )
    assert few.as_plain() == {"fewest": 27, "most": 27, "warning": few.warning}


@pytest.mark.parametrize("samples", [1, 45, 100, 336, 10_000])
@pytest.mark.parametrize(
    "data",
    [
        {},
        {"batch_size": 7},
        {"progression": [{"share": 0.5, "scale": 0.5, "batch_size": 64}]},
    ],
)
def test_advised_epochs_are_sufficient_and_minimal(samples: int, data: dict[str, Any]) -> None:
    """Advice that leads to the next warning is none, nor is one that costs ten times what is needed."""
    epochs = steps_of(config(data=data), samples).enough_epochs
    advised = steps_of(config(data=data, epochs=epochs), samples)

    assert advised.fewest >= MIN_STEPS
    assert advised.warning == ""
    assert epochs == 9 or steps_of(config(data=data, epochs=epochs // 2), samples).fewest < MIN_STEPS


@pytest.mark.parametrize(
    ("overrides", "ends"),
    [
        ((), (9 * 4, 9 * 13)),
        ((("data.batch_size", "16"),), (9 * 7, 9 * 7)),
        ((("data.batch_size", "{choices: [8, 32, 16]}"),), (9 * 4, 9 * 13)),
        ((("data.batch_size", "{low: 10, high: 50}"),), (9 * 2, 9 * 10)),
        ((("data.batch_size", "16"), ("optimizer.steps_per_batch", "{choices: [1, 2]}")), (9 * 7, 2 * 9 * 7)),
        ((("data.batch_size", "16"), ("scheduler.max_epochs", "30")), (30 * 7, 30 * 7)),
        ((("scheduler.max_epochs", "30"),), (30 * 4, 30 * 13)),
    ],
)
def test_steps_of_a_search_range_from_its_fewest_to_its_most(
    overrides: tuple[tuple[str, str], ...], ends: tuple[int, int]
) -> None:
    """Where batch sizes are searched, some trials take more steps than others: those may be trained that do."""
    steps = steps_of_search(spec(*overrides), 100)

    assert (steps.fewest, steps.most) == ends
    assert bool(steps.warning) == (ends[1] < MIN_STEPS)


def test_workers_share_batches_and_take_the_same_steps() -> None:
    """Each sees a part of every batch; of fewer samples than workers in a batch, there are fewer batches."""
    assert steps_of(config(), 100, 4) == steps_of(config(), 100)
    assert steps_of(config(data={"batch_size": 1}), 100, 2).fewest == 9 * 50
