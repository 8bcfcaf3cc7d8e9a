"""The report of searches: what it says, and what it does with bad input and damaged directories."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from search.report import search_page
from search.report.findings import Findings
from search.report.report import write_report
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.names import check_name
from search.study.study import open_study
from search.study.trials import note_start
from search.terminal import percent
from tests.search.conftest import CONFIGURATION, Said
from tests.search.report.page import Page
from tests.search.report.studies import DISTRIBUTIONS, best_of, retrained, search_of, table
from trainable.loop.checkpoint_files import WEIGHTS
from trainable.metrics.bootstrap import difference

BETTER, SAME, WORSE = [0.8] * 24, [0.5, 0.6] * 12, [0.1] * 24
"""Mask IoUs of 24 images of 12 backgrounds; those of the baselines are `SAME`."""


def page_of(*experiments: Experiment, problems: list[str] | None = None) -> Page:
    """The report of searches; `problems` gets what could not be read."""
    out = experiments[0].root.parent / "report.html"
    found = write_report(experiments, out, lambda _: None)
    if problems is not None:
        problems += found
    return Page(out.read_text())


@pytest.fixture
def search(scenes: Path, tmp_path: Path) -> Experiment:
    """A search of 24 trials without a retraining."""
    return search_of(tmp_path / "artifacts", scenes, 24)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Experiment:
    """A search of 12 trials whose data set is not on this machine."""
    return search_of(tmp_path / "artifacts", "nowhere", 12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ious", "said"),
    [
        (BETTER, "a real gain on images of this kind, as the interval excludes 0"),
        (SAME[::-1], "these images show no difference, as the interval contains 0"),
        (WORSE, "a real loss on images of this kind, as the interval excludes 0"),
    ],
)
def test_words_claim_what_the_interval_shows(elsewhere: Experiment, ious: list[float], said: str) -> None:
    """A reader takes the sentence with them, and not the table."""
    measured = table([iou + 0.1 * math.sin(number) for number, iou in enumerate(ious)])
    retrained(elsewhere, {"baselines": table(SAME), "retrained": measured, "best": measured})
    found = difference(measured, table(SAME), "score")
    sentence = re.search(r"Compared with no network at all, that is (.+?): (.+?)\.", page_of(elsewhere).text)

    assert sentence is not None
    assert sentence[1].replace("\N{MINUS SIGN}", "-") == f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
    assert sentence[2] == f"{said}; the probability of being better is {percent(found.probability)}"
    assert (found.low > 0, found.high < 0) == ("gain" in said, "loss" in said)


def test_differences_from_the_best_recipe_are_paired_by_image(elsewhere: Experiment) -> None:
    """Both lose on the same hard images: the difference is certain, though the intervals of the two overlap."""
    hard = [0.9 * abs(math.sin(number)) for number in range(24)]
    tables = {"baselines": table(SAME), "retrained": table(hard), "best": table([iou + 0.02 for iou in hard])}
    retrained(elsewhere, tables | {"recipe": table(hard)})
    text = page_of(elsewhere).text

    assert "compared with the best recipe, birender-cnn, is +0.010 (+0.010 to +0.010): a real gain" in text
    assert "as the interval excludes 0; the probability of being better is over 99 %." in text
    assert "less best recipe (birender-cnn)" in text


@pytest.mark.slow
def test_report_has_no_password(elsewhere: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leak: a report is sent to others, and the spec has the URL of the study's database, with its password."""
    other = search_of(tmp_path / "artifacts", "nowhere", 12, name="other")
    read = search_page.findings_of

    def findings(experiment: Experiment) -> Findings:
        url = f"postgresql+psycopg://{experiment.name}:s3cr3t@db/studies"
        spec = load_spec(data_path="nowhere", overrides=[("search.study", url)])
        return replace(read(experiment), spec=spec)

    monkeypatch.setattr(search_page, "findings_of", findings)
    page = page_of(elsewhere, other)

    assert "s3cr3t" not in f"{page.text}{page.data}{page.tags}"
    assert page.text.count("postgresql+psycopg://first:***@db/studies") == 2  # the spec, and the settings that differ


@pytest.mark.slow
def test_labels_of_the_filter_differ(search: Experiment, tmp_path: Path) -> None:
    """An ambiguous label: 'from' named both where a trial comes from and the lower end of a range."""
    page_of(search)
    html = (tmp_path / "artifacts" / "report.html").read_text()
    [form] = re.findall(r"<form class=.filter.*?</form>", html, re.DOTALL)
    labels = [text.strip().lower() for text in re.findall(r"<label[^>]*>([^<]+)", form)]

    assert {"source", "at least", "at most"} <= {*labels}
    assert len(labels) == len({*labels})
    [sources] = re.findall(r"<select name=.source.*?</select>", form)
    assert re.findall(r"<option[^>]*>([^<]+)", sources) == ["any", "recipes", "portfolio", "proposals"]


def test_search_without_a_retraining_shows_validation(search: Experiment) -> None:
    """What picked the trial is no test, and the page says so and how to get one."""
    text = page_of(search).text

    assert "on the validation images" in text
    assert "The test images are not measured yet: 'twinhead search --resume first" in text
    assert "Best, median and worst validation images" in text
    assert "test images, with" not in text


def test_page_has_the_images_failures_and_what_repeats_the_search(search: Experiment) -> None:
    """One file is the record of a search."""
    page = page_of(search)
    images = [attributes for tag, attributes in page.tags if tag == "img"]

    assert len(images) == 3 * 6  # three images of the validation part, each with its truth and predictions
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") and image["alt"] for image in images)
    assert "4, 14" in page.text
    assert "RuntimeError: <b>a bug</b> & more" in page.text
    assert "b" not in [tag for tag, _ in page.tags]
    for part in ("twinhead search spec.yaml --name first-again", "max_epochs: 27", "search 0, trials 0", "node-1"):
        assert part in page.text


def test_command_that_repeats_a_search_of_a_long_name_has_a_valid_name(tmp_path: Path) -> None:
    page = page_of(search_of(tmp_path, "nowhere", 12, name="a" * 100))
    check_name(re.findall("--name (a+-again)", page.text)[0])


def test_choices_that_differ_in_the_fifth_digit_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A momentum of 0.99995 is not 1."""
    choices = ["0.9999", "0.99995"]
    monkeypatch.setitem(DISTRIBUTIONS, "optimizer.momentum", CategoricalDistribution([*map(float, choices)]))
    page = page_of(search_of(tmp_path, "nowhere", 12))
    charts = json.loads(page.data)["charts"]
    chart = next(chart for chart in charts.values() if chart["title"] == "optimizer.momentum")

    assert {row[1] for row in chart["rows"]} == {*choices}


def test_page_is_valid_html_that_a_screen_reader_reads(search: Experiment) -> None:
    """Headings have no gaps, tables have captions and scopes, and labels name every control."""
    page = page_of(search)
    tags = page.tags
    levels = [int(tag[1]) for tag, _ in tags if tag in {"h1", "h2", "h3", "h4"}]

    assert page.open == []
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert sum(tag == "table" for tag, _ in tags) == sum(tag == "caption" for tag, _ in tags) > 2
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in tags if tag == "th")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(attributes["href"]) for tag, attributes in tags if tag == "a"]
    assert {link[1:] for link in links} <= set(ids)


@pytest.mark.slow
def test_searches_are_compared_on_the_same_images(tmp_path: Path) -> None:
    """Which one is better, whether that is certain, and which settings differ."""
    names = {"first": BETTER, "second": SAME}
    searches = [search_of(tmp_path, "nowhere", 12, name=name, seed=seed) for seed, name in enumerate(names)]
    for search, ious in zip(searches, names.values(), strict=True):
        varied = table([iou + 0.03 * math.sin(number) for number, iou in enumerate(ious)])
        retrained(search, {"baselines": table(SAME), "retrained": varied, "best": varied})
    page = page_of(*searches)

    assert "first delivers the network with the highest score" in page.text
    assert "Compared with second, that is +0.12" in page.text
    assert "a real gain" in page.text
    assert "search.seed" in page.text
    assert {row[0] for row in page.rows("compared-budget")} == {"first", "second"}
    assert page.rows("s0-curves")
    assert page.rows("s1-curves")


def test_measurements_of_other_images_are_not_used(search: Experiment) -> None:
    """A data set may have been replaced by one with more images; the networks are then measured again."""
    retrained(search, {name: table(BETTER) for name in ("baselines", "retrained", "best")})
    problems: list[str] = []
    text = page_of(search, problems=problems).text

    assert len([problem for problem in problems if "is of other images, and is not used" in problem]) == 3
    assert "On the test images (3 images of 1 background)" in text


@pytest.mark.slow
def test_searches_on_other_data_are_not_compared(scenes: Path, drawn: Path, tmp_path: Path) -> None:
    """Figures on other images say nothing of a difference."""
    searches = [search_of(tmp_path, data, 12, name=name) for name, data in (("a", scenes), ("b", drawn))]

    assert "the two were not measured on the same images" in page_of(*searches).text


def test_running_and_missing_values_do_not_stop_the_report(scenes: Path, tmp_path: Path) -> None:
    """It can be written while a search runs: a trial without a report, and one whose score is NaN."""
    search = search_of(tmp_path, scenes, 12)
    study = open_study(search)
    note_start(study.ask(), CONFIGURATION.model_dump())
    trial = study.ask()
    trial.set_user_attr("epoch:1", {"metrics": {"score": math.nan}, "checkpoint": None})
    study.tell(trial, state=TrialState.FAIL)
    page = page_of(search)

    assert "1 unfinished" in page.text
    assert "NaN" not in page.data


# --- bad input -----------------------------------------------------------------------------------------------------


def test_unknown_search_is_refused_with_those_that_exist(search: Experiment, refused: Callable[..., str]) -> None:
    assert refused("report", "frist", "--out", "report.html") == (
        "twinhead: There is no search 'frist' in 'artifacts'; there are first."
    )
    assert not Path("report.html").exists()


def test_search_without_a_finished_trial_is_refused_with_what_there_is(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    search = Experiment(storage=tmp_path / "artifacts", name="first")
    search.create(load_spec(data_path="nowhere"))
    assert "has no finished trial to report on (no trial yet); continue it with" in refused("report", "first")
    study = open_study(search)
    note_start(study.ask(), CONFIGURATION.model_dump())
    study.tell(study.ask(), state=TrialState.FAIL)

    assert "has no finished trial to report on (1 failed, 1 unfinished)" in refused("report", "first")
    assert not Path("report.html").exists()


@pytest.mark.parametrize("out", ["file/report.html", "."])
def test_output_that_cannot_be_written_is_refused(search: Experiment, refused: Callable[..., str], out: str) -> None:
    Path("file").write_text("")
    said = refused("report", "first", "--out", out)

    assert "Nothing can be written to 'file/report.html' (Not a directory); give another --out." in said or (
        "File '.' is a directory" in said
    )


def test_existing_report_is_replaced(search: Experiment, twinhead: Callable[..., Said]) -> None:
    """As the chart of a front; the names of the files are printed."""
    Path("report.html").write_text("old")
    said = twinhead("report", "first", "first", "--json")
    found = json.loads(said.out)

    assert (said.code, found["names"], found["out"], found["problems"]) == (0, ["first"], "report.html", [])
    assert found["bytes"] == Path("report.html").stat().st_size > 100_000


def test_damaged_directory_is_reported_with_what_is_whole(
    search: Experiment, twinhead: Callable[..., Said], scenes: Path
) -> None:
    """A lost line of the journal, a broken summary, weights and measurements, and missing images cost their parts."""
    best = best_of(search)
    (best.checkpoint / WEIGHTS).write_bytes(b"broken")
    lines = search.study_file.read_bytes().splitlines(keepends=True)
    search.study_file.write_bytes(b"".join([*lines[:3], b'{"op_code": 4, "work\n', *lines[4:]]))
    search.summary_file.write_text("{")
    said = twinhead("report", "first")
    text = Page(Path("report.html").read_text()).text

    assert said.code == 0
    for problem in ("line 4 cannot be read", "summary.json' is damaged", "model.safetensors' is truncated or altered"):
        assert problem in text
        assert problem in said.err
    assert "Learning curves" in text
    assert f"trial {best.trial.number} is the best" not in text


def test_missing_data_set_and_measurements_leave_the_values_of_the_summary(scenes: Path, tmp_path: Path) -> None:
    """The figures that are known are shown, and no interval is made up."""
    data = tmp_path / "moved"
    shutil.copytree(scenes, data)
    search = search_of(tmp_path / "artifacts", data, 12)
    retrained(search, {name: table(BETTER) for name in ("baselines", "retrained", "best")}, network=False)
    shutil.rmtree(data)
    search.measured("retrained").write_bytes(b"broken")
    search.measured("baselines").unlink()
    problems: list[str] = []
    text = page_of(search, problems=problems).text

    assert "Retrained, it scores 0.650 on the test images." in text
    assert any("measured/retrained.npz' cannot be read" in problem for problem in problems)
    assert any("The data set cannot be read" in problem for problem in problems)
    assert all(problem.removeprefix("first: ") in text for problem in problems)


def test_lost_weights_of_the_best_trial_do_not_pass_its_figures_to_another_one(elsewhere: Experiment) -> None:
    """The test images were measured with the trial that the summary names."""
    best = best_of(elsewhere)
    retrained(elsewhere, {name: table(BETTER) for name in ("baselines", "retrained", "best")})
    shutil.rmtree(best.checkpoint)
    text = page_of(elsewhere).text

    assert best_of(elsewhere).trial.number != best.trial.number
    assert f"trial {best.trial.number} is the best. Retrained, it scores 0.650" in text
    assert f"best trial ({best.trial.number})" in text


def test_best_trial_that_is_a_recipe_is_shown_once(elsewhere: Experiment) -> None:
    """The search then found nothing better, and says so."""
    retrained(elsewhere, {name: table(BETTER) for name in ("baselines", "retrained", "best", "recipe")})
    summary = elsewhere.summary()
    elsewhere.write_summary(summary.model_copy(update={"best": summary.recipe}))
    text = page_of(elsewhere).text

    assert "That trial is the recipe birender-cnn: the search found nothing better." in text
    assert "best recipe (birender-cnn)" not in text


def test_search_whose_networks_are_lost_shows_how_it_ran(search: Experiment) -> None:
    """The study alone is worth a report."""
    shutil.rmtree(search.trials)
    problems: list[str] = []
    page = page_of(search, problems=problems)

    assert "has a network that loads" in page.text
    assert problems == ["first: No checkpoint of a trial loads, so that no network can be measured again."]
    assert len(page.rows("s0-curves")) > 100
