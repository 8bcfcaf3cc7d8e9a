"""A checkpoint is a directory: model.safetensors, config.json, metrics.json and, while its trial runs, state.pt.

Reading one executes no pickled code: weights are safetensors, metadata is JSON, and the optimizer state is loaded with
`weights_only=True`. checksums.json is written last. It holds the SHA-256 of each file, which is verified on reading.
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

from data.dataset.storage import Location
from data.errors import InputError
from trainable.config import TrialConfig, build
from trainable.models import Network, build_model
from trainable.plugins.active import PluginRecord, active_records, are_active, sources_of

FORMAT = 1
WEIGHTS, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.json"
STATE, PICTURES = "state.pt", "pictures.png"
CHECKSUMS = "checksums.json"
FILES = (WEIGHTS, CONFIG, METRICS, STATE, PICTURES)
"""The files with a checksum. A model card has none, because users may edit it."""


class DamagedCheckpointError(InputError):
    """A file of a checkpoint is missing, truncated or altered.

    Args:
        file: the damaged file, in a local directory or in a remote storage.
        problem: what is wrong, as the predicate of a sentence, such as 'is missing'.
    """

    def __init__(self, file: Path | Location, problem: str) -> None:
        super().__init__(f"The file '{file}' {problem}; export the checkpoint again with 'twinhead best NAME'.")
        self.file, self.problem = file, problem

    def __reduce__(self) -> tuple[type[DamagedCheckpointError], tuple[Path | Location, str]]:
        """Pickle the arguments, because the constructor does not take the message."""
        return DamagedCheckpointError, (self.file, self.problem)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Origin of the weights in a checkpoint."""

    config: TrialConfig
    data_fingerprint: str
    """Fingerprint of the data set that the weights were trained on."""
    epoch: int
    """Number of epochs that the weights were trained for."""
    plugin: PluginRecord | None = None
    """The plugin with the family of the network, which `load_model` needs; None for a built-in family."""


def save(
    directory: Path,
    model: nn.Module,
    origin: Origin,
    metrics: Mapping[str, Any],
    *,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, with its checksums last.

    Args:
        directory: created if it is missing. Files of a checkpoint that are already in it get a checksum too.
        model: the network.
        origin: configuration and data set of the training.
        metrics: numbers, strings and mappings of them.
        state: what the trial needs to resume: tensors, numbers, strings, lists and dicts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CHECKSUMS).unlink(missing_ok=True)
    # safetensors stores contiguous tensors; channels-last weights are copied.
    weights = {name: tensor.cpu().contiguous().numpy() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / WEIGHTS)
    described = {
        "format": FORMAT,
        "trial": origin.config.model_dump(mode="json"),
        "data_fingerprint": origin.data_fingerprint,
        "epoch": origin.epoch,
        "checksums": CHECKSUMS,
    }
    if own := [each for each in active_records() if origin.config.model.family in each.families]:
        described["plugin"] = own[0].model_dump()
    (directory / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    (directory / METRICS).write_text(json.dumps(dict(metrics), indent=2) + "\n", encoding="utf-8")
    if state is not None:
        torch.save(dict(state), directory / STATE)
    seal(directory)


def seal(directory: Path, source: Mapping[str, Any] | None = None) -> None:
    """Write the checksums of a checkpoint, once all its files are written.

    Args:
        directory: the checkpoint.
        source: the `search` and `trial` that it was exported from, as JSON values, stored with the checksums.
    """
    sums = {name: _sha256(directory / name) for name in FILES if (directory / name).is_file()}
    kept = {"format": FORMAT, "sha256": sums} | ({"source": dict(source)} if source else {})
    (directory / CHECKSUMS).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def verify(directory: Path, names: Sequence[str] = FILES) -> bool:
    """Compare files of a checkpoint with their checksums.

    Args:
        directory: the checkpoint.
        names: the files to verify; files without a checksum are skipped.

    Returns:
        False if the checkpoint has no checksums, as written by early versions.

    Raises:
        DamagedCheckpointError: if a file, or the file of checksums, is missing, truncated or altered.
    """
    sums = checksums(directory)
    for name in names:
        path = directory / name
        if name not in sums or (name == STATE and not path.exists()):  # the state is removed when a trial ends
            continue
        try:
            intact = is_intact(path, sums[name])
        except OSError as error:
            raise DamagedCheckpointError(path, _unreadable(error)) from None
        if not intact:
            raise DamagedCheckpointError(path, f"is truncated or altered: its SHA-256 is not that in {CHECKSUMS}")
    return bool(sums)


def checksums(directory: Path) -> dict[str, str]:
    """SHA-256 by file name; empty if the checkpoint has no checksums.

    Raises:
        DamagedCheckpointError: if the file of checksums is damaged.
    """
    path = directory / CHECKSUMS
    try:
        sums = dict(json.loads(path.read_text(encoding="utf-8"))["sha256"])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedCheckpointError(path, "cannot be read") from None
    if missing := {WEIGHTS, CONFIG, METRICS} - sums.keys():
        raise DamagedCheckpointError(path, f"has no checksum of {min(missing)}")
    return sums


def is_intact(file: Path, sha256: str | None) -> bool:
    """Whether a file has this SHA-256; True if none is known.

    Raises:
        OSError: if it cannot be read.
    """
    return sha256 is None or _sha256(file) == sha256


def source_of(directory: Path) -> dict[str, object]:
    """The `search` and `trial` that a checkpoint was exported from; empty if unknown."""
    try:
        return dict(json.loads((directory / CHECKSUMS).read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def load_state(directory: Path) -> dict[str, Any]:
    """Load the state written by `save`, with all tensors on the CPU.

    Raises:
        InputError: if there is no state, because a finished trial keeps only the weights; the subclass
            DamagedCheckpointError if it is damaged or holds anything but plain values and tensors.
    """
    path = directory / STATE
    if not path.is_file():
        raise InputError(f"There is no '{path}' to resume from; start the trial again.")
    verify(directory, (STATE,))
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001  torch raises many kinds of errors for a damaged file
        reason = str(error).partition("\n")[0]
        raise DamagedCheckpointError(path, f"cannot be read ({reason})") from None


def load_origin(directory: Path) -> Origin:
    """Load the origin of the checkpoint in `directory`.

    Raises:
        InputError: if it is missing or has a newer format; the subclass DamagedCheckpointError if it is damaged.
    """
    path = directory / CONFIG
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        _refuse_newer(int(described["format"]), directory)
        if not verify(directory, (CONFIG, METRICS)) and "checksums" in described:
            raise DamagedCheckpointError(directory / CHECKSUMS, "is missing, so the checkpoint is incomplete")
        return Origin(
            config=build(TrialConfig, described["trial"], source=str(path)),
            data_fingerprint=str(described["data_fingerprint"]),
            epoch=int(described["epoch"]),
            plugin=build(PluginRecord, found, source=str(path)) if (found := described.get("plugin")) else None,
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        verify(directory, (CONFIG,))
        fault = f"holds no readable {CONFIG}" if directory.is_dir() else "is not a directory"
        raise InputError(f"'{directory}' {fault}; give a directory made by 'twinhead best'.") from None


def load_metrics(directory: Path) -> dict[str, float]:
    """Load the metrics of a trial's checkpoint; empty if the file is missing or damaged: weights do not need them."""
    try:
        metrics = dict(json.loads((directory / METRICS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def load_model(directory: Path) -> tuple[Network, Origin]:
    """Load the network in `directory`, in evaluation mode on the CPU, and its origin.

    Raises:
        InputError: if a file is missing, the weights do not match the configuration, or the plugin of the family is not
            a plugin of this process; the subclass DamagedCheckpointError if a file is damaged.
    """
    origin = load_origin(directory)
    verify(directory, (PICTURES,))
    sources_of([origin.plugin] if origin.plugin else [])
    model = build_model(origin.config.model)
    load_weights(model, directory)
    return model.eval(), origin


def check_loads(directory: Path) -> None:
    """Load the network in `directory` for its errors; if its plugin is missing, verify the files alone.

    Raises:
        InputError: as `load_model`, except for a missing plugin.
    """
    origin = load_origin(directory)
    if origin.plugin is None or are_active([origin.plugin]):
        load_model(directory)
    else:
        verify(directory)


def load_weights(model: nn.Module, directory: Path) -> None:
    """Load the weights in `directory` into `model`.

    Raises:
        InputError: if they belong to another network; the subclass DamagedCheckpointError if they are missing or
            damaged.
    """
    path = directory / WEIGHTS
    verify(directory, (WEIGHTS,))
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpointError(path, _unreadable(error)) from None
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else "missing"
        expected = tuple(own[name].shape) if name in own else "absent"
        if found != expected:
            raise InputError(
                f"The weights '{path}' belong to another network: '{name}' is {found}, but must be {expected} by "
                f"{CONFIG}; use the two files of one checkpoint."
            )
    model.load_state_dict(weights)


def _refuse_newer(written_as: int, directory: Path) -> None:
    if written_as > FORMAT:
        raise InputError(
            f"The checkpoint '{directory}' has format {written_as}, but this version reads up to {FORMAT}; "
            "upgrade twinhead."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return f"cannot be read ({(error.strerror if isinstance(error, OSError) else '') or error})"
