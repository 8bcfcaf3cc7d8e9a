"""A search method in a process of its own, which has another environment than the benchmark."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.benchmarks.peers.messages import SUGGEST, Begin, Decision, Proposal, Report

SCRIPT = Path(__file__).with_name("serve.py")


class PeerProcess:
    """A `Peer` whose answers come from a process, which ends with the `with` block.

    Args:
        python: the interpreter of the environment that has the method.
        begin: the method, and what it is started with.

    Raises:
        RuntimeError: if the process ends before it has answered, with what it wrote.
    """

    def __init__(self, python: Path, begin: Begin) -> None:
        self.proposals = 0
        self.seconds = 0.0
        """CPU seconds of all proposals."""
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [python, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._send(begin.as_line())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()
        self._errors.close()

    def suggest(self) -> Proposal | None:
        """A new trial, one to resume, or None."""
        plain, seconds = self._ask(SUGGEST)
        self.proposals += plain is not None
        self.seconds += seconds
        return Proposal.of_plain(plain)

    def report(self, report: Report) -> Decision:
        """Add an epoch, and return what to do."""
        return Decision(self._ask(vars(report)))

    def _ask(self, message: object) -> Any:
        self._send(json.dumps(message))
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"the process of the search method ended: {self._errors.read()[-4000:]}")
        return json.loads(line)

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer says more
