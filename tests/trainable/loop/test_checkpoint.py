"""Checkpoints: they round-trip bit for bit, and damaged, foreign or hostile ones are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data.errors import InputError
from trainable.config import TrialConfig, build
from trainable.loop import checkpoint, checkpoint_files
from trainable.loop.checkpoint_files import (
    CHECKSUMS,
    CONFIG,
    METRICS,
    PICTURES,
    STATE,
    WEIGHTS,
    DamagedCheckpointError,
    Origin,
)
from trainable.models import build_model


def config(width: int = 2) -> TrialConfig:
    return build(TrialConfig, {"model": {"width": width}, "optimizer": {"lr": 0.1 + 0.2}}, source="the test")


def network(width: int = 2) -> nn.Module:
    """Channels-last, as in training, with non-trivial batch-norm statistics."""
    torch.manual_seed(0)
    model = build_model(config(width).model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    photo = torch.rand(2, 3, 32, 32)
    model(photo, photo)
    return model


def saved(directory: Path, width: int = 2) -> Path:
    origin = Origin(config=config(width), data_fingerprint="ab12", epoch=7)
    state = {"epoch": 7, "momenta": [torch.ones(3)]}
    checkpoint.save(directory, network(width), origin, {"score": 0.75}, state=state)
    return directory


def test_weights_and_origin_come_back_bit_for_bit(tmp_path: Path) -> None:
    """An exported network must be the measured one: weights, batch-norm statistics, and configuration."""
    original = network()
    found, origin = checkpoint.load_model(saved(tmp_path / "a" / "b"))
    wanted = original.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    for name, tensor in found.state_dict().items():
        assert tensor.dtype == wanted[name].dtype
        assert torch.equal(tensor, wanted[name]), name
    assert not found.training
    assert (origin.config, origin.data_fingerprint, origin.epoch) == (config(), "ab12", 7)
    assert json.loads((tmp_path / "a" / "b" / METRICS).read_text()) == {"score": 0.75}


def test_a_channels_last_network_survives(tmp_path: Path) -> None:
    """safetensors knows no memory format; loaded into such a network, the weights keep its own."""
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    checkpoint.load_weights(model, saved(tmp_path))
    weight = model.get_parameter("body.enc2.main.0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, network().get_parameter("body.enc2.main.0.weight"))


def test_state_round_trip(tmp_path: Path) -> None:
    """A resumed trial needs the optimizer's moments and its position in the run."""
    state = checkpoint.load_state(saved(tmp_path))
    assert state["epoch"] == 7
    assert torch.equal(state["momenta"][0], torch.ones(3))


def test_a_finished_trial_has_no_state(tmp_path: Path) -> None:
    """The state is removed at the end, because it is twice as large as the weights."""
    (saved(tmp_path) / STATE).unlink()
    with pytest.raises(InputError, match=f"no '.*{STATE}' to resume from; start the trial again"):
        checkpoint.load_state(tmp_path)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    """Two files of different checkpoints, copied together by hand."""
    saved(tmp_path / "narrow", width=2)
    saved(tmp_path / "wide", width=3)
    (tmp_path / "narrow" / WEIGHTS).replace(tmp_path / "wide" / WEIGHTS)
    with pytest.raises(DamagedCheckpointError, match=r"model\.safetensors' is truncated or altered"):
        checkpoint.load_model(tmp_path / "wide")
    without_checksums(tmp_path / "wide")
    with pytest.raises(InputError, match=r"'body.bottleneck.0.bias' is \(32,\), but must be \(48,\)"):
        checkpoint.load_model(tmp_path / "wide")


def test_missing_and_surplus_weights_are_refused_by_name(tmp_path: Path) -> None:
    """A head that is not in the file would keep its random weights."""
    saved(tmp_path)
    headless = network()
    del headless.body.mask_head
    with pytest.raises(InputError, match=r"'body.mask_head.bias' is \(1,\), but must be absent"):
        checkpoint.load_weights(headless, tmp_path)
    larger = network()
    larger.third_head = nn.Conv2d(2, 1, kernel_size=1)
    with pytest.raises(InputError, match=r"'third_head.bias' is missing, but must be \(1,\)"):
        checkpoint.load_weights(larger, tmp_path)


def without_checksums(directory: Path) -> Path:
    """As an earlier version wrote it."""
    described = json.loads((directory / CONFIG).read_text())
    del described["checksums"]
    (directory / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    (directory / CHECKSUMS).unlink()
    return directory


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, STATE])
@pytest.mark.parametrize("damage", [cut, empty, garble, Path.unlink])
def test_damaged_files_are_refused(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    """An interrupted copy must not end in a traceback."""
    damage(saved(tmp_path) / name)
    with pytest.raises(InputError, match=str(tmp_path)):
        checkpoint.load_state(tmp_path) if name == STATE else checkpoint.load_model(tmp_path)


def flip(path: Path) -> None:
    """One bit in the middle, as a disk or a copy may flip it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, METRICS, STATE, PICTURES, CHECKSUMS])
@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_changed_bytes_are_found_in_every_file(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    """A network with a wrong bit still predicts, so it must be detected."""
    (tmp_path / PICTURES).write_bytes(b"a picture")
    damage(saved(tmp_path) / name)
    with pytest.raises(InputError, match=name):
        checkpoint.load_state(tmp_path)
        checkpoint.load_model(tmp_path)


def test_checksums_are_those_of_sha256(tmp_path: Path) -> None:
    """Other tools can compare them."""
    saved(tmp_path)
    sums = json.loads((tmp_path / CHECKSUMS).read_text())["sha256"]
    assert set(sums) == {WEIGHTS, CONFIG, METRICS, STATE}
    assert sums == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in sums}


def test_checkpoint_without_checksums_is_incomplete(tmp_path: Path) -> None:
    """Unverified files: the checksums are written last, so without them, writing or copying was interrupted."""
    (saved(tmp_path) / CHECKSUMS).unlink()
    readers: list[Callable[[Path], object]] = [
        checkpoint.load_model,
        checkpoint.load_state,
        partial(checkpoint.load_weights, network()),
        checkpoint_files.verify,
    ]
    for read in readers:
        with pytest.raises(DamagedCheckpointError, match=f"{CHECKSUMS}' is missing"):
            read(tmp_path)
    (tmp_path / CONFIG).unlink()
    for read in readers[1:]:
        with pytest.raises(DamagedCheckpointError, match=f"{CHECKSUMS}' is missing"):
            read(tmp_path)


def test_a_checkpoint_of_an_earlier_version_opens(tmp_path: Path) -> None:
    """It has no checksums to compare."""
    without_checksums(saved(tmp_path))
    found, origin = checkpoint.load_model(tmp_path)
    assert torch.equal(found.state_dict()["body.bottleneck.0.bias"], network().state_dict()["body.bottleneck.0.bias"])
    assert (origin.epoch, checkpoint.load_state(tmp_path)["epoch"]) == (7, 7)
    assert not checkpoint_files.verify(tmp_path)


@pytest.mark.parametrize(
    "described",
    [
        [],
        {},
        {"format": "one"},
        {"format": 1},
        {"format": 1, "trial": {}, "epoch": 1},
        {"format": 1, "trial": 3, "data_fingerprint": "", "epoch": 1},
        {"format": 1, "trial": {}, "data_fingerprint": "", "epoch": None},
        {"format": 1, "trial": {"epochs": 0}, "data_fingerprint": "", "epoch": 1},
    ],
)
def test_incomplete_description_is_refused(tmp_path: Path, described: Any) -> None:
    """Users edit it, and other tools have a config.json too."""
    (saved(tmp_path) / CONFIG).write_text(json.dumps(described))
    with pytest.raises(InputError, match=CONFIG):
        checkpoint_files.load_origin(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """It may lack required keys, or use them with another meaning."""
    (saved(tmp_path) / CONFIG).write_text(json.dumps({"format": checkpoint.FORMAT + 1}))
    with pytest.raises(InputError, match="has format 2, but this version reads up to 1; upgrade twinhead"):
        checkpoint.load_model(tmp_path)


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.trace, "was here")


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    """Users share checkpoints; loading one must not run code of its author."""
    saved(tmp_path)
    trace = tmp_path / "trace"
    torch.save({"epoch": Hostile(trace)}, tmp_path / STATE)
    checkpoint_files.seal(tmp_path)  # its author would
    with pytest.raises(InputError, match=STATE):
        checkpoint.load_state(tmp_path)
    assert not trace.exists()
    torch.load(tmp_path / STATE, weights_only=False)
    assert trace.exists()  # so it would have
