"""Prediction of mask and depth from image files with an exported checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from data.atomic import replacing
from data.errors import InputError
from data.fitting.fit import Fitting
from data.grids import overlay
from data.image_metadata import note_of, with_note
from data.images import encode_png
from data.parallel import ahead
from data.schema import Pixels
from data.source_images import source_photo
from trainable.evaluation.pairs import Pair, read_photo
from trainable.evaluation.predictor import Predictor, refuse_other_size
from trainable.evaluation.swapped import look_swapped

OUTPUTS = ("mask.png", "depth.png", "overlay.png")
NOTE_BYTES = 512
"""The note of a prediction lies within the first bytes of its file."""
MAX_BATCH_BYTES = 256 * 2**20
"""A batch ends early when its photographs have more bytes in memory."""
MAX_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What became of a pair."""

    pair: Pair
    state: Literal["made", "replaced", "kept", "failed"]
    """'replaced': in place of an earlier one of the same network and images; 'kept': such a one was complete."""
    written: tuple[Path, ...] = ()
    """Mask, depth and overlay; empty if it failed."""
    reason: str = ""
    """Error message, if it failed."""
    looks_swapped: bool = False
    """Whether the object seems to be in the background; see `look_swapped`. False for those that were kept."""


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A pair whose images were read."""

    pair: Pair
    outputs: tuple[Path, ...]
    bg: Pixels
    fg_bg: Pixels
    """Both of the network's size."""
    photo: Pixels
    """The photograph with the object, of its own size."""
    notes: list[dict[str, str]]
    """Of each output."""
    is_earlier: bool
    """Whether there are files of an earlier prediction."""
    looks_swapped: bool


def predict_pairs(
    predictor: Predictor, pairs: Iterable[Pair], out: Path, *, threshold: float | None = None
) -> Iterator[Predicted]:
    """Predict pairs in batches, and write their predictions as PNG files of the photographs' size.

    A prediction of the same network, images and threshold that is in `out` is kept. Each file appears whole, so that
    an interrupted call can be repeated.

    Args:
        predictor: the network.
        pairs: the images.
        out: output directory, created if it is missing. The files are those of `OUTPUTS` for a pair without a name,
            else mask/NAME.png, depth/NAME.png and overlay/NAME.png.
        threshold: minimum probability in 0..1 of a foreground pixel; None for a mask of probabilities.

    Yields:
        What became of each pair, in order. A pair whose images cannot be used has failed.

    Raises:
        InputError: if the threshold is out of its range, or `out` cannot be written or has another prediction.
        DiskError: for a fault of the disk.
    """
    check_threshold(threshold)
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    loaded = ahead((partial(_load, predictor, pair, out, threshold) for pair in pairs), threads)
    try:
        yield from ahead(_writes(predictor, loaded, threshold), threads)
    except OSError as error:
        raise InputError(f"Nothing can be written to '{out}' ({error.strerror}); give another directory.") from None


def count_made(predictor: Predictor, names: Iterable[str], out: Path, *, threshold: float | None = None) -> int:
    """How many predictions of `names` are in `out` by the same network and threshold, whatever their images."""
    wanted = _notes(predictor.identity, "", threshold)[-1]
    overlays = (_note_in(_outputs(name, out)[-1]) for name in names)
    return sum({**note, "images": ""} == wanted for note in overlays)


def check_threshold(threshold: float | None) -> None:
    """Refuse a threshold that is not a probability.

    Raises:
        InputError: if it is out of its range.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"The value of '--threshold' is {threshold:g}, but must be a probability from 0 to 1.")


def files_look_swapped(bg: Path, fg_bg: Path) -> bool:
    """Whether the object seems to be in `bg` instead of `fg_bg`; see `look_swapped`. Both have the same size.

    Raises:
        InputError: if a file cannot be read.
    """
    return look_swapped(*(source_photo(read_photo(path), str(path))[0] for path in (bg, fg_bg)))


def _outputs(name: str, out: Path) -> tuple[Path, ...]:
    if not name:
        return tuple(out / output for output in OUTPUTS)
    return tuple(out / Path(output).stem / f"{name}.png" for output in OUTPUTS)


def _load(predictor: Predictor, pair: Pair, out: Path, threshold: float | None) -> _Loaded | Predicted:
    """Read a pair, unless its prediction is kept or its images cannot be used.

    Raises:
        InputError: if `out` has another prediction of that name.
    """
    outputs = _outputs(pair.name, out)
    try:
        encoded = pair.read()
    except InputError as error:
        return Predicted(pair=pair, state="failed", reason=str(error))
    images = hashlib.sha256(b"".join(hashlib.sha256(image).digest() for image in encoded)).hexdigest()[:16]
    notes = _notes(predictor.identity, images, threshold)
    there = [path for path in outputs if path.exists()]
    found = [_note_in(path) for path in outputs]
    if found == notes:
        return Predicted(pair=pair, state="kept", written=outputs)
    for path in there:
        if _without_threshold(_note_in(path)) != _without_threshold(notes[0]):
            raise InputError(
                f"The file '{path}' is not of this network and these images; give another --out, or remove it."
            )
    try:
        bg, photo = _decoded(pair, encoded)
    except InputError as error:
        return Predicted(pair=pair, state="failed", reason=str(error))
    return _Loaded(
        pair=pair,
        outputs=outputs,
        bg=predictor.shrink(bg),
        fg_bg=predictor.shrink(photo),
        photo=photo,
        notes=notes,
        is_earlier=bool(there),
        looks_swapped=look_swapped(bg, photo),
    )


def _decoded(pair: Pair, encoded: tuple[bytes, bytes]) -> tuple[Pixels, Pixels]:
    bg, fg_bg = (source_photo(image, where)[0] for image, where in zip(encoded, (pair.bg, pair.fg_bg), strict=True))
    refuse_other_size(bg, fg_bg, (pair.bg, pair.fg_bg))
    return bg, fg_bg


def _writes(
    predictor: Predictor, loaded: Iterable[_Loaded | Predicted], threshold: float | None
) -> Iterator[Callable[[], Predicted]]:
    """The calls that write the predictions, in order."""
    for batch in _batches(loaded, predictor.batch_size):
        new = [item for item in batch if isinstance(item, _Loaded)]
        planes = iter(_planes(predictor, new) if new else [])
        for item in batch:
            if isinstance(item, _Loaded):
                yield partial(_write, item, predictor.fitting, *next(planes), threshold)
            else:
                yield partial(_same, item)


def _planes(predictor: Predictor, batch: Sequence[_Loaded]) -> list[tuple[Pixels, Pixels]]:
    """Mask and depth of each pair of a batch, of the network's size."""
    bg, fg_bg = np.stack([item.bg for item in batch]), np.stack([item.fg_bg for item in batch])
    return predictor.predict_small(bg, fg_bg, predictor.fitting.borders([item.photo.shape[:2] for item in batch]))


def _batches(loaded: Iterable[_Loaded | Predicted], size: int) -> Iterator[list[_Loaded | Predicted]]:
    """Group what was loaded into batches of at most `size`, in order; fewer if the photographs are large."""
    batch: list[_Loaded | Predicted] = []
    used = 0
    for item in loaded:
        batch.append(item)
        used += item.photo.nbytes if isinstance(item, _Loaded) else 0
        if len(batch) == size or used > MAX_BATCH_BYTES:
            yield batch
            batch, used = [], 0
    if batch:
        yield batch


def _write(item: _Loaded, fitting: Fitting, mask: Pixels, depth: Pixels, threshold: float | None) -> Predicted:
    """Write the prediction of a pair, planes of the network's size. The overlay is the last file."""
    mask, depth = (fitting.restore(plane, item.photo.shape[:2]) for plane in (mask, depth))
    if threshold is not None:
        mask = np.where(mask >= threshold * 255, np.uint8(255), np.uint8(0))
    images = (mask, depth, overlay(item.photo, mask))
    for pixels, path, note in zip(images, item.outputs, item.notes, strict=True):
        with replacing(path, durable=False) as beside:
            text = " ".join(f"{key}={value}" for key, value in note.items())
            beside.write_bytes(with_note(encode_png(pixels), text))
    state: Literal["made", "replaced"] = "replaced" if item.is_earlier else "made"
    return Predicted(pair=item.pair, state=state, written=item.outputs, looks_swapped=item.looks_swapped)


def _same(found: Predicted) -> Predicted:
    return found


def _notes(network: str, images: str, threshold: float | None) -> list[dict[str, str]]:
    """The note in each output: of which network and images it is; the depth depends on no threshold."""
    depth = {"network": network, "images": images}
    mask = depth | {"threshold": "none" if threshold is None else repr(float(threshold))}
    return [mask, depth, mask]


def _note_in(path: Path) -> dict[str, str]:
    """The note in a file; empty if it has none, or there is no file."""
    try:
        with path.open("rb") as file:
            fields = note_of(file.read(NOTE_BYTES)).split()
    except OSError:
        return {}
    return dict(field.split("=", 1) for field in fields if "=" in field)


def _without_threshold(note: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in note.items() if key != "threshold"}
