"""Convert the samples of a source: measure some of them, check all, make depth far-bright with 8 bits.

Shapes: H and W are height and width in pixels.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from data.depth.levels import MAX_LEVEL, valid_levels
from data.errors import InputError
from data.images import encode_png, resize_depth
from data.importers.archives import Files
from data.importers.pairing import FoundSamples, Quadruple
from data.importers.polarity import POLARITIES, Polarity, measure_polarity
from data.importers.problems import ImportProblems, ImportProblemsError
from data.importers.samples import MeasuredPlanes, ReadSample, SampleReader, find_mask_factor
from data.schema import VALID, EncodedSample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data.dataset.manifest import StoredSplit
    from data.depth.meaning import DepthMeaning
    from data.source_images import MaskForm


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
    """8, 16 or 32 (floating-point), of the first measured depth. More than 8 bits are scaled, each image over its own
    range."""
    depth_meaning: DepthMeaning
    look_swapped: bool
    """Whether the masks look like depth, and the depth like masks."""
    mask_forms: dict[MaskForm, int]
    """Number of masks by form; filled by `samples`. `source` has it too, so that `dataset.json` does."""
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
        reader = SampleReader(
            self.files, self.depth_scale, problems, meaning=self.depth_meaning, mask_factor=self.mask_factor
        )
        for quadruple in self.quadruples:
            read = reader.read(quadruple)
            # After a problem, nothing that is encoded is kept.
            self.mask_forms.update(reader.mask_forms)
            if read is not None and not problems:
                yield self._encode(quadruple, read)
        if problems:
            raise problems.error(len(self))

    def _encode(self, quadruple: Quadruple, read: ReadSample) -> EncodedSample:
        depth_bytes, valid_bytes = read.depth_bytes, None
        levels, valid = valid_levels(
            read.depth, self.depth_polarity, self.files.where(quadruple.depth), self.depth_meaning
        )
        if levels is not read.depth or self.depth_scale != 1 or self.depth_polarity == "near-bright":
            mask = None if valid is None else np.where(valid, np.uint8(VALID), np.uint8(0))
            resized, mask = resize_depth(levels, mask, *read.mask.shape[:2])
            depth_bytes = encode_png(MAX_LEVEL - resized if self.depth_polarity == "near-bright" else resized)
            valid_bytes = None if mask is None else encode_png(mask)
        return EncodedSample(
            sample_id=quadruple.sample_id,
            bg_id=quadruple.bg_id,
            fg_id=quadruple.fg_id,
            bg=read.bg_bytes,
            fg_bg=read.fg_bg_bytes,
            mask=read.mask_bytes,
            depth=depth_bytes,
            valid=valid_bytes,
        )


def prepare_import(
    found: FoundSamples,
    depth_polarity: str | None,
    meaning: DepthMeaning,
    on_checked: Callable[[int, int], None] | None,
) -> Import:
    """Measure masks and depth of some samples, and decide how all are converted.

    Args:
        found: the samples.
        depth_polarity: 'far-bright' or 'near-bright', in case the measurement is not clear.
        meaning: of the depth values.
        on_checked: progress callback while all files are checked: (samples checked, samples in total).

    Raises:
        ImportProblemsError: if a file is missing, or a measured one unusable: all are then checked.
        InputError: if the polarity is neither clear nor given, or the given one contradicts a clear measurement or the
            unit of the depth; if values have no known unit.
    """
    files, quadruples = found.files, found.quadruples
    factor = find_mask_factor(files, quadruples, str(found.source))
    planes = MeasuredPlanes(files, quadruples, found.depth_size, meaning=meaning, mask_factor=factor)
    measured = measure_polarity(planes)
    if found.problems or planes.unusable:
        raise _check_all(found, planes.depth_scale, meaning, on_checked)
    polarity = _choose_polarity(measured, depth_polarity, meaning, look_swapped=planes.look_swapped)
    mask_forms: dict[MaskForm, int] = {}
    return Import(
        layout=found.layout,
        reason=found.reason,
        quadruples=tuple(quadruples),
        measured=measured,
        depth_polarity=polarity,
        depth_scale=planes.depth_scale,
        depth_bits=planes.depth_bits,
        depth_meaning=meaning,
        look_swapped=planes.look_swapped,
        mask_factor=factor,
        mask_forms=mask_forms,
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
            "depth_unit": meaning.unit,
            "depth_invalid": meaning.invalid,
            "mask_factor": factor,
            "mask_forms": mask_forms,
        },
    )


def _check_all(
    found: FoundSamples, depth_scale: float, meaning: DepthMeaning, on_checked: Callable[[int, int], None] | None
) -> ImportProblemsError:
    """Read all samples, and return an error with all problems."""
    reader = SampleReader(found.files, depth_scale, found.problems, meaning=meaning)
    for number, quadruple in enumerate(found.quadruples, start=1):
        reader.read(quadruple)
        if on_checked is not None:
            on_checked(number, len(found.quadruples))
    return found.problems.error(len(found.quadruples))


def _choose_polarity(
    measured: Polarity, given: str | None, meaning: DepthMeaning, *, look_swapped: bool
) -> Literal["far-bright", "near-bright"]:
    if given is not None and given not in POLARITIES:
        raise InputError(f"The value of '--depth-polarity' is '{given}', but must be 'far-bright' or 'near-bright'.")
    evidence = (
        f"over {measured.samples} samples, depth is {abs(measured.difference):.1f} grey levels "
        f"{'darker' if measured.difference > 0 else 'brighter'} inside the mask than beside it, and "
        f"{measured.agreement:.0%} of them agree"
    )
    name = measured.name
    if meaning.is_metric:
        _check_metric(name, given, meaning, evidence)
        return "far-bright"
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
    if look_swapped:
        raise InputError(
            "The masks have many grey levels and the depth has hardly any, as if mask and depth were swapped; correct "
            "the names of the columns or folders."
        )
    raise InputError(
        f"It is not clear whether far or near is bright in the depth ({evidence}); look at an image, and give "
        "--depth-polarity far-bright or near-bright."
    )


def _check_metric(measured: str | None, given: str | None, meaning: DepthMeaning, evidence: str) -> None:
    """Refuse distances that are near-bright."""
    if given == "near-bright":
        raise InputError(
            f"The value of '--depth-polarity' is 'near-bright', but depth in {meaning.unit} grows with distance; leave "
            "the option out, or give --depth-unit relative."
        )
    if measured == "near-bright":
        raise InputError(
            f"The value of '--depth-unit' is '{meaning.unit}', but the depth was measured to be near-bright "
            f"({evidence}), as disparity and inverse depth are; give --depth-unit relative, or correct the depth."
        )
