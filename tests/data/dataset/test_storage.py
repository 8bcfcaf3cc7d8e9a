"""Data sets on an object store: as on a local disk, one exists only when it is complete."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from data.cache.cache import decoded
from data.dataset import storage
from data.dataset.dataset import Dataset, write_dataset
from data.dataset.storage import Location
from data.dataset.verify import verify
from data.errors import InputError
from data.images import encode_png
from data.schema import EncodedSample
from tests.s3 import own_credentials, s3_server

BUCKET = "pictures"


def samples(count: int, *, seed: int = 0) -> list[EncodedSample]:
    """Noise of 12 x 16 pixels, three backgrounds taking turns."""
    generator = np.random.default_rng(seed)
    photos = [encode_png(generator.integers(0, 256, (12, 16, 3), np.uint8)) for _ in range(count + 3)]
    planes = [encode_png(generator.integers(0, 256, (12, 16), np.uint8)) for _ in range(2 * count)]
    return [
        EncodedSample(
            sample_id=f"s{number}",
            bg_id=f"bg{number % 3}",
            fg_id=f"fg{number % 4}",
            bg=photos[number % 3],
            fg_bg=photos[3 + number],
            mask=planes[number],
            depth=planes[count + number],
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module", autouse=True)
def _credentials() -> Iterator[None]:
    with own_credentials():
        yield


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with s3_server() as port:
        store(port).create_dir(BUCKET)
        yield port


def store(port: int) -> fs.S3FileSystem:
    """To look behind our own code."""
    return fs.S3FileSystem(endpoint_override=f"http://127.0.0.1:{port}", allow_bucket_creation=True)


def address(port: int, prefix: str, bucket: str = BUCKET) -> str:
    return f"s3://{bucket}/{prefix}?endpoint_override=http://127.0.0.1:{port}"


def names(port: int, prefix: str) -> list[str]:
    """All that is stored under a prefix, with the marks of empty directories."""
    found = store(port).get_file_info(fs.FileSelector(f"{BUCKET}/{prefix}", recursive=True, allow_not_found=True))
    return sorted(info.base_name for info in found)


@pytest.mark.slow
def test_round_trip(port: int) -> None:
    """Every byte and id comes back in order, over several parts, and the checksums of what was sent are right."""
    place = address(port, "round/trip")
    info = write_dataset(samples(10), place, source={"kind": "test"}, part_bytes=3000)

    dataset = Dataset.open(place, verify=True)

    assert dataset.info == info
    assert len(info.parts) > 3
    assert list(dataset.read_encoded()) == samples(10)
    assert dataset.ids.sample_id == [f"s{number}" for number in range(10)]
    assert [sample.sample_id for sample in dataset.read([7, 2])] == ["s2", "s7"]
    assert [bg_id for bg_id, _ in dataset.backgrounds()] == ["bg0", "bg1", "bg2"]


@pytest.mark.slow
def test_fingerprint_does_not_depend_on_the_storage(port: int, tmp_path: Path) -> None:
    """The fingerprint keys caches and experiments: a data set that moves to a store stays the same one."""
    here = write_dataset(samples(4), tmp_path / "set", source={})
    there = write_dataset(samples(4), address(port, "moved"), source={})

    assert here.fingerprint == there.fingerprint


def test_images_are_decoded_from_a_store(port: int, tmp_path: Path) -> None:
    """Trials read through the node's cache, which is filled from wherever the data set is."""
    place, rows = address(port, "cached"), np.arange(8)
    write_dataset(samples(8), place, source={}, part_bytes=2000)
    write_dataset(samples(8), tmp_path / "set", source={})

    found = decoded(Dataset.open(place), [rows], 8, root=tmp_path / "there").gather(rows)

    expected = decoded(Dataset.open(tmp_path / "set"), [rows], 8, root=tmp_path / "here").gather(rows)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_images_that_are_decoded_on_the_fly_are_fetched_once(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every epoch would fetch them again: encoded, they fit where they do not fit decoded."""
    place, rows = address(port, "on-the-fly"), np.arange(8)
    write_dataset(samples(8), place, source={}, part_bytes=2000)
    expected = decoded(Dataset.open(place), [rows], 48, root=tmp_path / "large").gather(rows)

    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0.00005")
    with pytest.warns(UserWarning, match="decoded anew"):
        split = decoded(Dataset.open(place), [rows], 48, root=tmp_path / "small")
    store(port).delete_dir(f"{BUCKET}/on-the-fly")

    for mine, theirs in zip(split.gather(rows), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_another_process_can_read_it(port: int) -> None:
    """Workers are sent the data set, opened and read from before."""
    place = address(port, "sent")
    write_dataset(samples(4), place, source={})
    dataset = Dataset.open(place)
    assert next(dataset.read_encoded()) == samples(4)[0]
    code = "import pickle, sys; print([s.sample_id for s in pickle.load(sys.stdin.buffer).read_encoded()])"

    ran = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(dataset), capture_output=True, check=True)

    assert ran.stdout.decode().strip() == "['s0', 's1', 's2', 's3']"


def test_manifest_is_written_last(port: int) -> None:
    """A data set that is still being written has parts without a manifest, and cannot be opened."""
    seen: list[list[str]] = []

    def source() -> Iterator[EncodedSample]:
        for sample in samples(10):
            seen.append(names(port, "last"))
            yield sample

    write_dataset(source(), address(port, "last"), source={}, part_bytes=2000)

    assert len(seen[-1]) > 1
    assert not any("dataset.json" in found for found in seen)
    assert "dataset.json" in names(port, "last")


def interrupted(error: BaseException) -> Iterator[EncodedSample]:
    yield from samples(5)
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("bad")])
def test_interrupted_write_leaves_nothing(port: int, error: BaseException) -> None:
    """What is stored is paid for, and half a data set is of no use."""
    with pytest.raises(type(error)):
        write_dataset(interrupted(error), address(port, "stopped"), source={}, part_bytes=2000)

    assert names(port, "stopped") == []


def test_foreign_files_are_kept(port: int) -> None:
    """A failed write must clean up after itself, and after nobody else."""
    with store(port).open_output_stream(f"{BUCKET}/shared/notes.txt") as file:
        file.write(b"kept")

    with pytest.raises(InputError, match="bad"):
        write_dataset(interrupted(InputError("bad")), address(port, "shared"), source={}, part_bytes=2000)

    assert names(port, "shared") == ["notes.txt"]


def test_existing_data_set_is_refused(port: int) -> None:
    """A data set that trials were run on must not be overwritten."""
    write_dataset(samples(2), address(port, "taken"), source={})

    with pytest.raises(InputError, match=r"The destination 's3://pictures/taken.*' has a data set already"):
        write_dataset(samples(2), address(port, "taken"), source={})


def test_the_first_of_two_writers_wins_unharmed(port: int) -> None:
    """Nothing can be locked or renamed there: the second must neither replace the first's parts nor remove them."""
    place = address(port, "raced")

    def source() -> Iterator[EncodedSample]:
        yield from samples(6)
        write_dataset(samples(3, seed=1), place, source={}, part_bytes=2000)
        yield samples(7)[6]

    with pytest.raises(InputError, match="has a data set already"):
        write_dataset(source(), place, source={}, part_bytes=2000)

    assert list(Dataset.open(place, verify=True).read_encoded()) == samples(3, seed=1)


def test_missing_data_set_is_named(port: int) -> None:
    """A wrong prefix is the commonest error, as a wrong path is."""
    with pytest.raises(InputError, match=r"The data set 's3://pictures/nowhere.*' does not exist"):
        Dataset.open(address(port, "nowhere"))


def test_missing_bucket_is_named(port: int) -> None:
    """A bucket is made by its owner, not by a data set that is written to a misspelt address."""
    place = address(port, "set", bucket="misspelt")

    with pytest.raises(InputError, match=r"The bucket of 's3://misspelt/set.*' does not exist; create it"):
        Dataset.open(place)
    with pytest.raises(InputError, match=r"The bucket of 's3://misspelt/set.*' does not exist; create it"):
        write_dataset(samples(1), place, source={})


@pytest.mark.slow
def test_denied_access_is_named() -> None:
    """Which credentials are used is not seen anywhere: the sentence says where they are taken from."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as port:
        with pytest.raises(InputError, match=r"Access to 's3://.*' was denied .*AWS_ACCESS_KEY_ID"):
            Dataset.open(address(port, "set"))
        with pytest.raises(InputError, match=r"Access to 's3://.*' was denied .*AWS_ACCESS_KEY_ID"):
            write_dataset(samples(1), address(port, "set"), source={})


@pytest.mark.slow
def test_unreachable_server_is_named() -> None:
    """A server that is down must not look like a data set that is damaged."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = address(free.getsockname()[1], "set")

        with pytest.raises(InputError, match=r"'s3://.*' cannot be reached .*check the address"):
            Dataset.open(place)


@pytest.mark.slow
def test_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an end to waiting this test, and a search's start, would hang for minutes."""
    monkeypatch.setattr(storage, "REQUEST_TIMEOUT_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        with pytest.raises(InputError, match=r"'s3://.*' cannot be reached .*check the address"):
            Dataset.open(address(silent.getsockname()[1], "set"))


def test_verification_names_damage_in_a_store(port: int) -> None:
    """A store keeps what it was given, and may have been given something else since."""
    place = address(port, "broken")
    info = write_dataset(samples(6), place, source={})
    part = next(part for part in info.parts if part.kind == "samples")
    path = f"{BUCKET}/broken/{part.path}"
    with store(port).open_input_file(path) as file:
        content = bytearray(file.read())
    content[content.index(samples(6)[4].mask) + 50] ^= 0xFF
    with store(port).open_output_stream(path) as file:
        file.write(bytes(content))

    found = verify(place)

    assert [(fault.sample_id, fault.picture) for fault in found.faults] == [(None, None), ("s4", "mask")]


@pytest.mark.parametrize(
    ("text", "path"),
    [("here/set/", "here/set"), ("file:///data/my%20set", "/data/my set"), ("file://localhost/set", "/set")],
)
def test_paths_and_file_urls_are_local(text: str, path: str) -> None:
    """Tools pass either of them."""
    assert Location.parse(text).local == Path(path)
    assert str(Location.parse(text)) == path


def test_an_address_keeps_its_options() -> None:
    """It is written into specs and sent to trials as text, and must open the same place from there."""
    text = "s3://bucket/some/set?region=eu-central-1&endpoint_override=http://store:9000"

    assert str(Location.parse(text)) == str(Location.parse(text).absolute()) == text
    assert str(Location.parse(text) / "part") == text.replace("some/set", "some/set/part")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("s3://bucket", "is not valid for a data set"),
        ("s3://bucket//set", "is not valid for a data set"),
        ("s3://key:s3cr3t@bucket/set", r"'s3://…@bucket/set' contains credentials"),
        ("abfs://account.net/set?sv=1&sig=s3cr3t", r"'abfs://…@account.net/set' contains credentials"),
        ("abfs://account.net/set?client_id=a&client_secret=s3cr3t", "contains credentials"),
        ("s3://bucket/set?Secret_Key=s3cr3t", "contains credentials"),
        ("s3://bucket/set?regoin=x", "has an unknown option 'regoin'; use only endpoint_override, region, scheme"),
        ("carrier://pigeon/set", "cannot be opened"),
        ("file://other-machine/set", "cannot be opened"),
    ],
)
def test_unusable_address_is_refused(text: str, sentence: str) -> None:
    """A misspelt address must end in a sentence, and never with a password in it."""
    with pytest.raises(InputError, match=sentence) as refused:
        Dataset.open(text)
    assert "s3cr3t" not in str(refused.value)


def test_a_server_with_credentials_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes a part of addresses, which are written to reports and commands."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://key:s3cr3t@server:9000")
    for use in (Location.explicit, Location.filesystem):
        with pytest.raises(InputError, match=r"S3 server '…@server:9000' .*contains credentials"):
            use(Location.parse("s3://bucket/set"))
