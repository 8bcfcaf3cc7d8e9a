"""A split to batches on the device: gathered as uint8, augmented, moved once.

The order depends on (seed, epoch) alone; every rank takes its share of each batch, so that all ranks together see every
sample exactly once an epoch, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment import Augmenter, Pictures
from data.cache import DecodedPictures, DecodedSplit
from data.schema import Batch, Pixels


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Batches of a split.

    An epoch's samples are cut into the fewest batches of at most `batch_size`, as even as can be: no small remainder
    upsets the statistics of a batch-norm layer, and no rank runs out of batches before the others.
    """

    split: DecodedSplit
    batch_size: int
    """Samples of a batch over all ranks."""
    device: torch.device
    shuffle: bool = False
    augmenter: Augmenter | None = None
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank, and each with a sample for every rank."""
        fewest = -(-len(self.split) // self.batch_size)
        return max(1, min(fewest, len(self.split) // self.world_size))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """This rank's share of each batch of epoch number `epoch`."""
        if self.augmenter is not None:
            self.augmenter.reseed(self.seed, epoch, self.rank)
        for batch in np.array_split(self._order(epoch), len(self)):
            rows = batch[self.rank :: self.world_size]
            yield self.batch(rows)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(len(self.split))
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.split))

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """The samples of `rows`, augmented if the loader augments, on its device."""
        pictures = self.split.gather(rows)
        if self.augmenter is not None:
            _augment(pictures, self.augmenter)
        batch = Batch(
            bg=_photos(pictures.bg),
            fg_bg=_photos(pictures.fg_bg),
            mask=_planes(pictures.mask),
            depth=_planes(pictures.depth),
        )
        return batch.to(self.device)


def _augment(pictures: DecodedPictures, augmenter: Augmenter) -> None:
    for index in range(len(pictures.mask)):
        changed = augmenter(Pictures(*(stack[index] for stack in pictures)))
        for stack, pixels in zip(pictures, changed, strict=True):
            stack[index] = pixels


def _photos(pixels: Pixels) -> torch.Tensor:
    """(B, H, W, 3) seen as (B, 3, H, W): in memory that is channels-last, which convolutions like."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _planes(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels).unsqueeze(1)
