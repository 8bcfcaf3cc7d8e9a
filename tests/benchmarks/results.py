"""How every benchmark here says what it measured: the machine, a table, the ratios, and with --json FILE, a file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

Value = str | int | float | None
Row = Mapping[str, Value]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser that has --json FILE; a benchmark adds its own options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write ratios and rows to this file, too")
    return parser


def publish(rows: Sequence[Row], ratios: Mapping[str, float], json_file: Path | None) -> None:
    """Print the machine, `rows` with a column for each key of the first, and `ratios`; write both to the file."""
    columns = list(rows[0])
    texts = [columns, *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in texts) for index in range(len(columns))]
    write(f"{_machine()}\n")
    for line in texts:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        write("  ".join(cells).rstrip())
    write("")
    for name, ratio in ratios.items():
        write(f"ratios.{name} = {ratio:.3g}")
    if json_file:
        json_file.write_text(json.dumps({"ratios": dict(ratios), "rows": [dict(row) for row in rows]}, indent=2) + "\n")


def write(line: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _text(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _machine() -> str:
    """What the figures hold for."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
