"""Comparisons of results with a reference: errors relative to its norm."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

SMALL_SHARE = 0.01
"""Of the root mean square of the norms of all tensors: added to the norm of each in `worst_error`, because gradients
such as that of a bias before batch normalisation are 0 but for rounding."""


def relative_error(found: Tensor, reference: Tensor) -> float:
    """‖found - reference‖ / ‖reference‖ in float64; infinite for another shape or a reference of 0, NaN for NaN."""
    if found.shape != reference.shape:
        return math.inf
    found, reference = found.detach().double().cpu(), reference.detach().double().cpu()
    norm = float(reference.norm())
    return float((found - reference).norm()) / norm if norm else math.inf


def joined_error(found: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """`relative_error` of all tensors as one vector; infinite if their names differ."""
    if found.keys() != reference.keys() or any(found[name].shape != reference[name].shape for name in reference):
        return math.inf
    return relative_error(
        torch.cat([found[name].flatten() for name in reference]),
        torch.cat([tensor.flatten() for tensor in reference.values()]),
    )


def worst_error(found: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """The largest relative error of a single tensor; infinite if their names differ."""
    if found.keys() != reference.keys() or any(found[name].shape != reference[name].shape for name in reference):
        return math.inf
    norms = torch.stack([tensor.double().norm() for tensor in reference.values()])
    small = SMALL_SHARE * float(norms.square().mean().sqrt())
    errors = [(found[name].double() - reference[name].double()).norm() / (norm + small)
              for name, norm in zip(reference, norms, strict=True)]  # fmt: skip
    return float(torch.stack(errors).max())  # NaN if one is NaN


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Without TF32, which convolutions use by default on a GPU: it has the 10 bits of fp16."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
