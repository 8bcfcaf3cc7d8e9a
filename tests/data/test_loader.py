"""The loader: every sample exactly once per epoch over all ranks, in an order that depends on seed and epoch."""

from __future__ import annotations

import contextlib
import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter
from data.cache.cache import decoded
from data.cache.decoded import DecodedImages, DecodedSplit
from data.dataset.dataset import Dataset, write_dataset
from data.errors import EnvironmentFaultError
from data.images import encode_sample, resize
from data.loader import Loader, _copy_stream, _on_a_stream
from data.schema import Batch, EncodedSample, Sample

COUNT, SIZE = 40, 16
CPU = torch.device("cpu")
SplitOf = Callable[[int], DecodedSplit]


def samples() -> Iterator[EncodedSample]:
    """Each sample's mask is its number, so that it is known in a batch."""
    rng = np.random.default_rng(0)
    room = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    for number in range(COUNT):
        yield encode_sample(
            Sample(
                sample_id=f"s{number}",
                bg_id="room",
                fg_id="figure",
                bg=room,
                fg_bg=rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
                mask=np.full((SIZE, SIZE), number, np.uint8),
                depth=rng.integers(0, 256, (SIZE, SIZE), np.uint8),
            ),
            lossless=True,
        )


@pytest.fixture(scope="module")
def split_of(tmp_path_factory: pytest.TempPathFactory) -> SplitOf:
    """The first so many of the samples."""
    root = tmp_path_factory.mktemp("numbered")
    write_dataset(samples(), root / "set", source={})
    dataset = Dataset.open(root / "set")
    return lambda count: decoded(dataset, [np.arange(count)], SIZE, root=root / "cache")


def loader(split: DecodedSplit, **changes: object) -> Loader:
    return Loader(**{"split": split, "batch_size": 8, "device": CPU, "shuffle": True, **changes})


def numbers(batch: Batch) -> list[int]:
    return batch.mask[:, 0, 0, 0].tolist()


def epoch_numbers(loader: Loader, epoch: int = 0) -> list[list[int]]:
    return [numbers(batch) for batch in loader.epoch(epoch)]


@pytest.mark.slow
@settings(max_examples=60)
@given(st.integers(1, COUNT), st.integers(1, 50), st.integers(1, 6), st.booleans(), st.integers(0, 3))
def test_all_ranks_together_see_every_sample_once(
    split_of: SplitOf, count: int, batch_size: int, world_size: int, shuffle: bool, epoch: int
) -> None:
    """A sample lost or seen twice bends every metric, and a rank that runs out of batches hangs the others."""
    ranks = [
        loader(split_of(count), batch_size=batch_size, shuffle=shuffle, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    seen = [epoch_numbers(rank, epoch) for rank in ranks]
    assert sorted(itertools.chain(*itertools.chain(*seen))) == list(range(count))
    assert {len(batches) for batches in seen} == {len(ranks[0])}
    if count >= world_size:
        assert all(batch for batches in seen for batch in batches)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.integers(1, COUNT), st.integers(1, 50), st.integers(1, 6))
def test_batches_are_of_even_size(split_of: SplitOf, count: int, batch_size: int, world_size: int) -> None:
    """A small last batch would disturb batch norm; more batches than needed would change the training."""
    ranks = [
        epoch_numbers(loader(split_of(count), batch_size=batch_size, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    sizes = [sum(map(len, batch)) for batch in zip(*ranks, strict=True)]
    assert max(sizes) - min(sizes) <= 1
    fewest = -(-count // batch_size)
    assert len(sizes) == (fewest if count >= fewest * world_size else max(1, count // world_size))
    for batch in zip(*ranks, strict=True):
        assert max(map(len, batch)) - min(map(len, batch)) <= 1


def test_order_depends_on_seed_and_epoch_alone(split_of: SplitOf) -> None:
    """A trial that is resumed in epoch 5 must see what it would have seen, whatever ran before."""
    fresh = epoch_numbers(loader(split_of(COUNT), seed=3), 5)
    worn = loader(split_of(COUNT), seed=3)
    torch.manual_seed(8)
    for epoch in range(4):
        epoch_numbers(worn, epoch)
    assert epoch_numbers(worn, 5) == fresh
    assert epoch_numbers(worn, 6) != fresh
    assert epoch_numbers(loader(split_of(COUNT), seed=4), 5) != fresh
    ranks = [epoch_numbers(loader(split_of(COUNT), seed=3, rank=rank, world_size=2), 5) for rank in range(2)]
    joined = [sorted(first + second) for first, second in zip(*ranks, strict=True)]
    assert joined == [sorted(batch) for batch in fresh]


def test_unshuffled_split_is_in_storage_order(split_of: SplitOf) -> None:
    """An evaluation can be laid beside the data set's rows."""
    batches = epoch_numbers(loader(split_of(20), shuffle=False), 9)
    assert list(itertools.chain(*batches)) == list(range(20))


def test_batch_follows_the_schema(split_of: SplitOf) -> None:
    """Models and losses take it as it is; photographs lie channels-last, which convolutions are fast on."""
    split = split_of(10)
    batch = loader(split).batch(np.array([4, 2, 7]))
    assert [tensor.shape for tensor in (batch.bg, batch.fg_bg)] == [(3, 3, SIZE, SIZE)] * 2
    assert [tensor.shape for tensor in (batch.mask, batch.depth)] == [(3, 1, SIZE, SIZE)] * 2
    assert {tensor.dtype for tensor in (batch.bg, batch.fg_bg, batch.mask, batch.depth)} == {torch.uint8}
    for photo in (batch.bg, batch.fg_bg, *batch.inputs()):
        assert photo.is_contiguous(memory_format=torch.channels_last)
    stored = split.gather(np.array([4, 2, 7]))
    assert numbers(batch) == [4, 2, 7]
    np.testing.assert_array_equal(batch.fg_bg.permute(0, 2, 3, 1).numpy(), stored.fg_bg)
    np.testing.assert_array_equal(batch.depth[:, 0].numpy(), stored.depth)


def test_augmentation_follows_seed_epoch_and_rank(split_of: SplitOf) -> None:
    """Each epoch shows other images, no two ranks draw the same changes, and a resumed epoch is the same again."""

    def depths(seed: int, epoch: int, rank: int) -> torch.Tensor:
        augmenter = Augmenter(hflip=0.5, rotate=0.0, zoom=0.5, jitter=0.0, noise=0.0)
        augmented = loader(split_of(20), augmenter=augmenter, batch_size=20, seed=seed, rank=rank, world_size=2)
        return augmented.batch(np.arange(10), epoch=epoch).depth

    first = depths(1, 2, 0)
    assert torch.equal(first, depths(1, 2, 0))
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert not torch.equal(first, depths(*other))
    assert not torch.equal(first, loader(split_of(20)).batch(np.arange(10)).depth)


def everything() -> Augmenter:
    return Augmenter(hflip=0.5, rotate=20.0, zoom=0.3, jitter=0.2, noise=0.05)


def all_of(batches: Iterator[Batch]) -> list[torch.Tensor]:
    """Each batch as one tensor (B, 8, H, W)."""
    return [torch.cat([batch.bg, batch.fg_bg, batch.mask, batch.depth], dim=1) for batch in batches]


def background_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("prefetch", [False, True])
def test_epoch_resumes_at_its_position(split_of: SplitOf, prefetch: bool) -> None:
    """A trial that was interrupted within an epoch sees the rest as it would have been, not the beginning again."""
    whole = all_of(loader(split_of(COUNT), augmenter=everything(), seed=2).epoch(3))
    for first in range(len(whole) + 1):
        resumed = loader(split_of(COUNT), augmenter=everything(), seed=2, prefetch=prefetch)
        rest = all_of(resumed.epoch(3, first_batch=first))
        assert len(rest) == len(whole) - first
        assert all(map(torch.equal, rest, whole[first:]))


@pytest.mark.parametrize("gigabytes", ["1", "0.00018", "0"])
def test_batches_equal_direct_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: str) -> None:
    """The same seed gives the same bytes, whether decoded images, encoded ones, or none fit into the cache."""
    write_dataset(samples(), tmp_path / "set", source={})
    dataset = Dataset.open(tmp_path / "set")
    monkeypatch.setenv("TWINHEAD_CACHE_GB", gigabytes)
    with warnings.catch_warnings(action="ignore"):
        split = decoded(dataset, [np.arange(COUNT)], 2 * SIZE, root=tmp_path / "cache")
    stored = list(dataset.read())
    order = np.random.default_rng((7, 3)).permutation(COUNT)
    for rows, batch in zip(np.array_split(order, 5), loader(split, seed=7).epoch(3), strict=True):
        for name in ("bg", "fg_bg", "mask", "depth"):
            wanted = np.stack([resize(getattr(stored[row], name), 2 * SIZE) for row in rows])
            tensor = getattr(batch, name)
            found = tensor.permute(0, 2, 3, 1).numpy() if tensor.shape[1] == 3 else tensor[:, 0].numpy()
            np.testing.assert_array_equal(found, wanted, err_msg=name)
    assert [path.name.split("-")[2] for path in tmp_path.glob("cache/*/")] == {
        "1": ["decoded"],
        "0.00018": ["encoded"],
        "0": [],
    }[gigabytes]


@pytest.mark.parametrize("kind", [Augmenter, DeviceAugmenter])
def test_prefetching_changes_no_batch(split_of: SplitOf, kind: type[Augmenter | DeviceAugmenter]) -> None:
    """Batches that are made concurrently must not mix up their random numbers, whichever is ready first."""
    strengths = {"hflip": 0.5, "rotate": 20.0, "noise": 0.1, "jitter": 0.2}
    made = [
        all_of(loader(split_of(COUNT), batch_size=4, augmenter=kind(**strengths), prefetch=prefetch).epoch(1))
        for prefetch in (False, True)
    ]
    assert all(map(torch.equal, *made))


def test_background_errors_are_raised_in_the_loop(split_of: SplitOf) -> None:
    """A trial that waits for a batch that nobody makes any more would hang for ever."""

    class Torn:
        def __len__(self) -> int:
            return COUNT

        def gather(self, rows: NDArray[np.int64]) -> DecodedImages:
            if 0 in rows:
                raise OSError("a picture is torn")
            return split_of(COUNT).gather(rows)

        def prefetch(self, rows: NDArray[np.int64]) -> None:
            """An augmentation without options."""

    batches = loader(Torn(), shuffle=False, prefetch=True, batch_size=4).epoch(0)  # type: ignore[arg-type]
    with pytest.raises(EnvironmentFaultError, match="a picture is torn"):
        next(batches)
    assert background_threads() == []


def test_an_abandoned_epoch_leaves_no_thread(split_of: SplitOf) -> None:
    """A loss that is not finite ends an epoch early; a thread that stayed would hold its images until the end."""
    batches = loader(split_of(COUNT), batch_size=2, prefetch=True).epoch(0)
    next(batches)
    assert background_threads()
    del batches
    assert background_threads() == []


def test_device_augmentation_keeps_order_geometry_and_targets(split_of: SplitOf) -> None:
    """Where images are changed is a matter of speed: order, geometry and what is predicted stay."""
    strengths = {"hflip": 0.5, "vflip": 0.5, "rotate": 30.0, "zoom": 0.3}
    cpu, device = (
        all_of(loader(split_of(COUNT), augmenter=kind(**strengths)).epoch(2)) for kind in (Augmenter, DeviceAugmenter)
    )
    assert len(cpu) == len(device)
    assert all((one.int() - other.int()).abs().max() <= 1 for one, other in zip(cpu, device, strict=True))


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """A GPU without one: the streams that are made for batches."""
    made: list[object] = []

    def stream(_: torch.device) -> object:
        made.append(object())
        return made[-1]

    event = SimpleNamespace(record=lambda _: None)
    current = SimpleNamespace(wait_event=lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: current)
    monkeypatch.setattr(Batch, "record_stream", lambda *_: None)
    _copy_stream.cache_clear()
    yield made
    _copy_stream.cache_clear()


def test_all_epochs_share_a_stream(streams: list[object]) -> None:
    """Memory that grows: the allocator keeps what it freed for its stream, and cuBLAS a work space for each."""
    batch = Batch(bg=torch.zeros(1), fg_bg=torch.zeros(1), mask=torch.zeros(1), depth=torch.zeros(1))
    for _ in range(3):
        assert list(_on_a_stream([lambda: batch] * 4, torch.device("cuda", 0))) == [batch] * 4

    assert len(streams) == 1


def test_a_batch_without_room_beside_a_step_is_made_after_it(streams: list[object]) -> None:
    """A lost trial: of an error in the background, nothing splits a batch."""
    batch = Batch(bg=torch.zeros(1), fg_bg=torch.zeros(1), mask=torch.zeros(1), depth=torch.zeros(1))

    def crowded() -> Batch:
        if threading.current_thread() is not threading.main_thread():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch

    assert list(_on_a_stream([lambda: batch, crowded, lambda: batch], torch.device("cuda", 0))) == [batch] * 3
    assert background_threads() == []
