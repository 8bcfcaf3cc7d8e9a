"""The examples of docs/python.md: a program in blocks, and the plugin that it uses."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
PLUGIN = "own.py"
"""Name of the plugin, and the comment in the first line of its block."""


def blocks() -> list[str]:
    """The blocks of the program in their order, with that of the plugin."""
    return re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def plugin_text() -> str:
    """The content of the plugin."""
    (text,) = (block for block in blocks() if block.startswith(f"# {PLUGIN}\n"))
    return text
