"""Measurements of networks on this kind of machine, in a JSON file that all trials of a search share.

A measurement depends on the load of the machine at the time. The file belongs to one search, so that all its trials
use the same value; the next search measures again.
"""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from data.atomic import replace_file
from data.errors import DiskError


def recall(file: Path | None, key: str, measure: Callable[[], Any], is_valid: Callable[[Any], bool]) -> Any:
    """The measurement under `key` in `file`; if it is missing, measure it and add it to the file.

    The file is locked meanwhile, so that no two processes measure at the same time. On a full or faulty disk, trials
    measure for themselves.

    Args:
        file: JSON file, created if it is missing; None to measure without a file.
        key: key of the measurement.
        measure: returns a JSON value.
        is_valid: whether a value from the file can be used; otherwise it is measured again.
    """
    if file is None:
        return measure()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{file}.lock"))
        known = _read(file)
        if not is_valid(known.get(key)):
            known[key] = measure()
            with contextlib.suppress(OSError, DiskError):
                replace_file(file, json.dumps(known, indent=1) + "\n")
    return known[key]


def machine_kind(device: torch.device) -> str:
    """Name of the GPU, or CPU model with its vector extensions, in which cloud machines of one model differ."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    features = torch.cpu.get_capabilities()
    names = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "bf16") if features.get(name)]
    return f"{features.get('cpu_name', platform.machine())} {' '.join(names)}".strip()


def _read(file: Path) -> dict[str, object]:
    """The entries of the file; empty if it is missing or damaged."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
