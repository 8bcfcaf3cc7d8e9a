"""The searcher on a published table of learning curves, compared with random search with ASHA."""

from __future__ import annotations

import importlib
import math
import os
import statistics
from pathlib import Path
from types import ModuleType

import pytest

from search.run.tuner import build_scheduler
from search.spec.sections import rung_epochs
from search.strategy.searcher import RungSearcher

FULL = 52
"""Epochs of a full training."""
BUDGET = 10
"""In full trainings."""
SETTING = {"max_epochs": FULL, "grace_epochs": 3, "reduction_factor": 3}


@pytest.fixture(scope="module")
def lcbench() -> ModuleType:
    """The simulator, from the folder that $TWINHEAD_LCBENCH names."""
    folder = os.environ.get("TWINHEAD_LCBENCH", "")
    if not (Path(folder) / "lcbench_sim.py").is_file():
        pytest.skip("TWINHEAD_LCBENCH does not name a folder with a table of learning curves")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return importlib.import_module("lcbench_sim")


@pytest.mark.slow
def test_searcher_outperforms_random_search_with_asha(lcbench: ModuleType) -> None:
    """This is what the searcher is for; it is worth some thirty times as many over twenty seeds of these four tasks."""
    curves = lcbench.Curves()
    gains = []
    for task in lcbench.RANKS:
        searcher = RungSearcher(lcbench.space, rungs=rung_epochs(**SETTING), seed=0)
        ours = searcher, build_scheduler(**SETTING)
        found, other = (
            lcbench.simulate(lambda config, task=task: curves(task, config), *pair, budget=BUDGET * FULL)[-1]
            for pair in (ours, lcbench.BASELINES["random + ASHA"](0))
        )
        gains.append(lcbench.log_share(task, other) - lcbench.log_share(task, found))

    assert math.exp(statistics.mean(gains)) >= 4
