"""Content of `dataset.json`: counts, sizes, statistics, the parts and their checksums."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from data.dataset.statistics import Statistics
from data.errors import InputError
from data.schema import SCHEMA_VERSION

MANIFEST_NAME = "dataset.json"

PartKind = Literal["samples", "backgrounds", "placements", "depths", "cutouts"]
"""A data set of images has the first two, a recipe all but the first; see `data.composed.columns`."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of distinct ids."""

    samples: int
    backgrounds: int
    foregrounds: int


@dataclass(frozen=True, kw_only=True)
class Size:
    """A size in pixels, and the number of samples with it."""

    height: int
    width: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """A Parquet file of the data set."""

    path: str
    """File name in the directory of the data set."""
    kind: PartKind
    rows: int
    bytes: int
    """File size."""
    sha256: str
    """SHA-256 of the file, in hexadecimal."""


@dataclass(frozen=True, kw_only=True)
class StoredSplit:
    """Number of samples in each part of a split that came with the data; in storage order, train comes first."""

    train: int
    val: int
    test: int


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Description of a data set, the content of `dataset.json`."""

    schema_version: int
    counts: Counts
    sizes: tuple[Size, ...]
    """Sorted by height, then width."""
    statistics: Statistics
    depth_polarity: Literal["far-bright"]
    """Polarity of the stored depth; the same for all sources."""
    parts: tuple[Part, ...]
    """In storage order."""
    fingerprint: str
    """SHA-256 of the ids and encoded images of all rows, independent of the division into parts; with a split, SHA-256
    of that and the sizes of its parts."""
    source: dict[str, object]
    """Origin of the data, as JSON values; see `write_dataset`."""
    statistics_samples: int | None = None
    """Number of samples, drawn at random, that the statistics are computed from; None: all."""
    split: StoredSplit | None = None
    """The split that came with the data, if there is one; used with `data.split_by: stored`."""

    @property
    def is_recipe(self) -> bool:
        """Whether samples are composed when they are read."""
        return bool(self.parts_of("placements"))

    def parts_of(self, kind: PartKind) -> list[Part]:
        """The parts of one kind, in storage order."""
        return [part for part in self.parts if part.kind == kind]

    @property
    def has_validity(self) -> bool:
        """Whether any sample has a validity mask."""
        return self.statistics.valid_fraction is not None

    def to_json(self) -> str:
        """Serialise to the text of `dataset.json`."""
        values = asdict(self)
        if self.statistics_samples is None:  # as earlier versions wrote it
            del values["statistics_samples"]
        if not self.has_validity:
            del values["statistics"]["valid_fraction"]
        if self.split is None:
            del values["split"]
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> DatasetInfo:
        """Parse the text of a `dataset.json`.

        Args:
            text: content of the file.
            where: the file, for error messages.

        Raises:
            InputError: if the text is not valid, or has a newer schema version.
        """
        try:
            values = json.loads(text)
            version = values["schema_version"]
            if isinstance(version, int) and version > SCHEMA_VERSION:
                raise InputError(
                    f"The data set of '{where}' was written by a newer Twinhead (schema version {version}; this "
                    f"version reads up to {SCHEMA_VERSION}); upgrade Twinhead."
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
    """Cached: building the adapter takes longer than a validation."""
    return TypeAdapter(DatasetInfo)


@dataclass(frozen=True, kw_only=True)
class SampleIds:
    """The ids of N samples, in storage order."""

    sample_id: Sequence[str]
    bg_id: Sequence[str]
    fg_id: Sequence[str]
    split: StoredSplit | None = None
    """`DatasetInfo.split`."""

    def __len__(self) -> int:
        return len(self.sample_id)
