"""Recovery from out-of-memory errors: in smaller batches, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from data.loader import Loader

T = TypeVar("T")


def in_batches_that_fit(loader: Loader, measure: Callable[[Loader], T]) -> T:
    """`measure(loader)`; on an out-of-memory error, it starts over with half the batch size.

    Args:
        loader: loader of a split.
        measure: evaluates the split; its result must not depend on the batch size.

    Raises:
        torch.OutOfMemoryError: with several workers, of which one alone may run out of memory, or if a single sample
            does not fit.
    """
    while True:
        try:
            return measure(loader)
        except torch.OutOfMemoryError:
            if loader.world_size > 1 or loader.batch_size == 1:
                raise
        loader = replace(loader, batch_size=loader.batch_size // 2)
        warn_out_of_memory(
            f"Evaluation ran out of memory; it starts over with batches of {loader.batch_size} samples.", loader.device
        )


def warn_out_of_memory(sentence: str, device: torch.device) -> None:
    """Warn, and release the memory that the device still caches for the failed attempt."""
    warnings.warn(sentence, RuntimeWarning, stacklevel=3)
    release_memory(device)


def release_memory(device: torch.device) -> None:
    """Release the memory that the device caches."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
