"""The nodes that the autoscaler of the joined cluster may still start.

The bounds of node types are in the tables of a cluster only where its platform writes them. Elsewhere they are where
the autoscaler itself reads them, on the head, where the driver of a job runs too: for a cluster of `ray up` in a file,
for one of KubeRay in its RayCluster.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

COUNTED = ("CPU", "GPU")
"""Resources that trials use, by which nodes of a type are recognised."""
MAX_NODES = 1000
"""Nodes that are counted of a type without an upper bound."""
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""In a pod of Kubernetes, the name of its namespace."""
_OPTION = "--autoscaling-config="
_Counts = tuple[float, ...]
"""Of a node: the `COUNTED` resources."""


@dataclass(frozen=True, kw_only=True)
class NodeType:
    """A kind of worker node."""

    resources: Mapping[str, float]
    max_count: int


def startable_nodes(running: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Resources of each node that may still start, those with GPUs first; none without an autoscaler.

    Args:
        running: resources of each node that runs.
    """
    types, limit = _published() or _configured()
    return still_startable(types, limit, running)


def still_startable(
    types: Iterable[NodeType], limit: int, running: Sequence[Mapping[str, float]]
) -> list[dict[str, float]]:
    """The nodes of `types` that do not run yet.

    Args:
        types: of the worker nodes.
        limit: worker nodes of all types.
        running: resources of each node that runs, with the head.
    """
    bounds: Counter[_Counts] = Counter()
    for kind in types:  # of the same resources are types on demand and on spot
        bounds[_counts(kind.resources)] += kind.max_count
    there = Counter(_counts(node) for node in running)
    found: list[dict[str, float]] = []
    left = limit - max(0, len(running) - 1)
    for counts, bound in sorted(bounds.items(), key=lambda item: -item[0][COUNTED.index("GPU")]):
        count = max(0, min(bound - there[counts], left))
        found += [{name: value for name, value in zip(COUNTED, counts, strict=True) if value}] * count
        left -= count
    return found


def read_types(config: Mapping[str, Any]) -> tuple[list[NodeType], int]:
    """The worker types in the configuration of a cluster of `ray up`, and the limit of worker nodes."""
    limit, types = int(config.get("max_workers", 0)), []
    for name, values in (config.get("available_node_types") or {}).items():
        resources = {key: float(value) for key, value in (values.get("resources") or {}).items() if key in COUNTED}
        if name != config.get("head_node_type") and any(resources.values()):
            types.append(NodeType(resources=resources, max_count=int(values.get("max_workers", limit))))
    return types, limit


def _published() -> tuple[list[NodeType], int] | None:
    """The bounds in the cluster's tables; None if there are none."""
    from ray._private.state import state

    config = state.get_cluster_config()
    if config is None or not config.node_group_configs:
        return None
    types = [
        NodeType(
            resources={name: float(group.resources.get(name, 0)) for name in COUNTED},
            max_count=group.max_count if group.max_count >= 0 else MAX_NODES,
        )
        for group in config.node_group_configs
    ]
    return [kind for kind in types if any(kind.resources.values())], MAX_NODES


def _configured() -> tuple[list[NodeType], int]:
    """The bounds that the autoscaler on this machine reads; none if it does not run here."""
    for path in _autoscaler_files():
        with contextlib.suppress(OSError, yaml.YAMLError, AttributeError, TypeError, ValueError):
            return read_types(yaml.safe_load(path.read_text(encoding="utf-8")))
    with contextlib.suppress(Exception):  # not a pod of KubeRay, or one that may not read its RayCluster
        return _of_kuberay()
    return [], 0


@functools.cache
def _of_kuberay() -> tuple[list[NodeType], int]:
    """The bounds in the RayCluster of this pod, which the head may read if it has an autoscaler; read once."""
    name, namespace = os.environ["RAY_CLUSTER_NAME"], NAMESPACE.read_text(encoding="utf-8")

    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    cluster = KubernetesHttpApiClient(namespace).get(f"rayclusters/{name}")
    has_autoscaler = cluster["spec"].get("enableInTreeAutoscaling")
    return read_types(_derive_autoscaling_config_from_ray_cr(cluster)) if has_autoscaler else ([], 0)


def _autoscaler_files() -> Iterator[Path]:
    """The configurations that autoscalers of the joined cluster were started with."""
    import ray

    address = ray.get_runtime_context().gcs_address
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended
            words = process.read_text(encoding="utf-8", errors="replace").split("\0")
            if f"--gcs-address={address}" in words:
                yield from (Path(word.removeprefix(_OPTION)).expanduser() for word in words if word.startswith(_OPTION))


def _counts(resources: Mapping[str, float]) -> _Counts:
    return tuple(float(resources.get(name, 0)) for name in COUNTED)
