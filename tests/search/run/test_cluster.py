"""What each trial gets of a cluster, and how many run at a time."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from data.errors import InputError
from search.run.cluster import cluster, plan
from search.spec.sections import ResourcesConfig
from trainable.job import Workers


@pytest.mark.parametrize(
    ("asked", "nodes", "workers", "concurrent"),
    [
        ({}, [{"CPU": 2.0}], Workers(), 2),
        ({}, [{"CPU": 8.0, "GPU": 1.0}], Workers(gpus=1), 1),
        ({}, [{"CPU": 2.0, "GPU": 8.0}], Workers(gpus=1), 2),
        ({"gpus_per_trial": 0.25}, [{"CPU": 8.0, "GPU": 1.0}], Workers(gpus=0.25), 4),
        ({"gpus_per_trial": 0.1}, [{"CPU": 16.0, "GPU": 1.0}], Workers(gpus=0.1), 10),
        ({"gpus_per_trial": 0.4}, [{"CPU": 16.0, "GPU": 2.0}], Workers(gpus=0.4), 4),
        ({"gpus_per_trial": 0}, [{"CPU": 4.0, "GPU": 1.0}], Workers(), 4),
        ({"gpus_per_trial": 2}, [{"CPU": 8.0, "GPU": 3.0}], Workers(gpus=2), 1),
        ({"workers": 2}, [{"CPU": 5.0}], Workers(count=2), 2),
        ({"workers": 2}, [{"CPU": 8.0, "GPU": 4.0}], Workers(count=2, gpus=1), 2),
        ({"workers": 2, "gpus_per_trial": 0}, [{"CPU": 8.0, "GPU": 4.0}], Workers(count=2), 4),
        ({"cpus_per_worker": 2}, [{"CPU": 3.0}, {"CPU": 3.0}], Workers(cpus=2), 2),
        ({"workers": 2, "cpus_per_worker": 2}, [{"CPU": 3.0}, {"CPU": 3.0}], Workers(count=2, cpus=2), 1),
        ({"gpus_per_trial": 0.5}, [{"CPU": 1.0, "GPU": 4.0}, {"CPU": 8.0}], Workers(gpus=0.5), 1),
        ({"concurrent": 2}, [{"CPU": 8.0}], Workers(), 2),
        ({"concurrent": 20}, [{"CPU": 8.0}], Workers(), 8),
    ],
)
def test_what_fits(asked: dict[str, Any], nodes: list[dict[str, float]], workers: Workers, concurrent: int) -> None:
    """More at a time than fit would wait for ever, fewer would leave the machine idle."""
    assert plan(ResourcesConfig(**asked), nodes) == (workers, concurrent)


@pytest.mark.parametrize(
    ("asked", "nodes"),
    [
        ({"cpus_per_worker": 4}, [{"CPU": 2.0}]),
        ({"cpus_per_worker": 4}, [{"CPU": 2.0}, {"CPU": 3.0}]),
        ({"workers": 3}, [{"CPU": 2.0}]),
        ({"gpus_per_trial": 1}, [{"CPU": 2.0}]),
        ({"gpus_per_trial": 0.5}, [{"CPU": 2.0}]),
        ({"gpus_per_trial": 2}, [{"CPU": 2.0, "GPU": 1.0}]),
        ({"gpus_per_trial": 2}, [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}]),
        ({}, [{}]),
    ],
)
def test_what_does_not_fit_is_an_error(asked: dict[str, Any], nodes: list[dict[str, float]]) -> None:
    """The search would wait for a machine that never comes."""
    with pytest.raises(InputError, match=r"asks for .* but the cluster has .*; lower resources\.workers"):
        plan(ResourcesConfig(**asked), nodes)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"gpus_per_trial": 1.5}, "is 1.5, but must be a fraction below 1 or a whole number; correct it"),
        ({"workers": 2, "gpus_per_trial": 1}, "is 1, but must be 0 or a multiple of 2 for 2 workers; correct it"),
        ({"workers": 2, "gpus_per_trial": 0.5}, "is 0.5, but must be 0 or a multiple of 2 for 2 workers"),
    ],
)
def test_gpus_that_cannot_be_shared_so(asked: dict[str, Any], wanted: str) -> None:
    """Ray has no such actor, and two workers of a group that meet on one GPU cannot exchange gradients."""
    with pytest.raises(InputError, match=f"'resources.gpus_per_trial' {wanted}"):
        plan(ResourcesConfig(**asked), [{"CPU": 8.0, "GPU": 4.0}])


def test_a_cluster_that_does_not_answer_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself tries for minutes, and ends in a traceback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)

    with pytest.raises(InputError, match=rf"'{address}' cannot be joined .*RAY_ADDRESS"), cluster():
        pytest.fail("there is no cluster to join")
