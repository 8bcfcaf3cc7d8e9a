"""The dashboard for Grafana shows data: a real Prometheus scrapes a search and evaluates each of its queries."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.study.experiment import Experiment
from tests.commands import SMALL, records, started
from tests.prometheus import Prometheus, prometheus
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

DASHBOARD = json.loads((Path(__file__).parents[1] / "docs" / "grafana.json").read_text())
LIMIT_SECONDS = 300
"""After which a query that has no data will have none."""
ENDLESS = (
    *(*SMALL, "--set", "scheduler.max_epochs=5000", "--set", "scheduler.grace_epochs=5000"),
    *("--set", "budget.hours=1", "--set", "resources.gpus_per_trial=0"),
)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A new one with a short path, for Ray puts sockets there."""
    made = Path(tempfile.mkdtemp(prefix="tw", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(directory: Path) -> Iterator[RayCluster]:
    with ray_cluster(directory / "c") as started:
        yield started


@pytest.fixture(scope="module")
def server(cluster: RayCluster, directory: Path) -> Iterator[Prometheus]:
    with prometheus(
        cluster.directory / "r/session_latest/prom_metrics_service_discovery.json", directory / "p"
    ) as made:
        yield made


@pytest.fixture(scope="module")
def experiment(cluster: RayCluster, server: Prometheus, drawn: Path, directory: Path) -> Iterator[Experiment]:
    """A search that runs, and of whose epochs Prometheus knows."""
    variables = cluster.environment() | {"RAY_ADDRESS": cluster.gcs_address, "RAY_metrics_report_interval_ms": "1000"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        options = ["--data", str(drawn), "--name", "first", "--storage", str(directory / "s"), *ENDLESS]
        with started("search", *options) as process:
            end = time.monotonic() + LIMIT_SECONDS
            while not all(evaluate(server, expression) for expression in expressions()):
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < end, [text for text in expressions() if not evaluate(server, text)]
                time.sleep(1)
            yield Experiment(storage=directory / "s", name="first")


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def evaluate(server: Prometheus, expression: str, search: str = "first") -> list[tuple[dict[str, str], float]]:
    """The series with a value of a query of the dashboard, for a choice of its variable."""
    found = server.query(expression.replace("$search", search))
    return [(labels, value) for labels, value in found if math.isfinite(value)]


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_a_panel_shows_data(experiment: Experiment, server: Prometheus, panel: dict[str, Any]) -> None:
    """Every series is of the search, and has the labels that its legend names."""
    for target in panel["targets"]:
        found = evaluate(server, target["expr"])
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))

        assert found
        assert all(labels["search"] == "first" for labels, _ in found)
        assert all(set(labels) == named for labels, _ in found)


def test_a_panel_shows_the_searches_that_are_chosen(experiment: Experiment, server: Prometheus) -> None:
    assert not any(evaluate(server, expression, "second") for expression in expressions())


def test_the_searches_to_choose_from_are_found(experiment: Experiment, server: Prometheus) -> None:
    (variable,) = (each for each in DASHBOARD["templating"]["list"] if each["name"] == "search")
    series, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]

    assert server.get(f"label/{label}/values", **{"match[]": series}) == ["first"]
    assert evaluate(server, expressions()[0], variable["allValue"])


def test_figures_are_those_of_the_study(experiment: Experiment, server: Prometheus) -> None:
    """The last report may be on its way to Prometheus, but none is there that the study does not have."""
    ((_, best),) = server.query("ray_twinhead_best_score")
    ((_, epochs),) = server.query("ray_twinhead_epochs_total")
    running = {labels["state"]: value for labels, value in server.query("ray_twinhead_trials")}["running"]
    trials = records(experiment)

    assert best in {record.score for trial in trials for record in trial.epochs}
    assert 0 < epochs <= sum(len(trial.epochs) for trial in trials)
    assert running == len(trials) == 2
