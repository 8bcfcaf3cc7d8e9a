"""Import images of the user: find the samples, check their files, make depth far-bright.

found = import_source(Path("nyu_composed"))
write_dataset(found.samples(), destination, source=found.source)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from data.depth_levels import scale_depth
from data.errors import InputError
from data.images import encode_png, resize_to
from data.importers.archives import Files, open_source
from data.importers.hugging_face import find_saved, is_saved_dataset
from data.importers.layouts import LAYOUTS
from data.importers.pairing import FoundSamples, Quadruple, find_layout, find_quadruples
from data.importers.polarity import POLARITIES, Polarity, measure_polarity
from data.importers.problems import ImportProblems, ImportProblemsError
from data.importers.samples import MeasuredPlanes, ReadSample, SampleReader, find_mask_factor
from data.importers.stems import find_paired
from data.importers.tables import find_listed, is_table
from data.schema import EncodedSample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from data.dataset.manifest import StoredSplit


@dataclass(frozen=True, kw_only=True)
class Import:
    """The samples of a source, and how they will be converted."""

    layout: str
    """A key of `LAYOUTS`, 'table', 'folders' or 'datasets'."""
    reason: str
    """Why this layout: how many images match its names, and whether the user chose it."""
    quadruples: tuple[Quadruple, ...]
    measured: Polarity
    depth_polarity: Literal["far-bright", "near-bright"]
    """Polarity of the source: as measured, or as the user gave it if the measurement is not clear."""
    depth_scale: float
    """Size of the source's depth relative to the mask; depth is resized if it is not 1."""
    mask_factor: int
    """Multiplies the mask levels: 255 if all masks of the source contain only 0 and 1, else 1."""
    depth_bits: int
    """8 or 16, of the first measured depth. 16-bit depth is scaled, each image over its own range."""
    source: dict[str, object]
    """All of the above except the quadruples, for `dataset.json`."""
    files: Files

    where: str
    """The source, for messages."""
    split: StoredSplit | None
    """The split that came with the data; the samples are then in the order train, val, test."""

    def __len__(self) -> int:
        return len(self.quadruples)

    def backgrounds_in_several_parts(self) -> int:
        """Number of backgrounds with samples in more than one part of the split."""
        parts: dict[str, set[str]] = defaultdict(set)
        for quadruple in self.quadruples:
            parts[quadruple.bg_id].add(quadruple.split)
        return sum(len(of_background) > 1 for of_background in parts.values())

    def samples(self) -> Iterator[EncodedSample]:
        """Yield the encoded samples; an image that needs no change keeps its published bytes.

        Raises:
            ImportProblemsError: at the end, with all problems, if a file is unusable or the image sizes of a sample
                do not match.
        """
        problems = ImportProblems(self.where)
        reader = SampleReader(self.files, self.depth_scale, problems, mask_factor=self.mask_factor)
        for quadruple in self.quadruples:
            read = reader.read(quadruple)
            # After a problem, nothing that is encoded is kept.
            if read is not None and not problems:
                yield self._encode(quadruple, read)
        if problems:
            raise problems.error(len(self))

    def _encode(self, quadruple: Quadruple, read: ReadSample) -> EncodedSample:
        depth_bytes = read.depth_bytes
        if self.depth_scale != 1 or self.depth_polarity == "near-bright" or read.depth.dtype != np.uint8:
            levels = scale_depth(read.depth, self.depth_polarity, self.files.where(quadruple.depth))
            resized = resize_to(levels, *read.mask.shape[:2])
            depth_bytes = encode_png(255 - resized if self.depth_polarity == "near-bright" else resized)
        return EncodedSample(
            sample_id=quadruple.sample_id,
            bg_id=quadruple.bg_id,
            fg_id=quadruple.fg_id,
            bg=read.bg_bytes,
            fg_bg=read.fg_bg_bytes,
            mask=read.mask_bytes,
            depth=depth_bytes,
        )


def import_source(
    source: Path,
    *,
    layout: str | None = None,
    depth_polarity: str | None = None,
    on_checked: Callable[[int, int], None] | None = None,
) -> Import:
    """Import a table of samples, a saved data set of Hugging Face, or a published layout, whichever the source is.

    Args:
        source: see `data.importers.tables`, `data.importers.hugging_face` and `import_layout`.
        layout: as in `import_layout`; for a published layout only.
        depth_polarity: as in `import_layout`.
        on_checked: as in `import_layout`.

    Raises:
        ImportProblemsError: if a file is missing or unusable.
        InputError: if the source is unusable, or as in `import_layout`.
    """
    find = find_listed if is_table(source) else find_saved if is_saved_dataset(source) else None
    if find is None:
        return import_layout(source, layout=layout, depth_polarity=depth_polarity, on_checked=on_checked)
    if layout is not None:
        kind = "a table" if is_table(source) else "a saved data set"
        raise InputError(f"The option '--layout' is '{layout}', but '{source}' is {kind}; leave it out.")
    return _prepare(find(source), depth_polarity, on_checked)


def import_folders(
    folders: Mapping[str, Path],
    *,
    bg_pattern: str | None = None,
    depth_polarity: str | None = None,
    on_checked: Callable[[int, int], None] | None = None,
) -> Import:
    """Import the samples of four folders, paired by file stem, and measure the polarity of their depth.

    Args:
        folders: the folders of 'bg', 'fg_bg', 'mask' and 'depth'; each may be a zip archive.
        bg_pattern: regular expression that finds the background of a sample; see `data.importers.stems`.
        depth_polarity: as in `import_layout`.
        on_checked: as in `import_layout`.

    Raises:
        ImportProblemsError: if a file is missing or unusable.
        InputError: if a folder is unusable, or as in `import_layout`.
    """
    return _prepare(find_paired(folders, bg_pattern), depth_polarity, on_checked)


def import_layout(
    source: Path,
    *,
    layout: str | None = None,
    depth_polarity: str | None = None,
    on_checked: Callable[[int, int], None] | None = None,
) -> Import:
    """Recognise a published data set, pair its files by name, and measure the polarity of its depth.

    If a file is missing, or a measured file is unusable, all files are checked and all problems reported.

    Args:
        source: a folder, a zip archive, or a folder with zip archives; nothing is extracted.
        layout: a key of `LAYOUTS`; by default recognised by the file names.
        depth_polarity: 'far-bright' or 'near-bright', in case the measurement is not clear.
        on_checked: progress callback while all files are checked: (samples checked, samples in total).

    Raises:
        ImportProblemsError: if a file is missing or unusable.
        InputError: if the source is unusable; if the layout or the polarity is neither clear nor given; if the given
            polarity contradicts a clear measurement.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"The value of '--layout' is '{layout}', but must be one of {', '.join(LAYOUTS)}.")
    files = open_source(source)
    arrangement = find_layout(files, layout)
    reason = arrangement.reason if layout is None else f"chosen with --layout; {arrangement.reason}"
    problems = ImportProblems(str(source))
    found = FoundSamples(
        source=source,
        files=files,
        quadruples=find_quadruples(files, arrangement, problems),
        problems=problems,
        layout=arrangement.layout,
        reason=reason,
        depth_size=LAYOUTS[arrangement.layout].depth_size,
    )
    return _prepare(found, depth_polarity, on_checked)


def _prepare(found: FoundSamples, depth_polarity: str | None, on_checked: Callable[[int, int], None] | None) -> Import:
    """Measure masks and depth of some samples, and decide how all are converted."""
    files, quadruples = found.files, found.quadruples
    factor = find_mask_factor(files, quadruples, str(found.source))
    planes = MeasuredPlanes(files, quadruples, found.depth_size, factor)
    measured = measure_polarity(planes)
    if found.problems or planes.unusable:
        raise _check_all(found, planes.depth_scale, on_checked)
    polarity = _choose_polarity(measured, depth_polarity)
    return Import(
        layout=found.layout,
        reason=found.reason,
        quadruples=tuple(quadruples),
        measured=measured,
        depth_polarity=polarity,
        depth_scale=planes.depth_scale,
        depth_bits=planes.depth_bits,
        mask_factor=factor,
        files=files,
        where=str(found.source),
        split=found.split,
        source={
            "kind": "import",
            "path": str(found.source),
            **found.details,
            "archives": list(files.archives),
            "layout": found.layout,
            "reason": found.reason,
            "depth_polarity": {"source": polarity, "given": depth_polarity, "measured": asdict(measured)},
            "depth_inverted": polarity == "near-bright",
            "depth_resized": planes.resized,
            "depth_bits": planes.depth_bits,
            "mask_factor": factor,
        },
    )


def _check_all(
    found: FoundSamples, depth_scale: float, on_checked: Callable[[int, int], None] | None
) -> ImportProblemsError:
    """Read all samples, and return an error with all problems."""
    reader = SampleReader(found.files, depth_scale, found.problems)
    for number, quadruple in enumerate(found.quadruples, start=1):
        reader.read(quadruple)
        if on_checked is not None:
            on_checked(number, len(found.quadruples))
    return found.problems.error(len(found.quadruples))


def _choose_polarity(measured: Polarity, given: str | None) -> Literal["far-bright", "near-bright"]:
    if given is not None and given not in POLARITIES:
        raise InputError(f"The value of '--depth-polarity' is '{given}', but must be 'far-bright' or 'near-bright'.")
    evidence = (
        f"over {measured.samples} samples, depth is {abs(measured.difference):.1f} grey levels "
        f"{'darker' if measured.difference > 0 else 'brighter'} inside the mask than beside it, and "
        f"{measured.agreement:.0%} of them agree"
    )
    name = measured.name
    if name is not None and given in (None, name):
        return name
    if name is not None:
        raise InputError(
            f"The value of '--depth-polarity' is '{given}', but the depth was measured to be {name} "
            f"({evidence}); leave the option out, or correct the depth."
        )
    for polarity in POLARITIES:
        if given == polarity:
            return polarity
    raise InputError(
        f"It is not clear whether far or near is bright in the depth ({evidence}); look at an image, and give "
        "--depth-polarity far-bright or near-bright."
    )
