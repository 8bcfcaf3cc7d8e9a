"""The state of a search as a person sees it: on wide and narrow terminals, and in one line."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from search.results.status import BestTrial, Budget, Retraining, SearchStatus
from search.view import line, sparkline, view

STATUS = SearchStatus(
    name="first",
    state="running",
    reason="",
    trials={"running": 2, "finished": 1, "stopped": 2, "diverged": 0},
    recoveries=0,
    best=BestTrial(
        trial=4,
        epoch=9,
        score=0.61234,
        objective="score",
        value=0.61234,
        settings="resunet of width 16; bce mask, ssim depth; adamw 0.003",
    ),
    rungs={1: 5, 3: 2, 9: 0},
    budget=Budget(trials=3, max_trials=8, hours=0.5, max_hours=2.0, gpu_hours=0.0, max_gpu_hours=None),
    seconds_left=73.0,
    concurrent=2,
    cpus_busy=2,
    gpus_busy=1,
    started=1.0,
    reported=2.0,
    job="",
    host="",
    command="",
    scores=(0.2, 0.4, 0.61234),
    samples_per_second=1312.4,
)


def shown(status: SearchStatus, width: int = 100) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(view(status, width))
    return file.getvalue().splitlines()


def test_what_a_running_search_shows() -> None:
    """Everything at a glance."""
    assert shown(STATUS) == [
        "search      first: searching",
        "time        30 min 00 s · its trials end in about 1 min 13 s",
        "trials      ━━━━━━━━──────────────  3 of 8 · 2 running · 1 finished · 2 stopped",
        "best        score 0.6123 ▁▄█ trial 4, epoch 9",
        "            resunet of width 16; bce mask, ssim depth; adamw 0.003",
        "rungs       epoch 1 █ 5 · epoch 3 ▄ 2 · epoch 9 ▁ 0",
        "used        0.50 of 2 h",
        "speed       1,312 samples/s · 2 CPU and 1 GPU in use · 2 trials at a time",
    ]


def test_a_narrow_terminal_shows_the_same_on_more_lines() -> None:
    """Nothing is cut off, and no number stands apart from its word."""
    narrow = shown(STATUS, 60)

    assert max(map(len, narrow)) <= 60
    assert " ".join(" ".join(narrow).replace("·", "").replace("━", "").replace("─", "").split()) == " ".join(
        " ".join(shown(STATUS)).replace("·", "").replace("━", "").replace("─", "").split()
    )
    assert "            2 stopped" in narrow


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": "waiting", "reason": "why"}, "search      first: waits for room on the cluster (why)"),
        ({"state": "failed", "reason": "No trial."}, "search      first: failed (No trial.)"),
        ({"state": "stopped"}, "search      first: stopped"),
        ({"best": None}, "best        none yet"),
        ({"seconds_left": None}, "time        30 min 00 s · time left unknown before a trial ended"),
        ({"kind": "compare", "epochs": 3, "max_epochs": 24}, "epochs      ━━━───────────────────  3 of 24"),
    ],
)  # fmt: skip
def test_other_states(changes: dict[str, object], expected: str) -> None:
    """In words, not by colours alone."""
    assert expected in shown(replace(STATUS, **changes))  # type: ignore[arg-type]


def test_a_retraining_shows_its_epochs() -> None:
    """And what it uses, in the place of the rungs."""
    retraining = Retraining(epoch=2, epochs=8, cpus=4, gpus=0, seconds=10.0, losses=(0.75, 0.5))
    found = shown(replace(STATUS, retraining=retraining, cpus_busy=4, gpus_busy=0, samples_per_second=0.0))

    assert found[0] == "search      first: retraining"
    assert "epochs      ━━━━━━────────────────  2 of 8" in found
    assert "loss        training 0.5000 █▁" in found
    assert found[-1] == "speed       4 CPU in use"
    assert not any(text.startswith("rungs") for text in found)
    whole = replace(STATUS, retraining=replace(retraining, epoch=8), seconds_left=0.0)
    assert shown(whole)[:2] == ["search      first: measuring on the test images", "time        30 min 00 s"]


def test_the_line_for_logs() -> None:
    """The same figures, as text to search in."""
    assert line(STATUS) == (
        "searching: 3 of 8 trials ended, 2 running, best score 0.6123 of trial 4, 1,312 samples/s, "
        "30 min 00 s so far, its trials end in about 1 min 13 s"
    )
    training = line(replace(STATUS, kind="train", trials={"running": 1}, epochs=3, max_epochs=9))
    assert training.startswith("training: epoch 3 of 9, ")
    assert training.endswith(", about 1 min 13 s left")
    assert line(replace(STATUS, state="lost", trials={})) == "lost: 3 of 8 trials ended, best score 0.6123 of trial 4"


@pytest.mark.parametrize(
    ("values", "columns", "expected"),
    [
        ([], 8, ""),
        ([0.5], 8, "▁"),
        ([0.5, 0.5], 8, "▁▁"),
        ([0.0, 0.5, 1.0], 8, "▁▅█"),
        ([float(value) for value in range(100)], 4, "▁▃▆█"),
        ([1.0, float("nan"), float("inf"), 0.0], 8, "█▁"),
    ],
)
def test_sparklines(values: list[float], columns: int, expected: str) -> None:
    """From the lowest to the highest value, the newest last."""
    assert sparkline(values, columns) == expected
