"""What the calls of the Python API share: their arguments, their progress, and the handling of interruptions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray
from rich.console import Console

from data.dataset.storage import AnyPath, Location
from data.disk import disk_error
from data.errors import DiskError, InputError
from search.commands import default_storage, storage_at
from search.run.cluster import prepare_environment
from search.signals import InterruptedSearchError, handlers_kept
from search.study.experiment import Experiment
from search.terminal import Screen
from trainable.config.settings import Value
from trainable.plugins.active import PluginSource
from trainable.plugins.load import check_plugins, read_source, use_plugins


def prepare() -> None:
    """Set the environment of Ray and Ray Tune.

    Raises:
        InputError: if Ray was imported before, so that it cannot authenticate any more, and is not running either.
    """
    if "RAY_AUTH_MODE" not in os.environ and not ray.is_initialized():
        raise InputError(
            "Ray was imported before Twinhead could set its authentication; import ray after the first use of a name "
            "of twinhead, or set the environment variable RAY_AUTH_MODE=token before Python starts."
        )
    prepare_environment()


def screen_of(progress: bool) -> Screen:
    """Standard error, with plain lines in a notebook; silent without `progress`."""
    # Rich would show a bar as a widget of the notebook, which stays in its output.
    return Screen(Console(stderr=True, highlight=False, emoji=False, force_jupyter=False, quiet=not progress))


def storage_of(storage: AnyPath | None) -> Path | Location:
    """The storage of a call; None for that of the commands: $TWINHEAD_STORAGE, else `artifacts`.

    Raises:
        InputError: if it is not a valid address.
    """
    if storage is None:
        return default_storage()
    if isinstance(storage, str):
        return storage_at(storage)
    return storage if isinstance(storage, Location) else Path(storage)


def pairs_of(settings: Mapping[str, Value] | None) -> list[tuple[str, str]]:
    """Settings by dotted key, as the pairs of --set."""
    return [(key, json.dumps(value)) for key, value in (settings or {}).items()]


def load_given(plugins: Iterable[str | Path]) -> tuple[PluginSource, ...]:
    """Make these files the plugins of the process, and check them.

    Raises:
        InputError: if one cannot be loaded.
    """
    loaded = use_plugins(read_source(Path(plugin)) for plugin in plugins)
    check_plugins()
    return tuple(plugin.source for plugin in loaded)


@contextmanager
def interruptible(experiment: Experiment) -> Iterator[None]:
    """Convert what a run raises to the errors of a program, and restore its signal handlers, which Ray replaces.

    Raises:
        KeyboardInterrupt: after Ctrl-C, or the interruption of a notebook's cell, once all results are stored.
        DiskError: if a file system is full or has another fault.
    """
    try:
        with handlers_kept():
            yield
    except InterruptedSearchError:
        raise KeyboardInterrupt(f"stopped; continue with: {experiment.resume_command}") from None
    except Exception as error:
        fault = disk_error(error, experiment.root)
        if isinstance(error, DiskError) or fault is None:
            raise
        raise fault from None
