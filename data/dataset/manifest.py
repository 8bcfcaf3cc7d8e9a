"""What `dataset.json` says of a data set: counts, sizes, statistics, the parts and their checksums."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from data.dataset.statistics import Statistics
from data.errors import InputError
from data.schema import SCHEMA_VERSION

MANIFEST_NAME = "dataset.json"

PartKind = Literal["samples", "backgrounds"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many distinct ids there are of each."""

    samples: int
    backgrounds: int
    foregrounds: int


@dataclass(frozen=True, kw_only=True)
class Size:
    """A size in pixels, and how many samples have it."""

    height: int
    width: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One Parquet file of the data set."""

    path: str
    """File name, in the data set's directory."""
    kind: PartKind
    rows: int
    bytes: int
    """Size of the file."""
    sha256: str
    """Of the file, in hexadecimal."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A data set's description, as `dataset.json` holds it."""

    schema_version: int
    counts: Counts
    sizes: tuple[Size, ...]
    """By height, then width."""
    statistics: Statistics
    depth_polarity: Literal["far-bright"]
    """What the stored depth means, whatever the source was."""
    parts: tuple[Part, ...]
    """In storage order."""
    fingerprint: str
    """SHA-256 of the ids and encoded images of all rows, however they are split into parts."""
    source: dict[str, Any]
    """Where the data came from, as JSON values; the writer's caller decides what it says."""

    def parts_of(self, kind: PartKind) -> list[Part]:
        """The parts of one kind, in storage order."""
        return [part for part in self.parts if part.kind == kind]

    def to_json(self) -> str:
        """Return the text of `dataset.json`."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> DatasetInfo:
        """Return what `text` says.

        Args:
            text: of a `dataset.json`.
            where: the file, for the error's sentence.

        Raises:
            InputError: if it is not a description that this version can read.
        """
        try:
            values = json.loads(text)
            version = values["schema_version"]
            if isinstance(version, int) and version > SCHEMA_VERSION:
                raise InputError(
                    f"The data set of '{where}' was written by a newer Twinhead (its schema version is "
                    f"{version}, this one reads up to {SCHEMA_VERSION}); upgrade Twinhead."
                )
            return _adapter().validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            reason = str(error)
        raise InputError(f"The file '{where}' does not describe a data set ({reason}); write the data set again.")


@functools.cache
def _adapter() -> TypeAdapter[DatasetInfo]:
    """Made once: it takes longer than what it is used for."""
    return TypeAdapter(DatasetInfo)


@dataclass(frozen=True, kw_only=True)
class SampleIds:
    """The ids of N samples, in storage order."""

    sample_id: Sequence[str]
    bg_id: Sequence[str]
    fg_id: Sequence[str]

    def __len__(self) -> int:
        return len(self.sample_id)
