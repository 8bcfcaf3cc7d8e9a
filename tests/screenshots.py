"""Takes pictures of the Ray dashboard during a search on three hosts, in headless Chromium. Needs root.

.venv/bin/python -m tests.screenshots DIRECTORY overview jobs actors --size 1700x600    # writes actors.png and so on
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tests.host_cluster import HostCluster, host_cluster, wait_until

DASHBOARD_PORT = 8265
LOADING_MS = 15_000
"""Time that the page has to load its tables."""
ENDED = 6
"""Trials that must have ended before the pictures are taken."""
SEARCH = (
    *("--set", "data.image_size=64", "--set", "model.family=resunet", "--set", "model.width={choices: [4, 8]}"),
    *("--set", "scheduler.max_epochs=27", "--set", "budget.trials=40"),
)


def main() -> None:
    """Start a cluster and a search, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("pages", nargs="+", metavar="page", help="overview, jobs, actors, cluster ...")
    parser.add_argument("--size", default="1700x600", help="width and height of the window in pixels")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with host_cluster(2) as cluster, _search(cluster), cluster.head.tunnel(DASHBOARD_PORT) as port:
        for page in arguments.pages:
            picture = arguments.directory / f"{page.replace('/', '-')}.png"
            screenshot(f"http://127.0.0.1:{port}/#/{page}", cluster.token, picture, size=arguments.size)


@contextlib.contextmanager
def _search(cluster: HostCluster) -> Iterator[None]:
    """A search while it runs, after its first trials."""
    data, name = cluster.hosts.shared / "rooms", "first"
    rendering = ("render", str(data), "--backgrounds", "40", "--per-background", "4", "--size", "64", "--seed", "3")
    subprocess.run([sys.executable, "-m", "search.cli.main", *rendering], check=True)
    options = ("--data", str(data), "--storage", str(cluster.storage), "--name", name)
    with cluster.running("search", *options, *SEARCH) as driver:
        wait_until(lambda: _ended(cluster, name) >= ENDED, "the end of the first trials", driver)
        yield


def _ended(cluster: HostCluster, name: str) -> int:
    return sum(trial.state.is_finished() for trial in cluster.records(name))


def screenshot(url: str, token: str, picture: Path, *, size: str) -> None:
    """Write a picture of a page of the Ray dashboard.

    The browser gets the token as a cookie, as after the dashboard's dialogue, from a server of its own on another port:
    cookies do not depend on the port.

    Args:
        url: of the page, on 127.0.0.1.
        token: of the cluster.
        picture: a PNG file.
        size: of the window, such as 1700x600.
    """
    profile = tempfile.mkdtemp()
    with _sign_in(url, token) as start:
        command = [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
            *(
                f"--user-data-dir={profile}",
                f"--window-size={size.replace('x', ',')}",
                f"--screenshot={picture.absolute()}",
            ),
            *(f"--virtual-time-budget={LOADING_MS}", start),
        ]
        try:
            subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)
        finally:
            shutil.rmtree(profile, ignore_errors=True)


@contextlib.contextmanager
def _sign_in(url: str, token: str) -> Iterator[str]:
    """The address of a page that sets the cookie of the dashboard and leads to `url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Set-Cookie", f"ray-authentication-token={token}; Path=/; HttpOnly")
            self.send_header("Location", url)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
