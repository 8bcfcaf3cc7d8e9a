"""The function that Ray Tune calls for each trial. It imports torch and Ray when it runs, once a process."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainable.job import TrialJob


def tune_function(config: dict[str, Any], *, job: TrialJob) -> None:
    """The Tune function: `trainable.trainer.run_trial`, imported where it runs."""
    import_trainer()
    from trainable.trainer import run_trial

    run_trial(config, job=job)


def import_trainer() -> None:
    """Import what a trial takes, once a process, and do not look for garbage meanwhile.

    None of torch's million objects is any; looking through them again and again made up a fifth of the time. Later
    looks leave them out.
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
