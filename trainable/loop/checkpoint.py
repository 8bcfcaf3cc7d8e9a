"""A checkpoint is a directory: model.safetensors, config.json, metrics.json and, while its trial runs, state.pt.

Nothing in it is unpickled: weights are safetensors, the rest is JSON, and the optimizer's state is read by torch with
`weights_only=True`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a checkpoint's weights come from."""

    config: TrialConfig
    data_fingerprint: str
    """Of the data set that the weights were trained on."""
    epoch: int
    """Epochs that the weights have seen."""


def save(directory: Path, model: nn.Module, origin: Origin, metrics: Mapping[str, Any]) -> None:
    """Write weights, configuration and metrics into `directory`, which is made when it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    # safetensors stores rows one after the other, so channels-last weights are copied to that order.
    weights = {name: tensor.cpu().contiguous().numpy() for name, tensor in model.state_dict().items()}
    save_file(weights, directory / WEIGHTS)
    described = {
        "format": FORMAT,
        "trial": origin.config.model_dump(mode="json"),
        "data_fingerprint": origin.data_fingerprint,
        "epoch": origin.epoch,
    }
    (directory / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    (directory / METRICS).write_text(json.dumps(dict(metrics), indent=2) + "\n")


def save_state(directory: Path, state: Mapping[str, Any]) -> None:
    """Add to a checkpoint what only its own run needs to go on: tensors, numbers, strings, lists and dicts."""
    torch.save(dict(state), directory / STATE)


def load_state(directory: Path) -> dict[str, Any]:
    """What `save_state` wrote, with every tensor on the CPU.

    Raises:
        InputError: if there is none, for a finished trial keeps its weights alone, or it is damaged or holds anything
            but plain values and tensors.
    """
    path = directory / STATE
    if not path.is_file():
        raise InputError(f"There is no '{path}' to go on from; start the trial anew.")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  torch has no error of its own for a damaged file: any can come up
        reason = str(error).partition("\n")[0]
        raise InputError(f"The state '{path}' cannot be read ({reason}); start the trial anew.") from None
    return state


def load_origin(directory: Path) -> Origin:
    """What the checkpoint in `directory` says of itself.

    Raises:
        InputError: if it is missing, damaged or of a newer format.
    """
    path = directory / CONFIG
    try:
        described = json.loads(path.read_text())
        _refuse_newer(int(described["format"]), directory)
        return Origin(
            config=build(TrialConfig, described["trial"], source=str(path)),
            data_fingerprint=str(described["data_fingerprint"]),
            epoch=int(described["epoch"]),
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"'{directory}' holds no readable {CONFIG}; give a directory made by 'twinhead best'."
        ) from None


def load_model(directory: Path) -> tuple[Network, Origin]:
    """The network in `directory`, in evaluation mode on the CPU, and where it comes from.

    Raises:
        InputError: if a file is missing or damaged, or the weights do not fit the configuration.
    """
    origin = load_origin(directory)
    model = build_model(origin.config.model)
    load_weights(model, directory)
    return model.eval(), origin


def load_weights(model: nn.Module, directory: Path) -> None:
    """Put the weights in `directory` into `model`.

    Raises:
        InputError: if they are missing or damaged, or are of another network.
    """
    path = directory / WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"The weights '{path}' cannot be read ({error}); fetch the checkpoint again.") from None
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
