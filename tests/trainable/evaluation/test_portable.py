"""Exported networks: the outputs of every family at any size, what the files hold, and no file that is wrong."""

from __future__ import annotations

import functools
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from data.errors import InputError, UnfinishedError
from trainable.config import TrialConfig, build
from trainable.evaluation import portable
from trainable.evaluation.portable import METADATA_FILE, MIN_SIDE, export_network
from trainable.loop.checkpoint import load_model, save
from trainable.loop.checkpoint_files import Origin
from trainable.models import MODELS, build_model
from trainable.plugins.active import PluginSource
from trainable.plugins.load import use_plugins

Save = Callable[[TrialConfig], Path]


def config(family: str, **model: object) -> TrialConfig:
    values = {"data": {"image_size": 32}, "model": {"family": family, "width": 2, "precision": "bf16"} | model}
    return build(TrialConfig, values, source="the test")


def stacks(*size: int) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (*size, 3), np.uint8) for _ in range(2)]


def expected(
    checkpoint: Path, bg: NDArray[np.uint8], fg_bg: NDArray[np.uint8], inside: tuple[int, int] = (2048, 2048)
) -> list[NDArray[np.float32]]:
    """Mask and depth by PyTorch, for sides that are multiples of 16, each in 0..1; the rest is `inside` the border."""
    network, _ = load_model(checkpoint)
    region = torch.zeros(1, 1, *bg.shape[1:3], dtype=torch.bool)
    region[..., : inside[0], : inside[1]] = True
    with torch.no_grad():
        found = network(*(torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255 for stack in (bg, fg_bg)), region)
    return [plane.clamp(0, 1).squeeze(1).numpy() for plane in (found.mask, found.depth)]


def run_onnx(file: Path, bg: NDArray[np.uint8], fg_bg: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(["mask", "depth"], {"bg": bg, "fg_bg": fg_bg})
    return found


@pytest.fixture(scope="module")
def as_onnx(save_warmed: Save, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """The checkpoint of a family, and its ONNX file, which takes seconds to make."""

    @functools.cache
    def exported(family: str) -> tuple[Path, Path]:
        inputs = {"bg_mean": [0.4, 0.5, 0.6], "bg_std": [0.2, 0.3, 0.2]}
        saved = save_warmed(config(family, normalise=inputs, depth_activation="minmax"))
        file = tmp_path_factory.mktemp("onnx") / "model.onnx"
        found = export_network(saved, file, "onnx")
        assert found.difference <= 1e-4
        assert len({size[1:] for size in found.checked}) == 3
        return saved, file

    return exported


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(MODELS))
def test_every_family_becomes_onnx(as_onnx: Callable[[str], tuple[Path, Path]], family: str) -> None:
    """One file for any number of images of any size, which predicts as PyTorch does."""
    saved, file = as_onnx(family)
    for size in ((1, 64, 48), (3, 32, 96)):
        photos = stacks(*size)
        for plane, wanted in zip(run_onnx(file, *photos), expected(saved, *photos), strict=True):
            assert plane.shape == size
            np.testing.assert_allclose(plane, wanted, atol=1e-4)


@pytest.mark.slow
def test_other_sizes_are_padded_and_cropped(as_onnx: Callable[[str], tuple[Path, Path]]) -> None:
    """The image predicts what it does with its last row and column repeated up to a multiple of 16, as a border."""
    saved, file = as_onnx("debug")
    for height, width in ((MIN_SIDE, 40), (50, 33)):
        photos = stacks(1, height, width)
        padded = [np.pad(photo, ((0, 0), (0, -height % 16), (0, -width % 16), (0, 0)), mode="edge") for photo in photos]
        predicted = run_onnx(file, *photos)
        for plane, wanted in zip(predicted, expected(saved, *padded, (height, width)), strict=True):
            np.testing.assert_allclose(plane, wanted[:, :height, :width], atol=1e-4)
        assert (predicted[1].min(), predicted[1].max()) == (0, 1)  # with 'minmax', the border decided the range


@pytest.mark.slow
def test_onnx_file_describes_itself(as_onnx: Callable[[str], tuple[Path, Path]]) -> None:
    """Whoever gets the file alone knows what to give it."""
    _, file = as_onnx("debug")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map

    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        (name, "tensor(uint8)", ["batch", "height", "width", 3]) for name in ("bg", "fg_bg")
    ]
    assert [(value.name, value.type, value.shape) for value in session.get_outputs()] == [
        (name, "tensor(float)", ["batch", "height", "width"]) for name in ("mask", "depth")
    ]
    assert (metadata["image_size"], metadata["family"], metadata["data_fingerprint"]) == ("32", "debug", "ab12")
    assert "RGB, 0 to 255" in json.loads(metadata["inputs"])["fg_bg"]["meaning"]
    assert "multiples of 16" in metadata["sizes"]


@pytest.mark.slow
def test_torch_export_runs_without_twinhead(save_warmed: Save, tmp_path: Path) -> None:
    """The file has the program, raw weights and the description; nothing in it is pickled."""
    saved = save_warmed(config("debug"))
    file = tmp_path / "model.pt2"
    exported = export_network(saved, file, "torch")
    extra = {METADATA_FILE: ""}
    program = torch.export.load(file, extra_files=extra).module()
    photos = stacks(2, 48, 80)

    assert exported.difference <= 1e-4
    for plane, wanted in zip(program(*map(torch.from_numpy, photos)), expected(saved, *photos), strict=True):
        np.testing.assert_allclose(plane.numpy(), wanted, atol=1e-4)
    assert json.loads(extra[METADATA_FILE])["family"] == "debug"
    with zipfile.ZipFile(file) as archive:
        pickled = [name for name in archive.namelist() if archive.read(name).startswith((b"\x80", b"PK"))]
    assert [name for name in pickled if "/weights/" not in name] == []


@pytest.mark.slow
def test_layers_that_were_in_training_mode_are_noted(save_warmed: Save, tmp_path: Path) -> None:
    """Random predictions, as published, cannot be exported; the file is in evaluation mode, and says so."""
    saved = save_warmed(config("dmnet-cnn", dropout=0.3, eval_mode="dropout", width=1))
    exported = export_network(saved, tmp_path / "model.pt2", "torch")

    assert "evaluated with dropout in training mode" in exported.note
    program = torch.export.load(tmp_path / "model.pt2").module()
    photos = [torch.from_numpy(stack) for stack in stacks(1, 32, 32)]
    assert all(torch.equal(a, b) for a, b in zip(program(*photos), program(*photos), strict=True))


ONE_SIZE = """
import torch
import twinhead
from torch import nn


class OneSize(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(6, 2, kernel_size=3, padding=1)
        self.grid = nn.Parameter(torch.zeros(1, 1, 32, 32))

    def forward(self, bg, fg_bg):
        return (self.conv(torch.cat([bg, fg_bg], dim=1)) + self.grid).chunk(2, dim=1)


PLUGINS = [twinhead.Family("one-size", OneSize)]
"""


BESSEL = """
import torch
import twinhead
from torch import nn


class Bessel(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(6, 2, kernel_size=3, padding=1)

    def forward(self, bg, fg_bg):
        return torch.special.i0e(self.conv(torch.cat([bg, fg_bg], dim=1))).chunk(2, dim=1)


PLUGINS = [twinhead.Family("bessel", Bessel)]
"""


@pytest.fixture
def _own_families() -> Iterator[None]:
    """The plugins `ONE_SIZE` and `BESSEL` in this process."""
    use_plugins([PluginSource("own.py", ONE_SIZE), PluginSource("bessel.py", BESSEL)])
    yield
    use_plugins([])


@pytest.mark.usefixtures("_own_families")
@pytest.mark.slow
def test_network_of_a_plugin_that_a_format_cannot_hold_is_refused(save_warmed: Save, tmp_path: Path) -> None:
    """Traceback: ONNX has fewer functions than torch, and the other format has them all."""
    with pytest.raises(InputError) as refused:
        export_network(save_warmed(config("bessel")), tmp_path / "model.onnx", "onnx")

    sentence = str(refused.value)
    assert sentence.startswith("The network of the family 'bessel' cannot be written in the format 'onnx' (")
    assert "(No ONNX function found for " in sentence
    assert sentence.isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_own_families")
@pytest.mark.slow
def test_network_of_a_plugin_for_one_size_only_is_refused(
    save_warmed: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Traceback: the author of the plugin needs a sentence that says what to correct."""
    saved = save_warmed(config("one-size"))
    with pytest.raises(InputError) as refused:
        export_network(saved, tmp_path / "model.pt2", "torch")

    sentence = str(refused.value)
    assert sentence.startswith("The network of the family 'one-size' cannot be exported for images of any size (")
    assert "must match the size of tensor b (32)" in sentence
    assert sentence.endswith("; correct forward() in its plugin.")
    assert "\n" not in sentence
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_file_with_other_outputs_is_not_written(
    save_warmed: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of an exporter must not be found in production."""
    saved, file = save_warmed(config("debug")), tmp_path / "model.pt2"
    file.write_text("an earlier one")
    forward = portable.Portable.forward

    def faulty(self: portable.Portable, bg: torch.Tensor, fg_bg: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask, depth = forward(self, bg, fg_bg)
        return mask + 2e-4, depth

    monkeypatch.setattr(portable.Portable, "forward", faulty)
    with pytest.raises(UnfinishedError, match=r"differ from PyTorch's by 0\.0002, more than 0\.0001"):
        export_network(saved, file, "torch")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier one"]


@pytest.mark.slow
def test_outputs_that_are_not_numbers_differ(tmp_path: Path) -> None:
    """The largest of a number and NaN is either, so that a depth without a number was called equal up to 0."""
    broken = build_model(config("debug").model)
    with torch.no_grad():
        broken.get_parameter("body.depth_head.bias").fill_(math.nan)
    saved = tmp_path / "saved"
    save(saved, broken, Origin(config=config("debug"), data_fingerprint="ab12", epoch=1), {})
    with pytest.raises(UnfinishedError, match=r"differ from PyTorch's by nan, more than 0\.0001"):
        export_network(saved, tmp_path / "model.pt2", "torch")


def test_missing_package_is_named(save_warmed: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages are an extra, which most users do not need."""
    saved = save_warmed(config("debug"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(InputError, match=r"needs the package onnxscript.*pip install 'twinhead\[onnx\]'"):
        export_network(saved, tmp_path / "model.onnx", "onnx")


@pytest.mark.slow
def test_unusable_output_is_refused(save_warmed: Save, tmp_path: Path) -> None:
    """Before the work, or without anything half-written."""
    saved = save_warmed(config("debug"))
    with pytest.raises(InputError, match=r"letter.txt' must end in \.pt2"):
        export_network(saved, tmp_path / "letter.txt", "torch")
    (tmp_path / "model.pt2").mkdir()
    with pytest.raises(InputError, match=r"model.pt2' cannot be written \(Is a directory\)"):
        export_network(saved, tmp_path / "model.pt2", "torch")
    assert list(tmp_path.iterdir()) == [tmp_path / "model.pt2"]
