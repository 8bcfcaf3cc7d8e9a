"""Saves a trial's network and state as a checkpoint, and loads them; its files are those of `checkpoint_files`.

Reading one executes no pickled code: weights are safetensors, metadata is JSON, and the optimizer state is loaded with
`weights_only=True`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import nn

from data.errors import InputError
from trainable.loop.checkpoint_files import (
    CHECKSUMS,
    CONFIG,
    FORMAT,
    METRICS,
    PICTURES,
    STATE,
    WEIGHTS,
    DamagedCheckpointError,
    Origin,
    load_origin,
    seal,
    unreadable,
    verify,
)
from trainable.models import Network, build_model
from trainable.plugins.active import active_records, are_active, sources_of


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
        raise DamagedCheckpointError(path, unreadable(error)) from None
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
