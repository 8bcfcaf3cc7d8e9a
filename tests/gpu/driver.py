"""The command line of a run: its options, its order and time, and the table at its end."""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from data.atomic import replace_file
from tests.gpu.findings import FAILED, GROUPS, MISSED, SKIPPED, Finding, exit_code, table
from tests.gpu.parts import PARTS, Part
from tests.gpu.session import Session, write

MINUTES = 8.0
WHOLE = "the whole part"
"""The check of a finding about a part that was skipped or failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts, and print the table; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    parts = _chosen(options.only, parser)
    if not options.minutes > 0:
        parser.error(f"The value of '--minutes' is {options.minutes:g}, but must be > 0; use e.g. {MINUTES:g}.")
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"The directory of '--json {options.json}' does not exist; create it, or give another file.")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)  # small tensors: more threads wait for each other on a busy machine
    about = described(device)
    write(f"{about['device']}, torch {about['torch']}, {about['date']}")
    if device.type == "cpu":
        write("There is no GPU here: all parts run at small sizes on the CPU, and their times say nothing about a GPU.")
    with tempfile.TemporaryDirectory(prefix="twinhead-gpu-", ignore_cleanup_errors=True) as name:
        # Nothing of earlier runs: neither decoded images nor compiled networks, whose time is measured.
        os.environ |= {"TWINHEAD_CACHE": f"{name}/cache", "TORCHINDUCTOR_CACHE_DIR": f"{name}/inductor"}
        session = Session(device=device, directory=Path(name), ends=time.perf_counter() + 60 * options.minutes)
        run_parts(parts, session, lambda: _write_json(options.json, about, session.findings))
    write("")
    for line in [*table(session.findings), "", _summary(session.findings, about)]:
        write(line)
    return exit_code(session.findings)


def described(device: torch.device) -> dict[str, str]:
    """What the figures hold for."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else "CPU",
        "torch": torch.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def run_parts(parts: Mapping[str, Part], session: Session, after_each: Callable[[], None] = lambda: None) -> None:
    """Run `parts` in their order while time is left.

    A part that raises an error, or finds nothing, is a failed finding, and the others go on.

    Args:
        parts: by name.
        session: the run.
        after_each: callback after each part.
    """
    started, names = time.perf_counter(), list(parts)
    for number, (name, part) in enumerate(parts.items()):
        session.part, session.group = name, part.group
        if session.left() > (part.seconds if session.on_gpu else 0):
            then = ", ".join(names[number + 1 :]) or "the table"
            elapsed = time.perf_counter() - started
            write(f"[{elapsed:.0f} s, {session.left():.0f} s left] {name}, {number + 1} of {len(parts)}; then {then}")
            _run_part(part, session)
        else:
            session.add(WHOLE, note=f"no time left: {max(0.0, session.left()):.0f} s")
        after_each()


def _run_part(part: Part, session: Session) -> None:
    before = len(session.findings)
    try:
        part.run(session)
        problem = "" if len(session.findings) > before else "the part found nothing"
    except Exception as error:  # noqa: BLE001  the other parts have their own results
        traceback.print_exc()
        problem = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        traceback.clear_frames(error.__traceback__)
    if problem:
        session.record(Finding(part=session.part, group=part.group, check=WHOLE, error=problem))
    gc.collect()
    if session.on_gpu:
        torch.cuda.empty_cache()


def _parser() -> argparse.ArgumentParser:
    listed = "; ".join(
        f"{group}: {', '.join(name for name, part in PARTS.items() if part.group == group)}" for group in GROUPS
    )
    parser = argparse.ArgumentParser(
        prog="python tests/gpu/run.py",
        description="Everything that needs a GPU, in one run without Ray and without a network.",
    )
    parser.add_argument("--only", metavar="NAME,...", help=f"parts or groups of parts to run; default: all. {listed}")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"parts that do not fit are skipped; default: {MINUTES:g}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings to this file, after each part")
    return parser


def _chosen(only: str | None, parser: argparse.ArgumentParser) -> dict[str, Part]:
    names = only.split(",") if only else list(GROUPS)
    for name in names:
        if name not in PARTS and name not in GROUPS:
            known = ", ".join([*GROUPS, *PARTS])
            parser.error(f"The value of '--only' has '{name}', but must have names of {known}.")
    return {name: part for name, part in PARTS.items() if name in names or part.group in names}


def _summary(findings: Sequence[Finding], about: Mapping[str, str]) -> str:
    states = [finding.state for finding in findings]
    counts = {"failed": FAILED, "goals missed": MISSED, "skipped": SKIPPED}
    texts = [f"{states.count(state)} {text}" for text, state in counts.items()]
    return f"{len(findings)} findings, {', '.join(texts)}: {about['device']}, torch {about['torch']}, {about['date']}"


def _write_json(file: Path | None, about: Mapping[str, str], findings: Sequence[Finding]) -> None:
    if file is not None:
        content = {**about, "exit_code": exit_code(findings), "findings": [each.as_plain() for each in findings]}
        replace_file(file, json.dumps(content, indent=2) + "\n")
