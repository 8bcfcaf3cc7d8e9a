"""Read and check the files of a source's samples: each image by itself, then whether the four sizes match.

Shapes: H and W are height and width in pixels. A photo is (H, W, 3) RGB, a plane (mask or depth) is (H, W).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data.depth.files import DepthUnitError, read_depth
from data.depth.levels import MAX_LEVEL, comparable_depth
from data.errors import InputError
from data.images import resize_to
from data.importers.layouts import ROLES
from data.source_images import mask_factor, source_mask, source_photo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from data.depth.meaning import DepthMeaning
    from data.importers.archives import Files
    from data.importers.pairing import Quadruple
    from data.importers.problems import ImportProblems
    from data.schema import Pixels
    from data.source_images import MaskForm, StoredDepth

    Shape = tuple[int, ...]

MAX_MEASURED = 200
"""Limit for the samples, evenly spread, in which the polarity and size of the depth are measured."""
GREY_MASKS, BLACK_AND_WHITE_DEPTHS = 0.5, 0.1
"""Mean shares of grey pixels, above and below which mask and depth look swapped."""
NOUNS = {"bg": "background", "fg_bg": "photograph", "mask": "mask", "depth": "depth"}
COUNTS = ("no", "one", "other two", "other three")
"""Words for the number of files with the right size."""


@dataclass(frozen=True, kw_only=True)
class ReadSample:
    """Content of a sample's files: the encoded bytes to store, and the pixels of mask and depth."""

    bg_bytes: bytes
    fg_bg_bytes: bytes
    mask: Pixels
    mask_bytes: bytes
    depth: StoredDepth
    """At its original size."""
    depth_bytes: bytes
    """Only valid if the depth needs neither scaling nor resizing."""


class SampleReader:
    """Reads the samples of a source, and collects their problems."""

    def __init__(
        self,
        files: Files,
        depth_scale: float,
        problems: ImportProblems,
        *,
        meaning: DepthMeaning,
        mask_factor: int = 1,
    ) -> None:
        self._files = files
        self._meaning = meaning
        self._depth_scale = depth_scale
        self._problems = problems
        self._mask_factor = mask_factor
        self.mask_forms: Counter[MaskForm] = Counter()
        """Number of masks read, by form."""
        self._bg: tuple[str, tuple[Pixels, bytes] | InputError] = "", InputError()
        """The last background file and its result, cached because the next sample usually has the same one."""
        self._bg_files: dict[str, tuple[str, bytes]] = {}
        """First file of each background id, and the SHA-256 of its bytes."""

    def read(self, quadruple: Quadruple) -> ReadSample | None:
        """Read a sample; None if it has a problem, which is added to the problems."""
        found: dict[str, tuple[StoredDepth, bytes]] = {}
        for role in ROLES:
            name = getattr(quadruple, role)
            if not name:  # missing; the problem is already known
                continue
            try:
                found[role] = self._read_file(quadruple, role)
            except InputError as error:
                self._add_problem("unusable", role, name, str(error), quadruple)
        shapes = {role: pixels.shape[:2] for role, (pixels, _) in found.items()}
        if not self._sizes_match(quadruple, shapes) or len(found) < len(ROLES):
            return None
        (mask, mask_bytes), (depth, depth_bytes) = found["mask"], found["depth"]
        return ReadSample(
            bg_bytes=found["bg"][1],
            fg_bg_bytes=found["fg_bg"][1],
            mask=np.asarray(mask, np.uint8),
            mask_bytes=mask_bytes,
            depth=depth,
            depth_bytes=depth_bytes,
        )

    def _read_file(self, quadruple: Quadruple, role: str) -> tuple[StoredDepth, bytes]:
        name = getattr(quadruple, role)
        if role == "mask":
            mask = source_mask(self._files.read(name), self._files.where(name), factor=self._mask_factor)
            self.mask_forms[mask.form] += 1
            return mask.plane, mask.encoded
        if role == "depth":
            return read_depth(self._files.read(name), self._files.where(name), self._meaning)
        if role == "fg_bg":
            return source_photo(self._files.read(name), self._files.where(name))
        if self._bg[0] != name:
            try:
                self._bg = name, self._read_background(name, quadruple.bg_id)
            except InputError as error:
                self._bg = name, error
        if isinstance(self._bg[1], InputError):
            raise self._bg[1]
        return self._bg[1]

    def _read_background(self, name: str, bg_id: str) -> tuple[Pixels, bytes]:
        pixels, encoded = source_photo(self._files.read(name), self._files.where(name))
        digest = hashlib.sha256(encoded).digest()
        first, expected = self._bg_files.setdefault(bg_id, (name, digest))
        if digest != expected:
            raise InputError(
                f"The background '{self._files.where(name)}' is another image than '{self._files.where(first)}', but "
                f"both have the id '{bg_id}'; give each background its own id."
            )
        return pixels, encoded

    def _sizes_match(self, quadruple: Quadruple, shapes: Mapping[str, Shape]) -> bool:
        """Whether all files have one size, apart from the depth's scale; adds files that differ to the problems."""
        majority = _majority(shapes, self._depth_scale)
        if majority is None:
            sizes = ", ".join(f"{NOUNS[role]} {_size(shape)}" for role, shape in shapes.items())
            sentence = (
                f"The images of sample '{quadruple.sample_id}' differ in size ({sizes}); use one size per sample."
            )
            self._add_problem("size", "mask", quadruple.mask, sentence, quadruple)
            return False
        odd = [role for role, shape in shapes.items() if not _matches(role, shape, majority, self._depth_scale)]
        for role in odd:
            name, expected = getattr(quadruple, role), _expected_shape(role, majority, self._depth_scale)
            sentence = (
                f"The {NOUNS[role]} '{self._files.where(name)}' is {_size(shapes[role])}, but must be "
                f"{_size(expected)} to match the {COUNTS[len(shapes) - len(odd)]} files of its sample; use one "
                "size in a sample."
            )
            self._add_problem("size", role, name, sentence, quadruple)
        return not odd

    def _add_problem(self, kind: str, role: str, name: str, sentence: str, quadruple: Quadruple) -> None:
        self._problems.add(kind, role, self._files.where(name), sentence, quadruple.sample_id, row=quadruple.row)


class MeasuredPlanes:
    """Masks and depths of some samples, evenly spread; the properties are valid after the iteration."""

    def __init__(
        self,
        files: Files,
        quadruples: Sequence[Quadruple],
        depth_size: str,
        *,
        meaning: DepthMeaning,
        mask_factor: int,
    ) -> None:
        self._files = files
        self._meaning = meaning
        self._mask_factor = mask_factor
        self._quadruples = quadruples
        self._depth_size = depth_size
        self._sizes: Counter[tuple[Shape, Shape]] = Counter()
        """Number of samples by the sizes of mask and depth."""
        self._grey: list[tuple[float, float]] = []
        """Share of the pixels between black and white, of the mask and the depth of each sample."""
        self.unusable = 0
        """Number of samples with an unusable file."""
        self.depth_bits = 0
        """8, 16 or 32 (floating-point), of the first depth; 0 if there is none."""

    def __iter__(self) -> Iterator[tuple[Pixels, NDArray[np.float32]]]:
        """Yield mask and depth, (H, W) each, for measuring the polarity; the depth is resized to the mask."""
        chosen = np.linspace(0, len(self._quadruples) - 1, MAX_MEASURED).round().astype(int)
        for number in np.unique(chosen):
            quadruple = self._quadruples[number]
            if not (quadruple.mask and quadruple.depth):
                continue
            try:
                mask = source_mask(
                    self._files.read(quadruple.mask), self._files.where(quadruple.mask), factor=self._mask_factor
                ).plane
                depth, _ = read_depth(
                    self._files.read(quadruple.depth), self._files.where(quadruple.depth), self._meaning
                )
            except DepthUnitError:
                raise
            except InputError:
                self.unusable += 1
                continue
            self._sizes[mask.shape, depth.shape] += 1
            self.depth_bits = self.depth_bits or 8 * depth.dtype.itemsize
            levels = resize_to(comparable_depth(depth, self._meaning), *mask.shape[:2])
            self._grey.append((_grey_share(mask), _grey_share(levels)))
            yield mask, levels

    @property
    def look_swapped(self) -> bool:
        """Whether most pixels of the masks are grey, and nearly all of the depths are black or white."""
        masks, depths = np.mean(self._grey, axis=0) if self._grey else (0.0, 1.0)
        return bool(masks > GREY_MASKS and depths < BLACK_AND_WHITE_DEPTHS)

    @property
    def depth_scale(self) -> float:
        """Most common size of depth relative to its mask, if the layout allows it, else 1."""
        if not self._sizes:
            return 1.0
        scales: Counter[float] = Counter()
        for (mask, depth), count in self._sizes.items():
            scales[depth[0] / mask[0]] += count
        scale = scales.most_common(1)[0][0]
        return scale if self._depth_size == "own" or (self._depth_size == "half" and scale == 0.5) else 1.0

    @property
    def resized(self) -> dict[str, str] | None:
        """How most depths are resized, for `dataset.json`; None if they are not."""
        scale = self.depth_scale
        if scale == 1:
            return None
        sizes = [sizes for sizes, _ in self._sizes.most_common() if sizes[1][0] / sizes[0][0] == scale]
        mask, depth = sizes[0]
        return {"from": _size(depth), "to": _size(mask), "by": "area" if scale > 1 else "bilinear"}


def _grey_share(levels: NDArray[Any]) -> float:
    """The share of pixels with a level from 10 to 90 % of 255."""
    low, high = (share * MAX_LEVEL for share in (0.1, 0.9))
    return float(((levels > low) & (levels < high)).mean())


def find_mask_factor(files: Files, quadruples: Sequence[Quadruple], where: str) -> int:
    """Factor for the mask levels of the source `where`, as `mask_factor`; unusable masks are ignored.

    Raises:
        InputError: as `mask_factor`.
    """

    def masks() -> Iterator[Pixels]:
        for quadruple in quadruples:
            if quadruple.mask:
                with contextlib.suppress(InputError):
                    yield source_mask(files.read(quadruple.mask), files.where(quadruple.mask)).plane

    return mask_factor(masks(), where)


def _majority(shapes: Mapping[str, Shape], depth_scale: float) -> Shape | None:
    """The size that most files of a sample match; None for a tie."""
    candidates = {shape for role, shape in shapes.items() if role != "depth"}
    votes = Counter(
        {
            candidate: sum(_matches(role, shape, candidate, depth_scale) for role, shape in shapes.items())
            for candidate in candidates
        }
    ).most_common()
    if not votes:
        return shapes.get("depth", ())
    return None if len(votes) > 1 and votes[0][1] == votes[1][1] else votes[0][0]


def _matches(role: str, shape: Shape, expected: Shape, depth_scale: float) -> bool:
    """Whether a role's file belongs to a sample of shape `expected`; half of an odd side may be rounded either way."""
    scale = depth_scale if role == "depth" else 1
    return all(abs(side - scale * whole) < 1 for side, whole in zip(shape, expected, strict=True))


def _expected_shape(role: str, shape: Shape, depth_scale: float) -> Shape:
    """Shape of a role's file in a sample of the given shape."""
    if role != "depth" or not shape:
        return shape
    return (round(shape[0] * depth_scale), round(shape[1] * depth_scale))


def _size(shape: Shape) -> str:
    """WIDTHxHEIGHT."""
    return f"{shape[1]}x{shape[0]}"
