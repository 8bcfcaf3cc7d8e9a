"""What counts as failed: limits, states, errors relative to a reference, parts that break or get no time."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch

from tests.gpu.compare import joined_error, relative_error, worst_error
from tests.gpu.driver import run_parts
from tests.gpu.findings import Finding, Group, Measure, exit_code, table
from tests.gpu.parts import Part
from tests.gpu.session import Session

GRADIENTS = {"large": torch.full((100,), 3.0), "small": torch.tensor([0.2, -0.1])}


def session(tmp_path: Path, seconds: float = 60) -> Session:
    return Session(device=torch.device("cpu"), directory=tmp_path, ends=time.perf_counter() + seconds)


def finding(group: Group, *measures: Measure) -> Finding:
    return Finding(part="a part", group=group, check="a check", measures=measures)


@pytest.mark.parametrize(
    ("group", "value", "state", "code"),
    [
        ("correctness", 0.5, "ok", 0),
        ("correctness", 0.6, "FAILED", 1),
        ("correctness", math.nan, "FAILED", 1),
        ("correctness", math.inf, "FAILED", 1),
        ("speed", 0.5, "reached", 0),
        ("speed", 0.6, "MISSED", 0),
        ("speed", math.nan, "MISSED", 0),
    ],
)
def test_limit_decides_the_state(group: Group, value: float, state: str, code: int) -> None:
    """A slow machine is no fault of the code, but a wrong or missing number is."""
    found = finding(group, Measure(name="error", value=0.1), Measure(name="other", value=value, at_most=0.5))
    assert found.state == state
    assert exit_code([found]) == code


def test_one_measure_outside_of_its_limit_fails_the_finding() -> None:
    good, bad = Measure(name="a", value=3.0, at_least=3.0), Measure(name="b", value=2.9, at_least=3.0)
    assert finding("correctness", good, good).state == "ok"
    assert finding("correctness", good, bad, good).state == "FAILED"


def test_table_shows_value_limit_and_state() -> None:
    lines = table([finding("speed", Measure(name="times as fast", value=2.53, at_least=3.0))])
    assert lines[0].split() == ["part", "check", "state", "found"]
    assert lines[1].split("  ") == ["a part", "a check", "MISSED", "times as fast 2.53 (≥ 3)"]


def test_relative_error_of_a_known_difference() -> None:
    reference = torch.tensor([3.0, 4.0])
    assert relative_error(reference + torch.tensor([0.03, 0.04]), reference) == pytest.approx(0.01)
    assert relative_error(reference, reference) == 0


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(2), torch.tensor([-3.0, -4.0]), torch.tensor([3.0, math.nan]), torch.tensor([[3.0, 4.0]])],
    ids=["zero", "sign", "nan", "shape"],
)
def test_wrong_result_is_no_small_error(wrong: torch.Tensor) -> None:
    assert not relative_error(wrong, torch.tensor([3.0, 4.0])) <= 0.9


def test_worst_error_finds_a_small_tensor_that_is_wrong() -> None:
    """The gradient of one bias disappears in the norm of all."""
    wrong = GRADIENTS | {"small": -GRADIENTS["small"]}
    assert joined_error(wrong, GRADIENTS) < 0.02
    assert worst_error(wrong, GRADIENTS) > 0.9
    assert worst_error(GRADIENTS, GRADIENTS) == 0


@pytest.mark.parametrize("error", [joined_error, worst_error])
def test_missing_gradient_is_an_infinite_error(error: object) -> None:
    assert callable(error)
    assert error({"large": GRADIENTS["large"]}, GRADIENTS) == math.inf
    assert math.isnan(error(GRADIENTS | {"small": torch.tensor([0.2, math.nan])}, GRADIENTS))


@pytest.mark.slow
def test_part_that_breaks_is_a_failure_and_the_others_run(tmp_path: Path) -> None:
    """An out-of-memory error of one part must not cost the results of the others."""
    run = session(tmp_path)

    def breaks(_: Session) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory\nmore")

    def works(session: Session) -> None:
        session.add("a check", Measure(name="ratio", value=2.0))

    run_parts({"a": Part(group="speed", run=breaks, seconds=0), "b": Part(group="speed", run=works, seconds=0)}, run)
    assert [(each.part, each.state) for each in run.findings] == [("a", "FAILED"), ("b", "measured")]
    assert str(run.findings[0]) == "OutOfMemoryError: CUDA out of memory"
    assert exit_code(run.findings) == 1


def test_part_that_finds_nothing_is_a_failure(tmp_path: Path) -> None:
    """Otherwise a part that checks nothing would pass."""
    run = session(tmp_path)
    run_parts({"a": Part(group="correctness", run=lambda _: None, seconds=0)}, run)
    assert [(each.part, each.state) for each in run.findings] == [("a", "FAILED")]


def test_without_time_parts_and_checks_are_named_as_skipped(tmp_path: Path) -> None:
    run = session(tmp_path)

    def slow(session: Session) -> None:
        for check in session.each(["first", "second"]):
            session.add(check, Measure(name="ratio", value=2.0))
            session.ends = time.perf_counter()

    run_parts({"a": Part(group="speed", run=slow, seconds=0), "b": Part(group="speed", run=slow, seconds=0)}, run)
    assert [(each.part, each.check, each.state) for each in run.findings] == [
        ("a", "first", "measured"),
        ("a", "second", "skipped"),
        ("b", "the whole part", "skipped"),
    ]
    assert exit_code(run.findings) == 0
