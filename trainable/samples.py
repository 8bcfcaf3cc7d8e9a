"""The samples of a data set as a torch `Dataset`, and in batches.

Shapes: H and W are height and width of the images in pixels, B the batch size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from data.cache.decoded import DecodedSplit, image_names
from data.dataset.dataset import Dataset
from data.dataset.manifest import DatasetInfo
from data.dataset.storage import AnyPath, Location
from data.loader import Loader
from data.schema import Batch
from data.splits.splits import SplitKey
from trainable.config import DataConfig, build
from trainable.job import TrialData
from trainable.loop.loaders import read_part, sample_count
from trainable.loop.state import default_device


class Samples(torch_data.Dataset[dict[str, Tensor]]):
    """A part of a data set, decoded and resized to one size, as a map-style dataset.

    An item is a dict of uint8 tensors in 0..255: `bg` and `fg_bg`, (3, H, W) RGB; `mask` and `depth`, (1, H, W), with
    255 for foreground and for the farthest point. In a data set with validity masks, it also has `valid`, (1, H, W),
    with 255 where the depth was measured and 0 elsewhere. It works in a `torch.utils.data.DataLoader` with any number
    of workers, which read the node's cache of decoded images.

    Args:
        path: directory or address of the data set.
        split: 'train', 'val', 'test' or 'all', or several joined by '+'.
        image_size: side of square images, or (H, W); multiples of 16.
        split_by: the id that is never in two parts: 'background', 'foreground' or 'sample'; see `twinhead spec`.

    Raises:
        InputError: if the data set cannot be used, the part has no samples, or an argument is invalid.
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        split: str = "train",
        image_size: int | Sequence[int] = 96,
        split_by: SplitKey = "background",
    ) -> None:
        size = list(image_size) if isinstance(image_size, Sequence) else image_size
        values = {"image_size": size, "split_by": split_by}
        self._config = build(DataConfig, values, source="the arguments")
        self._split = split
        location = Location.parse(path).absolute()
        self.info: DatasetInfo = Dataset.open(location).info
        """Counts, sizes, statistics and origin of the whole data set."""
        self._data = TrialData(path=str(location.explicit()), fingerprint=self.info.fingerprint)
        self._count = sample_count(self._config, self._data, split)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -self._count <= index < self._count:
            raise IndexError(f"The index {index} is not in 0..{self._count - 1}.")
        images = self._decoded.gather(np.array([index % self._count]))
        photos = {name: getattr(images, name)[0].transpose(2, 0, 1).copy() for name in ("bg", "fg_bg")}
        planes = {name: getattr(images, name).copy() for name in image_names(self._decoded.has_validity)[2:]}
        return {name: torch.from_numpy(pixels) for name, pixels in (photos | planes).items()}

    def batches(
        self, batch_size: int = 16, *, shuffle: bool = False, seed: int = 0, device: torch.device | str | None = None
    ) -> Iterator[Batch]:
        """One pass in batches, each gathered and copied to the device as a whole, with the loader of trials.

        Args:
            batch_size: maximum number of samples; the batches are of nearly equal size.
            shuffle: whether in random order.
            seed: of the order.
            device: of the batches; default: the GPU if there is one.

        Yields:
            uint8 tensors `bg`, `fg_bg`, `mask`, `depth` and `valid`, as those of an item with B first; `valid` is None
            without validity masks. `inputs()` and `targets()` convert the others to float32 in 0..1.
        """
        on = default_device() if device is None else torch.device(device)
        loader = Loader(split=self._decoded, batch_size=batch_size, device=on, shuffle=shuffle, seed=seed)
        yield from loader.epoch(0)

    @cached_property
    def _decoded(self) -> DecodedSplit:
        return read_part(self._config, self._data, self._split)

    def __getstate__(self) -> dict[str, Any]:
        """Without the images: a worker process opens them in the cache."""
        return {name: value for name, value in vars(self).items() if name != "_decoded"}
