"""Shared by the commands: options, output, and the handling of interruptions."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from data.dataset.partial import unwritable
from data.disk import disk_error
from data.errors import DiskError, InputError, UnfinishedError
from search.commands import JOB_VARIABLE, STORAGE_VARIABLE, default_storage, storage_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console

    from data.dataset.storage import Location
    from search.study.experiment import Experiment
    from search.terminal import Screen

T = TypeVar("T")

BAD_INPUT = 2
INTERRUPTED = 130
PIPE_COLUMNS = 120
STANDARD_OUTPUT = "/dev/stdout"


class _Storage(click.ParamType["Path | Location"]):
    """A directory, or the address of a remote storage."""

    name = "storage"

    def convert(
        self, value: str | Path | Location, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | Location:
        """Parse the text; raises InputError if it is not valid."""
        storage = storage_at(value) if isinstance(value, str) else value
        if isinstance(storage, Path) and storage.exists() and not storage.is_dir():
            self.fail(f"Directory '{value}' is a file.", param, ctx)
        return storage


storage_option = click.option(
    "--storage",
    type=_Storage(),
    metavar="PATH|ADDRESS",
    default=default_storage,
    help=f"Directory or address, such as s3://bucket/searches, of the searches; ${STORAGE_VARIABLE}, else artifacts, "
    "when left out.",
)
device_option = click.option(
    "--device", metavar="NAME", help="Such as cpu or cuda:0; the GPU, if there is one, when left out."
)
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Show Ray's own output too.")


def _load_plugins(_: click.Context, __: click.Parameter, paths: tuple[Path, ...]) -> None:
    """Make the files the plugins of this process, in place of those of an earlier command in it."""
    from trainable.plugins.active import active_plugins

    if paths or active_plugins():
        from trainable.plugins.load import check_plugins, read_source, use_plugins  # imports torch

        use_plugins(map(read_source, paths))
        check_plugins()


plugins_option = click.option(
    "--plugins",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    expose_value=False,
    callback=_load_plugins,
    help="Python file with model families, losses and metrics of your own; may be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON alone on standard output.")


def resumable(experiment: Experiment, command: str, work: Callable[[], T]) -> T:
    """Return the result of `work`. After an interruption, print the `command` that resumes it, and exit.

    Raises:
        DiskError: if a file system is full or has another fault, in place of Ray's error.
    """
    from search.signals import InterruptedSearchError

    try:
        with contextlib.redirect_stdout(sys.stderr):  # keep Ray's output apart from the result
            return work()
    except (InterruptedSearchError, KeyboardInterrupt):
        click.echo(f"\nstopped; continue with: {command}", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if isinstance(error, InputError | UnfinishedError) and not isinstance(error, DiskError):
            raise
        fault = disk_error(error, experiment.root, *written_directories())
        if fault is None:
            raise
        exists = experiment.root.exists()
        raise fault.followed_by(f"continue with '{command}'" if exists else "give the same command again") from None


def written_directories() -> list[Path]:
    """Directories that any command may write to, in addition to its outputs."""
    from data.cache.cache import cache_root  # imports numpy

    # Not tempfile.gettempdir(), which skips directories that cannot be written to.
    return [cache_root(), Path(os.environ.get("TMPDIR", "/tmp")), Path.cwd()]  # noqa: S108


def pair(override: str) -> tuple[str, str]:
    """The key and value of a --set option.

    Raises:
        InputError: if there is no key or no '='.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"The value of --set is '{override}', but must be KEY=VALUE, such as optimizer.lr=0.01.")
    return key.strip(), value


def refuse_twice(pairs: Sequence[tuple[str, str]], key: str, option: str, value: object) -> None:
    """Refuse a key that both --set and an option of its own set.

    Args:
        pairs: keys and values of --set.
        key: what the option sets.
        option: its name, such as '--trials'.
        value: of the option; None if it was left out.

    Raises:
        InputError: if the key is set twice.
    """
    if value is not None and any(name == key for name, _ in pairs):
        raise InputError(f"The key '{key}' is set twice; leave out {option} or --set {key}.")


def refuse_unwritable(path: Path, option: str, *, is_directory: bool = False) -> None:
    """Refuse a path that cannot be written to, before the work starts.

    Args:
        path: a file, or a directory for files.
        option: the option that names it.
        is_directory: whether it is a directory for files.

    Raises:
        InputError: if it cannot be written to.
    """
    error = unwritable(path / "file" if is_directory else path)
    if path.is_dir() and not is_directory:
        error = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if error:
        raise InputError(f"Nothing can be written to '{path}' ({error.strerror}); give another {option}.")


def print_result(values: Mapping[str, Any] | Sequence[Any], as_json: bool, show: Callable[[], None]) -> None:
    """Print a result as JSON, or call `show`."""
    try:
        if as_json:
            click.echo(json.dumps(values, indent=2))
        else:
            show()
    except OSError as error:
        error.filename = error.filename or STANDARD_OUTPUT  # whose file system may be full
        raise


def print_dataset(path: Path | str, sheet: Path | None, as_json: bool) -> None:
    """Print the contents of a data set; `sheet` is its contact sheet."""
    from data.dataset.dataset import Dataset
    from search.cli.tables import show_dataset

    info = Dataset.open(path).info
    values = json.loads(info.to_json()) | {"path": str(path)} | ({"sheet": str(sheet)} if sheet else {})
    print_result(values, as_json, lambda: show_dataset(console(), path, info, sheet))


def console() -> Console:
    """Standard output; at least `PIPE_COLUMNS` wide if it is not a terminal."""
    from rich.console import Console

    shown = Console(emoji=False)
    if not shown.is_terminal:
        shown.width = max(shown.width, PIPE_COLUMNS)
    return shown


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is a terminal; it is None if the calling program closed it."""
    return stream is not None and stream.isatty()


def screen(*, runs: bool = False, verbose: bool = False) -> Screen:
    """Standard error, for progress; in a job, each line has its time.

    Args:
        runs: whether the command runs trials: without a terminal, its lines have their time too.
        verbose: whether Ray's own output is wanted too.
    """
    from search.terminal import Screen

    stamped = bool(os.environ.get(JOB_VARIABLE)) or (runs and not is_terminal(sys.stderr))
    return Screen(stamped=stamped, verbose=verbose)
