"""Make the two data sets of the table of curves, at its image size.

python tests/benchmarks/curves/sets.py DIRECTORY       # DIRECTORY/nyu and DIRECTORY/rooms

`nyu` is $TWINHEAD_REAL/nyu_composed, `rooms` is rendered. Both have 150 backgrounds with four samples each, so that
after the split by background there are more than `train.SAMPLES` training samples.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from data.dataset.dataset import write_dataset
from data.images import decode_sample, encode_sample, resize_to
from data.importers.importers import import_source
from data.scenes.scenes import SceneSet
from data.schema import EncodedSample, Sample

SIZE = 48
"""Side of the images in pixels."""
RENDERED_SIZE = 96
SCENES = SceneSet(seed=15, backgrounds=150, per_background=4, size=RENDERED_SIZE)


def main() -> None:
    """Write both data sets; one that exists is left as it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    if not (directory / "nyu").exists():
        found = import_source(Path(os.environ["TWINHEAD_REAL"]) / "nyu_composed", layout=None, depth_polarity=None)
        samples = (decode_sample(sample) for sample in found.samples())
        write_dataset(resized(samples), directory / "nyu", source={**found.source, "resized_to": SIZE})
    if not (directory / "rooms").exists():
        rendered = (SCENES[index] for index in range(len(SCENES)))
        source = {"kind": "scenes", "seed": SCENES.seed, "rendered_at": RENDERED_SIZE, "resized_to": SIZE}
        write_dataset(resized(rendered), directory / "rooms", source=source)


def resized(samples: Iterable[Sample]) -> Iterator[EncodedSample]:
    """The samples at `SIZE`, without loss: as if a trial had resized them."""
    for sample in samples:
        images = {name: resize_to(getattr(sample, name), SIZE, SIZE) for name in ("bg", "fg_bg", "mask", "depth")}
        yield encode_sample(replace(sample, **images), lossless=True)


if __name__ == "__main__":
    main()
