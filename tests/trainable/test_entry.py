"""What the trials of a search have in common, and how a process gets ready for its first."""

from __future__ import annotations

import subprocess
import sys

SPEAKS_OF_TRIALS = """
import sys
from trainable.job import TrialData, TrialJob, Workers
data = TrialData(path="nowhere", fingerprint="none")
TrialJob(data=data, workers=Workers(), checkpoint_epochs=frozenset(), group_storage="nowhere").resources()
print(*({"torch", "ray"} & set(sys.modules)))
"""
GETS_READY = """
import gc, sys
from trainable.entry import import_trainer
import_trainer()
frozen = gc.get_freeze_count()
import_trainer()
print("trainable.trainer" in sys.modules, "torch._dynamo" in sys.modules, gc.isenabled())
print(frozen > 100_000, gc.get_freeze_count() == frozen)
"""


def test_who_only_speaks_of_trials_waits_for_neither_torch_nor_ray() -> None:
    """Commands that look at a search, and the unpickling of a trial's function, would take seconds longer."""
    assert python(SPEAKS_OF_TRIALS).split() == []


def test_a_process_gets_ready_once_and_looks_for_garbage_again() -> None:
    """Without a collector, what a trial leaves in cycles would stay; what is frozen at each trial would, too."""
    assert python(GETS_READY).split() == ["True"] * 5


def python(code: str) -> str:
    """What a new process prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
