"""The files of a checkpoint, its checksums and its origin, without torch.

A checkpoint is a directory: model.safetensors, config.json, metrics.json and, while its trial runs, state.pt.
checksums.json is written last. It holds the SHA-256 of each file, which is verified on reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset.storage import Location
from data.errors import InputError
from trainable.config import TrialConfig, build
from trainable.plugins.active import PluginRecord

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
        False if the checkpoint was written without checksums, as by early versions.

    Raises:
        DamagedCheckpointError: if a file, or the file of checksums, is missing, truncated or altered.
    """
    sums = checksums(directory)
    if not sums and _had_checksums(directory):
        raise DamagedCheckpointError(directory / CHECKSUMS, "is missing, so the checkpoint is incomplete")
    for name in names:
        path = directory / name
        if name not in sums or (name == STATE and not path.exists()):  # the state is removed when a trial ends
            continue
        try:
            intact = is_intact(path, sums[name])
        except OSError as error:
            raise DamagedCheckpointError(path, unreadable(error)) from None
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


def _had_checksums(directory: Path) -> bool:
    """Whether a checkpoint was written with checksums, by its configuration; True if that cannot be read."""
    try:
        return "checksums" in json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return True


def source_of(directory: Path) -> dict[str, object]:
    """The `search` and `trial` that a checkpoint was exported from; empty if unknown."""
    try:
        return dict(json.loads((directory / CHECKSUMS).read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def load_origin(directory: Path) -> Origin:
    """Load the origin of the checkpoint in `directory`.

    Raises:
        InputError: if it is missing or has a newer format; the subclass DamagedCheckpointError if it is damaged.
    """
    path = directory / CONFIG
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        _refuse_newer(int(described["format"]), directory)
        verify(directory, (CONFIG, METRICS))
        return Origin(
            config=build(TrialConfig, described["trial"], source=str(path)),
            data_fingerprint=str(described["data_fingerprint"]),
            epoch=int(described["epoch"]),
            plugin=build(PluginRecord, found, source=str(path)) if (found := described.get("plugin")) else None,
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        if checksums(directory):
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


def unreadable(error: Exception) -> str:
    """Why a file cannot be read, as the predicate of a sentence."""
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return f"cannot be read ({(error.strerror if isinstance(error, OSError) else '') or error})"


def _refuse_newer(written_as: int, directory: Path) -> None:
    if written_as > FORMAT:
        raise InputError(
            f"The checkpoint '{directory}' has format {written_as}, but this version reads up to {FORMAT}; "
            "upgrade twinhead."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
