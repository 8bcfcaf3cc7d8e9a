"""The plugins of this process.

A process has one set of plugins, as it has one set of imported modules, and it is kept in the same table:
`sys.modules['twinhead_plugins']`. A global of our own would be a second such table. Only `trainable.plugins.load`
changes it, and as a whole, so that a process that trains for one search after another has no part of an earlier one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import Field

from data.errors import InputError
from trainable.config.section import Section
from trainable.plugins.parts import Family, Loss, Metric, Part

PACKAGE = "twinhead_plugins"
"""Name in `sys.modules` of the package of all plugins, and of its attribute with the tuple of them."""
FILE = r"^[A-Za-z_][A-Za-z0-9_-]{0,60}\.py$"
"""Pattern of the name of a plugin's file: it becomes that of a module, and a word of a job's shell command."""
SHOWN = 12
"""Digits of a SHA-256 in a message."""


@dataclass(frozen=True)
class PluginSource:
    """The content of a plugin's file, which travels to trials and jobs."""

    file: str
    """Name of the file without its directory, such as 'own.py'."""
    text: str

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the text in UTF-8, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class PluginRecord(Section):
    """What a search records of a plugin: enough to read its results without running the file."""

    file: Annotated[str, Field(pattern=FILE)]
    """Name of the file without its directory."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of its content. A resumed search needs a file with the same one."""
    families: list[str] = []  # noqa: RUF012  pydantic copies it
    with_dropout: list[str] = []  # noqa: RUF012
    """Those of the families that support `model.dropout`."""
    losses: list[str] = []  # noqa: RUF012
    metrics: list[str] = []  # noqa: RUF012
    """As in `objectives`, with '-' if lower is better."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin that was loaded."""

    source: PluginSource
    parts: tuple[Part, ...]

    @property
    def record(self) -> PluginRecord:
        """What a search records of it."""
        families = [part for part in self.parts if isinstance(part, Family)]
        return PluginRecord(
            file=self.source.file,
            sha256=self.source.sha256,
            families=[family.name for family in families],
            with_dropout=[family.name for family in families if family.has_dropout],
            losses=[part.name for part in self.parts if isinstance(part, Loss)],
            metrics=[part.notation for part in self.parts if isinstance(part, Metric)],
        )


def active_plugins() -> tuple[Plugin, ...]:
    """The plugins of this process."""
    return getattr(sys.modules.get(PACKAGE), PACKAGE, ())


def active_records() -> list[PluginRecord]:
    """What a search records of the plugins of this process."""
    return [plugin.record for plugin in active_plugins()]


def are_active(records: Iterable[PluginRecord]) -> bool:
    """Whether all these are plugins of this process."""
    active = {plugin.source.sha256 for plugin in active_plugins()}
    return all(record.sha256 in active for record in records)


def own_families() -> dict[str, Family]:
    """The families of all plugins by name."""
    return {part.name: part for plugin in active_plugins() for part in plugin.parts if isinstance(part, Family)}


def own_losses() -> dict[str, Loss]:
    """The losses of all plugins by name."""
    return {part.name: part for plugin in active_plugins() for part in plugin.parts if isinstance(part, Loss)}


def own_metrics() -> dict[str, Metric]:
    """The metrics of all plugins by name."""
    return {part.name: part for plugin in active_plugins() for part in plugin.parts if isinstance(part, Metric)}


def sources_of(records: Iterable[PluginRecord]) -> tuple[PluginSource, ...]:
    """The content of recorded plugins.

    Raises:
        InputError: if one is not a plugin of this process, or has another content.
    """
    return tuple(_source_of(record) for record in records)


def _source_of(record: PluginRecord) -> PluginSource:
    found = {plugin.source.file: plugin.source for plugin in active_plugins()}.get(record.file)
    if found is None:
        raise InputError(
            f"The plugin '{record.file}' (SHA-256 {record.sha256[:SHOWN]}…) is needed, and code is never run from a "
            f"storage; give your copy of the file with --plugins, or plugins=['{record.file}'] in Python."
        )
    if found.sha256 != record.sha256:
        raise InputError(
            f"The plugin '{record.file}' has the SHA-256 {found.sha256[:SHOWN]}…, but must have {record.sha256[:SHOWN]}"
            "… as it was used before; restore the file, or start anew."
        )
    return found
