"""Settings of the trials of a search, and the imports of a process before its first trial."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


def test_entry_imports_neither_torch_nor_ray() -> None:
    """Commands that show a search, and unpickling the function of a trial, must not take seconds longer."""
    assert python(SPEAKS_OF_TRIALS).split() == []


@pytest.mark.slow
def test_process_is_prepared_once_and_garbage_collection_resumes() -> None:
    """After the imports the garbage collector runs again, and objects are frozen only once."""
    assert python(GETS_READY).split() == ["True"] * 5


def python(code: str) -> str:
    """Run `code` in a new process; return its output."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
