"""Load batches of a split onto the device: gather uint8 images, copy them once, augment on the CPU or the device.

The order of the samples depends only on (seed, epoch). Each rank takes its share of each batch, so all ranks together
see every sample exactly once per epoch, for any world size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter
from data.cache.decoded import DecodedSplit
from data.composed.device import DeviceComposer
from data.errors import environment
from data.parallel import ahead
from data.schema import Batch, Pixels

PREFETCHED_BATCHES = 2
"""Batches prepared in the background while a step runs."""


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Batches of a split.

    An epoch has the fewest batches of at most `batch_size` samples, of nearly equal size. So no small last batch
    distorts batch-norm statistics, and all ranks have the same number of batches.
    """

    split: DecodedSplit
    batch_size: int
    """Samples per batch, over all ranks."""
    device: torch.device
    shuffle: bool = False
    augmenter: Augmenter | DeviceAugmenter | None = None
    """Augments on the CPU or on the device."""
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    composer: DeviceComposer | None = None
    """Composes the batches of a recipe on the device; there must be no `Augmenter`, which changes them on the CPU."""
    prefetch: bool | None = None
    """Whether to prepare the next batches in the background; None: only on a GPU."""

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank; each has at least one sample per rank."""
        return batch_count(len(self.split), self.batch_size, self.world_size)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield this rank's share of each batch of epoch `epoch`, starting with batch `first_batch`.

        Raises:
            Exception: an error of a batch, when that batch is reached.
        """
        batches = np.array_split(self._order(epoch), len(self))
        shares = [rows[self.rank :: self.world_size] for rows in batches]
        calls = [functools.partial(self._nth, shares, number, epoch) for number in range(first_batch, len(self))]
        if not self._prefetches():
            return (call() for call in calls)
        return _on_a_stream(calls, self.device) if self.device.type == "cuda" else ahead(calls, PREFETCHED_BATCHES)

    def batch(self, rows: NDArray[np.int64], *, epoch: int = 0, number: int = 0) -> Batch:
        """Load the samples of `rows` onto the device, augmented as batch `number` of `epoch`.

        Raises:
            EnvironmentFaultError: if the samples are read from the data set now, and the read fails.
        """
        key = self.seed, epoch, self.rank, number
        batch = self._gathered(rows, key) if self.composer is None else self.composer(rows)
        return self.augmenter(batch, *key) if isinstance(self.augmenter, DeviceAugmenter) else batch

    def _gathered(self, rows: NDArray[np.int64], key: tuple[int, ...]) -> Batch:
        """The samples of `rows` from the CPU, augmented there if they are not on the device."""
        with environment("The data set"):
            images = self.split.gather(rows)
        if isinstance(self.augmenter, Augmenter):
            self.augmenter.change(images[:4], *key, valid=images.valid)
        return Batch(
            bg=self._photos(images.bg),
            fg_bg=self._photos(images.fg_bg),
            mask=self._pinned(images.mask).unsqueeze(1),
            depth=self._pinned(images.depth).unsqueeze(1),
            valid=None if images.valid is None else self._pinned(images.valid).unsqueeze(1),
        ).to(self.device)

    def _nth(self, shares: Sequence[NDArray[np.int64]], number: int, epoch: int) -> Batch:
        """Batch `number` of an epoch; also prefetches the rows of the next batch."""
        if number + 1 < len(shares):
            self.split.prefetch(shares[number + 1])
        return self.batch(shares[number], epoch=epoch, number=number)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(len(self.split))
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.split))

    def _prefetches(self) -> bool:
        """By default only on a GPU: on a CPU, background threads compete with the steps for the cores.

        On two cores of an AMD EPYC, a ResUNet of width 16 at 64 px waited for its batches for 1.2 % of an epoch.
        Background loading shortened the epoch by 0.8 % with an idle core, and not at all with a trial on each core.
        """
        return self.device.type != "cpu" if self.prefetch is None else self.prefetch

    def _photos(self, pixels: Pixels) -> torch.Tensor:
        """View (B, H, W, 3) as (B, 3, H, W): channels-last in memory, which is fast for convolutions."""
        return self._pinned(pixels).permute(0, 3, 1, 2)

    def _pinned(self, pixels: Pixels) -> torch.Tensor:
        """A tensor of `pixels`; pinned for a GPU, so that the copy is asynchronous."""
        tensor = torch.from_numpy(pixels)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def batch_count(samples: int, batch_size: int, world_size: int = 1) -> int:
    """Batches per epoch, as in `Loader`."""
    return max(1, min(-(-samples // batch_size), samples // world_size))


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all batches of this process.

    Memory that the allocator keeps, and the work space of cuBLAS, are of one stream, and torch has 32 of them: with
    another one for each epoch, they were kept 32 times.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _on_a_stream(calls: Sequence[Callable[[], Batch]], device: torch.device) -> Iterator[Batch]:
    """Copy and augment batches on a separate CUDA stream, in parallel with the running step.

    A batch without room beside the step is made after it.
    """
    stream = _copy_stream(device)

    def made(call: Callable[[], Batch]) -> tuple[Batch, torch.cuda.Event] | None:
        with torch.cuda.stream(stream):
            try:
                batch = call()
            except torch.OutOfMemoryError:
                return None
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(stream)
        return batch, done

    results = ahead([functools.partial(made, call) for call in calls], PREFETCHED_BATCHES)
    for call, result in zip(calls, results, strict=True):
        if result is None:
            yield call()  # on the stream of the steps, whose memory is free between two of them
            continue
        batch, done = result
        step = torch.cuda.current_stream(device)
        step.wait_event(done)
        batch.record_stream(step)  # the step must end before the memory is reused
        yield batch
