"""Pages in a real browser: they open from the disk without an error, fit every width, and react."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution

from search.report.comparison import write_comparison
from search.report.findings import findings_of
from search.report.report import write_report
from tests.chromium import Page, browser
from tests.search.report.studies import DISTRIBUTIONS, retrained, search_of, table
from tests.search.report.test_comparison import comparison, row

TRIALS = 200
MAX_BYTES = 6_000_000
READY = "document.documentElement?.dataset.ready === 'true'"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a search of 200 trials with a retraining."""
    storage = tmp_path_factory.mktemp("storage")
    search = search_of(storage, "nowhere", TRIALS)
    ious = [0.6 + 0.2 * math.sin(number) for number in range(24)]
    tables = {"baselines": table([0.4] * 24), "retrained": table(ious), "best": table(ious), "recipe": table(ious)}
    retrained(search, tables)
    write_report([search], storage / "report.html", lambda _: None)
    return storage / "report.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture(scope="module")
def page(file: Path) -> Iterator[Page]:
    """The report, opened once; the tests restore what they change."""
    with browser() as page:
        page.open(file)
        page.wait(READY)
        yield page


def marks(page: Page, chart: str) -> int:
    """The number of points of a chart."""
    return int(page.evaluate(f"document.querySelectorAll('#{chart} .mark-symbol.role-mark path').length"))


def labels(page: Page, chart: str) -> list[str]:
    """The labels of the axes of a chart."""
    texts = f"[...document.querySelectorAll('#{chart} .role-axis-label text')].map(text => text.textContent)"
    return list(page.evaluate(texts))


def filtered(condition: str) -> str:
    """The condition, once all charts are filtered."""
    return f"document.querySelector('form.filter').ariaBusy === 'false' && {condition}"


def test_report_of_200_trials_is_small(file: Path) -> None:
    assert file.stat().st_size < MAX_BYTES


@pytest.mark.parametrize(
    ("width", "media", "dark", "colour"),
    [
        (390, "screen", False, "rgb(88, 100, 115)"),
        (820, "screen", True, "rgb(162, 174, 188)"),
        (1400, "print", True, "rgb(88, 100, 115)"),
    ],
)
def test_report_opens_from_the_disk_at_any_width(
    chromium: Page, file: Path, width: int, media: str, dark: bool, colour: str
) -> None:
    """No message in the console, no request, every chart drawn in the colours of the system, or, on paper, in those of
    paper, and nothing beyond the edge.
    """
    chromium.open(file, width=width, dark=dark, media=media)
    chromium.wait(READY)
    beyond = (
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide, pre, .rows, svg, .hidden, .skip') &&"
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )

    assert chromium.console == []
    assert [url for url in chromium.requests if not url.startswith("data:")] == [file.absolute().as_uri()]
    assert chromium.evaluate("document.documentElement.scrollWidth") == width
    assert chromium.evaluate(beyond) == []
    assert chromium.evaluate("document.querySelectorAll('figure[data-chart]').length") == chromium.evaluate(
        "document.querySelectorAll('figure[data-chart] .drawing svg').length"
    )
    label = "document.querySelector('#s0-curves .role-axis-label text')"
    assert chromium.evaluate(f"getComputedStyle({label}).fill") == colour
    filter_ = chromium.evaluate("getComputedStyle(document.querySelector('form.filter')).display")
    assert filter_ == ("none" if media == "print" else "flex")


def test_hovering_over_a_point_shows_its_trial(page: Page) -> None:
    page.hover("#s0-budget .mark-symbol.role-mark path")
    page.wait("document.querySelector('#vg-tooltip-element.visible') !== null")
    shown = page.evaluate("document.querySelector('#vg-tooltip-element').innerText")

    assert {"trial", "outcome", "best score", "epochs"} <= set(shown.replace("\t", "\n").split("\n"))


def test_filter_changes_every_chart_of_trials(page: Page) -> None:
    """By outcome, by the range of a parameter, and by a choice; the number of trials is said."""
    before = marks(page, "s0-budget")
    page.evaluate("document.querySelector('form.filter [value=stopped]').click()")
    page.wait(filtered("document.querySelector('output').value === '80 of 200 trials'"))

    assert before == TRIALS
    assert marks(page, "s0-budget") == marks(page, "s0-dimension0") == before - 120

    page.evaluate(_set("parameter", "optimizer.lr") + _set("low", "0.1"))
    page.wait(filtered("!document.querySelector('output').value.startsWith('80')"))
    assert 0 < marks(page, "s0-budget") < 80

    page.evaluate(_set("parameter", "optimizer.name") + _set("choice", "sgd"))
    assert page.evaluate("document.querySelector('[name=low]').closest('label').hidden")
    page.evaluate("document.querySelector('form.filter button[type=reset]').click()")
    page.wait(filtered("document.querySelector('output').value === '200 of 200 trials'"))
    assert marks(page, "s0-budget") == before


def test_zoom_by_buttons_wheel_and_reset(page: Page) -> None:
    """The wheel alone scrolls the page."""
    before = labels(page, "s0-curves")
    page.evaluate("document.querySelector('#s0-curves [data-zoom=in]').click()")
    page.wait(f"{_labels('s0-curves')} !== {before!r}.sort().join()")
    page.evaluate("document.querySelector('#s0-curves [data-zoom=reset]').click()")
    page.wait(f"{_labels('s0-curves')} === {before!r}.sort().join()")

    page.wheel("#s0-curves .drawing svg", -300, with_control=True)
    page.wait(f"{_labels('s0-curves')} !== {before!r}.sort().join()")
    page.evaluate("document.querySelector('#s0-curves [data-zoom=reset]').click()")
    page.wait(f"{_labels('s0-curves')} === {before!r}.sort().join()")

    scrolled = page.evaluate("scrollY")
    page.wheel("#s0-curves .drawing svg", 300)
    page.wait(f"scrollY !== {scrolled}")
    assert sorted(labels(page, "s0-curves")) == sorted(before)


def test_axis_of_the_budget_can_be_chosen(page: Page) -> None:

    def choose(unit: str) -> str:
        return (
            f"(s => {{ s.value = '{unit}'; s.dispatchEvent(new Event('change')); }})"
            "(document.querySelector('#s0-budget select'))"
        )

    page.evaluate(choose("epochs of all trials"))
    title = "document.querySelector('#s0-budget .role-axis-title text').textContent"
    page.wait(f"{title} === 'epochs of all trials'")
    assert marks(page, "s0-budget") == TRIALS
    page.evaluate(choose("hours since the start"))
    page.wait(f"{title} === 'hours since the start'")


def test_trials_are_filtered_by_the_objective(chromium: Page, tmp_path: Path) -> None:
    """Whatever it is; its name is the first of the choices, and the charts draw its values."""
    search = search_of(tmp_path, "nowhere", 24, objective="-depth_rmse")
    write_report([search], tmp_path / "report.html", lambda _: None)
    chromium.open(tmp_path / "report.html", width=820)
    chromium.wait(READY)
    values = [float(trial.best_epoch.value) for trial in findings_of(search).trials if trial.best_epoch]
    below = sum(value < 0.2 for value in values)
    before = marks(chromium, "s0-budget")
    chromium.evaluate(
        "(box => { box.value = '0.2'; box.dispatchEvent(new Event('input', { bubbles: true })); })"
        "(document.querySelector('form.filter').elements.high)"
    )
    chromium.wait(filtered(f"document.querySelector('output').value === '{below} of 24 trials'"))

    assert 0 < below == marks(chromium, "s0-budget") < before == 24
    assert chromium.evaluate("document.querySelector('form.filter').elements.parameter.value") == "depth_rmse"
    assert "validation depth_rmse (smaller is better)" in chromium.evaluate(
        "document.querySelector('#s0-budget .drawing').textContent"
    )
    assert chromium.console == []


def test_axis_of_a_single_value_has_its_digits(chromium: Page, tmp_path: Path) -> None:
    """Vega would round the score of the only trial, 0.711, to 1."""
    search = search_of(tmp_path, "nowhere", 1)
    write_report([search], tmp_path / "report.html", lambda _: None)
    chromium.open(tmp_path / "report.html", width=820)
    chromium.wait(READY)
    [trial] = findings_of(search).trials
    assert trial.best_epoch is not None

    assert sorted(labels(chromium, "s0-scores")) == [f"{trial.best_epoch.value:.6g}", "best trial (0)"]
    assert f"{trial.best_epoch.value:.6g}" in labels(chromium, "s0-budget")


def test_filter_by_a_choice_of_texts_and_numbers(
    chromium: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the argument `fill` of a transform."""
    monkeypatch.setitem(DISTRIBUTIONS, "data.augment.transforms.Erasing.fill", CategoricalDistribution(["random", 0]))
    search = search_of(tmp_path, "nowhere", 24)
    write_report([search], tmp_path / "report.html", lambda _: None)
    chromium.open(tmp_path / "report.html", width=820)
    chromium.wait(READY)
    values = [params["data.augment.transforms.Erasing.fill"] for params in findings_of(search).params.values()]
    chromium.evaluate(_set("parameter", "data.augment.transforms.Erasing.fill"))

    for value in ("random", 0):
        chromium.evaluate(_set("choice", str(value)))
        chromium.wait(filtered(f"document.querySelector('output').value === '{values.count(value)} of 24 trials'"))
    assert 0 < values.count(0) < 24


def test_table_behind_a_chart_is_shown_and_saved(page: Page) -> None:
    """The same rows that the chart draws, with the attributes of their trials; the CSV has all of them."""
    page.evaluate("document.querySelector('#s0-curves details summary').click()")
    page.wait("document.querySelector('#s0-curves details table') !== null")
    saved = page.evaluate(
        "new Promise(done => { URL.createObjectURL = blob => { blob.text().then(done); return '#'; };"
        "document.querySelector('#s0-curves details button').click(); })"
    )
    rows = list(csv.DictReader(io.StringIO(saved)))
    epochs = page.evaluate("JSON.parse(document.getElementById('data').textContent).charts['s0-curves'].rows.length")

    assert len(rows) == epochs > 1_000
    assert {"trial", "epoch", "at", "outcome", "source"} <= rows[0].keys()
    assert page.evaluate("document.querySelectorAll('#s0-curves details tbody tr').length") == 500
    assert f"the first 500 of {epochs} rows" in page.evaluate(
        "document.querySelector('#s0-curves caption').textContent"
    )


def test_keyboard_reaches_the_content_and_the_controls(page: Page) -> None:
    """The first stop skips the navigation; a button of a chart is pressed with Enter."""
    page.evaluate("document.activeElement.blur(); getSelection().collapse(document.body, 0)")
    page.press("Tab", 9)
    assert page.evaluate("document.activeElement.className") == "skip"
    before = labels(page, "s0-budget")
    page.evaluate("document.querySelector('#s0-budget [data-zoom=in]').focus()")
    page.press("Enter", 13, "\r")
    page.wait(f"{_labels('s0-budget')} !== {before!r}.sort().join()")
    page.evaluate("document.querySelector('#s0-budget [data-zoom=reset]').click()")
    unnamed = (
        "[...document.querySelectorAll('button, select, input')].filter(e => !(e.ariaLabel || e.textContent.trim() ||"
        "(e.labels && e.labels.length))).length"
    )
    assert page.evaluate(unnamed) == 0
    described = "document.querySelector('#s0-curves .drawing').getAttribute('aria-label')"
    assert page.evaluate(described).startswith("Learning curves. One line per trial")


@pytest.mark.parametrize("width", [390, 1400])
def test_comparison_opens_from_the_disk(chromium: Page, tmp_path: Path, width: int) -> None:
    """With the scale of its chart, and a dot for each recipe and for no network."""
    given = comparison(row("a", 0.31), row("b" * 80, 0.52), row("broken", None))
    chromium.open(write_comparison(given, tmp_path)["html"], width=width)
    chromium.wait(READY)

    assert chromium.console == []
    assert chromium.evaluate("document.documentElement.scrollWidth") == width
    assert marks(chromium, "scores") == 3
    assert {"a", "without a network", "0.4", "0.5"} <= {
        text.removesuffix("0") if text.startswith("0.") else text for text in labels(chromium, "scores")
    }


def _labels(chart: str) -> str:
    texts = f"[...document.querySelectorAll('#{chart} .role-axis-label text')].map(text => text.textContent)"
    return f"{texts}.sort().join()"


def _set(field: str, value: str) -> str:
    """Code that sets a field of the filter, as a person does."""
    return (
        f"(f => {{ f.value = '{value}'; f.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
        f"(document.querySelector('form.filter [name={field}]'));"
    )
