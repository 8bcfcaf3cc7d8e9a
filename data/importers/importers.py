"""Import published folders and archives: recognise the layout, pair the files, check them, make depth far-bright.

found = import_layout(Path("nyu_composed"))
write_dataset(found.samples(), destination, source=found.source)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from data.depth_levels import scale_depth
from data.errors import InputError
from data.images import encode_png, resize_to
from data.importers.archives import Files, open_source
from data.importers.layouts import LAYOUTS
from data.importers.pairing import Quadruple, find_layout, find_quadruples
from data.importers.polarity import POLARITIES, Polarity, measure_polarity
from data.importers.problems import ImportProblems, ImportProblemsError
from data.importers.samples import MeasuredPlanes, ReadSample, SampleReader, find_mask_factor
from data.schema import EncodedSample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Import:
    """A published data set that was found, and how it will be converted."""

    layout: str
    """A key of `LAYOUTS`."""
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

    def __len__(self) -> int:
        return len(self.quadruples)

    def samples(self) -> Iterator[EncodedSample]:
        """Yield the encoded samples; an image that needs no change keeps its published bytes.

        Raises:
            ImportProblemsError: at the end, with all problems, if a file is unusable or the image sizes of a sample
                do not match.
        """
        problems = ImportProblems(str(self.files.root))
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
    quadruples = find_quadruples(files, arrangement, problems)
    factor = find_mask_factor(files, quadruples)
    planes = MeasuredPlanes(files, quadruples, LAYOUTS[arrangement.layout].depth_size, factor)
    measured = measure_polarity(planes)
    if problems or planes.unusable:
        raise _check_all(files, quadruples, planes.depth_scale, problems, on_checked)
    polarity = _choose_polarity(measured, depth_polarity)
    scale = planes.depth_scale
    return Import(
        layout=arrangement.layout,
        reason=reason,
        quadruples=tuple(quadruples),
        measured=measured,
        depth_polarity=polarity,
        depth_scale=scale,
        depth_bits=planes.depth_bits,
        mask_factor=factor,
        files=files,
        source={
            "kind": "import",
            "path": str(source),
            "archives": list(files.archives),
            "layout": arrangement.layout,
            "reason": reason,
            "depth_polarity": {"source": polarity, "given": depth_polarity, "measured": asdict(measured)},
            "depth_inverted": polarity == "near-bright",
            "depth_resized": planes.resized,
            "depth_bits": planes.depth_bits,
            "mask_factor": factor,
        },
    )


def _check_all(
    files: Files,
    quadruples: Sequence[Quadruple],
    depth_scale: float,
    problems: ImportProblems,
    on_checked: Callable[[int, int], None] | None,
) -> ImportProblemsError:
    """Read all samples, and return an error with all problems."""
    reader = SampleReader(files, depth_scale, problems)
    for number, quadruple in enumerate(quadruples, start=1):
        reader.read(quadruple)
        if on_checked is not None:
            on_checked(number, len(quadruples))
    return problems.error(len(quadruples))


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
