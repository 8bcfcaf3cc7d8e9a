"""Photographs in memory as the command predicts those in files: shrunk, in batches, and restored to their size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.schema import Pixels
from trainable.evaluation.predictor import Predictor


def predict_whole(predictor: Predictor, bgs: Sequence[Pixels], fg_bgs: Sequence[Pixels]) -> list[tuple[Pixels, Pixels]]:
    """Mask and depth of pairs of photographs of any sizes."""
    found: list[tuple[Pixels, Pixels]] = []
    for first in range(0, len(bgs), predictor.batch_size):
        part = slice(first, first + predictor.batch_size)
        small = [np.stack([predictor.shrink(photo) for photo in photos[part]]) for photos in (bgs, fg_bgs)]
        sides = [photo.shape[:2] for photo in bgs[part]]
        planes = predictor.predict_small(*small, predictor.fitting.borders(sides))
        for own, (mask, depth) in zip(sides, planes, strict=True):
            found.append((predictor.fitting.restore(mask, own), predictor.fitting.restore(depth, own)))
    return found
