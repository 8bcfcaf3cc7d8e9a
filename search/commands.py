"""Commands in printed text, quoted so that they can be copied into a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.dataset.storage import Location

STORAGE_VARIABLE = "TWINHEAD_STORAGE"
"""Environment variable of the default of --storage; printed commands always contain the option."""
JOB_VARIABLE = "TWINHEAD_SUBMISSION"
"""Environment variable with the submission ID of the Ray job that a driver runs in."""


def default_storage() -> Path | Location:
    """$TWINHEAD_STORAGE, else `artifacts`.

    Raises:
        InputError: if it is not a valid address.
    """
    return storage_at(os.environ.get(STORAGE_VARIABLE) or "artifacts")


def storage_at(text: str) -> Path | Location:
    """The storage at a path or an address.

    Raises:
        InputError: if it is not a valid address.
    """
    if "://" not in text:
        return Path(text)
    from data.dataset.storage import Location  # imports pyarrow

    location = Location.of_storage(text)
    return location.local or location


def shell_command(*words: object) -> str:
    """Join the words of a command with shell quoting: `twinhead trials first --storage 'my searches'`."""
    return shlex.join(map(str, words))


def cited(command: str) -> str:
    """A command within a sentence: in single quotes, or in backticks if it contains single quotes."""
    return f"`{command}`" if "'" in command else f"'{command}'"
