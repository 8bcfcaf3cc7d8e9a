"""The Ray cluster that a search runs on: started here, or joined, always with authentication; and what fits on it."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from data.disk import disk_error
from data.errors import InputError
from trainable.job import Workers

if TYPE_CHECKING:
    from search.spec.sections import ResourcesConfig, RetrainConfig

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our callbacks write what a search keeps
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the first Ctrl-C is ours: it leaves trials to be gone on with
    "RAY_AIR_NEW_OUTPUT": "0",  # whose first lines go to standard output whatever the verbosity
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of trials that are ended with the run: their tracebacks help nobody
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # alike for all nodes that are lost: `search.failures` takes it back
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # of a stopped trial to be through; after 2, Tune forgot it and waited on
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own record of a search: ours is the study
    "TUNE_ONLY_STORE_CHECKPOINT_SCORE_ATTRIBUTE": "1",  # of each checkpoint, and not all of its metrics again
    # A thread that waits sleeps: one that spins keeps a busy machine's core from the thread that it waits for.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",  # the searcher's matrices are small, and the cores are the trials'
    "MALLOC_ARENA_MAX": "2",  # a warm process has a new thread for each trial, which would keep a heap of its own
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


def prepare_environment() -> None:
    """Set what Ray, OpenMP, numpy and albumentations read of the environment, before any of them or torch is loaded.

    Ray's processes on this machine inherit it; cluster.yaml sets it for those of other machines.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def cluster() -> Iterator[str]:
    """Join the cluster that $RAY_ADDRESS names, or start one on this machine and stop it at the end.

    Yields:
        The dashboard's address, or an empty string.

    Raises:
        InputError: if it cannot be joined, or Ray cannot write its own files.
        DiskError: if their file system is full or has another fault of its own.
    """
    import ray

    with _address() as address:
        try:
            _check_reachable(address)
            context = ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
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
                "and its token in $RAY_AUTH_TOKEN or ~/.ray/auth_token."
            ) from None
        for name in ("ray.tune", "ray.train"):
            # Their errors are tracebacks of trials: a trial's line says why it failed, its error.txt has the rest.
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield f"http://{context.dashboard_url}" if context.dashboard_url else ""
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Fail within seconds where nobody listens: Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=5).close()


@contextmanager
def _address() -> Iterator[str]:
    """What to give `ray.init`: the cluster that $RAY_ADDRESS names, or 'local' for a new one.

    The processes of a new one inherit its address. Otherwise those that ask for it by themselves, as the cleaner of
    worker groups does, look for the one Ray on this machine, find two where somebody else runs one, and give up; then
    no group gets back what the last one held.
    """
    if os.environ.get("RAY_ADDRESS"):
        yield os.environ["RAY_ADDRESS"]
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
    """CPUs, GPUs and the like of each node of the joined cluster."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def has_one_node() -> bool:
    """Whether the joined cluster is this machine alone."""
    import ray

    return len(ray.nodes()) == 1  # type: ignore[no-untyped-call]


def plan(config: ResourcesConfig, nodes: Sequence[Mapping[str, float]]) -> tuple[Workers, int]:
    """What each trial gets, and how many run at a time.

    A worker lies on one node, and a fraction of a GPU on one GPU: what is left over of each is lost. The drivers of
    worker groups hold no CPU, and a group takes its places all at once or waits, so that no two wait for each other.

    Args:
        config: what the spec asks for.
        nodes: the resources of each, as `cluster_resources` gives them.

    Raises:
        InputError: if not one trial fits, or the GPUs cannot be shared so.
    """
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    if config.gpus_per_trial == "auto":
        gpus_per_trial = float(config.workers) if gpus else 0.0
    else:
        gpus_per_trial = config.gpus_per_trial
    gpus_per_worker = gpus_per_trial / config.workers
    _check_shares(config, gpus_per_trial)
    places = sum(_places(node, config.cpus_per_worker, gpus_per_worker) for node in nodes)
    fits = places // config.workers
    if fits < 1:
        raise InputError(
            f"A trial asks for {config.workers * config.cpus_per_worker} CPUs and {gpus_per_trial:g} GPUs, but the "
            f"cluster has {cpus:g} and {gpus:g}{_spread(nodes)}; lower resources.workers, resources.cpus_per_worker or "
            "resources.gpus_per_trial."
        )
    wanted = fits if config.concurrent == "auto" else min(fits, config.concurrent)
    return Workers(count=config.workers, cpus=config.cpus_per_worker, gpus=gpus_per_worker), wanted


def check_retraining(config: RetrainConfig, workers: Workers, nodes: Sequence[Mapping[str, float]]) -> None:
    """Check that the cluster has the CPUs of the retraining, before the search that comes before it.

    Raises:
        InputError: if it has not.
    """
    if config.cpus == "auto" or sum(_places(node, config.cpus, workers.gpus) for node in nodes) >= workers.count:
        return
    most = max(node.get("CPU", 0) for node in nodes)
    each = f" for each of {workers.count} workers" if workers.is_group else ""
    raise InputError(
        f"The value of 'retrain.cpus' is {config.cpus}{each}, but the cluster has {most:g} on a node{_spread(nodes)}; "
        "lower it, or leave it out."
    )


def _places(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """Workers that a node has room for."""
    by_cpus = math.floor(node.get("CPU", 0) / cpus)
    if not gpus:
        return by_cpus
    on_one = math.floor(1 / gpus + 1e-9)  # none, where a worker takes several
    has = math.floor(node.get("GPU", 0))
    return min(by_cpus, has * on_one if on_one else math.floor(has / gpus))


def _check_shares(config: ResourcesConfig, gpus: float) -> None:
    """A GPU is shared by workers of different trials alone: those of one exchange their gradients between GPUs."""
    whole = gpus % config.workers == 0
    if whole or (config.workers == 1 and gpus < 1):
        return
    wanted = "a fraction below 1 or a whole number" if config.workers == 1 else f"0 or a multiple of {config.workers}"
    of = "" if config.workers == 1 else f" for {config.workers} workers"
    raise InputError(
        f"The value of 'resources.gpus_per_trial' is {gpus:g}, but must be {wanted}{of}; correct it in the spec."
    )


def _spread(nodes: Sequence[Mapping[str, float]]) -> str:
    return f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
