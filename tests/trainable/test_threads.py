"""Number of threads: measured where it pays, limited where more gain little, in bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from trainable import threads as module
from trainable.config import ModelConfig, TrialConfig, build
from trainable.threads import fastest, thread_counts, use_fastest_threads

CPU = torch.device("cpu")
CONFIG = build(
    TrialConfig,
    {"data": {"image_size": 16}, "model": {"family": "debug", "width": 1, "precision": "fp32"}},
    source="the test",
)
Timed = Callable[[Callable[[int], float]], list[int]]


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    """The number of this process is restored."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    """Fake steps with given times by number of threads; returns the numbers of the steps taken."""

    def use(seconds: Callable[[int], float]) -> list[int]:
        steps: list[int] = []

        def step(_: ModelConfig) -> float:
            steps.append(torch.get_num_threads())
            return seconds(steps[-1])

        monkeypatch.setattr(module, "build_step", lambda *_, **__: step)
        return steps

    return use


@pytest.mark.parametrize(
    ("limit", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_thread_counts_double_up_to_the_limit(limit: int, counts: list[int]) -> None:
    """Each is a step to measure."""
    assert thread_counts(limit) == counts


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 1.0, 2: 3.84}, 1),  # a busy machine
        ({1: 1.0, 2: 1.0}, 1),
        ({1: 1.0, 2: 0.95}, 1),  # others need the second core more
        ({1: 1.0, 2: 0.6}, 2),
        ({1: 1.0, 2: 1.1, 4: 0.4, 8: 0.39}, 4),
        ({1: 1.0, 2: 0.6, 4: 0.7, 8: 0.3}, 8),
    ],
)
def test_more_threads_must_be_clearly_faster(seconds: dict[int, float], expected: int) -> None:
    """A core that gains a twentieth is better left to others."""
    assert fastest(seconds) == expected


def test_a_busy_machine_gets_one_thread(timed: Timed) -> None:
    """The measurement must also cover the cost of more threads."""
    steps = timed(lambda count: 0.1 * count)
    found = use_fastest_threads(CONFIG, CPU, limit=2)

    assert found.count == torch.get_num_threads() == 1
    assert found.seconds == {1: 0.1, 2: 0.2}
    assert steps == [1, 2] * 6


def test_an_idle_machine_gets_all_threads(timed: Timed) -> None:
    """All CPUs of the limit can be used."""
    timed(lambda count: 0.1 / count)

    assert use_fastest_threads(CONFIG, CPU, limit=4).count == torch.get_num_threads() == 4


def test_thread_counts_are_measured_in_turns(timed: Timed) -> None:
    """Other processes delay single steps, so the median of alternating steps decides."""
    taken = iter([0.1, 0.1, 9.0, 0.1, 0.2, 0.1, 9.0, 0.1, 0.2, 0.1, 0.2, 0.1])
    timed(lambda _: next(taken))

    assert use_fastest_threads(CONFIG, CPU, limit=2).seconds == {1: 0.2, 2: 0.1}


@pytest.mark.parametrize(
    ("device", "limit", "samples"), [("cpu", 1, None), ("cuda", 4, None), ("cpu", 4, 1), ("cpu", 4, 1000)]
)
def test_measuring_is_skipped_where_it_cannot_pay(timed: Timed, device: str, limit: int, samples: int | None) -> None:
    """A single core has no alternative, a GPU does the work, and short work ends before a measurement."""
    steps = timed(lambda count: 0.1 * count)
    found = use_fastest_threads(CONFIG, torch.device(device), limit=limit, samples=samples)

    assert steps == []
    assert (found.count, found.seconds) == (limit, {})
    assert torch.get_num_threads() == limit


def test_a_slow_network_is_measured_in_bounded_time(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of minutes is taken twice with each number of threads, and not six times."""
    clock = iter(range(0, 100_000, 100))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    steps = timed(lambda count: 100.0 / count)

    assert use_fastest_threads(CONFIG, CPU, limit=2).count == 2
    assert steps == [1, 2] * 2


def test_measuring_a_real_network_keeps_its_state() -> None:
    """The same seed gives the same weights, with and without a measurement."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = use_fastest_threads(CONFIG, CPU, limit=2)

    assert torch.equal(torch.get_rng_state(), before)
    assert found.seconds.keys() == {1, 2}
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.count == torch.get_num_threads() == fastest(found.seconds)
