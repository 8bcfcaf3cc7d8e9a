"""The key `plugins` of a spec: paths of Python files as the user writes them, and records as a search stores them.

A record is only read. The file of a path is run, because its user wrote the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data.errors import InputError
from trainable.config import ConfigError, Section, build
from trainable.config.settings import Value
from trainable.plugins.active import PluginRecord, active_plugins

KEY = "plugins"


def load_plugins_of(plain: Mapping[str, Value], directory: Path, source: str) -> dict[str, Value]:
    """Load the plugins of a user's spec beside those that the process has, and replace their paths by records.

    Args:
        plain: the nested values of the spec.
        directory: that relative paths start from.
        source: origin of the values, for error messages.

    Raises:
        ConfigError: if an entry is neither a path nor a record, or a file cannot be loaded or has wrong parts.
    """
    given = [plugin.source for plugin in active_plugins()]
    listed = plain.get(KEY, [])
    listed = [listed] if isinstance(listed, str) else listed
    if not isinstance(listed, list | tuple):
        raise _wrong(KEY, listed, source)
    if not listed and not given:
        return dict(plain)

    from trainable.plugins.load import check_plugins, read_source, use_plugins  # imports torch

    records: list[Value] = []
    sources = list(given)
    for number, entry in enumerate(listed):
        if isinstance(entry, Mapping):
            records.append(entry)
        elif not isinstance(entry, str):
            raise _wrong(f"{KEY}.{number}", entry, source)
        else:
            try:
                sources.append(read_source(directory / entry))
            except InputError as error:
                raise ConfigError.about(f"{KEY}.{number}", str(error)) from None
    try:
        plugins = use_plugins(sources)
        check_plugins()
    except InputError as error:
        raise ConfigError.about(KEY, str(error)) from None
    loaded = {plugin.source.file: plugin.record.model_dump() for plugin in plugins}
    kept = [entry for entry in records if isinstance(entry, Mapping) and entry.get("file") not in loaded]
    return {**plain, KEY: [*kept, *loaded.values()]}


def records_in(plain: Mapping[str, Value], source: str = "the spec") -> list[PluginRecord]:
    """The records of a spec whose plugins are loaded.

    Raises:
        ConfigError: if one is invalid, before any other problem: other keys depend on the names that it defines.
    """
    listed = plain.get(KEY, [])
    try:
        return build(_Records, {KEY: listed}, source=source).plugins
    except ConfigError as error:
        if isinstance(listed, list) and (paths := [entry for entry in listed if isinstance(entry, str)]):
            raise ConfigError.about(
                f"{KEY}.{listed.index(paths[0])}",
                f"The plugin '{paths[0]}' is not recorded with its SHA-256 in {source}, and a path in a storage is "
                "never run; restore the spec.",
            ) from None
        raise error from None


class _Records(Section):
    """The key of a stored spec."""

    plugins: list[PluginRecord]


def _wrong(key: str, value: object, source: str) -> ConfigError:
    return ConfigError.about(
        key,
        f"The value of '{key}' is {value!r}, but must be "
        f"{'a list of paths' if key == KEY else 'a path'} of Python files; correct it in {source}.",
    )
