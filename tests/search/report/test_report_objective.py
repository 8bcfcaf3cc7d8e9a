"""The report of a search with another objective than the score: an error, where smaller is better, or weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from search.report.findings import findings_of
from search.report.history import rankings
from search.report.report import write_report
from search.study.experiment import Experiment
from tests.search.conftest import Said
from tests.search.report.page import Page
from tests.search.report.studies import best_of, retrained, search_of, table
from trainable.metrics.bootstrap import difference
from trainable.metrics.objective import Objective
from trainable.plugins.load import use_plugins

RMSE, WEIGHTED = "-depth_rmse", "{mask_iou: 3, depth_delta1: 1}"
IOUS = [0.5 + 0.3 * math.sin(number) for number in range(24)]


def errors(mean: float) -> list[float]:
    """Depth errors of 24 images, of which no two are alike."""
    return [mean + 0.02 * math.sin(3 * number) for number in range(24)]


def page_of(*experiments: Experiment) -> Page:
    out = experiments[0].root.parent / "report.html"
    write_report(experiments, out, lambda _: None)
    return Page(out.read_text())


def search_with(storage: Path, objective: str, mean: float, *, name: str = "first", count: int = 12) -> Experiment:
    """A retrained search with this error of the depth, where the baselines have 0.3."""
    search = search_of(storage, "nowhere", count, name=name, objective=objective)
    measured = table(IOUS, depth_rmse=errors(mean))
    retrained(search, {"baselines": table(IOUS, depth_rmse=0.3), "retrained": measured, "best": measured})
    return search


@pytest.mark.slow
@pytest.mark.parametrize(("mean", "said"), [(0.2, "a real gain"), (0.4, "a real loss")])
def test_smaller_error_is_a_gain(tmp_path: Path, mean: float, said: str) -> None:
    """The sign of a difference means the opposite of that of a score."""
    page = page_of(search_with(tmp_path, RMSE, mean))
    found = difference(table(IOUS, depth_rmse=errors(mean)), table(IOUS, depth_rmse=0.3), "depth_rmse")
    sentence = re.search(r"Compared with no network at all, that is (\S+) \(.+?\): (.+?) on images", page.text)

    assert page.text.count("The objective of the search is depth_rmse; smaller is better.") == 1
    assert "Retrained, it has a depth_rmse of" in page.text
    assert sentence is not None
    assert sentence[1].replace("\N{MINUS SIGN}", "-") == f"{found.value:+.3f}"
    assert sentence[2] == said
    assert f"+0.000 (+0.000 to +0.000){'gain' if mean < 0.3 else 'loss'}" in page.text  # in the table of differences


def test_best_trial_and_its_charts_are_those_of_the_error(tmp_path: Path) -> None:
    """The running best falls, the best trial is at the top of its axis, and the filter knows the error."""
    search = search_of(tmp_path, "nowhere", 40, objective=RMSE)
    best, page = best_of(search), page_of(search)
    charts = json.loads(page.data)["charts"]
    budget = next(iter(charts["s0-budget"]["views"].values()))
    smallest = min(row[2] for row in page.rows("s0-curves"))
    ends = {number: at for number, name, at, *_ in page.rows("s0-coordinates") if name == "depth_rmse"}
    trials, params = (json.loads(page.data)["filters"]["s0"][key] for key in ("trials", "params"))

    assert f"trial {best.trial.number} is the best, with a depth_rmse of {best.epoch.value:.3f}" in page.text
    assert best.epoch.value == pytest.approx(smallest, rel=1e-5)
    assert budget["layer"][0]["encoding"]["y"]["axis"]["title"] == "validation depth_rmse (smaller is better)"
    assert budget["layer"][1]["transform"][0]["window"][0] == {
        "op": "min", "field": "depth_rmse", "as": "best so far"
    }  # fmt: skip
    assert (ends[best.trial.number], min(ends.values())) == (1, 0)
    assert "Each parameter against the depth_rmse" in page.text
    row = trials["rows"][best.trial.number]
    assert dict(zip(trials["columns"], row, strict=True))["depth_rmse"] == pytest.approx(smallest)
    assert params["columns"][:2] == ["trial", "depth_rmse"]
    assert params["rows"][best.trial.number][1] == pytest.approx(smallest)


def test_rank_correlation_is_that_of_the_objective(tmp_path: Path) -> None:
    """A rung that orders the errors as the last one does predicts it, whichever way is better."""
    findings = findings_of(search_of(tmp_path, "nowhere", 40, objective=RMSE))
    curves = [{epoch.epoch: epoch.metrics.get("depth_rmse") for epoch in trial.epochs} for trial in findings.trials]
    complete = [curve for curve in curves if curve.get(27) is not None]

    for ranking in rankings(findings):
        expected = spearmanr([curve[ranking.rung] for curve in complete], [curve[27] for curve in complete])
        assert ranking.correlation == pytest.approx(expected.statistic, abs=1e-4)


def test_weighted_mean_has_intervals_and_differences(tmp_path: Path) -> None:
    """It is computed for each resample from the images, and the first column of the tables."""
    search = search_of(tmp_path, "nowhere", 12, objective=WEIGHTED)
    one, other = table(IOUS), table([iou - 0.1 for iou in IOUS])
    retrained(search, {"baselines": other, "retrained": one, "best": one})
    page = page_of(search)
    label, value, low, high = page.rows("s0-scores")[0]
    weights = Objective.of({"mask_iou": 3, "depth_delta1": 1})
    found = difference(one, other, weights)

    assert "The objective of the search is 0.75 mask_iou + 0.25 depth_delta1; larger is better." in page.text
    assert label == "retrained network"
    assert value == pytest.approx(0.75 * sum(IOUS) / 24 + 0.25 * 0.5, rel=1e-5)
    assert low < value < high
    assert f"that is {found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f}): a real gain" in page.text
    assert "differenceobjectivescoremask IoU" in page.text
    assert "networkobjectivescoremask IoU" in page.text


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "key"), [(RMSE, "depth_rmse"), (WEIGHTED, "objective")])
def test_images_are_chosen_by_the_objective(scenes: Path, tmp_path: Path, objective: str, key: str) -> None:
    """The best has the smallest error, or the largest mean."""
    page = page_of(search_of(tmp_path, scenes, 12, objective=objective))
    shown = re.findall(rf"(best|median|worst): {key} ([\d.]+) score [\d.]+, mask IoU", page.text)
    values = [float(value) for _, value in shown]

    assert [kind for kind, _ in shown] == ["best", "median", "worst"]
    assert values == sorted(values, reverse=objective != RMSE)
    assert values[0] != values[-1]


@pytest.mark.slow
def test_searches_with_one_objective_are_compared_by_it(tmp_path: Path) -> None:
    """The lowest error wins, and the line over the budget falls."""
    searches = [search_with(tmp_path, RMSE, mean, name=name) for name, mean in (("first", 0.2), ("second", 0.1))]
    page = page_of(*searches)
    best = [row[3] for row in page.rows("compared-budget") if row[0] == "first"]

    assert "The objective of the searches is depth_rmse; smaller is better." in page.text
    assert "second delivers the network with the lowest depth_rmse, 0.1" in page.text
    assert "Compared with first, that is \N{MINUS SIGN}0.1" in page.text
    assert best == sorted(best, reverse=True)
    assert [row[0] for row in page.rows("compared-scores")] == ["first", "second"]


@pytest.mark.slow
def test_searches_with_different_objectives_are_compared_by_the_score(tmp_path: Path) -> None:
    """A sentence says so, and each search keeps its own objective below."""
    searches = [search_with(tmp_path, objective, 0.2, name=objective[1:5]) for objective in (RMSE, WEIGHTED)]
    page = page_of(*searches)

    assert (
        "The searches have different objectives (that of dept is -depth_rmse, that of mask is {mask_iou: 3, "
        "depth_delta1: 1}), so that they are compared by the score."
    ) in page.text
    assert "delivers the network with the highest score" in page.text
    assert "Best score over the budget spent" in page.text
    assert "objectives-depth_rmse{mask_iou: 3, depth_delta1: 1}" in page.text
    assert "The objective of the search is depth_rmse" in page.text


@pytest.mark.slow
def test_metric_of_a_plugin_is_measured_with_its_file(
    scenes: Path, tmp_path: Path, own_plugin: Path, twinhead: Callable[..., Said]
) -> None:
    """Without it, the page has everything else, and says what is missing and what to do."""
    search = search_of(tmp_path / "artifacts", scenes, 12, objective="mask_f1", plugins=f"[{own_plugin}]")
    use_plugins([])
    without = twinhead("report", "first", "--out", "without.html")
    page = Page(Path("without.html").read_text())
    said = twinhead("report", "first", "--plugins", own_plugin, "--out", "with.html")
    measured = Page(Path("with.html").read_text())

    problem = (
        "The objective mask_f1 was not measured on the validation images; give the file of its plugin by --plugins."
    )
    assert (without.code, said.code) == (0, 0)
    assert problem in without.err
    assert problem in page.text
    assert f"trial {best_of(search).trial.number} is the best, with an unknown mask_f1 on the validation" in page.text
    assert "best: score" in page.text
    assert problem not in said.err + measured.text
    assert "is the best, with a mask_f1 of 0." in measured.text
    assert "best: mask_f1 0." in measured.text
    assert page.rows("s0-curves") == measured.rows("s0-curves") != []
