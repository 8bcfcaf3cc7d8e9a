"""`twinhead trials --csv`: a table that spreadsheets and data frames read, and that runs nothing there."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from search.results.trials_csv import as_csv
from search.results.trials_table import TrialRow
from search.study.experiment import Experiment
from tests.search.conftest import CONFIGURATION, METRICS, Said
from trainable.config.settings import flatten


def row(**values: object) -> TrialRow:
    usual = {
        "number": 0, "state": "complete", "outcome": "stopped", "epochs": 4, "metrics": {"score": 0.1}, "seconds": 1.5,
        "recipe": "", "proposed_by": "model", "params": {}, "reason": "", "config": {"model": {"width": 2}},
    }  # fmt: skip
    return TrialRow(**{**usual, **values})  # type: ignore[arg-type]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_csv_has_all_settings_and_results(
    experiment: Experiment, twinhead: Callable[..., Said], tmp_path: Path
) -> None:
    """A column for each, to the last digit, in a file or on standard output."""
    said = twinhead("trials", "first", "--storage", experiment.storage, "--csv")
    twinhead("trials", "first", "--storage", experiment.storage, "--csv", tmp_path / "trials.csv")
    [found] = read((tmp_path / "trials.csv").read_bytes().decode())

    assert said.code == 0
    assert read(said.out) == [found]
    assert {name: float(found[name]) for name in METRICS} == METRICS
    assert (found["outcome"], found["epochs"], found["rung"]) == ("unfinished", "1", "")
    settings = {key for key in flatten(CONFIGURATION.model_dump()) if key != "epochs"}
    assert settings | {"max_epochs", "seconds"} <= found.keys()
    assert (found["model.family"], found["model.width"], found["max_epochs"]) == ("debug", "2", "9")


def test_csv_follows_rfc_4180() -> None:
    """CRLF after each record, quotes around separators and quotes, an empty cell where a trial has no value."""
    rows = [row(reason='a "b", c\nd'), row(number=1, metrics={}, config={"model": {"names": ["x", "y"]}})]
    text = as_csv(rows, [3, 9])
    first, second = read(text)

    assert text.endswith("\r\n")
    assert text.splitlines()[0].startswith("number,state,outcome,recipe,proposed_by,epochs,rung,seconds,score,")
    assert '"a ""b"", c\nd"\r\n' in text
    assert (first["reason"], first["rung"], second["rung"]) == ('a "b", c\nd', "3", "3")
    assert (second["score"], second["model.width"], second["model.names"]) == ("", "", '["x", "y"]')


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", "＝1+1", "  =cmd|' /C calc'!A0"])  # noqa: RUF001
def test_text_is_never_a_formula(text: str) -> None:
    """A reason can contain any text, such as that of an error."""
    [found] = read(as_csv([row(reason=text)], []))

    assert found["reason"] == f"'{text}"


def test_numbers_stay_numbers() -> None:
    """Negative and small ones too."""
    [found] = read(as_csv([row(metrics={"score": -1e-17, "lr": 0.1 + 0.2})], []))

    assert (found["score"], found["lr"]) == ("-1e-17", "0.30000000000000004")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "--csv"], "Both --csv and --json are given"),
        (["--csv", "."], "'.' is a directory"),
        (["--csv", "/proc/x.csv"], "Nothing can be written to '/proc/x.csv'"),
    ],
)
def test_bad_csv_options_are_refused(
    experiment: Experiment, refused: Callable[..., str], options: list[str], said: str
) -> None:
    """In one sentence."""
    assert said in refused("trials", "first", "--storage", experiment.storage, *options)
