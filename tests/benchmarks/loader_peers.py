"""The other sides of `loader.py`, each set up as its own documentation advises.

Every side takes samples as bytes (raw pixels or JPEG files), writes them in its own format, and gives epochs of batches
in random order from two workers that stay alive from epoch to epoch. OpenCV decodes JPEGs in the workers, except for
the published way. A batch is uint8 on the CPU, but floats in the published way.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from loader_pictures import FIELDS, to_batch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

from data.schema import Batch

BATCH = 32
WORKERS = 2
SHARDS = 16
"""Files of a set that is read in sequence: each worker needs some to shuffle."""

Form = Literal["raw", "jpeg"]
Stored = Mapping[str, bytes]
"""A sample: its four fields' bytes."""
Epochs = Callable[[int], Iterator[Batch]]
"""The batches of the epoch of that number."""


def published(samples: Sequence[Stored], directory: Path) -> Epochs:
    """Four JPEG files a sample, opened by PIL, as float tensors: what the published projects do."""
    for index, sample in enumerate(samples):
        for field in FIELDS:
            (directory / f"{index:06d}.{field}.jpg").write_bytes(sample[field])
    loader = _loader(Files(directory, len(samples)), shuffle=True)
    return lambda _: (Batch(**fields) for fields in loader)


class Files(Dataset[dict[str, torch.Tensor]]):
    """Float pictures (C, S, S) in 0..1 from files."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directory = directory
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sample = {}
        for field in FIELDS:
            pixels = np.array(Image.open(self.directory / f"{index:06d}.{field}.jpg"))
            channels = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
            sample[field] = channels.contiguous().float().div(255)
        return sample


def web_dataset(samples: Sequence[Stored], directory: Path, form: Form, size: int) -> Epochs:
    """WebDataset: tar shards, read in sequence.

    Shards shuffled by 100 and samples by 1,000, batches made in the workers and WebLoader: its README, FAQ (#350) and
    ResNet example. The shuffling between workers that they add after the loader is left out: it is work of its own.
    """
    import webdataset as wds

    per_shard = -(-len(samples) // SHARDS)
    with redirect_stdout(None), wds.ShardWriter(str(directory / "%06d.tar"), maxcount=per_shard, verbose=0) as writer:
        for index, sample in enumerate(samples):
            writer.write({"__key__": f"{index:06d}", **{f"{field}.{form}": sample[field] for field in FIELDS}})
    collate = partial(_collate, form=form, size=size, suffix=f".{form}")
    shards = [str(path) for path in sorted(directory.glob("*.tar"))]
    dataset = wds.WebDataset(shards, shardshuffle=100).shuffle(1000).batched(BATCH, collation_fn=collate)
    loader = wds.WebLoader(
        dataset, batch_size=None, num_workers=WORKERS, persistent_workers=True, multiprocessing_context="fork"
    )
    return lambda _: map(to_batch, loader)


def lit_data(samples: Sequence[Stored], directory: Path, form: Form, size: int) -> Epochs:
    """LitData: chunks of 64 MB (its default), mapped and shuffled over the whole set, by StreamingDataLoader.

    Raw pixels are stored as tensors, whose bytes it reads without a copy; JPEGs as bytes.
    """
    import litdata

    inputs = [dict(sample) for sample in samples]
    with Path(os.devnull).open("w") as quiet, redirect_stdout(quiet):
        litdata.optimize(
            fn=partial(_as_tensors, size=size) if form == "raw" else dict,
            inputs=inputs,
            output_dir=str(directory),
            num_workers=1,
            chunk_bytes="64MB",
            verbose=False,
        )
    dataset = litdata.StreamingDataset(str(directory), shuffle=True, drop_last=False)
    collate = None if form == "raw" else partial(_collate, form=form, size=size)
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=WORKERS, persistent_workers=True, collate_fn=collate
    )
    return lambda _: map(_batch_of_fields if form == "raw" else to_batch, loader)


def hugging_face(samples: Sequence[Stored], directory: Path, form: Form, size: int) -> Epochs:
    """Hugging Face datasets: rows of bytes in a mapped Arrow file, with a DataLoader that shuffles and asks by batches.

    Bytes come as they are (its page Use with PyTorch), and the order is random to the last sample. What that page has
    for pixels, Array3D in the torch format, gave a tenth as many samples a second or fewer.
    """
    collate = partial(_collate, form=form, size=size)
    loader = _loader(_rows(samples, directory), shuffle=True, collate_fn=collate)
    return lambda _: map(to_batch, loader)


def hugging_face_iterable(samples: Sequence[Stored], directory: Path, form: Form, size: int) -> Epochs:
    """Hugging Face datasets read in sequence, as its page on map-style and iterable sets advises for speed.

    Shuffled by shard and through a buffer of 1,000; each epoch by its number.
    """
    dataset = _rows(samples, directory).to_iterable_dataset(num_shards=SHARDS).shuffle(seed=0, buffer_size=1000)
    loader = _loader(dataset, collate_fn=partial(_collate, form=form, size=size))

    def epoch(number: int) -> Iterator[Batch]:
        dataset.set_epoch(number)
        return map(to_batch, loader)

    return epoch


def _rows(samples: Sequence[Stored], directory: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({field: datasets.Value("binary") for field in FIELDS})
    datasets.Dataset.from_list([dict(sample) for sample in samples], features=features).save_to_disk(str(directory))
    return datasets.load_from_disk(str(directory))


def _loader(dataset: Any, **loading: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=WORKERS,
        persistent_workers=True,
        multiprocessing_context="fork",
        **loading,
    )


def _batch_of_fields(fields: Mapping[str, torch.Tensor]) -> Batch:
    return to_batch([fields[field] for field in FIELDS])


def _collate(samples: Sequence[Stored], *, form: Form, size: int, suffix: str = "") -> list[torch.Tensor]:
    """A batch of stored samples: FIELDS, each (B, S, S, 3) or (B, S, S), in shared memory where a worker makes it."""
    unpack = _pixels if form == "raw" else _decode
    return [default_collate([unpack(sample[field + suffix], field, size) for sample in samples]) for field in FIELDS]


def _as_tensors(sample: Stored, size: int) -> dict[str, torch.Tensor]:
    return {field: _pixels(sample[field], field, size) for field in FIELDS}


def _pixels(stored: bytes, field: str, size: int) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        flat = torch.frombuffer(stored, dtype=torch.uint8)
    return flat.view((size, size, 3) if field.endswith("bg") else (size, size))


def _decode(stored: bytes, field: str, size: int) -> torch.Tensor:
    is_photo = field.endswith("bg")
    encoded = np.frombuffer(stored, np.uint8)
    pixels = torch.from_numpy(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB if is_photo else cv2.IMREAD_GRAYSCALE))
    return pixels.view((size, size, 3) if is_photo else (size, size))
