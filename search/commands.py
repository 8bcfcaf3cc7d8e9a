"""Commands in printed text, quoted so that they can be copied into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

DEFAULT_STORAGE = Path("artifacts")
"""Default of --storage; printed commands always contain the option."""


def shell_command(*words: object) -> str:
    """Join the words of a command with shell quoting: `twinhead trials first --storage 'my searches'`."""
    return shlex.join(map(str, words))


def cited(command: str) -> str:
    """A command within a sentence: in single quotes, or in backticks if it contains single quotes."""
    return f"`{command}`" if "'" in command else f"'{command}'"
