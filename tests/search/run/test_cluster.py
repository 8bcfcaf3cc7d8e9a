"""Resources of each trial on a cluster, and the number of concurrent trials."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray._private.authentication.authentication_token_setup import generate_and_save_token

from data.errors import InputError
from search.commands import JOB_VARIABLE
from search.run.cluster import _run_task, check_retraining, cluster, plan, retraining_workers
from search.spec.sections import ResourcesConfig, RetrainConfig
from tests.search.conftest import Dashboard
from trainable.job import Workers
from trainable.loop import state


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
        ({"share": 0.5}, [{"CPU": 8.0}], Workers(), 4),
        ({"share": 0.1}, [{"CPU": 8.0}], Workers(), 1),
        ({"share": 0.5, "concurrent": 6}, [{"CPU": 8.0}], Workers(), 4),
        ({"share": 0.3}, [{"CPU": 10.0}], Workers(), 3),
    ],
)
def test_plan_fills_the_cluster(
    asked: dict[str, Any], nodes: list[dict[str, float]], workers: Workers, concurrent: int
) -> None:
    """More than fit would wait for ever, fewer would leave the machine idle."""
    assert plan(ResourcesConfig(**asked), nodes) == (workers, concurrent)


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (0.5, "cuda")])
def test_a_task_without_gpus_leaves_those_of_its_node_alone(
    gpus: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a trial without GPUs: Ray hides none from a process that reserves none."""
    monkeypatch.setattr(state, "default_device", lambda: torch.device("cuda"))

    used = _run_task(lambda found: found, Workers(gpus=gpus), torch.get_num_threads(), ())

    assert used == torch.device(device)


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
def test_trial_larger_than_the_cluster_is_refused(asked: dict[str, Any], nodes: list[dict[str, float]]) -> None:
    """The search would wait for a machine that never comes."""
    with pytest.raises(InputError, match=r"needs .* but the cluster has .*; lower resources\.workers"):
        plan(ResourcesConfig(**asked), nodes)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"gpus_per_trial": 1.5}, "is 1.5, but must be a fraction below 1 or a whole number; correct it"),
        ({"workers": 2, "gpus_per_trial": 1}, "is 1, but must be 0 or a multiple of 2 for 2 workers; correct it"),
        ({"workers": 2, "gpus_per_trial": 0.5}, "is 0.5, but must be 0 or a multiple of 2 for 2 workers"),
    ],
)
def test_invalid_gpu_shares_are_refused(asked: dict[str, Any], wanted: str) -> None:
    """Ray has no such actor, and two workers of a group that meet on one GPU cannot exchange gradients."""
    with pytest.raises(InputError, match=f"'resources.gpus_per_trial' {wanted}"):
        plan(ResourcesConfig(**asked), [{"CPU": 8.0, "GPU": 4.0}])


@pytest.mark.parametrize(
    ("cpus", "workers", "nodes"),
    [
        (3, Workers(), [{"CPU": 2.0}]),
        (3, Workers(), [{"CPU": 2.0}, {"CPU": 2.0}]),
        (2, Workers(count=2), [{"CPU": 3.0}]),
        (2, Workers(gpus=1), [{"CPU": 8.0}]),
    ],
)
def test_too_many_retraining_cpus_are_refused_before_the_search(
    cpus: int, workers: Workers, nodes: list[dict[str, float]]
) -> None:
    """It would wait for them for ever, after hours of trials."""
    with pytest.raises(InputError, match=rf"'retrain\.cpus' is {cpus}.* but the cluster has"):
        check_retraining(RetrainConfig(cpus=cpus), workers, nodes)


@pytest.mark.parametrize(
    ("cpus", "workers"), [("auto", Workers()), (2, Workers()), (1, Workers(count=2)), (2, Workers(gpus=0.5))]
)
def test_available_retraining_cpus_are_accepted(cpus: Any, workers: Workers) -> None:
    """A retraining that fits is accepted."""
    check_retraining(RetrainConfig(cpus=cpus), workers, [{"CPU": 2.0, "GPU": 1.0}])


FOUR_GPUS = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}]


@pytest.mark.parametrize(
    ("asked", "trial", "nodes", "expected"),
    [
        ({}, Workers(cpus=2), [{"CPU": 8.0}, {"CPU": 8.0}], Workers(cpus=2)),
        ({}, Workers(count=2), [{"CPU": 8.0}], Workers(count=2)),
        ({}, Workers(gpus=0.5), [{"CPU": 8.0, "GPU": 1.0}], Workers(gpus=0.5)),
        ({}, Workers(gpus=0.5), FOUR_GPUS, Workers(count=4, min_count=1, gpus=1)),
        ({}, Workers(gpus=1, cpus=8), FOUR_GPUS, Workers(count=2, min_count=1, gpus=1, cpus=8)),
        ({"cpus": 4}, Workers(gpus=1), FOUR_GPUS, Workers(count=4, min_count=1, gpus=1)),
        ({}, Workers(gpus=1), [{"CPU": 64.0, "GPU": 16.0}], Workers(count=4, min_count=1, gpus=1)),
        ({"scale": "linear"}, Workers(gpus=1), [{"CPU": 64.0, "GPU": 16.0}], Workers(count=16, min_count=1, gpus=1)),
        ({"workers": 1}, Workers(gpus=0.5), FOUR_GPUS, Workers(gpus=0.5)),
        ({"workers": 3}, Workers(), [{"CPU": 8.0}], Workers(count=3)),
        ({"workers": [2, 6]}, Workers(gpus=1), FOUR_GPUS, Workers(count=6, min_count=2, gpus=1)),
        ({"workers": [2, 2]}, Workers(), [{"CPU": 8.0}], Workers(count=2)),
        ({"workers": [2, 64]}, Workers(), [{"CPU": 8.0}], Workers(count=32, min_count=2)),
        ({"workers": [40, 64]}, Workers(), [{"CPU": 80.0}], Workers(count=32)),
    ],
)
def test_retraining_uses_the_cluster(
    asked: dict[str, Any], trial: Workers, nodes: list[dict[str, float]], expected: Workers
) -> None:
    """All GPUs by default, but no fewer than 8 samples of a batch of 32 for each; as asked, one sample."""
    assert retraining_workers(RetrainConfig(**asked), trial, nodes, 32) == expected


@pytest.mark.parametrize("asked", [3, [3, 8]])
def test_retraining_workers_that_do_not_fit_are_refused(asked: Any) -> None:
    """The retraining would wait for them for ever."""
    retrain = RetrainConfig(workers=asked)
    with pytest.raises(
        InputError, match=r"'retrain\.workers' is .*3.*, but the cluster has room for 2 on 2 nodes; low"
    ):
        check_retraining(retrain, Workers(cpus=2), [{"CPU": 3.0}, {"CPU": 3.0}])
    check_retraining(retrain, Workers(cpus=2), [{"CPU": 3.0}, {"CPU": 4.0}])


@pytest.mark.slow
@pytest.mark.parametrize(("given", "effective"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_threads_wait_passively(given: str | None, effective: str) -> None:
    """libgomp reads the environment once, when torch loads it; a user's own setting wins."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({"OMP_WAIT_POLICY": given} if given else {})
    code = "from search.run.cluster import prepare_environment; prepare_environment(); import torch"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert f"OMP_WAIT_POLICY = '{effective}'" in done.stderr


def test_unreachable_cluster_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray retries for minutes, and ends with a traceback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)

    with pytest.raises(InputError, match=rf"'{address}' cannot be joined .*RAY_ADDRESS"), cluster():
        pytest.fail("there is no cluster to join")


def test_the_address_of_a_dashboard_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is right for other commands; Ray's own sentence does not say which address is needed."""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with (
        pytest.raises(InputError, match=r"RAY_ADDRESS is 'http://127.0.0.1:8265', but .* such as HEAD:6379"),
        cluster(),
    ):
        pass


@pytest.mark.parametrize("before", [None, "7" * 64])
def test_the_token_is_readable_by_its_user_alone(
    before: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray writes it with the permissions of the umask: every user of the machine could run code as this one."""

    def init(*_: object, **__: object) -> SimpleNamespace:
        if before is None:
            generate_and_save_token()
        return SimpleNamespace(dashboard_url="")

    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "init", init)
    token = tmp_path / ".ray" / "auth_token"
    if before is not None:
        token.parent.mkdir()
        token.write_text(before)
        token.chmod(0o644)
    with cluster():
        assert token.stat().st_mode & 0o777 == 0o600
        assert len(token.read_text()) == 64


def test_a_ray_without_authentication_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable may come from a profile: nothing would say that everyone can run code here."""
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("an open Ray was started"))
    with pytest.raises(InputError, match=r"RAY_AUTH_MODE is 'disabled', so that anyone .*; unset it"), cluster():
        pass


@pytest.mark.parametrize("job", ["", "twinhead-first-1"])
def test_a_cluster_without_authentication_is_not_joined(
    job: str, dashboard: Callable[..., Dashboard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a cluster takes any token; the submission of a job has asked already."""
    left: list[str] = []
    address = dashboard(is_open=True).url.removeprefix("http://")
    monkeypatch.setenv(JOB_VARIABLE, job)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled" if job else "token")
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "init", lambda *_, **__: SimpleNamespace(dashboard_url=address))
    monkeypatch.setattr(ray, "shutdown", lambda: left.append(address))
    if job:
        with cluster() as url:
            assert url == f"http://{address}"
    else:
        with pytest.raises(InputError, match=f"cluster '{address}' answers without a token"), cluster():
            pytest.fail("an open cluster was joined")
    assert left == [address]


@pytest.mark.parametrize("reached", [True, False])
def test_a_cluster_with_authentication_is_joined(
    reached: bool, dashboard: Callable[..., Dashboard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its dashboard listens on the head alone, as docs/cluster.md recommends."""
    address = dashboard().url.removeprefix("http://")
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_ADDRESS", address)
    shown = address if reached else "127.0.0.1:1"
    monkeypatch.setattr(ray, "init", lambda *_, **__: SimpleNamespace(dashboard_url=shown))
    with cluster() as url:
        assert url == f"http://{shown}"
