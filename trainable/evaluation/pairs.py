"""The pairs of photographs to predict: two files, folders, a CSV file, or a data set."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from data.dataset.dataset import Dataset
from data.dataset.storage import AnyPath
from data.errors import InputError
from data.folders import Folder, from_here
from data.schema import EncodedSample
from data.splits.splits import rows
from trainable.config import DataConfig

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".avif"})
"""Extensions of the files in a folder that are photographs; others are ignored."""
MAX_NAMED = 8
"""Columns of a file that an error names at most."""
BG, FG_BG, NAME = "bg", "fg_bg", "name"
"""Columns of a CSV file; the last one is optional."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A background and the same background with a foreground object."""

    name: str
    """Path of the predictions without an extension, below a folder for each kind; '' for a single pair."""
    bg: str
    """The file, or what it is of a data set."""
    fg_bg: str
    read: Callable[[], tuple[bytes, bytes]]
    """Read the two encoded images; raises InputError."""

    def __post_init__(self) -> None:
        path = PurePath(self.name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"The name '{self.name}' of the pair with '{self.fg_bg}' leads out of --out; give a relative one "
                "without '..'."
            )


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs to iterate over once."""

    names: Sequence[str]
    """Of the pairs, in order."""
    pairs: Iterable[Pair]
    unpaired: Mapping[str, str] = field(default_factory=dict)
    """Error message by name of the photographs with an object that have no background."""

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)


def pair_of_files(bg: Path, fg_bg: Path, name: str = "") -> Pair:
    """The pair of two files."""
    return Pair(name=name, bg=str(bg), fg_bg=str(fg_bg), read=lambda: (read_photo(bg), read_photo(fg_bg)))


def pairs_in_folders(bg: Path, fg_bg: Path) -> Pairs:
    """The pairs of two folders, whose files have the same path below them, up to the extension.

    Args:
        bg: a folder, or a file that is the background of all.
        fg_bg: a folder.

    Raises:
        InputError: if a folder cannot be read or has no photographs, two of its files have the same name up to the
            extension, or no two files pair.
    """
    objects = _photos(fg_bg)
    if not bg.is_dir():
        read_photo(bg)  # else each pair would fail
    backgrounds = _photos(bg) if bg.is_dir() else dict.fromkeys(objects, bg)
    paired = [pair_of_files(backgrounds[name], path, name) for name, path in objects.items() if name in backgrounds]
    if not paired:
        raise InputError(
            f"No photograph in '{fg_bg}' has the name of one in '{bg}' (such as '{next(iter(objects.values()))}' and "
            f"'{next(iter(backgrounds.values()))}'); name the two of a pair alike, or list the pairs in a CSV file."
        )
    unpaired = {
        name: f"The photograph '{path}' has no background '{bg / name}' of any extension; add one, or remove it."
        for name, path in objects.items()
        if name not in backgrounds
    }
    return Pairs(names=[pair.name for pair in paired], pairs=paired, unpaired=unpaired)


def pairs_in_csv(file: Path) -> Pairs:
    """The pairs of a CSV file with the columns 'bg' and 'fg_bg'; relative paths start at its directory.

    The predictions are named by a column 'name', else by the path of 'fg_bg' below the folder that all of them share.

    Raises:
        InputError: if the file cannot be read, has other columns or no rows, or two pairs would have the same name.
    """
    lines = _csv_rows(file)
    root = file.absolute().parent
    files = [tuple(Path(os.path.normpath(root / row[column])) for column in (BG, FG_BG)) for _, row in lines]
    shared = os.path.commonpath([fg_bg.parent for _, fg_bg in files])
    pairs: dict[str, Pair] = {}
    first: dict[str, int] = {}
    for (line, row), (bg, fg_bg) in zip(lines, files, strict=True):
        name = row.get(NAME) or fg_bg.relative_to(shared).with_suffix("").as_posix()
        if name in pairs:
            raise InputError(
                f"The predictions of lines {first[name]} and {line} of '{file}' would both be named '{name}'; add a "
                "column 'name' with a name for each."
            )
        pairs[name] = pair_of_files(from_here(bg), from_here(fg_bg), name)
        first[name] = line
    return Pairs(names=list(pairs), pairs=list(pairs.values()))


def pairs_in_dataset(path: AnyPath, part: str, config: DataConfig) -> Pairs:
    """The pairs of a part of a data set, by the split of the network's configuration, named by sample.

    Raises:
        InputError: if the data set cannot be read, or the part has no samples.
    """
    dataset = Dataset.open(path)
    chosen = rows(dataset.ids, part, config.split_by, config.shares)

    def pairs() -> Iterator[Pair]:
        for sample in dataset.read_encoded(chosen):
            yield _pair_of_sample(sample, str(dataset.path))

    return Pairs(names=[dataset.ids.sample_id[row] for row in chosen], pairs=pairs())


def _pair_of_sample(sample: EncodedSample, where: str) -> Pair:
    bg, fg_bg = (f"{image} of sample {sample.sample_id} in {where}" for image in (BG, FG_BG))
    return Pair(name=sample.sample_id, bg=bg, fg_bg=fg_bg, read=lambda: (sample.bg, sample.fg_bg))


def read_photo(path: Path) -> bytes:
    """Read an image file.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The image '{path}' cannot be read ({error.strerror}); give a PNG or JPEG file.") from None


def _photos(folder: Path) -> dict[str, Path]:
    """The photographs below a folder, by path without the extension."""
    found: dict[str, Path] = {}
    for name in Folder(folder).names:
        path = PurePath(name)
        if path.suffix.lower() not in EXTENSIONS:
            continue
        key = path.with_suffix("").as_posix()
        if key in found:
            raise InputError(
                f"The photographs '{found[key]}' and '{folder / name}' differ only in their extension; rename one."
            )
        found[key] = folder / name
    if not found:
        raise InputError(f"The folder '{folder}' has no photographs; give one with PNG or JPEG files.")
    return found


def _csv_rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows, with a value for both photographs."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"The file '{file}' cannot be read ({reason}); give a CSV file.") from None
    header = text.partition("\n")[0]
    reader = csv.DictReader(text.splitlines(), delimiter=";" if ";" in header and "," not in header else ",")
    columns = reader.fieldnames or []
    if not {BG, FG_BG} <= set(columns):
        more = f" and {len(columns) - MAX_NAMED} more" if len(columns) > MAX_NAMED else ""
        has = f"the columns {', '.join(map(repr, columns[:MAX_NAMED]))}{more}" if columns else "no columns"
        raise InputError(f"The file '{file}' has {has}, but must have '{BG}' and '{FG_BG}'; correct its first line.")
    found = []
    for row in reader:
        for column in (BG, FG_BG):
            if not row[column]:
                raise InputError(f"The column '{column}' is empty ({file}:{reader.line_num}); give the path of a file.")
        found.append((reader.line_num, row))
    if not found:
        raise InputError(f"The file '{file}' has no pairs; add a line for each.")
    return found
