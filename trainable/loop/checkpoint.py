"""A checkpoint is a directory: model.safetensors, config.json, metrics.json and, while its trial runs, state.pt.

Nothing in it is unpickled: weights are safetensors, the rest is JSON, and the optimizer's state is read by torch with
`weights_only=True`. checksums.json is written last and holds the SHA-256 of each file, which is compared on reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import nn

from data.errors import InputError
from trainable.config import TrialConfig, build
from trainable.models import Network, build_model

FORMAT = 1
WEIGHTS, CONFIG, METRICS, STATE, PICTURES = (
    "model.safetensors",
    "config.json",
    "metrics.json",
    "state.pt",
    "pictures.png",
)
CHECKSUMS = "checksums.json"
FILES = (WEIGHTS, CONFIG, METRICS, STATE, PICTURES)
"""What has a checksum. A model card beside them has none: it is text, which people may edit."""


class DamagedCheckpointError(InputError):
    """A file of a checkpoint is missing, truncated or altered.

    Args:
        file: the file.
        problem: what is wrong with it, as a predicate: 'is missing'.
    """

    def __init__(self, file: Path, problem: str) -> None:
        super().__init__(f"The file '{file}' {problem}; export the checkpoint again with 'twinhead best NAME'.")
        self.file, self.problem = file, problem

    def __reduce__(self) -> tuple[type[DamagedCheckpointError], tuple[Path, str]]:
        """Pickle the arguments: the message alone does not build the exception again."""
        return DamagedCheckpointError, (self.file, self.problem)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a checkpoint's weights come from."""

    config: TrialConfig
    data_fingerprint: str
    """Of the data set that the weights were trained on."""
    epoch: int
    """Epochs that the weights have seen."""


def save(
    directory: Path,
    model: nn.Module,
    origin: Origin,
    metrics: Mapping[str, Any],
    *,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, and its checksums last.

    Args:
        directory: is made when it is not there; what else of a checkpoint lies in it gets a checksum too.
        model: whose weights are written.
        origin: where the weights come from.
        metrics: numbers, strings and mappings of them.
        state: what only the trial itself needs to go on: tensors, numbers, strings, lists and dicts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CHECKSUMS).unlink(missing_ok=True)
    # safetensors stores rows one after the other, so channels-last weights are copied to that order.
    weights = {name: tensor.cpu().contiguous().numpy() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / WEIGHTS)
    described = {
        "format": FORMAT,
        "trial": origin.config.model_dump(mode="json"),
        "data_fingerprint": origin.data_fingerprint,
        "epoch": origin.epoch,
        "checksums": CHECKSUMS,
    }
    (directory / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    (directory / METRICS).write_text(json.dumps(dict(metrics), indent=2) + "\n", encoding="utf-8")
    if state is not None:
        torch.save(dict(state), directory / STATE)
    seal(directory)


def seal(directory: Path, source: Mapping[str, Any] | None = None) -> None:
    """Write the checksums of a checkpoint whose files are all there.

    Args:
        directory: the checkpoint.
        source: which `search` and `trial` it was exported from, as JSON values, to be kept with the checksums.
    """
    sums = {name: _sha256(directory / name) for name in FILES if (directory / name).is_file()}
    kept = {"format": FORMAT, "sha256": sums} | ({"source": dict(source)} if source else {})
    (directory / CHECKSUMS).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def verify(directory: Path, names: Sequence[str] = FILES) -> bool:
    """Compare files of a checkpoint with their checksums.

    Args:
        directory: the checkpoint.
        names: the files; those without a checksum are passed over.

    Returns:
        False if the checkpoint has no checksums: earlier versions wrote none.

    Raises:
        DamagedCheckpointError: if a file is missing, truncated or altered, or the checksums themselves are.
    """
    sums = _checksums(directory)
    for name in names:
        path = directory / name
        if name not in sums or (name == STATE and not path.exists()):  # the state is removed when a trial ends
            continue
        try:
            found = _sha256(path)
        except OSError as error:
            raise DamagedCheckpointError(path, _unreadable(error)) from None
        if found != sums[name]:
            raise DamagedCheckpointError(path, f"is truncated or altered: its SHA-256 is not that in {CHECKSUMS}")
    return bool(sums)


def source_of(directory: Path) -> dict[str, Any]:
    """Which `search` and `trial` a checkpoint was exported from; empty where that is not known."""
    try:
        return dict(json.loads((directory / CHECKSUMS).read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def load_state(directory: Path) -> dict[str, Any]:
    """What `save_state` wrote, with every tensor on the CPU.

    Raises:
        InputError: if there is none, for a finished trial keeps its weights alone; a DamagedCheckpointError if it is
            damaged, or holds anything but plain values and tensors.
    """
    path = directory / STATE
    if not path.is_file():
        raise InputError(f"There is no '{path}' to go on from; start the trial anew.")
    verify(directory, (STATE,))
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  torch has no error of its own for a damaged file: any can come up
        reason = str(error).partition("\n")[0]
        raise DamagedCheckpointError(path, f"cannot be read ({reason})") from None
    return state


def load_origin(directory: Path) -> Origin:
    """What the checkpoint in `directory` says of itself.

    Raises:
        InputError: if it is missing or of a newer format; a DamagedCheckpointError if it is damaged.
    """
    path = directory / CONFIG
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        _refuse_newer(int(described["format"]), directory)
        if not verify(directory, (CONFIG, METRICS)) and "checksums" in described:
            raise DamagedCheckpointError(directory / CHECKSUMS, "is missing, without which a checkpoint is not whole")
        return Origin(
            config=build(TrialConfig, described["trial"], source=str(path)),
            data_fingerprint=str(described["data_fingerprint"]),
            epoch=int(described["epoch"]),
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        verify(directory, (CONFIG,))
        raise InputError(
            f"'{directory}' holds no readable {CONFIG}; give a directory made by 'twinhead best'."
        ) from None


def load_metrics(directory: Path) -> dict[str, Any]:
    """What `save` wrote of metrics; none where the file is missing or damaged, for weights need none."""
    try:
        return dict(json.loads((directory / METRICS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def load_model(directory: Path) -> tuple[Network, Origin]:
    """The network in `directory`, in evaluation mode on the CPU, and where it comes from.

    Raises:
        InputError: if a file is missing, or the weights do not fit the configuration; a DamagedCheckpointError if a
            file is damaged.
    """
    origin = load_origin(directory)
    verify(directory, (PICTURES,))
    model = build_model(origin.config.model)
    load_weights(model, directory)
    return model.eval(), origin


def load_weights(model: nn.Module, directory: Path) -> None:
    """Put the weights in `directory` into `model`.

    Raises:
        InputError: if they are of another network; a DamagedCheckpointError if they are missing or damaged.
    """
    path = directory / WEIGHTS
    verify(directory, (WEIGHTS,))
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpointError(path, _unreadable(error)) from None
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else "missing"
        expected = tuple(wanted[name].shape) if name in wanted else "absent"
        if found != expected:
            raise InputError(
                f"The weights '{path}' are of another network: '{name}' is {found}, but must be {expected} by "
                f"{CONFIG}; use the two files of one checkpoint."
            )
    model.load_state_dict(weights)


def _refuse_newer(written_as: int, directory: Path) -> None:
    if written_as > FORMAT:
        raise InputError(
            f"The checkpoint '{directory}' has format {written_as}, but this version reads up to {FORMAT}; "
            "upgrade twinhead."
        )


def _checksums(directory: Path) -> dict[str, str]:
    """By file; empty where there are none."""
    path = directory / CHECKSUMS
    try:
        sums = dict(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedCheckpointError(path, "cannot be read") from None
    if missing := {WEIGHTS, CONFIG, METRICS} - sums.keys():
        raise DamagedCheckpointError(path, f"has no checksum of {min(missing)}")
    return sums


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return f"cannot be read ({(error.strerror if isinstance(error, OSError) else '') or error})"
