"""Published folders and archives to samples: recognised, paired, checked, and with far as bright in every depth.

found = import_layout(Path("nyu_composed"))
write_dataset(found.samples(), destination, source=found.source)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data.errors import InputError
from data.images import decode_photo, decode_plane, encode_png, resize_to, storable_plane
from data.importers.archives import Files, open_source
from data.importers.layouts import LAYOUTS
from data.importers.pairing import Quadruple, find_layout, find_quadruples
from data.importers.polarity import POLARITIES, Polarity, measure_polarity
from data.schema import EncodedSample, Pixels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_MEASURED = 200
"""How many samples, evenly spread, the depth's polarity is measured in."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """A published data set that was found: what is in it, and what will be done to it."""

    layout: str
    """A key of `data.layouts.LAYOUTS`."""
    reason: str
    """Why that one: how many pictures have its names, or that it was asked for."""
    quadruples: tuple[Quadruple, ...]
    measured: Polarity
    depth_polarity: Literal["far-bright", "near-bright"]
    """The source's: as measured, or as given where it was not clear."""
    depth_scale: float
    """Height and width of the stored depth, as a share of the mask's; resized to them where it is not 1."""
    source: dict[str, Any]
    """All of this but the quadruples, for `dataset.json`."""
    files: Files

    def __len__(self) -> int:
        return len(self.quadruples)

    def samples(self) -> Iterator[EncodedSample]:
        """Encode the samples one by one; pictures keep the bytes they were published with where that can be.

        Raises:
            InputError: if a file cannot be used, or the sizes of a sample's pictures do not fit together.
        """
        bg_name, bg = "", b""
        bg_shape: tuple[int, ...] = ()
        for quadruple in self.quadruples:
            if quadruple.bg != bg_name:
                bg_name, bg = quadruple.bg, self.files.read(quadruple.bg)
                bg_shape = decode_photo(bg, self.files.where(bg_name)).shape[:2]
            yield self._encode(quadruple, bg, bg_shape)

    def _encode(self, quadruple: Quadruple, bg: bytes, bg_shape: tuple[int, ...]) -> EncodedSample:
        where = self.files.where
        fg_bg = self.files.read(quadruple.fg_bg)
        fg_bg_shape = decode_photo(fg_bg, where(quadruple.fg_bg)).shape[:2]
        mask, mask_bytes = storable_plane(self.files.read(quadruple.mask), where(quadruple.mask))
        depth, depth_bytes = storable_plane(self.files.read(quadruple.depth), where(quadruple.depth))
        height, width = mask.shape
        depth_shape = (round(height * self.depth_scale), round(width * self.depth_scale))
        for name, shape, wanted in (
            (quadruple.bg, bg_shape, mask.shape),
            (quadruple.fg_bg, fg_bg_shape, mask.shape),
            (quadruple.depth, depth.shape, depth_shape),
        ):
            if shape != wanted:
                raise InputError(
                    f"The picture '{where(name)}' is {_size(shape)}, but must be {_size(wanted)} "
                    f"to fit '{where(quadruple.mask)}' of {_size(mask.shape)}; use one size in a sample."
                )
        if self.depth_scale != 1 or self.depth_polarity == "near-bright":
            resized = resize_to(depth, height, width)
            depth_bytes = encode_png(255 - resized if self.depth_polarity == "near-bright" else resized)
        return EncodedSample(
            sample_id=quadruple.sample_id,
            bg_id=quadruple.bg_id,
            fg_id=quadruple.fg_id,
            bg=bg,
            fg_bg=fg_bg,
            mask=mask_bytes,
            depth=depth_bytes,
        )


def import_layout(source: Path, *, layout: str | None = None, depth_polarity: str | None = None) -> Import:
    """Recognise a published data set, pair its files by name, and measure its depth's polarity.

    Args:
        source: a folder, a zip archive, or a folder of zip archives; nothing is extracted.
        layout: a key of `data.layouts.LAYOUTS`; recognised by the files' names if not given.
        depth_polarity: 'far-bright' or 'near-bright', where the measurement may not be clear.

    Raises:
        InputError: if the source cannot be used, its layout is not clear and not given, a file is missing or no
            image, or the polarity is not clear and not given, or given otherwise than measured.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"The value of '--layout' is '{layout}', but must be one of {', '.join(LAYOUTS)}.")
    files = open_source(source)
    arrangement = find_layout(files, layout)
    reason = arrangement.reason if layout is None else f"asked for with --layout; {arrangement.reason}"
    quadruples = find_quadruples(files, arrangement)
    mask, depth = _planes(files, quadruples[0])
    scale = _depth_scale(mask, depth, arrangement.layout)
    chosen = np.unique(np.linspace(0, len(quadruples) - 1, MOST_MEASURED).round().astype(int))
    measured = measure_polarity(_matched_planes(files, quadruples[number]) for number in chosen)
    polarity = _decide(measured, depth_polarity)
    resized = {"from": _size(depth.shape), "to": _size(mask.shape), "by": "area" if scale > 1 else "bilinear"}
    return Import(
        layout=arrangement.layout,
        reason=reason,
        quadruples=tuple(quadruples),
        measured=measured,
        depth_polarity=polarity,
        depth_scale=scale,
        files=files,
        source={
            "kind": "import",
            "path": str(source),
            "archives": list(files.archives),
            "layout": arrangement.layout,
            "reason": reason,
            "depth_polarity": {"source": polarity, "given": depth_polarity, "measured": asdict(measured)},
            "depth_inverted": polarity == "near-bright",
            "depth_resized": resized if scale != 1 else None,
        },
    )


def _planes(files: Files, quadruple: Quadruple) -> tuple[Pixels, Pixels]:
    """Mask and depth as they are stored."""
    mask = decode_plane(files.read(quadruple.mask), files.where(quadruple.mask))
    depth = decode_plane(files.read(quadruple.depth), files.where(quadruple.depth))
    return mask, depth


def _matched_planes(files: Files, quadruple: Quadruple) -> tuple[Pixels, Pixels]:
    """Mask and depth, (H, W) each: depth at the mask's size."""
    mask, depth = _planes(files, quadruple)
    height, width = mask.shape
    return mask, resize_to(depth, height, width)


def _depth_scale(mask: Pixels, depth: Pixels, layout: str) -> float:
    """Size of the depth as a share of the mask's, if the layout has such depths; 1 if not."""
    scale = depth.shape[0] / mask.shape[0]
    size = LAYOUTS[layout].depth_size
    return scale if size == "own" or (size == "half" and scale == 0.5) else 1.0


def _decide(measured: Polarity, given: str | None) -> Literal["far-bright", "near-bright"]:
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
        f"Whether far or near is bright in the depth is not clear ({evidence}); look at a picture, and give "
        "--depth-polarity far-bright or near-bright."
    )


def _size(shape: tuple[int, ...]) -> str:
    """Height and width as people write them."""
    return f"{shape[1]}x{shape[0]}"
