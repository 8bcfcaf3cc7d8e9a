"""Peak memory of writing, reading and verifying does not grow with the number of samples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FEW, MANY = 2_000, 20_000
ALLOWED = 16.0
"""MiB that the peak may grow by: the larger set has 50 MiB more, of which less than 2 are ids."""

CODE = """
import sys
from pathlib import Path
import numpy as np
from data.images import encode_png
from data.schema import EncodedSample
from data.dataset.dataset import Dataset, write_dataset
from data.dataset.verify import verify

path, count = Path(sys.argv[1]), int(sys.argv[2])
generator = np.random.default_rng(0)
photo = [encode_png(generator.integers(0, 256, (24, 24, 3), np.uint8)) for _ in range(4)]
plane = [encode_png(generator.integers(0, 256, (8, 72), np.uint8).reshape(24, 24)) for _ in range(4)]

def samples():
    for number in range(count):
        # New bytes each time: to hold a sample must cost what a sample costs.
        fg_bg, mask = (bytes(bytearray(pictures[number % 4])) for pictures in (photo, plane))
        yield EncodedSample(
            sample_id=f"s{number}", bg_id=f"bg{number % 4}", fg_id="fg", bg=photo[number % 4],
            fg_bg=fg_bg, mask=mask, depth=plane[0],
        )

if not path.exists():
    write_dataset(samples(), path, source={}, part_bytes=2**21)
else:
    dataset = Dataset.open(path)
    assert len(dataset.ids) == sum(1 for _ in dataset.read()) == count
    assert verify(path, threads=2).is_whole
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(path: Path, count: int) -> float:
    """MiB, of a process of its own: one that was forked from this one would count its memory, too."""
    ran = subprocess.run(
        [sys.executable, "-c", CODE, str(path), str(count)], capture_output=True, text=True, check=True
    )
    return int(ran.stdout) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is asked of Linux")
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    """A data set of any size is written and read on a machine that it does not fit into."""
    few, many = tmp_path / "few", tmp_path / "many"

    to_write = {path: peak(path, count) for path, count in ((few, FEW), (many, MANY))}
    to_read = {path: peak(path, count) for path, count in ((few, FEW), (many, MANY))}

    added = sum(file.stat().st_size for file in many.iterdir()) - sum(file.stat().st_size for file in few.iterdir())
    assert added > 3 * ALLOWED * 2**20
    assert to_write[many] - to_write[few] < ALLOWED
    assert to_read[many] - to_read[few] < ALLOWED
