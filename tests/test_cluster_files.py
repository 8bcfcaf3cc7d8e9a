"""The files that start a cluster: Ray accepts them, each node gets the token, and one of them starts a real cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.command_runner import SSHCommandRunner
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.host_cluster import CHECKOUT, checkout_is_shared
from tests.hosts import Hosts, running_hosts

FILES = ("cluster.yaml", "docs/own-machines.yaml")
TOKEN = "7" * 64
START_SECONDS = 300
"""After which a worker that has not joined never will."""


def read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CHECKOUT / name).read_text())
    return config


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    config = prepare_config(read(name))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]


@pytest.mark.parametrize("name", FILES)
def test_every_node_gets_the_token_and_asks_for_it(name: str) -> None:
    config = read(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"  # noqa: S105 - a path
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        [start] = [command for command in config[commands] if "ray start" in command]
        assert "RAY_AUTH_MODE=token" in start


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
@pytest.mark.parametrize("name", FILES)
def test_nodes_get_the_code_alone(name: str, tmp_path: Path) -> None:
    """Not networks, caches or a file of passwords: half a gigabyte to every node, which anyone there could read."""
    checkout, node = tmp_path / "checkout", tmp_path / "node"
    code = [".gitignore", "data/dataset/dataset.py", "tests/data/x.py"]
    others = [
        ".env",
        ".git/config",
        ".venv/bin/x",
        "artifacts/x",
        "best/model.pt",
        ".mypy_cache/x",
        "data/__pycache__/x",
    ]
    for each in [*code, *others]:
        (checkout / each).parent.mkdir(parents=True, exist_ok=True)
        (checkout / each).touch()
    shutil.copy(CHECKOUT / ".gitignore", checkout)
    filters = SSHCommandRunner._create_rsync_filter_args(None, read(name))
    subprocess.run(["rsync", "-a", *filters, f"{checkout}/", f"{node}/"], check=True)

    assert sorted(str(path.relative_to(node)) for path in node.rglob("*") if path.is_file()) == code


@pytest.mark.parametrize("name", FILES)
def test_the_dashboard_is_bound_to_localhost(name: str) -> None:
    [start] = [command for command in read(name)["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in start


def test_no_trial_runs_on_the_head_or_the_driver_on_a_spot_node() -> None:
    config = read("cluster.yaml")
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_look_for_the_notice_of_a_spot_instance() -> None:
    [look] = [command for command in read("cluster.yaml")["worker_start_ray_commands"] if "spot_notice" in command]
    assert "RAY_AUTH_MODE=token" in look
    assert "/tmp/" not in look  # noqa: S108 - where any user of the node could take its names first
    assert find_spec("search.cluster.spot_notice")


def test_the_manifest_of_kubernetes_has_a_token_and_this_version_of_ray() -> None:
    cluster = read("docs/rayjob.yaml")["spec"]["rayClusterSpec"]
    [pin] = [line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == pin.removeprefix("ray==")
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_image_for_kubernetes_has_what_the_setup_needs_and_no_more() -> None:
    """A whole checkout has secrets and the environment of another machine."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    packages = {name for name in setuptools["packages"]["find"]["include"] if "." not in name}
    files = {"Makefile", "pyproject.toml", "constraints.txt", "LICENSE", project["project"]["readme"]}
    document = (CHECKOUT / "docs" / "cluster.md").read_text()
    copies = [line.split()[1:] for line in document.splitlines() if line.startswith("    COPY ")]

    assert {name for *names, _ in copies for name in names} == packages | files | {
        f"{module}.py" for module in setuptools["py-modules"]
    }
    assert "    ENV PATH=/twinhead/.venv/bin:$PATH" in document.splitlines()  # where KubeRay looks for `ray`
    assert all(target == f"/twinhead/{names[0] if names[0] in packages else ''}" for *names, target in copies)


def test_the_script_for_slurm_is_valid() -> None:
    subprocess.run(["bash", "-n", CHECKOUT / "docs" / "slurm.sh"], check=True)


SRUN = """\
import signal, subprocess, sys
# The first one has srun report its state; the tasks are not its children, and get signals from it alone.
signal.signal(signal.SIGINT, lambda *_: None)
command = [word for word in sys.argv[1:] if not word.startswith("--cpus-per-task=")]
sys.exit(subprocess.run(command, process_group=0).returncode)
"""
RAY = """\
import sys
from pathlib import Path
from ray.scripts import symmetric_run
if sys.argv[1] == "symmetric-run":
    symmetric_run.check_ray_already_started = lambda: False
    symmetric_run.symmetric_run()
with Path("commands").open("a") as commands:
    print(sys.argv[1], file=commands)
"""
SEARCH = """\
import signal, sys, time
from pathlib import Path
def store(*_):
    time.sleep(1)
    Path("stored").touch()
    sys.exit(130)
signal.signal(signal.SIGINT, store)
Path("started").touch()
time.sleep(60)
"""


@pytest.mark.slow
def test_the_script_for_slurm_starts_ray_and_lets_the_search_end(tmp_path: Path) -> None:
    """As with `ray symmetric-run`: it finds `ray` on PATH, and kills its command 0.25 s after a Ctrl-C of its own."""
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for folder, name, text in ((tmp_path, "srun", SRUN), (binaries, "ray", RAY), (binaries, "twinhead", SEARCH)):
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho 127.0.0.1\n")
    for file in (*tmp_path.glob("s*"), *binaries.iterdir()):
        file.chmod(0o755)
    (tmp_path / "token").touch()
    environment = os.environ | {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "RAY_AUTH_TOKEN_PATH": "token",
        "STORAGE": str(tmp_path),
        "SLURM_JOB_NODELIST": "a",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "2",
    }
    with subprocess.Popen(["bash", CHECKOUT / "docs" / "slurm.sh"], cwd=tmp_path, env=environment) as job:
        end = time.monotonic() + 60
        while not (tmp_path / "started").exists():
            assert job.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        job.send_signal(signal.SIGINT)
        assert job.wait(60) == 130

    assert (tmp_path / "stored").exists()
    assert (tmp_path / "commands").read_text().split() == ["get-auth-token", "start", "stop"]


@pytest.mark.cluster
@pytest.mark.slow
def test_own_machines_become_a_cluster_with_authentication() -> None:
    """`ray up` with the file as it is, except for addresses and key."""
    checkout_is_shared()
    with running_hosts(3) as hosts:
        _ray(hosts, "up", _filled_in(hosts), "-y", "--no-config-cache")
        status = "cd ~/twinhead && RAY_AUTH_MODE=token .venv/bin/ray status"
        end = time.monotonic() + START_SECONDS
        while "3 local.cluster.node" not in (said := hosts[0].run(status).stdout):
            assert time.monotonic() < end, said
            time.sleep(2)
        request = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8265/api/version"
        assert hosts[0].run(request).stdout == "401"
        assert hosts[0].run(f"{request} -H 'Authorization: Bearer {TOKEN}'").stdout == "200"
        assert TOKEN not in hosts[0].run("ps -eo args").stdout
        outside = hosts[1].run(f"curl -s -m 5 http://{hosts[0].address}:8265/api/version", check=False)
        assert outside.returncode == 7  # refused: bound to localhost


def _filled_in(hosts: Hosts) -> Path:
    """The file with the addresses of the hosts, which have an environment already: they reach no registry."""
    config = read("docs/own-machines.yaml")
    config["provider"] |= {"head_ip": hosts[0].address, "worker_ips": [host.address for host in hosts.hosts[1:]]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.key)}
    for host in hosts.hosts:
        # With a time of its own, so that `make setup` installs nothing into the environment of the tests.
        host.run(f"mkdir -p ~/twinhead/.venv && ln -s {sys.prefix}/* ~/twinhead/.venv")
        host.run("touch -d tomorrow ~/twinhead/.venv/.ready")
    (hosts.shared / "home" / ".ray").mkdir(parents=True)
    (hosts.shared / "home" / ".ray" / "auth_token").write_text(TOKEN)
    path = hosts.shared / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _ray(hosts: Hosts, *arguments: str | Path) -> None:
    environment = os.environ | {"HOME": str(hosts.shared / "home")}
    ray = Path(sys.prefix) / "bin" / "ray"
    done = subprocess.run([ray, *arguments], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
