"""Check the samples that are written to a data set, count them, and compute statistics.

Shapes: H and W are height and width in pixels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from data.dataset.statistics import StatisticsGatherer
from data.errors import InputError
from data.images import decode_photo, decode_sample
from data.lru import LruCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from data.dataset.statistics import MeasuredSamples
    from data.schema import EncodedSample, Pixels

DECODED_BYTES = 64 * 2**20
"""Limit for decoded backgrounds in memory."""


@dataclass(frozen=True, kw_only=True)
class CheckedSamples:
    """Samples that another process has encoded from pixels, so that they need not be decoded again."""

    samples: Sequence[EncodedSample]
    """Without validity masks."""
    height: int
    """Of every image in pixels."""
    width: int
    measured: MeasuredSamples
    """What decoding the samples would give."""


class Intake:
    """Checks samples one by one, and collects the counts and statistics for `dataset.json`."""

    def __init__(self) -> None:
        self.statistics = StatisticsGatherer()
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.samples = 0
        self.foregrounds: set[str] = set()
        self.backgrounds: dict[str, bytes] = {}
        """SHA-256 of the encoded bytes of each background."""
        self._sample_ids: set[bytes] = set()
        """The first 16 bytes of the SHA-256 of each id: two of 400,000 are equal with a probability of 2e-28."""
        self._decoded = DecodedBackgrounds()
        self._last_bg, self._last_digest = b"", b""

    def take(self, encoded: EncodedSample) -> bool:
        """Check and count a sample.

        Returns:
            Whether its background is new.

        Raises:
            InputError: if the sample cannot be stored.
        """
        is_new = self._take_ids(encoded)
        bg = self._decoded.get(encoded.bg_id, encoded.bg, f"bg of sample {encoded.sample_id}")
        sample = decode_sample(encoded, bg=bg, where="the samples to write")
        if is_new:
            self.statistics.add_background(sample.bg)
        self.statistics.add_sample(sample.fg_bg, sample.mask, sample.depth, sample.valid)
        self.sizes[sample.mask.shape[0], sample.mask.shape[1]] += 1
        return is_new

    def take_checked(self, batch: CheckedSamples) -> Iterator[tuple[EncodedSample, bool]]:
        """Count samples whose images were checked; of new backgrounds, the image is checked here.

        Yields:
            Each sample, and whether its background is new.

        Raises:
            InputError: if a sample cannot be stored.
        """
        for encoded in batch.samples:
            is_new = self._take_ids(encoded)
            if is_new:
                bg = decode_photo(encoded.bg, f"bg of sample {encoded.sample_id}")
                if bg.shape[:2] != (batch.height, batch.width):
                    raise InputError(
                        f"The background '{encoded.bg_id}' is {bg.shape[0]} x {bg.shape[1]} pixels, but the samples in "
                        f"front of it are {batch.height} x {batch.width}; store all images at one size."
                    )
                self.statistics.add_background(bg)
            yield encoded, is_new
        self.statistics.add_measured(batch.measured)
        self.sizes[batch.height, batch.width] += len(batch.samples)

    def _take_ids(self, encoded: EncodedSample) -> bool:
        """Check and count the ids of a sample, and return whether its background is new."""
        hashed_id = hashlib.sha256(encoded.sample_id.encode()).digest()[:16]
        if hashed_id in self._sample_ids:
            raise InputError(f"The sample id '{encoded.sample_id}' occurs twice; give each sample its own id.")
        if encoded.bg is not self._last_bg:
            self._last_bg, self._last_digest = encoded.bg, hashlib.sha256(encoded.bg).digest()
        is_new = encoded.bg_id not in self.backgrounds
        if self.backgrounds.setdefault(encoded.bg_id, self._last_digest) != self._last_digest:
            raise InputError(
                f"The background id '{encoded.bg_id}' of sample '{encoded.sample_id}' is used for another image "
                "already; give each background its own id."
            )
        self._sample_ids.add(hashed_id)
        self.samples += 1
        self.foregrounds.add(encoded.fg_id)
        return is_new


class DecodedBackgrounds:
    """A cache of the most recently used backgrounds, decoded, up to `DECODED_BYTES`."""

    def __init__(self) -> None:
        self._pixels = LruCache[str, "Pixels"](DECODED_BYTES)

    def get(self, bg_id: str, encoded: bytes, where: str) -> Pixels:
        """Decode a background: (H, W, 3) RGB, read-only because samples share it."""
        return self._pixels.get(bg_id, partial(_decode_shared, encoded, where))


def _decode_shared(encoded: bytes, where: str) -> Pixels:
    pixels = decode_photo(encoded, where)
    pixels.setflags(write=False)
    return pixels
