"""The nodes that an autoscaler may still start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

from search import autoscaler
from search.autoscaler import NodeType, read_types, startable_nodes, still_startable

HEAD = {"CPU": 4.0}
GPU_NODE = {"CPU": 8.0, "GPU": 1.0}
CPU_NODE = {"CPU": 16.0}
TYPES = [NodeType(resources=CPU_NODE, max_count=2), NodeType(resources=GPU_NODE, max_count=3)]


def test_a_cluster_that_is_scaled_to_zero_may_start_all_its_nodes() -> None:
    """Those with GPUs first, within the limit of all types."""
    assert still_startable(TYPES, 4, [HEAD]) == [GPU_NODE] * 3 + [CPU_NODE]


def test_nodes_that_run_are_not_counted_twice() -> None:
    """A node is known by its CPUs and GPUs."""
    assert still_startable(TYPES, 10, [HEAD, GPU_NODE, GPU_NODE, CPU_NODE]) == [GPU_NODE, CPU_NODE]
    assert still_startable(TYPES, 3, [HEAD, GPU_NODE, GPU_NODE, GPU_NODE]) == []


def test_types_on_demand_and_on_spot_are_counted_together() -> None:
    """They have the same resources: a node of one cannot be told from a node of the other."""
    types = [NodeType(resources=GPU_NODE, max_count=2), NodeType(resources=GPU_NODE, max_count=8)]

    assert len(still_startable(types, 10, [HEAD, GPU_NODE, GPU_NODE, GPU_NODE])) == 7


def test_a_configuration_of_ray_up() -> None:
    """The head runs no trials, and a type without resources is not known before it runs."""
    config = {
        "max_workers": 8,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 4}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 8, "GPU": 1, "memory": 3e10}, "min_workers": 0, "max_workers": 3},
            "any": {"resources": {}},
        },
    }

    assert read_types(config) == ([NodeType(resources=GPU_NODE, max_count=3)], 8)


def test_the_manifest_of_kubernetes_starts_at_zero_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """KubeRay publishes no bounds in Ray's tables: without its RayCluster, a search would find no room for a trial."""
    manifest = yaml.safe_load((Path(__file__).parents[2] / "docs" / "rayjob.yaml").read_text())
    asked = []

    def get(self: KubernetesHttpApiClient, path: str) -> dict[str, Any]:
        asked.append(path)
        return {"metadata": {"name": "x", "namespace": "y"}, "spec": manifest["spec"]["rayClusterSpec"]}

    (tmp_path / "namespace").write_text("y")
    monkeypatch.setattr(KubernetesHttpApiClient, "get", get)
    monkeypatch.setattr(autoscaler, "NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(autoscaler, "_published", lambda: None)
    monkeypatch.setattr(autoscaler, "_autoscaler_files", lambda: ())
    monkeypatch.setenv("RAY_CLUSTER_NAME", "twinhead-first-x")

    assert startable_nodes([{"memory": 1.0}]) == [GPU_NODE] * 8
    assert startable_nodes([{"memory": 1.0}, GPU_NODE]) == [GPU_NODE] * 7
    assert asked == ["rayclusters/twinhead-first-x"]
