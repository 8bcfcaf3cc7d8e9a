"""A network as one file that runs without Twinhead: ONNX, or a program of torch.export.

The exported model takes photographs as decoders return them, and contains everything from the scaling of its inputs to
the activations of its heads. Its outputs are compared with PyTorch's before the file appears.

Shapes: B pairs, H and W height and width in pixels.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from data.atomic import replacing
from data.errors import InputError, UnfinishedError
from data.fitting.fit import GREY
from data.fitting.sizes import size_text
from trainable.config.data import SIDE_MULTIPLE
from trainable.loop.checkpoint import load_model
from trainable.loop.checkpoint_files import Origin
from trainable.models import Network, parameter_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch.export import ExportedProgram

Format = Literal["onnx", "torch"]
Runs = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
METADATA_FILE = "twinhead.json"
"""The metadata in a file of torch.export."""
MIN_SIDE = SIDE_MULTIPLE + 1
"""Minimum height and width of the images in pixels."""
TOLERANCE = 1e-4
"""Maximum difference of an output from PyTorch's; outputs are in 0..1."""
INPUTS = {
    "bg": "photograph of the background: RGB, 0 to 255",
    "fg_bg": "the same with an object in front of it: RGB, 0 to 255",
}
OUTPUTS = {
    "mask": "probability of the object, 0 to 1",
    "depth": "relative depth of the scene with the object, 0 to 1, far is 1",
}
AXES = ("batch", "height", "width")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written, and how far its outputs are from PyTorch's."""

    file: str
    format: Format
    bytes: int
    checked: tuple[tuple[int, int, int], ...]
    """Batch size, height and width of the images that were compared."""
    difference: float
    """Largest difference of an output."""
    note: str
    """How the exported network differs from the one that was evaluated; '' if it does not."""


class Portable(nn.Module):
    """A network for photographs of any size: scales them to 0..1, and pads them to sides that every family supports.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, bg: Tensor, fg_bg: Tensor) -> tuple[Tensor, Tensor]:
        """Predict mask and depth, (B, H, W) float32 in 0..1 each, from two stacks (B, H, W, 3) uint8, RGB."""
        height, width = bg.shape[1:3]
        (rows, inside_rows), (columns, inside_columns) = _padded(height, bg), _padded(width, bg)

        def scaled(photos: Tensor) -> Tensor:
            padded = photos.index_select(1, rows).index_select(2, columns)
            return padded.permute(0, 3, 1, 2).contiguous().float() / 255

        inside = (inside_rows[:, None] & inside_columns)[None, None]
        prediction = self.network(scaled(bg), scaled(fg_bg), inside)
        # Not slices, for which torch.export would need a proof that they lie within the padded planes.
        rows, columns = (torch.arange(length, device=bg.device) for length in (height, width))
        planes = (
            plane.squeeze(1).index_select(1, rows).index_select(2, columns).clamp(0, 1)
            for plane in (prediction.mask, prediction.depth)
        )
        mask, depth = planes
        return mask, depth


def export_network(checkpoint: Path, out: Path, form: Format) -> Exported:
    """Write a network as one file, once its outputs at three sizes were compared with PyTorch's.

    It computes in float32, whatever the precision of its training.

    Args:
        checkpoint: directory exported by `twinhead best`.
        out: the file, which is replaced.
        form: 'onnx', or 'torch' for a program that `torch.export.load` reads.

    Raises:
        InputError: if the checkpoint cannot be loaded, a package is missing, the family is that of a plugin and does
            not support images of any size or the format, or `out` has another suffix or cannot be written.
        UnfinishedError: if the outputs differ; `out` is unchanged.
    """
    if out.suffix != SUFFIXES[form]:
        raise InputError(f"The file '{out}' must end in {SUFFIXES[form]} for the format '{form}'; give another --out.")
    missing = [name for name in ONNX_PACKAGES if form == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"The format 'onnx' needs the package {missing[0]}, which is not installed; install it with pip install "
            "'twinhead[onnx]'."
        )
    network, origin = load_model(checkpoint)
    portable = Portable(network).eval().requires_grad_(False)
    nn.Module.train(network, False)  # `network.eval()` keeps the layers of `eval_mode` in training mode
    sizes = _sizes(*origin.config.data.sides)
    with _quiet(), torch.no_grad():
        program = _traced(portable, sizes[1], origin)
        try:
            with replacing(out) as partial:
                runs = _written(form, program, partial, origin, _metadata(origin, network))
                difference = _largest(_difference(runs, portable, size, seed) for seed, size in enumerate(sizes))
                if not difference <= TOLERANCE:
                    raise UnfinishedError(
                        f"The outputs of the exported network differ from PyTorch's by {difference:.2g}, more than "
                        f"{TOLERANCE:g}; nothing was written to '{out}'."
                    )
        except OSError as error:
            raise InputError(f"The file '{out}' cannot be written ({error.strerror}); give another --out.") from None
    return Exported(
        file=str(out),
        format=form,
        bytes=out.stat().st_size,
        checked=sizes,
        difference=difference,
        note=_note(origin),
    )


def _padded(length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of `length` rows, the last repeated up to a multiple of `SIDE_MULTIPLE`, and which are no copies."""
    whole = (length + SIDE_MULTIPLE - 1) // SIDE_MULTIPLE * SIDE_MULTIPLE
    rows = torch.arange(whole, device=like.device)
    return rows.clamp(max=length - 1), rows < length


def _sizes(height: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """Batch size, height and width of the comparisons: the network's own size, a wider one, and one that is padded.

    The program is traced at the second one, whose sides differ.
    """
    height, width = max(height, 2 * SIDE_MULTIPLE), max(width, 2 * SIDE_MULTIPLE)
    wider = width + (2 if height <= width else 4) * SIDE_MULTIPLE
    wider += 2 * SIDE_MULTIPLE if wider == height else 0
    return (1, height, width), (2, height, wider), (3, height + 7, width // 2 + 19)


def _traced(portable: Portable, size: tuple[int, int, int], origin: Origin) -> ExportedProgram:
    """The program of `portable` for images of any size and number; no example is stored with it.

    Raises:
        InputError: if the family of a plugin does not support them.
    """
    batch, height, width = (torch.export.Dim(name, min=1 if name == "batch" else MIN_SIDE) for name in AXES)
    shape = {0: batch, 1: height, 2: width}
    try:
        program = torch.export.export(portable, _photos(size, seed=0), dynamic_shapes=(shape, shape))
    except Exception as error:
        if origin.plugin is None or isinstance(error, InputError):
            raise
        raise InputError(
            f"The network of the family '{origin.config.model.family}' cannot be exported for images of any size "
            f"({_reason(error)}); correct forward() in its plugin."
        ) from error
    program.example_inputs = None  # it would be stored as a pickle
    return program


def _written(form: Format, program: ExportedProgram, file: Path, origin: Origin, metadata: dict[str, str]) -> Runs:
    """Write the program in a format, and return what runs the file.

    Raises:
        InputError: if the family of a plugin computes something that the format does not have.
    """
    try:
        return _WRITERS[form](program, file, metadata)
    except OSError:
        raise
    except Exception as error:
        if origin.plugin is None:
            raise
        raise InputError(
            f"The network of the family '{origin.config.model.family}' cannot be written in the format '{form}' "
            f"({_reason(error)}); give another --format, or correct forward() in its plugin."
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of what was raised first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def _photos(size: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    bg, fg_bg = (torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for _ in INPUTS)
    return bg, fg_bg


def _difference(runs: Runs, portable: Portable, size: tuple[int, int, int], seed: int) -> float:
    """Largest difference of an output from PyTorch's. The network itself is the reference unless images are padded."""
    photos = _photos(size, seed)
    if any(side % SIDE_MULTIPLE for side in size[1:]):
        expected: tuple[Tensor, ...] = portable(*photos)
    else:
        prediction = portable.network(*(photo.permute(0, 3, 1, 2) / 255 for photo in photos))
        expected = tuple(plane.squeeze(1).clamp(0, 1) for plane in (prediction.mask, prediction.depth))
    return _largest(float((found - plane).abs().max()) for found, plane in zip(runs(*photos), expected, strict=True))


def _largest(values: Iterable[float]) -> float:
    """The largest value; NaN if one is, unlike `max`."""
    return float(torch.tensor([*values], dtype=torch.float64).max())


def _write_onnx(program: ExportedProgram, file: Path, metadata: dict[str, str]) -> Runs:
    shape = dict(enumerate(AXES))
    exported: Any = torch.onnx.export(
        program,
        (),
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        dynamic_shapes=(shape, shape),
        external_data=False,
        verbose=False,
    )
    exported.model.metadata_props.update(metadata)
    for value, text in zip((*exported.model.graph.inputs, *exported.model.graph.outputs), _texts(), strict=True):
        value.doc_string = text
    exported.save(file, external_data=False)

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def runs(bg: Tensor, fg_bg: Tensor) -> tuple[Tensor, Tensor]:
        found: list[NDArray[np.float32]] = session.run(list(OUTPUTS), {"bg": bg.numpy(), "fg_bg": fg_bg.numpy()})
        mask, depth = (torch.from_numpy(plane) for plane in found)
        return mask, depth

    return runs


def _write_torch(program: ExportedProgram, file: Path, metadata: dict[str, str]) -> Runs:
    with file.open("wb") as opened:
        torch.export.save(program, opened, extra_files={METADATA_FILE: json.dumps(metadata, indent=2)})
    with file.open("rb") as opened:
        loaded: Any = torch.export.load(opened).module()
    return loaded  # type: ignore[no-any-return]


_WRITERS = {"onnx": _write_onnx, "torch": _write_torch}


def _texts() -> list[str]:
    return [*INPUTS.values(), *OUTPUTS.values()]


def _metadata(origin: Origin, network: Network) -> dict[str, str]:
    """What a user of the file needs to know, as texts; mappings are JSON."""
    model, (height, width) = origin.config.model, origin.config.data.sides
    border = (
        "" if origin.config.data.fit == "stretch" else f", with a border of level {GREY} that keeps their aspect ratio"
    )
    inputs = {name: {"type": "uint8", "shape": [*AXES, 3], "meaning": text} for name, text in INPUTS.items()}
    outputs = {name: {"type": "float32", "shape": AXES, "meaning": text} for name, text in OUTPUTS.items()}
    return {
        "producer": "Twinhead",
        "inputs": json.dumps(inputs),
        "outputs": json.dumps(outputs),
        "image_size": size_text((height, width)),
        "sizes": f"Resize the photographs to {height} x {width} pixels (height x width){border}, as in training, "
        f"for the measured quality. Any height and width from {MIN_SIDE} on is accepted: sides are padded to multiples "
        f"of {SIDE_MULTIPLE} inside.",
        "resize": origin.config.data.resize,
        "fit": origin.config.data.fit,
        "family": model.family,
        "width": str(model.width),
        "parameters": str(parameter_count(network)),
        "epoch": str(origin.epoch),
        "data_fingerprint": origin.data_fingerprint,
        "note": _note(origin),
    }


def _note(origin: Origin) -> str:
    if (mode := origin.config.model.eval_mode) == "eval":
        return ""
    layers = "dropout" if mode == "dropout" else "all layers"
    return (
        f"the network was evaluated with {layers} in training mode (model.eval_mode is '{mode}'), which is random or "
        "depends on the other images of a batch; the exported one is in evaluation mode, so its predictions differ"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter prints: warnings about its own code, and details of an error that it raises."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        printed = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
