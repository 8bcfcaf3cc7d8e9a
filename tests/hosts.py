"""Hosts on one machine, for tests of a real cluster: each has its own network address, process IDs, home and /tmp.

An sshd on each accepts the key of `Hosts`. The rest of the file system is shared, as a mounted network drive would be.
Needs Linux, root, iproute2 and openssh-server; the test is skipped where one is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

NETWORK = "10.79.0"
"""First three bytes of the addresses; this machine has .1, host K has .(10 + K)."""
BRIDGE = "twinhead0"
TOOLS = ("ip", "unshare", "mount", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd")
LOCK = "/var/tmp/twinhead-hosts.lock"  # noqa: S108 - of all processes of this machine
START_SECONDS = 20
"""After which a host that does not accept connections has failed to start."""

_START = """
mount -t overlay overlay -o 'lowerdir=/root,upperdir={home}/root,workdir={home}/work' /root
mkdir -p /run/sshd
mount --bind '{home}/tmp' /tmp
exec /usr/sbin/sshd -D -e -o PidFile=none -o ListenAddress={address} -o PasswordAuthentication=no \\
    -o StrictModes=no -o PermitRootLogin=prohibit-password -o UsePAM=no
"""


class Host:
    """One host; `power_off` and `cut` are the faults that it can have."""

    def __init__(self, number: int, directory: Path) -> None:
        self.address = f"{NETWORK}.{10 + number}"
        self._namespace, self._link = f"twinhead-{number}", f"twinhead-v{number}"
        self._home, self._key = directory / str(number), directory / "key"
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, command: str, *, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host."""
        result = subprocess.run(self._ssh(command), capture_output=True, text=True, check=False, timeout=timeout)
        assert result.returncode == 0 or not check, f"{command}\n{result.stdout}\n{result.stderr}"
        return result

    def start(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a shell command on the host, with its output in a file; it ends with the connection."""
        with log.open("ab") as file:
            return subprocess.Popen(self._ssh(command), stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    @contextlib.contextmanager
    def tunnel(self, port: int) -> Iterator[int]:
        """A port of this machine that leads to one of the host's own address 127.0.0.1."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            local = int(free.getsockname()[1])
        *ssh, _ = self._ssh("")
        process = subprocess.Popen([*ssh, "-N", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}"])
        try:
            _wait_for_port("127.0.0.1", local, "the tunnel does not open")
            yield local
        finally:
            process.kill()
            process.wait()

    def _ssh(self, command: str) -> list[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        arguments = [text for option in options for text in ("-o", option)]
        return ["ssh", "-i", str(self._key), *arguments, f"root@{self.address}", command]

    def power_off(self) -> None:
        """End all processes of the host at once."""
        pids = subprocess.run(["ip", "netns", "pids", self._namespace], capture_output=True, text=True, check=False)
        for pid in pids.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def power_on(self) -> None:
        """Start the host, with the home that it had and an empty /tmp."""
        for name in ("root/.ssh", "work", "run"):
            (self._home / name).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._home / "tmp", ignore_errors=True)
        (self._home / "tmp").mkdir()
        (self._home / "tmp").chmod(0o1777)
        shutil.copy(self._key.with_suffix(".pub"), self._home / "root/.ssh/authorized_keys")
        (self._home / "root/.ssh").chmod(0o700)
        isolated = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
        script = _START.format(home=self._home, address=self.address)
        with (self._home / "sshd.log").open("w") as log:
            self._process = subprocess.Popen(
                # The namespace of the network comes first: its mounts must not be copied while it is created.
                ["ip", "netns", "exec", self._namespace, *isolated, "bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _wait_for_port(self.address, 22, f"the host does not start; see {self._home / 'sshd.log'}")

    def cut(self) -> None:
        """Take the host off the network; its processes run on."""
        _ip("link", "set", self._link, "down")

    def heal(self) -> None:
        """Connect the host to the network again."""
        _ip("link", "set", self._link, "up")

    def _connect(self) -> None:
        """Create the network of the host."""
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("link", "set", self._link, "master", BRIDGE, "up")
        _ip("-n", self._namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self._namespace, "link", "set", "eth0", "up")
        _ip("-n", self._namespace, "link", "set", "lo", "up")
        # It leads nowhere, but Ray finds its own address by it.
        _ip("-n", self._namespace, "route", "add", "default", "via", f"{NETWORK}.1")

    def _remove(self) -> None:
        self.power_off()
        _ip("link", "del", self._link, check=False)  # else it remains for a moment after its namespace
        _ip("netns", "del", self._namespace, check=False)


class Hosts:
    """Running hosts and what they share.

    Attributes:
        hosts: each of them.
        key: path of the private key that they accept.
        shared: a directory that all hosts and this machine see.
    """

    def __init__(self, count: int, directory: Path) -> None:
        self.key, self.shared = directory / "key", directory / "shared"
        self.shared.mkdir()
        self.hosts = [Host(number, directory) for number in range(1, count + 1)]

    def __getitem__(self, index: int) -> Host:
        return self.hosts[index]


@contextlib.contextmanager
def running_hosts(count: int) -> Iterator[Hosts]:
    """Start hosts, and remove them at the end with all their processes.

    Args:
        count: of the hosts.
    """
    with FileLock(LOCK):  # another test process may have hosts, of which a machine has one set
        yield from _running(count)


def _running(count: int) -> Iterator[Hosts]:
    _skip_where_impossible()
    # Not below /tmp, which each host has for itself.
    directory = Path(tempfile.mkdtemp(prefix="twinhead-hosts-", dir="/var/tmp"))
    hosts = Hosts(count, directory)
    try:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hosts.key], check=True)
        _remove_all(hosts)  # of a run that was killed
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for host in hosts.hosts:
            host._connect()
        for host in hosts.hosts:
            host.power_on()
        yield hosts
    finally:
        _remove_all(hosts)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for_port(address: str, port: int, problem: str) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end, problem
            time.sleep(0.1)
        else:
            return


def _remove_all(hosts: Hosts) -> None:
    for host in hosts.hosts:
        host._remove()
    _ip("link", "del", BRIDGE, check=False)


def _skip_where_impossible() -> None:
    if os.geteuid() != 0:
        pytest.skip("hosts on one machine need root")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"hosts on one machine need {', '.join(missing)}")
    if subprocess.run(["ip", "netns", "add", "twinhead-try"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces cannot be created here")
    _ip("netns", "del", "twinhead-try")


def _ip(*arguments: str, check: bool = True) -> None:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0 or not check, f"ip {' '.join(arguments)}: {result.stderr}"
