"""What was measured of networks on this kind of machine: JSON in a file that all trials of a search share.

A measurement depends on what else the machine does at the time. It is kept for one search, so that all its trials
agree; the next search measures again.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from data.atomic import replace_file


def recall(file: Path | None, key: str, measure: Callable[[], Any], is_valid: Callable[[Any], bool]) -> Any:
    """The measurement under `key` in `file`; measured and kept there when it is missing.

    Processes that need the same file take turns: no two of them measure at the same time.

    Args:
        file: JSON object; made when it is missing, and an entry that cannot be used is measured again. None keeps
            nothing.
        key: of the measurement.
        measure: gives a JSON value.
        is_valid: whether a value that was read can be used.
    """
    if file is None:
        return measure()
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        known = _read(file)
        if not is_valid(known.get(key)):
            known[key] = measure()
            replace_file(file, json.dumps(known, indent=1) + "\n")
    return known[key]


def machine_kind(device: torch.device) -> str:
    """The GPU's name, or the CPU's model with the features that matter: cloud machines of one name differ in them."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    features = torch.cpu.get_capabilities()
    names = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "bf16") if features.get(name)]
    return f"{features.get('cpu_name', platform.machine())} {' '.join(names)}".strip()


def _read(file: Path) -> dict[str, Any]:
    """The file's entries; none if it is missing or damaged."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
