"""The report of a comparison: three files with the same content, with any names and failures."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data.grids import save_png
from search.recipes.compare import COLUMNS
from search.report.comparison import write_comparison
from search.results.comparison import Comparison, HeldOut, Row
from search.results.comparison_report import show_comparison
from tests.search.report.page import Page
from trainable.metrics.bootstrap import Interval

ROOT = Path(__file__).parents[3]
NASTY = "<b>x</b>|`y`"


def row(name: str, score: float | None, **changes: Any) -> Row:
    figures = None
    if score is not None:
        figures = {column.key: Interval(value=score, low=score - 0.02, high=score + 0.03) for column in COLUMNS}
    made = Row(
        recipe=name,
        source="",
        faithful=False,
        family="debug",
        width=4,
        parameters=1_234,
        macs=56_000_000,
        batch_size=16,
        precision="fp32",
        losses="bce mask, l1 depth",
        optimizer="sgd 0.1",
        policy="step",
        outcome="finished" if figures else "diverged",
        reason="" if figures else "The loss became nan",
        epoch=2 if figures else None,
        seconds=3.4,
        figures=figures,
        pictures=None,
        optimizer_steps=234,
    )
    return replace(made, **changes)


def without(part: str, of: Row) -> Row:
    """A row whose intervals, or whose values too, are no numbers."""
    nan = dict.fromkeys(("low", "high") if part == "intervals" else ("value", "low", "high"), math.nan)
    return replace(of, figures={key: replace(found, **nan) for key, found in (of.figures or {}).items()})


def comparison(*rows: Row, **changes: Any) -> Comparison:
    made = Comparison(
        name="compare",
        data="rooms",
        data_fingerprint="ab",
        image_size=64,
        epochs=9,
        seed=0,
        complete=True,
        samples={"train": 420, "val": 92, "test": 88},
        samples_seen=3_780,
        test=HeldOut(pictures=88, backgrounds=22),
        notes=["batch sizes are the recipes' own"],
        columns=COLUMNS,
        rows=rows,
        baselines={
            "mask_threshold": {"mask_iou": 0.875, "mask_rmse": 0.2, "threshold": 20.0},
            "depth_mean": {"depth_delta1": 0.25, "depth_rmse": 0.3},
        },
        versions={},
        seconds=12.0,
    )
    return replace(made, **changes)


def on_screen(given: Comparison, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    show_comparison(console, given)
    return console.export_text()


@pytest.mark.slow
def test_best_row_is_first_and_failed_rows_are_last(tmp_path: Path) -> None:
    """Readers start at the top; the bottom shows what is missing and why."""
    files = write_comparison(comparison(row("low", 0.3), row("broken", None), row("high", 0.6)), tmp_path)
    markdown = files["md"].read_text()

    table = [line for line in markdown.splitlines() if line.startswith(("| high", "| low", "| broken"))][:3]
    assert [line.split()[1] for line in table] == ["high", "low", "broken"]
    assert "**.600 (.580–.630)**" in table[0]
    assert ".300 (.280–.330) |" in table[1].split("**")[0]  # the score is not marked; an error of .3 is the best
    assert "- broken diverged: The loss became nan" in markdown


def test_long_names_that_differ_in_their_middle_are_two_rows_of_the_chart(tmp_path: Path) -> None:
    """Shortened, they would be the same, and one dot would be missing."""
    rows = [row(f"a-long-name-of-a-run-lr{rate}-with-dice-and-ssim", 0.5) for rate in ("0.01", "0.02")]
    page = Page(write_comparison(comparison(*rows), tmp_path)["html"].read_text())

    assert len(page.rows("scores")) == 3  # with the baselines


@pytest.mark.slow
def test_baselines_are_rows_of_the_table(tmp_path: Path) -> None:
    """A network that loses to a threshold on the difference of two images is no network."""
    files = write_comparison(comparison(row("a", 0.5)), tmp_path)
    for text in (files["md"].read_text(), Page(files["html"].read_text()).text):
        assert "a threshold on the difference" in text
        assert ".875" in text


@pytest.mark.slow
def test_every_column_is_shown(tmp_path: Path) -> None:
    """Our metrics, and each project's own."""
    files = write_comparison(comparison(row("a", 0.5)), tmp_path)
    for text in (files["md"].read_text(), Page(files["html"].read_text()).text):
        for column in COLUMNS:
            assert column.title in text
        assert "The metric of monimoyd" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    """They come from files that anybody may have written."""
    files = write_comparison(comparison(row(NASTY, 0.5), row("bad", None, reason=NASTY)), tmp_path)
    page = Page(files["html"].read_text())

    assert page.text.count(NASTY) >= 3
    assert "b" not in [tag for tag, _ in page.tags]
    assert NASTY not in files["md"].read_text()


def test_page_is_valid_and_self_contained(tmp_path: Path) -> None:
    """It is sent around by itself: images and scripts inside, and a policy that lets nothing else in."""
    save_png(np.zeros((4, 6, 3), np.uint8), tmp_path / "a.png")
    html = write_comparison(comparison(row("a", 0.5, pictures="a.png")), tmp_path)["html"].read_text()
    page = Page(html)

    assert page.open == []
    [policy] = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert not [
        attributes for tag, attributes in page.tags if tag in {"script", "link"} and {"src", "href"} & {*attributes}
    ]
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 1
    assert str(sources[0]).startswith("data:image/png;base64,")
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in page.tags if tag == "th")


def test_json_equals_the_comparison(tmp_path: Path) -> None:
    """Programs read what people read."""
    given = comparison(row("a", 0.5))
    assert json.loads(write_comparison(given, tmp_path)["json"].read_text()) == json.loads(json.dumps(given.as_plain()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.html", "comparison.json", "comparison.md"]


def test_figures_without_an_interval_are_shown(tmp_path: Path) -> None:
    """A single background says nothing of how much others would differ."""
    files = write_comparison(comparison(without("intervals", row("a", 0.5))), tmp_path)
    assert json.loads(files["json"].read_text())["rows"][0]["figures"]["score"] == {
        "value": 0.5,
        "low": None,
        "high": None,
    }
    assert "**.500** |" in files["md"].read_text()
    assert "0.500" in Page(files["html"].read_text()).text


def test_report_of_failures_only(tmp_path: Path) -> None:
    """Somebody waited hours for it."""
    page = Page(write_comparison(comparison(row("a", None)), tmp_path)["html"].read_text())
    assert "No recipe has a score." in page.text
    assert "script" not in [tag for tag, _ in page.tags]


@pytest.mark.parametrize("width", [120, 100, 80])
def test_table_fits_the_screen(width: int) -> None:
    """Lines that are broken in the middle cannot be read."""
    shown = on_screen(comparison(row("raguram-resunet-lite", 0.5), row("bad", None)), width)
    line = next(line for line in shown.splitlines() if line.startswith("raguram-resunet-lite"))
    assert ".500 (.480–.530)" in line
    assert len(line.rstrip()) <= width
    assert "bad diverged: The loss became nan" in shown


def test_recipes_below_the_baselines_are_named(tmp_path: Path) -> None:
    """A network that is no better than none must not look like a result."""
    files = write_comparison(comparison(row("good", 0.9), row("poor", 0.3)), tmp_path)
    for text in (files["md"].read_text(), Page(files["html"].read_text()).text):
        assert "Not better than without a network (score 0.562): poor." in text


def test_tied_value_is_not_marked_best(tmp_path: Path) -> None:
    """Three zeros are no winners."""
    assert "**" not in write_comparison(comparison(row("a", 0.5), row("b", 0.5)), tmp_path)["md"].read_text()


def test_long_name_does_not_truncate_numbers(tmp_path: Path) -> None:
    """A recipe of the user's may have a hundred letters; what is read is the numbers."""
    shown = on_screen(comparison(row("n" * 100, 0.5)))
    assert shown.count(".500 (.480–.530)") == 3
    assert "…" not in shown


def test_brackets_are_printed_literally() -> None:
    """A path with brackets is a path; the screen's own markup must not make it vanish, or stop there."""
    given = comparison(row("[/b]", 0.5), row("bad", None, reason="[red]x"))
    shown = on_screen(replace(given, data="/photos/[/2024]"))
    assert all(text in shown for text in ("/photos/[/2024]", "[/b]", "[red]x"))


def test_interrupted_training_is_marked(tmp_path: Path) -> None:
    """The weights from before it diverged are measured, and must not pass for a whole training."""
    given = comparison(row("broken", 0.6, outcome="diverged", reason="The loss became nan", epoch=3), row("a", 0.5))
    files = write_comparison(given, tmp_path)
    for text in (files["md"].read_text(), Page(files["html"].read_text()).text, on_screen(given)):
        plain = text.replace("\\", "")
        assert "broken diverged: The loss became nan (its metrics are of epoch 3)" in plain
        assert "broken (diverged)" in plain
        assert "a (finished)" not in plain


def test_recipe_that_did_not_start_is_marked(tmp_path: Path) -> None:
    """It has no reason, and a sentence must not end in a colon."""
    markdown = write_comparison(comparison(row("a", None, outcome="missing", reason="")), tmp_path)["md"].read_text()
    assert "- a missing\n" in markdown


def test_published_errors_are_listed(tmp_path: Path) -> None:
    """Figures of recipes with their errors turned on are not those of the recipes as they are."""
    corrected, faithful = comparison(row("a", 0.5)), comparison(row("a", 0.5, faithful=True))
    said = "Published errors are reproduced in every recipe."
    for suffix in ("md", "html"):
        assert said not in write_comparison(corrected, tmp_path)[suffix].read_text()
        assert said in write_comparison(faithful, tmp_path)[suffix].read_text()
    assert said in on_screen(faithful)


def test_report_names_its_data_and_budget(tmp_path: Path) -> None:
    """Whoever gets the file has neither the data nor the program beside it."""
    given = comparison(row("a", 0.5, source="somebody's project"), versions={"torch": "9.9"})
    files = write_comparison(given, tmp_path)
    for text in (files["md"].read_text(), Page(files["html"].read_text()).text):
        assert all(part in text for part in ("fingerprint ab, seed 0; torch 9.9", "somebody's project"))


def test_nan_score_is_last_and_unmarked(tmp_path: Path) -> None:
    """One network that answers with NaN must not cost the others their report."""
    bad = without("values", row("bad", 0.5))
    lines = write_comparison(comparison(bad, row("a", 0.5)), tmp_path)["md"].read_text().splitlines()
    table = [line.split()[1] for line in lines if line.startswith(("| a |", "| bad |"))]
    assert table[:2] == ["a", "bad"]

    alone = write_comparison(comparison(bad), tmp_path)
    assert "**–**" not in alone["md"].read_text()
    assert "No recipe has a score." in Page(alone["html"].read_text()).text


def test_chart_has_every_score_and_that_without_a_network(tmp_path: Path) -> None:
    """What it draws is in the file as numbers, the best first."""
    given = comparison(row("a", 0.31), row("b", 0.52), row("bad", None), without("intervals", row("c", 0.4)))
    page = Page(write_comparison(given, tmp_path)["html"].read_text())

    assert page.rows("scores") == [
        ["b", 0.52, 0.5, 0.55],
        ["c", 0.4, None, None],
        ["a", 0.31, 0.29, 0.34],
        ["without a network", 0.5625, None, None],
    ]


def test_the_chart_has_room_for_a_long_name(tmp_path: Path) -> None:
    """It leaves out the middle, and keeps how the training ended."""
    given = comparison(row("n" * 100, 0.5, outcome="diverged", reason="The loss became nan"))
    name = Page(write_comparison(given, tmp_path)["html"].read_text()).rows("scores")[0][0]
    assert len(name) <= 32
    assert name.endswith("(diverged)")


def test_a_name_cannot_become_a_script(tmp_path: Path) -> None:
    """The data of the chart is JSON within the page, which a closing tag would end."""
    given = comparison(row("</script><script>alert(1)", 0.5))
    html = write_comparison(given, tmp_path)["html"].read_text()

    assert "<script>alert" not in html
    assert Page(html).rows("scores")[0][0] == "</script><script>alert(1)"


def test_images_have_width_and_height(tmp_path: Path) -> None:
    """The page keeps their room, and does not jump."""
    save_png(np.zeros((4, 6, 3), np.uint8), tmp_path / "a.png")
    page = Page(write_comparison(comparison(row("a", 0.5, pictures="a.png")), tmp_path)["html"].read_text())
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert (image["width"], image["height"]) == ("6", "4")


@pytest.mark.slow
def test_report_is_written_in_an_ascii_locale(tmp_path: Path) -> None:
    """The report comes after hours of training, and has a δ in it."""
    program = (
        "import pathlib, sys; from tests.search.report.test_comparison import comparison, row, write_comparison; "
        "write_comparison(comparison(row('a', 0.5)), pathlib.Path(sys.argv[1]))"
    )
    ascii_alone = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=ascii_alone, capture_output=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "δ" in (tmp_path / "comparison.html").read_text(encoding="utf-8")
