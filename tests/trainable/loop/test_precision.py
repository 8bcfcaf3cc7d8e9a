"""The choice of fp32 or bf16: measured once per search, recorded, reported, and never a cause of failure."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainable.config import ModelConfig, TrialConfig, build
from trainable.loop import precision as module
from trainable.loop.checkpoint import save
from trainable.loop.checkpoint_files import Origin
from trainable.loop.precision import (
    Precision,
    as_recorded,
    autocast,
    choose_precision,
    faster_precision,
    resolve,
    resolve_for_trial,
)
from trainable.loop.state import DistributedContext, T
from trainable.models import build_model
from trainable.models.network import Network
from trainable.models.prediction import Prediction

CPU = torch.device("cpu")


def config(precision: str = "auto", width: int = 1) -> TrialConfig:
    values = {"data": {"image_size": 16}, "model": {"family": "debug", "width": width, "precision": precision}}
    return build(TrialConfig, values, source="the test")


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """The file of a search's measurements."""
    return tmp_path / "search" / "measurements.json"


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[float]]], list[str]]:
    """Fake steps with given processor times; returns the precisions in the order of the steps."""

    def use(seconds: dict[str, list[float]]) -> list[str]:
        order: list[str] = []

        now = [0.0]

        def step(model: ModelConfig) -> float:
            order.append(model.precision)
            now[0] += seconds[model.precision][order.count(model.precision) - 1]
            return 100.0

        monkeypatch.setattr(module, "build_step", lambda *_, **__: step)
        monkeypatch.setattr(module.time, "process_time", lambda: now[0])
        return order

    return use


def test_workers_that_can_read_different_checkpoints_agree(tmp_path: Path) -> None:
    """A checkpoint that one worker alone could read gave it another precision, while the first waited for it."""
    save(tmp_path, build_model(config().model), Origin(config=config("fp32"), data_fingerprint="0", epoch=1), {})
    sent: list[object] = []

    class Second(DistributedContext):
        def broadcast(self, value: T) -> T:
            sent.append(value)
            return value

    context = Second(device=CPU, rank=1, world_size=2)
    assert resolve_for_trial(config(), context, resume_from=[tmp_path]) == config()
    assert sent == [config()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_explicit_precision_is_kept(memory: Path, precision: str) -> None:
    """An explicit precision needs no measurement."""
    assert resolve(config(precision), CPU, memory) == config(precision)
    assert not memory.exists()


def test_auto_chooses_a_precision_and_changes_nothing_else(memory: Path) -> None:
    """The checkpoint records the precision of its metrics."""
    resolved = resolve(config(), CPU, memory)
    assert resolved in (config("fp32"), config("bf16"))
    (measured,) = json.loads(memory.read_text()).values()
    assert measured["seconds"].keys() == {"fp32", "bf16"}
    assert resolved.model.precision == measured["precision"] == faster_precision(measured["seconds"])


def test_recorded_precision_is_used_without_measuring(memory: Path) -> None:
    """Times vary: two trials of one configuration must not get different precisions and curves."""
    resolve(config(), CPU, memory)
    (key,) = json.loads(memory.read_text())
    for decided, other in (("fp32", "bf16"), ("bf16", "fp32")):
        # As earlier versions wrote it, without the number of images.
        planted = {key: {"precision": decided, "seconds": {decided: 0.25, other: 0.5}, "step_seconds": 0.3}}
        memory.write_text(json.dumps(planted))
        assert choose_precision(config(), CPU, memory).images == 8
        assert resolve(config(), CPU, memory).model.precision == decided
        assert json.loads(memory.read_text()) == planted


def test_precision_measured_under_load_is_not_kept_beyond_its_search(
    tmp_path: Path, timed: Callable[[dict[str, list[float]]], list[str]]
) -> None:
    """A machine that was busy once must not be misjudged for ever."""
    found = []
    for search, bf16 in (("first", 3.0), ("second", 1.0)):
        timed({"fp32": [2.0] * 9, "bf16": [bf16] * 9})
        found.append(resolve(config(), CPU, tmp_path / search / "measurements.json").model.precision)
    assert found == ["fp32", "bf16"]


def test_brief_load_does_not_decide(timed: Callable[[dict[str, list[float]]], list[str]]) -> None:
    """Other processes delay single steps, so the median of alternating steps decides."""
    order = timed({"fp32": [2.0] * 9, "bf16": [9.0, 9.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0]})
    assert choose_precision(config(), CPU).precision == "bf16"
    assert order == ["fp32", "bf16"] * 8


def test_clear_difference_needs_few_measurements(timed: Callable[[dict[str, list[float]]], list[str]]) -> None:
    """After one warm-up step each, three rounds that agree are enough: every network of a search pays for them."""
    order = timed({"fp32": [9.0, 2.0, 2.1, 2.2], "bf16": [9.0, 1.0, 1.1, 1.2]})
    found = choose_precision(config(), CPU)
    assert order == ["fp32", "bf16"] * 4
    assert found.seconds == pytest.approx({"fp32": 2.1, "bf16": 1.1})
    assert found.step_seconds == 100.0


@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"), [(1.0, 0.5, "bf16"), (1.0, 0.9, "bf16"), (1.0, 0.95, "fp32"), (0.5, 1.0, "fp32")]
)
def test_bf16_must_be_clearly_faster(fp32: float, bf16: float, expected: Precision) -> None:
    """Otherwise noise would decide, and two searches with one seed would differ."""
    assert faster_precision({"fp32": fp32, "bf16": bf16}) == expected


def test_a_checkpoint_is_evaluated_in_the_precision_that_it_names() -> None:
    """A recorded precision is used without a measurement."""
    assert as_recorded(config("bf16")) == config("bf16")
    assert as_recorded(config("auto")) == config("fp32")


def test_choice_is_explained(memory: Path) -> None:
    """A user sees the times of both precisions, and the ones that decided."""
    chosen = choose_precision(config("fp32"), CPU, memory)
    assert chosen.precision == faster_precision(chosen.seconds)
    assert all(0 < seconds < 60 for seconds in chosen.seconds.values())
    assert [chosen.seconds] == [kept["seconds"] for kept in json.loads(memory.read_text()).values()]
    assert resolve(config(), CPU, memory).model.precision == chosen.precision
    assert choose_precision(config(), CPU, memory) == chosen


def test_smaller_batch_is_measured_unchanged(memory: Path) -> None:
    """Casting the weights takes constant time per step, so bf16 may not pay for few images."""
    small = config().model_copy(update={"data": config().data.model_copy(update={"batch_size": 2})})
    assert choose_precision(small, CPU, memory).images == 2
    assert choose_precision(config(), CPU, memory).images == 8
    assert len(json.loads(memory.read_text())) == 2


def test_a_whole_batch_is_measured_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong choice: a step of 8 small images takes as long as its kernels take to launch, in either precision."""
    measured: list[int] = []

    def measure(_: TrialConfig, __: torch.device, images: int) -> dict[str, object]:
        measured.append(images)
        return {"precision": "fp32", "seconds": {"fp32": 1.0}, "step_seconds": 1.0, "images": images}

    monkeypatch.setattr(module, "machine_kind", lambda _: "a GPU")
    monkeypatch.setattr(module, "_measure_steps", measure)
    large = config().model_copy(update={"data": config().data.model_copy(update={"batch_size": 32})})
    for device in ("cuda", "cpu"):
        choose_precision(large, torch.device(device))

    assert measured == [32, 8]


def cramp(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let steps run out of memory with more than `most` images."""

    def cramped(self: Network, bg: torch.Tensor, fg_bg: torch.Tensor) -> Prediction:
        if len(bg) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, bg, fg_bg)

    forward = Network.forward
    monkeypatch.setattr(Network, "forward", cramped)


def test_precision_is_measured_with_as_many_images_as_fit(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost trial: its training would have split the batches that the measurement ran out of memory with."""
    cramp(monkeypatch, most=3)
    chosen = choose_precision(config(), CPU, memory)
    (measured,) = json.loads(memory.read_text()).values()

    assert chosen.images == measured["images"] == 2
    assert choose_precision(config(), CPU, memory) == chosen

    cramp(monkeypatch, most=0)
    with pytest.raises(torch.OutOfMemoryError):
        choose_precision(config(), CPU)


def test_a_gpu_without_bf16_runs_in_fp32(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would emulate bf16 slowly, so no measurement is needed."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert resolve(config(), torch.device("cuda"), memory) == config("fp32")
    assert not memory.exists()


def test_each_network_is_measured(memory: Path) -> None:
    """bf16 is faster from some width on, and slower below."""
    for width in (1, 2):
        resolve(config(width=width), CPU, memory)
    assert len(json.loads(memory.read_text())) == 2


def test_random_state_is_kept(memory: Path) -> None:
    """Otherwise the trial that measures would have other weights and dropout than the others."""
    torch.manual_seed(4)
    before = torch.get_rng_state()
    dropping = ModelConfig(family="dmnet-cnn", width=1, dropout=0.2)
    resolve(config().model_copy(update={"model": dropping}), CPU, memory)
    assert memory.exists()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"a": 1}', '["a"]', "\x00\x01"])
def test_damaged_measurements_are_measured_again(memory: Path, text: str) -> None:
    """A full disk or a crash must not stop all later trials of a search."""
    memory.parent.mkdir()
    memory.write_text(text)
    chosen = resolve(config(), CPU, memory).model.precision
    assert chosen in ("fp32", "bf16")
    assert chosen in [kept["precision"] for kept in json.loads(memory.read_text()).values() if isinstance(kept, dict)]


def test_a_full_disk_does_not_fail_a_trial(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a remote storage, the file is in the node's cache, which a trial does not depend on."""

    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        assert resolve(config(), CPU, memory).model.precision in ("fp32", "bf16")
    lock = memory.with_name(f"{memory.name}.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()  # a lock that cannot be created
    assert resolve(config(), CPU, memory).model.precision in ("fp32", "bf16")


def test_damaged_entry_is_measured_again(memory: Path) -> None:
    """The other entries are kept."""
    resolve(config(), CPU, memory)
    (key,) = json.loads(memory.read_text())
    other = {"another network": {"precision": "fp32", "seconds": {"fp32": 1.0, "bf16": 2.0}, "step_seconds": 1.0}}
    without_images = {"precision": "fp32", "seconds": {"fp32": 1.0, "bf16": 2.0}, "step_seconds": 1.0, "images": 0}
    textual = {"precision": "fp32", "seconds": {"fp32": "fast", "bf16": 1.0}}
    for damaged in (None, {"seconds": {"fp32": 1.0}}, textual, without_images):
        memory.write_text(json.dumps(other | {key: damaged}))
        resolve(config(), CPU, memory)
        found = json.loads(memory.read_text())
        assert found.keys() == {"another network", key}
        assert all(isinstance(seconds, float) for seconds in found[key]["seconds"].values())
        assert found[key]["images"] == 8


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_forward_pass_uses_the_precision(precision: str, dtype: torch.dtype) -> None:
    """An explicit precision is used."""
    with autocast(config(precision).model, CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == dtype


def test_auto_is_resolved_before_the_first_step() -> None:
    """A loop with 'auto' would run in fp32 by accident."""
    with pytest.raises(ValueError, match="resolve"):
        autocast(ModelConfig(), CPU)
