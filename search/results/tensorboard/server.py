"""TensorBoard in this process, on the log directory of an experiment, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from data.errors import InputError, UnfinishedError
from search.results.tensorboard.log_directory import LogDirectory
from search.study.experiment import Experiment

REFRESH_SECONDS = 3
"""Time between two looks for new epochs; TensorBoard's page asks every 30 s, or when it is reloaded."""
REMOTE_REFRESH_SECONDS = 30
"""The same for a remote storage, to which drivers publish curves once a minute."""
MAX_IMAGES = 100
"""Image grids of a trial that are shown; TensorBoard samples 10 unless it is told otherwise."""


def serve(
    experiment: Experiment, *, host: str, port: int | None, say: Callable[[str], None], show: Callable[[str], None]
) -> None:
    """Serve an experiment until Ctrl-C or SIGTERM.

    Args:
        experiment: a search, comparison or training.
        host: address to bind to.
        port: None for the first free one from 6006 on.
        say: callback for messages.
        show: callback for the address.

    Raises:
        InputError: if there is no such experiment, its storage cannot be used, or the port or host cannot be used.
    """
    _check_address(host, port)
    with (
        contextlib.suppress(KeyboardInterrupt),  # also of SIGTERM and SIGHUP: see `end_like_ctrl_c`
        tempfile.TemporaryDirectory(prefix="twinhead-tensorboard-") as directory,
    ):
        logs = LogDirectory(experiment, Path(directory))
        if experiment.mirror:
            say(f"downloading the curves of '{experiment.name}'")
        logs.refresh()
        show(_launch(directory, host, port))
        seconds = REMOTE_REFRESH_SECONDS if experiment.mirror else REFRESH_SECONDS
        said = False
        while True:
            time.sleep(seconds)
            try:
                logs.refresh()
            except (InputError, UnfinishedError, OSError, StorageInternalError, SQLAlchemyError) as error:
                if not said:
                    reason = str(error).strip().partition("\n")[0].removesuffix(".")
                    say(f"warning: nothing new is shown for now: {reason}")
                said = True
            else:
                said = False


def _launch(directory: str, host: str, port: int | None) -> str:
    """Start TensorBoard in a thread; return its address.

    Its data server is a child process that ends with this one, however this one ends.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of html5lib, which TensorBoard brings
        from tensorboard import program

    board = program.TensorBoard()
    board.configure(
        argv=[None],
        logdir=directory,
        host=host,
        port=port,
        reload_interval=REFRESH_SECONDS,
        reload_multifile=True,
        samples_per_plugin={"images": MAX_IMAGES},
        load_fast=_load_fast(),
    )
    try:
        return str(board.launch())
    except program.TensorBoardServerException as error:
        raise InputError(f"{error.msg}; give another --port or --host.") from None


def _check_address(host: str, port: int | None) -> None:
    """Refuse an address that cannot be bound to, before TensorBoard starts its data server.

    Raises:
        InputError: if it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        where = f"port {port} of '{host}'" if port else f"'{host}'"
        raise InputError(f"TensorBoard cannot use {where} ({reason}); give another --port or --host.") from None


def _load_fast() -> str:
    """Whether TensorBoard's data server exists for this machine; 'auto' would print advice about it."""
    from tensorboard.data import server_ingester

    try:
        server_ingester.get_server_binary()
    except server_ingester.NoDataServerError:
        return "false"
    return "true"
