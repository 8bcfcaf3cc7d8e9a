"""The commands that search, without a cluster: what they say about what they replace."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from search.study.experiment import Experiment
from search.study.summary import Retrained, Summary

Command = Callable[..., Any]


def retrained(score: float, epochs: int) -> Retrained:
    return Retrained(metrics={"score": score}, checkpoint="retrained", epochs=epochs)


def test_a_retraining_names_the_scores_of_both_networks(
    twinhead: Command, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result replaces the earlier network, which may have been better."""
    before = Summary(name="first", complete=True, retrained=retrained(0.75, 9))
    experiment.write_summary(before)
    after = before.model_copy(update={"retrained": retrained(0.5, 1)})
    monkeypatch.setattr("search.data.open_data", lambda *_: None)
    monkeypatch.setattr("search.run.run.retrain_again", lambda *_: after)
    said = twinhead("retrain", "first", "--epochs", 1, "--json")

    assert said.code == 0
    assert "retrained' when it is complete: test score 0.7500 after 9 epochs" in said.err
    assert "test score 0.7500 after 9 epochs, by one with test score 0.5000 after 1 epoch\n" in said.err
    assert json.loads(said.out)["retrained"]["metrics"] == {"score": 0.5}


def test_a_search_that_was_not_retrained_yet_replaces_nothing(
    twinhead: Command, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no earlier network to speak of."""
    before = Summary(name="first", complete=True)
    experiment.write_summary(before)
    monkeypatch.setattr("search.data.open_data", lambda *_: None)
    monkeypatch.setattr(
        "search.run.run.retrain_again", lambda *_: before.model_copy(update={"retrained": retrained(0.5, 1)})
    )

    assert "replace" not in twinhead("retrain", "first", "--json").err
