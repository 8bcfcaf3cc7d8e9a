"""Drains this node when AWS announces the end of its spot instance, so that its trials move before it is gone.

RAY_AUTH_MODE=token .venv/bin/python -m search.cluster.spot_notice HEAD:6379

`cluster.yaml` starts it on every worker. Source: "Spot Instance interruption notices", Amazon EC2 User Guide. The
notice comes two minutes ahead; AWS recommends to look for it every five seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

METADATA = "http://169.254.169.254/latest"
"""The address of the instance metadata service, the same on every instance."""
POLL_SECONDS = 5.0
TIMEOUT_SECONDS = 2.0
SESSION_SECONDS = 60
"""Lifetime of a token of the metadata service (IMDSv2); one is fetched for each look."""


def announced_end(metadata: str = METADATA) -> datetime | None:
    """When this instance ends, as announced; None without a notice, or if the service does not answer now.

    Args:
        metadata: address of the instance metadata service.
    """
    open_url = build_opener(ProxyHandler({})).open  # the service is on this machine: never through a proxy
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(SESSION_SECONDS)}
    try:
        session = Request(f"{metadata}/api/token", method="PUT", headers=ttl)  # noqa: S310 - a fixed http address
        with open_url(session, timeout=TIMEOUT_SECONDS) as answer:
            token = answer.read().decode()
        notice = Request(f"{metadata}/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token})  # noqa: S310
        with open_url(notice, timeout=TIMEOUT_SECONDS) as answer:
            return datetime.fromisoformat(json.loads(answer.read())["time"]).astimezone(UTC)
    except HTTPError as error:
        if error.code != 404:  # the answer while there is no notice
            sys.stderr.write(f"the metadata service refuses: {error}\n")
    except (URLError, TimeoutError, ConnectionError, ValueError, KeyError) as error:
        sys.stderr.write(f"the metadata service does not answer: {error}\n")
    return None


def drain_this_node(address: str, end: datetime) -> bool:
    """Announce to Ray that this node ends.

    Args:
        address: of the head, such as head:6379.
        end: when the node ends.

    Returns:
        Whether the cluster accepted it.
    """
    try:
        node = _node_id(address)
    except Exception as error:  # noqa: BLE001 - Ray has many for a head that does not answer; the watch must go on
        sys.stderr.write(f"the cluster does not answer: {error}\n")
        return False
    remaining = max(1, int((end - datetime.now(UTC)).total_seconds()))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "drain-node", f"--address={address}"),
        *(f"--node-id={node}", "--reason=DRAIN_NODE_REASON_PREEMPTION"),
        *("--reason-message=the spot instance ends", f"--deadline-remaining-seconds={remaining}"),
    ]
    return subprocess.run(command, check=False).returncode == 0  # noqa: S603


def watch(address: str, *, look: Callable[[], datetime | None] = announced_end) -> None:
    """Wait for a notice, and drain this node.

    Args:
        address: of the head, such as head:6379.
        look: returns the announced end.
    """
    while (end := look()) is None:
        time.sleep(POLL_SECONDS)
    sys.stderr.write(f"this instance ends at {end.isoformat()}\n")
    while not drain_this_node(address, end) and datetime.now(UTC) < end:
        time.sleep(1)


def _node_id(address: str) -> str:
    import ray

    ray.init(address=address, log_to_driver=False)
    try:
        return str(ray.get_runtime_context().get_node_id())
    finally:
        ray.shutdown()


if __name__ == "__main__":
    watch(sys.argv[1])
