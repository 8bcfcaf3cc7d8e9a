"""Commands that are printed to be copied into a shell: every word is quoted as a shell needs it."""

from __future__ import annotations

import shlex
from pathlib import Path

DEFAULT_STORAGE = Path("artifacts")
"""Of every command; one that is printed names its storage all the same."""


def shell_command(*words: object) -> str:
    """The words of a command as a shell reads them: `twinhead trials first --storage 'my searches'`."""
    return shlex.join(map(str, words))


def cited(command: str) -> str:
    """A command within a sentence: in single quotes, or in backticks where it has quotes of its own."""
    return f"`{command}`" if "'" in command else f"'{command}'"
