"""The Ray cluster of a search, started or joined, always with authentication; and how many trials fit on it.

A cluster with an autoscaler counts with the nodes that it may still start, so that a search can be submitted while all
its GPU workers are scaled to zero.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data.disk import disk_error
from data.errors import InputError
from data.quantities import counted
from search.autoscaler import startable_nodes
from search.commands import JOB_VARIABLE
from search.signals import handlers_kept
from trainable.job import TrialJob, Workers

if TYPE_CHECKING:
    import torch
    from ray import ObjectRef

    from search.spec.sections import ResourcesConfig, RetrainConfig
    from trainable.plugins.active import PluginSource

T = TypeVar("T")
CONNECT_SECONDS = 5.0
MIN_SAMPLES = 8
"""Samples of a batch that each worker of a retraining has at least, by default: batch norm is of these alone."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our callbacks log
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `Stopper` handles Ctrl-C, so that trials can resume
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints to standard output at any verbosity
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of trials that end with the run
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # `search.run.failures` decides which losses count
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # a worker group waits for as long after each epoch
    # A group waits for nodes that cannot take it, such as a drained one, for as long before it looks for others.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # for a stopped trial to end; after the default of 2, Tune hung
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own state is not used: the study is
    "TUNE_ONLY_STORE_CHECKPOINT_SCORE_ATTRIBUTE": "1",  # not all metrics with each checkpoint
    # Waiting threads sleep: spinning ones would take the core from the thread that they wait for.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",  # the searcher's matrices are small; trials need the cores
    "MALLOC_ARENA_MAX": "2",  # a reused process starts a thread for each trial, each with its own heap
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(2**28),  # a small file may claim any size: refused before its memory is taken
}


def prepare_environment() -> None:
    """Set the environment variables of Ray, OpenMP, numpy and albumentations. Call before these or torch are imported.

    Ray's processes on this machine inherit them; cluster.yaml sets them on other machines.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def cluster(*, verbose: bool = False) -> Iterator[str]:
    """Join the cluster that $RAY_ADDRESS names, or start one on this machine and stop it at the end.

    A cluster without authentication is for jobs alone, whose submission has accepted it.

    Args:
        verbose: whether Ray's own output is shown, and that of its processes.

    Yields:
        The dashboard's address, or an empty string.

    Raises:
        InputError: if it cannot be joined or has no authentication, or Ray cannot write its files.
        DiskError: if their file system is full or has another fault.
    """
    import ray

    if ray.is_initialized():  # by the program that calls; it stays as it is
        yield ""
        return
    accepts_open = bool(os.environ.get(JOB_VARIABLE))
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token" and not accepts_open:
        raise InputError(
            f"The value of RAY_AUTH_MODE is '{mode}', so that anyone who reaches a port of Ray could run code here; "
            "unset it, or set it to token."
        )
    with _address() as address:
        try:
            _check_reachable(address)
            level = logging.INFO if verbose else logging.ERROR
            with handlers_kept(), _own_process_groups():
                if address == "local":
                    _make_token_private()
                context = ray.init(address, logging_level=level, log_to_driver=verbose)
        except (OSError, RuntimeError, ValueError) as error:
            if fault := disk_error(error, Path.home()):
                raise fault from None
            if isinstance(error, OSError) and error.filename is not None:
                raise InputError(
                    f"Ray cannot write '{error.filename}' ({error.strerror}); set HOME, where it keeps .ray, or "
                    "RAY_TMPDIR, where it keeps its logs, to a directory that can be written."
                ) from None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"The Ray cluster '{address}' cannot be joined ({reason}); check $RAY_ADDRESS, that the cluster runs, "
                "and its token in $RAY_AUTH_TOKEN, the file $RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token."
            ) from None
        for name in ("ray.tune", "ray.train"):
            # They log tracebacks of trials, which the trial's error.txt holds too.
            logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)
        try:
            dashboard = f"http://{context.dashboard_url}" if context.dashboard_url else ""
            if dashboard and address != "local" and not accepts_open:
                _refuse_open(address, dashboard)
            yield dashboard
        finally:
            ray.shutdown()


def _make_token_private() -> None:
    """Let only this user read the token, which Ray generates into an empty file too."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    token = Path.home() / ".ray" / "auth_token"
    if not token.exists():
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch(mode=0o600)
    elif token.stat().st_mode & 0o077:
        token.chmod(0o600)


@contextmanager
def _own_process_groups() -> Iterator[None]:
    """Let Ray start each of its processes in a process group of its own.

    A signal to the group of the command, as service managers and `timeout` send it, would end Ray before the search
    has stored its trials.
    """
    from ray._private import services

    popen = services.ConsolePopen
    services.ConsolePopen = functools.partial(popen, process_group=0)  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        services.ConsolePopen = popen  # type: ignore[misc]


def answers_without_token(dashboard: str) -> bool:
    """Whether a cluster answers a request without a token.

    Args:
        dashboard: its URL.

    Raises:
        OSError: if nothing answers there, or only a gateway whose cluster does not.
    """
    import requests

    code = requests.get(f"{dashboard}/api/version", timeout=CONNECT_SECONDS).status_code
    if code >= 500:
        raise ConnectionError(f"'{dashboard}' answers with the status {code}")
    return code not in (401, 403)


def _refuse_open(address: str, dashboard: str) -> None:
    """Refuse a cluster that answers without a token; its dashboard may be reachable on its own machine only."""
    with suppress(OSError):
        if answers_without_token(dashboard):
            raise InputError(
                f"The Ray cluster '{address}' answers without a token, so that anyone who reaches it can run code "
                "there; start it with RAY_AUTH_MODE=token (see docs/cluster.md)."
            )


def _check_reachable(address: str) -> None:
    """Fail within seconds if nothing listens at the address; Ray itself retries for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


@contextmanager
def _address() -> Iterator[str]:
    """The address for `ray.init`: $RAY_ADDRESS, or 'local' for a new cluster.

    The processes of a new cluster inherit its address. Otherwise those that look it up, such as the cleaner of worker
    groups, fail if a second Ray runs on this machine, and the resources of a worker group are never released.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        if "://" in address:
            raise InputError(
                f"The value of RAY_ADDRESS is '{address}', but this command joins the cluster itself and needs the "
                "address of its head, such as HEAD:6379; 'twinhead submit' takes that of the dashboard."
            )
        yield address
        return
    from ray.util import get_node_ip_address

    ip = get_node_ip_address()  # type: ignore[no-untyped-call]
    with socket.socket() as free:
        free.bind((ip, 0))
        port = free.getsockname()[1]
    os.environ |= {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"{ip}:{port}"}
    try:
        yield "local"
    finally:
        del os.environ["RAY_GCS_SERVER_PORT"], os.environ["RAY_ADDRESS"]


def cluster_resources() -> list[dict[str, float]]:
    """The resources of each node of the joined cluster, such as CPU and GPU, also of those that may still start."""
    import ray

    nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return [*nodes, *startable_nodes(nodes)]


def has_one_node() -> bool:
    """Whether the joined cluster is a single machine, and stays one."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return len(nodes) == 1 and not startable_nodes([nodes[0]["Resources"]])


def start_task(job: TrialJob, task: Callable[[torch.device], T], *, threads: int) -> ObjectRef[T]:
    """Start `task` in a process of the cluster with the resources of one worker of a trial, and its plugins.

    Args:
        job: of the trial.
        task: called with the device of the process; its result is that of the reference.
        threads: torch's number of threads.
    """
    import ray

    remote: Any = ray.remote(num_cpus=job.workers.cpus, num_gpus=job.workers.gpus)(_run_task)
    reference: ObjectRef[T] = remote.remote(task, job.workers, threads, job.plugins)
    return reference


def _run_task(
    task: Callable[[torch.device], T], workers: Workers, threads: int, plugins: tuple[PluginSource, ...]
) -> T:
    import torch

    from trainable.loop.state import reserved_device
    from trainable.plugins.load import use_plugins

    torch.set_num_threads(threads)
    use_plugins(plugins)
    return task(reserved_device(workers.gpus))


def plan(config: ResourcesConfig, nodes: Sequence[Mapping[str, float]]) -> tuple[Workers, int]:
    """The resources of each trial, and the number of trials that run at a time.

    A worker runs on one node, and a fraction of a GPU is part of one GPU; remainders stay unused. The drivers of worker
    groups use no CPU, and a group reserves all its resources at once, so that two groups cannot block each other.

    Args:
        config: the spec's `resources`.
        nodes: the resources of each node, as `cluster_resources` returns them.

    Raises:
        InputError: if no trial fits, or the GPUs cannot be shared in this way.
    """
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    if config.gpus_per_trial == "auto":
        gpus_per_trial = float(config.workers) if gpus else 0.0
    else:
        gpus_per_trial = config.gpus_per_trial
    gpus_per_worker = gpus_per_trial / config.workers
    _check_shares(config, gpus_per_trial)
    workers = Workers(count=config.workers, cpus=config.cpus_per_worker, gpus=gpus_per_worker)
    fits = slots(workers, nodes)
    if fits < 1:
        raise InputError(
            f"A trial needs {counted(config.workers * config.cpus_per_worker, 'CPU')} and "
            f"{counted(gpus_per_trial, 'GPU')}, but the cluster has {counted(cpus, 'CPU')} and "
            f"{counted(gpus, 'GPU')}{_on_nodes(nodes)}; lower resources.workers, resources.cpus_per_worker or "
            "resources.gpus_per_trial."
        )
    return workers, concurrent_trials(config, fits)


def slots(workers: Workers, nodes: Sequence[Mapping[str, float]]) -> int:
    """The number of trials that fit on nodes at a time."""
    return sum(_slots(node, workers.cpus, workers.gpus) for node in nodes) // workers.count


def concurrent_trials(config: ResourcesConfig, fits: int) -> int:
    """The number of trials that a search runs at a time, of those that fit: at least one."""
    share = max(1, math.floor(fits * config.share + 1e-9))
    return share if config.concurrent == "auto" else min(share, config.concurrent)


def retraining_workers(
    config: RetrainConfig, trial: Workers, nodes: Sequence[Mapping[str, float]], batch_size: int
) -> Workers:
    """The workers of a retraining, with the CPUs of a trial's.

    Args:
        config: the spec's `retrain`.
        trial: the workers of a trial.
        nodes: the resources of each node, as `cluster_resources` returns them.
        batch_size: of the configuration, over all workers.
    """
    fewest, most = _retraining_range(config, trial, nodes)
    if config.scale == "batch" and config.workers == "auto":
        most = max(trial.count, min(most, batch_size // MIN_SAMPLES))
    elif config.scale == "batch":
        most = min(most, batch_size)
    return trial.as_group(most, fewest if fewest < most else None)


def check_retraining(config: RetrainConfig, workers: Workers, nodes: Sequence[Mapping[str, float]]) -> None:
    """Check before a search that the cluster has enough CPUs and GPUs for the retraining after it.

    Raises:
        InputError: if it does not.
    """
    fewest, _ = _retraining_range(config, workers, nodes)
    fits = _retraining_slots(config, workers, nodes, fewest)
    if fits >= fewest or config.cpus == config.workers == "auto":
        return
    if config.workers != "auto":
        raise InputError(
            f"The value of 'retrain.workers' is {config.workers}, but the cluster has room for {fits}"
            f"{_on_nodes(nodes)}; lower it or retrain.cpus, or leave it out."
        )
    most = max(node.get("CPU", 0) for node in nodes)
    each = f" for each of {workers.count} workers" if workers.is_group else ""
    raise InputError(
        f"The value of 'retrain.cpus' is {config.cpus}{each}, but the cluster has {most:g} on a node{_on_nodes(nodes)}"
        "; lower it, or leave it out."
    )


def _retraining_range(config: RetrainConfig, trial: Workers, nodes: Sequence[Mapping[str, float]]) -> tuple[int, int]:
    """The smallest and the largest number of workers of a retraining."""
    if config.workers != "auto":
        return (config.workers, config.workers) if isinstance(config.workers, int) else config.workers
    if not trial.gpus:
        return trial.count, trial.count
    return 1, max(_retraining_slots(config, trial, nodes, 2), trial.count)


def _retraining_slots(config: RetrainConfig, trial: Workers, nodes: Sequence[Mapping[str, float]], count: int) -> int:
    """How many workers fit, of a retraining with `count` of them."""
    cpus = trial.cpus if config.cpus == "auto" else config.cpus
    return sum(_slots(node, cpus, trial.as_group(count).gpus) for node in nodes)


def _slots(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """Number of workers that fit on a node."""
    by_cpus = math.floor(node.get("CPU", 0) / cpus)
    if not gpus:
        return by_cpus
    per_gpu = math.floor(1 / gpus + 1e-9)  # 0 if a worker takes several
    available = math.floor(node.get("GPU", 0))
    return min(by_cpus, available * per_gpu if per_gpu else math.floor(available / gpus))


def _check_shares(config: ResourcesConfig, gpus: float) -> None:
    """Refuse fractions of a GPU for several workers: workers of one trial exchange gradients between whole GPUs."""
    whole = gpus % config.workers == 0
    if whole or (config.workers == 1 and gpus < 1):
        return
    wanted = "a fraction below 1 or a whole number" if config.workers == 1 else f"0 or a multiple of {config.workers}"
    of = "" if config.workers == 1 else f" for {config.workers} workers"
    raise InputError(
        f"The value of 'resources.gpus_per_trial' is {gpus:g}, but must be {wanted}{of}; correct it in the spec."
    )


def _on_nodes(nodes: Sequence[Mapping[str, float]]) -> str:
    return f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
