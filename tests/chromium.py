"""Headless Chromium for tests of pages, driven by its DevTools protocol over a pipe.

with browser() as page:
    page.open(file, width=390)
    assert page.evaluate("document.title") == "…"
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LIMIT_SECONDS = 120.0
"""After which an answer of the browser, or a condition of a page, will not come."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """Yield a page; the test is skipped without Chromium."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine (the Debian package chromium)")
    profile = tempfile.mkdtemp(prefix="twinhead-chromium-")
    (read_here, write_there), (read_there, write_here) = os.pipe(), os.pipe()
    # The browser reads its descriptor 3 and writes to 4.
    script = f'exec "$0" "$@" 3<&{read_there} 4>&{write_there}'
    options = (*OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-pipe")
    process = subprocess.Popen(
        ["bash", "-c", script, program, *options], pass_fds=(read_there, write_there), stderr=subprocess.DEVNULL
    )
    os.close(read_there)
    os.close(write_there)
    try:
        yield Page(read_here, write_here)
    finally:
        os.close(write_here)  # the browser ends with the pipe
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
        os.close(read_here)
        shutil.rmtree(profile, ignore_errors=True)


class Page:
    """A page of the browser, and what it wrote to its console and asked of the network since it was opened."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.console: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(
        self, file: Path, *, width: int = 1400, height: int = 900, dark: bool = False, media: str = "screen"
    ) -> None:
        """Open a file, and wait until it is loaded.

        Args:
            file: an HTML file.
            width: of the window, in pixels; below 600, as a phone.
            height: of the window, in pixels.
            dark: whether the user prefers dark colours.
            media: 'screen' or 'print'.
        """
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._call("Page.navigate", url="about:blank")
        self.console, self.requests = [], []
        self._call("Page.navigate", url=file.absolute().as_uri())
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, as JSON."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + LIMIT_SECONDS
        while not self.evaluate(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def hover(self, selector: str) -> None:
        """Move the mouse to the middle of an element, which is scrolled into view."""
        x, y = self._middle(selector)
        for shift in (3, 0):
            self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x + shift, y=y)

    def wheel(self, selector: str, down: int, *, with_control: bool = False) -> None:
        """Turn the wheel over the middle of an element, by pixels."""
        x, y = self._middle(selector)
        control = 2 if with_control else 0
        self._call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=down, modifiers=control)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key, such as 'Tab' with the code 9; `text` is what it types."""
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **typed)

    def screenshot(self, picture: Path, *, whole: bool = False) -> None:
        """Write a PNG file of the window, or of the whole page."""
        content = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        picture.write_bytes(base64.b64decode(content["data"]))

    def _middle(self, selector: str) -> tuple[float, float]:
        """The middle of an element, which is scrolled into view."""
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        return x, y

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], LIMIT_SECONDS)
            found = os.read(self._read, 1 << 20) if ready else b""
            assert found, "the browser does not answer"
            self._rest += found
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.consoleAPICalled":
            said = " ".join(str(each.get("value", each.get("description"))) for each in parameters["args"])
            self.console.append(f"{parameters['type']}: {said}")
        elif event.get("method") == "Runtime.exceptionThrown":
            self.console.append(f"exception: {parameters['exceptionDetails']}")
        elif event.get("method") == "Log.entryAdded":
            entry = parameters["entry"]
            self.console.append(f"{entry['level']}: {entry['text']}")
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
