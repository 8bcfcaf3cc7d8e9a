"""Serve a search method on standard input and output, as `process.PeerProcess` expects it.

PYTHON tests/benchmarks/peers/serve.py     # of the environment that has the method

See `messages` for the lines. A proposal comes with the CPU seconds that the method took for it.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))

from tests.benchmarks.peers.messages import SUGGEST, Begin, Peer, Report
from tests.benchmarks.peers.one_epoch import OneEpoch

ONE_EPOCH = "one-epoch"


def main() -> None:
    """Answer line by line until the input ends."""
    # What a library prints must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    peer = build(Begin.of_line(sys.stdin.readline()))
    for line in sys.stdin:
        answers.write(json.dumps(answer(peer, json.loads(line))) + "\n")
        answers.flush()


def build(begin: Begin) -> Peer:
    """The method with this name."""
    if begin.method == ONE_EPOCH:
        return OneEpoch(begin)
    from tests.benchmarks.peers.schedulers import Scheduler  # in this environment only

    return Scheduler(begin)


def answer(peer: Peer, message: str | dict[str, int | float]) -> object:
    """What is sent back: a proposal or null with its seconds, or a decision."""
    if message != SUGGEST:
        return peer.report(Report(**message))  # type: ignore[arg-type]
    started = time.process_time()
    proposal = peer.suggest()
    seconds = time.process_time() - started
    return [proposal and asdict(proposal), seconds]


if __name__ == "__main__":
    main()
