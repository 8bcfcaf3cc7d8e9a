"""Verification of a data set: every damaged image is named, and no intact one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from data.dataset.dataset import Dataset, write_dataset
from data.dataset.manifest import DatasetInfo, Part
from data.dataset.parts import sha256
from data.dataset.storage import Location
from data.dataset.verify import MAX_FAULTS, Verification, verify
from data.errors import InputError
from data.images import encode_jpeg, encode_png
from data.schema import EncodedSample
from search.cli.data import verify as command

HEIGHT, WIDTH = 24, 32


def samples(count: int, *, height: int = HEIGHT, width: int = WIDTH) -> list[EncodedSample]:
    """Photographs as JPEG, planes as PNG; three backgrounds take turns."""
    generator = np.random.default_rng(0)
    photos = [encode_jpeg(generator.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(count + 3)]
    planes = [encode_png(generator.integers(0, 256, (height, width), np.uint8)) for _ in range(2 * count)]
    return [
        EncodedSample(
            sample_id=f"s{number}",
            bg_id=f"bg{number % 3}",
            fg_id="fg",
            bg=photos[number % 3],
            fg_bg=photos[3 + number],
            mask=planes[number],
            depth=planes[count + number],
        )
        for number in range(count)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Ten samples in parts of two or three."""
    write_dataset(samples(10), tmp_path / "set", source={}, part_bytes=9000)
    return tmp_path / "set"


def part_with(path: Path, encoded: bytes) -> Path:
    return next(part for part in sorted(path.glob("*.parquet")) if encoded in part.read_bytes())


def alter(path: Path, encoded: bytes, offset: int) -> Path:
    """Flip the bits of a byte of an image, in the part that holds it."""
    part = part_with(path, encoded)
    content = bytearray(part.read_bytes())
    content[content.index(encoded) + offset] ^= 0xFF
    part.write_bytes(content)
    return part


def replace_column(path: Path, part: Path, column: str, row: int, value: bytes | str) -> None:
    """Write a part again with another value, and a manifest that knows it: as if it had been written so."""
    table = pq.read_table(part)
    values = table[column].to_pylist()
    values[row] = value
    field = table.schema.field(column)
    table = table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))
    pq.write_table(table, part, use_dictionary=False, write_page_checksum=True)
    manifest = path / "dataset.json"
    info = DatasetInfo.from_json(manifest.read_text(), "here")
    parts = tuple(_as_it_is(path, known) for known in info.parts)
    manifest.write_text(replace(info, parts=parts).to_json())


def _as_it_is(path: Path, part: Part) -> Part:
    place = Location.parse(path / part.path)
    return replace(part, bytes=Path(place).stat().st_size, sha256=sha256(place))


def named(found: Verification) -> list[tuple[str, str | None, str | None]]:
    return [(fault.part, fault.sample_id or fault.bg_id, fault.picture) for fault in found.faults]


def test_a_whole_data_set_has_no_faults(path: Path) -> None:
    """Every image is counted, so that none can have been left out."""
    found = verify(path)

    assert found.is_whole
    assert found.faults == ()
    assert (found.samples, found.backgrounds, found.pictures) == (10, 3, 33)


@pytest.mark.parametrize("threads", [1, 3])
def test_altered_images_are_named(path: Path, threads: int) -> None:
    """Which images have to be made again is what a person needs to know: all of them, in one run."""
    broken = samples(10)
    first = alter(path, broken[1].mask, 60)
    second = alter(path, broken[8].depth, 90)
    room = alter(path, broken[2].bg, 0)

    found = verify(path, threads=threads)

    assert {(second.name, "s8", "depth"), (first.name, "s1", "mask"), (room.name, "bg2", "bg")} <= set(named(found))
    assert {name for name, of, _ in named(found) if of is None} == {first.name, room.name, second.name}
    assert found.pictures == 30
    assert found.fault_count == 6


def test_altered_jpeg_that_still_decodes_is_found(path: Path) -> None:
    """A JPEG has no checksum: that of the part reveals damage, and that of the page its column."""
    part = alter(path, samples(10)[5].fg_bg, 900)

    found = verify(path)

    assert [fault.part for fault in found.faults] == [part.name, part.name]
    assert "SHA-256 differs" in found.faults[0].reason
    assert found.faults[1].picture == "fg_bg" or "column 'fg_bg'" in found.faults[1].reason


def test_missing_and_cut_off_parts_are_named(path: Path) -> None:
    """A copy that was broken off has lost whole parts; the others are looked at all the same."""
    (path / "samples-00001.parquet").unlink()
    cut = path / "samples-00002.parquet"
    cut.write_bytes(cut.read_bytes()[:-10])

    found = verify(path)

    assert {name for name, _, _ in named(found)} == {"samples-00001.parquet", "samples-00002.parquet"}
    assert "it is missing" in [fault.reason for fault in found.faults]
    assert found.pictures > 3


def test_a_lost_background_is_one_fault(path: Path) -> None:
    """Not one for each of its samples, which have nothing wrong with them."""
    for part in path.glob("backgrounds-*.parquet"):
        part.unlink()

    found = verify(path)

    assert {fault.reason for fault in found.faults} == {"it is missing"}
    assert found.pictures == 30


def test_images_that_do_not_fit_together_are_named(path: Path) -> None:
    """With right checksums, a data set may still have been written wrongly by another program."""
    odd = encode_png(np.zeros((5, 6), np.uint8))
    part = part_with(path, samples(10)[0].mask)
    replace_column(path, part, "mask", 0, odd)
    replace_column(path, part, "bg_id", 1, "cellar")

    found = verify(path)

    assert named(found) == [(part.name, "s0", "mask"), (part.name, "s1", "bg")]
    assert "it is 6x5, but its background bg0 is 32x24" in found.faults[0].reason
    assert "no background 'cellar'" in found.faults[1].reason


@pytest.mark.slow
def test_damage_anywhere_is_found(path: Path) -> None:
    """Whatever byte of whatever part is altered, the part is named, and verifying never fails itself."""
    whole = {part: part.read_bytes() for part in path.glob("*.parquet")}
    for part, content in whole.items():
        for place in range(3, len(content), len(content) // 12):
            altered = bytearray(content)
            altered[place] ^= 0xFF
            part.write_bytes(altered)
            assert part.name in {fault.part for fault in verify(path, threads=1).faults}
        part.write_bytes(content)

    assert verify(path).is_whole


def test_wrong_counts_in_the_manifest_are_found(path: Path) -> None:
    """Splits and disks are planned by its counts."""
    info = Dataset.open(path).info
    counts = replace(info.counts, samples=11)
    (path / "dataset.json").write_text(replace(info, counts=counts).to_json())

    assert [str(fault) for fault in verify(path).faults] == [
        "dataset.json: it counts 11 samples, but its parts have 10"
    ]


def test_faults_are_counted_beyond_those_named(tmp_path: Path) -> None:
    """A disk that lost a file has broken thousands of images: the list ends, the count does not."""
    count = MAX_FAULTS + 20
    write_dataset(samples(count, height=4, width=4), tmp_path / "set", source={})
    part = tmp_path / "set" / "samples-00000.parquet"
    part.write_bytes(part.read_bytes().replace(b"IDAT", b"IDAX"))

    found = verify(tmp_path / "set")

    assert len(found.faults) == MAX_FAULTS
    assert found.fault_count == 2 * count + 1


def test_directory_without_a_data_set_is_refused(tmp_path: Path) -> None:
    """There is nothing to verify then, which is not the same as something broken."""
    with pytest.raises(InputError, match="does not exist"):
        verify(tmp_path / "nowhere")


def test_command_reports_an_intact_data_set(path: Path) -> None:
    """A script reads the exit code only."""
    ran = CliRunner().invoke(command, [str(path)])

    assert ran.exit_code == 0
    assert "is whole: 10 samples and 3 backgrounds" in ran.stdout


def test_command_names_what_is_broken(path: Path) -> None:
    """A person reads a line for each fault; a program reads the same as JSON."""
    part = alter(path, samples(10)[1].mask, 60)

    ran = CliRunner().invoke(command, [str(path)])
    as_json = CliRunner().invoke(command, [str(path), "--json"])

    assert (ran.exit_code, as_json.exit_code) == (1, 1)
    assert f"{part.name}, sample s1, mask: The image 'mask' was altered" in ran.stdout
    values = json.loads(as_json.stdout)
    assert values["whole"] is False
    assert [fault["sample_id"] for fault in values["faults"]] == [None, "s1"]


def test_command_raises_input_errors(tmp_path: Path) -> None:
    """There, a sentence and exit code 2 are made of it."""
    ran = CliRunner().invoke(command, [str(tmp_path / "nowhere")])

    assert isinstance(ran.exception, InputError)


INTERRUPTED_AT_ONCE = """
import os, signal, sys, threading
from pathlib import Path
from data.dataset import verify_images as verify_pictures
from data.dataset.verify import verify

decode, once = verify_pictures.DECODERS["mask"], threading.Lock()
def interrupting(encoded, where):
    if once.acquire(blocking=False):
        os.kill(os.getpid(), signal.SIGINT)
    return decode(encoded, where)
verify_pictures.DECODERS = {**verify_pictures.DECODERS, "mask": interrupting}
try:
    verify(Path(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_verification_can_be_interrupted(path: Path) -> None:
    """Ctrl-C during decoding must end all threads, without output from them."""
    ran = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT_ONCE, str(path)], capture_output=True, text=True, timeout=300, check=False
    )

    assert ran.returncode == 130
    assert ran.stderr == ""
