"""The function that Ray Tune calls for each trial. It imports torch and Ray when it is first called."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainable.job import TrialJob


def tune_function(config: Mapping[str, Any], *, job: TrialJob) -> None:
    """The Tune function: import and call `trainable.trainer.run_trial`."""
    import_trainer()
    from trainable.trainer import run_trial

    run_trial(config, job=job)


def import_trainer() -> None:
    """Import the modules of a trial, once per process, without garbage collection.

    Importing torch creates a million objects, and collections took a fifth of the import time. The objects are frozen
    afterwards, so that later collections skip them.
    """
    if "trainable.trainer" in sys.modules:
        return
    gc.disable()
    try:
        import torch

        import trainable.trainer  # noqa: F401

        torch.optim.SGD([torch.zeros(1)])  # the first optimizer imports torch's compiler
        gc.freeze()
    finally:
        gc.enable()
