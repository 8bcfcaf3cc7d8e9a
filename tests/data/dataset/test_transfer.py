"""Whole files of a remote storage: what breaks off continues, and nothing half-written appears."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data.dataset import transfer
from data.dataset.storage import Location, UnavailableError
from data.dataset.transfer import (
    directories,
    download,
    listing,
    read_whole,
    remove_file,
    remove_tree,
    stored,
    write_whole,
)
from data.errors import InputError
from tests.s3 import Store, failing_store

CONTENT = bytes(range(256)) * 40_000
"""Ten megabytes, in which no block repeats at another offset of its size."""


@pytest.fixture(scope="module")
def _server() -> Iterator[Store]:
    with failing_store() as store:
        yield store


@pytest.fixture
def store(_server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.01)
    yield _server
    _server.faults.__init__()  # type: ignore[misc]


@pytest.fixture(params=["local", "remote"])
def place(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Location:
    name = request.node.name.replace("[", "-").replace("]", "")
    return Location.of_storage(tmp_path if request.param == "local" else store.address(name))


@pytest.mark.slow
def test_files_are_written_listed_and_removed(place: Location) -> None:
    """A directory and a bucket are used in the same way."""
    assert (listing(place / "none"), directories(place / "none"), stored(place / "none")) == ({}, [], None)
    for name in ("a.txt", "sub/b.txt", "sub/deep/c.txt"):
        write_whole(place / name, name.encode())
    write_whole(place / "a.txt", b"again")

    assert read_whole(place / "a.txt") == b"again"
    assert {name: file.bytes for name, file in listing(place).items()} == {
        "a.txt": 5,
        "sub/b.txt": 9,
        "sub/deep/c.txt": 14,
    }
    assert list(listing(place, recursive=False)) == ["a.txt"]
    assert directories(place) == ["sub"]
    found = stored(place / "a.txt")
    assert found is not None
    assert found.bytes == 5
    assert found.modified > 1e9

    remove_tree(place / "sub")
    remove_file(place / "a.txt")
    remove_tree(place / "sub")
    remove_file(place / "a.txt")
    assert listing(place) == {}
    with pytest.raises(FileNotFoundError):
        read_whole(place / "a.txt")


@pytest.mark.slow
def test_a_broken_download_continues(store: Store, tmp_path: Path) -> None:
    """A checkpoint of a slow connection arrives in the end."""
    store.write("broken/file", CONTENT)
    store.faults.cuts = [1_000_000, 3_000_000, 100_000]

    download(Location.of_storage(store.address("broken/file")), tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_download_of_an_ended_process_continues(store: Store, tmp_path: Path) -> None:
    """The bytes that arrived are not fetched again; only a whole file gets its name."""
    store.write("later/file", CONTENT)
    (tmp_path / ".file.part").write_bytes(b"x" * 9_000_000)

    download(Location.of_storage(store.address("later/file")), tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == b"x" * 9_000_000 + CONTENT[9_000_000:]


@pytest.mark.slow
def test_a_part_of_a_longer_file_is_dropped(store: Store, tmp_path: Path) -> None:
    """The file may have been replaced by a shorter one meanwhile."""
    store.write("short/file", b"short")
    (tmp_path / ".file.part").write_bytes(b"x" * 100)

    download(Location.of_storage(store.address("short/file")), tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == b"short"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("refuses", "sentence"),
    [("busy", r"A request to 's3://.*' failed"), ("denied", r"Access to 's3://.*' was denied .*AWS_ACCESS_KEY_ID")],
)
def test_a_refusal_is_a_sentence(store: Store, tmp_path: Path, refuses: str, sentence: str) -> None:
    """Whatever a command does with a storage, it ends with what to do."""
    place = Location.of_storage(store.address("refused"))
    write_whole(place / "file", b"kept")
    store.faults.refuses = refuses  # type: ignore[assignment]

    for work in (
        lambda: read_whole(place / "file"),
        lambda: write_whole(place / "file", b"new"),
        lambda: listing(place),
        lambda: remove_tree(place),
        lambda: download(place / "file", tmp_path / "file"),
    ):
        with pytest.raises(UnavailableError, match=sentence):
            work()

    assert list(tmp_path.glob("[!.]*")) == []
    store.faults.refuses = ""
    assert read_whole(place / "file") == b"kept"


@pytest.mark.slow
def test_a_large_file_is_written_whole_or_not_at_all(store: Store) -> None:
    """A storage that refuses the second half of an upload must not keep the first one."""
    place = Location.of_storage(store.address("large/file"))
    write_whole(place, CONTENT * 2)
    store.faults.refused_part = 2
    with pytest.raises(UnavailableError, match="failed"):
        write_whole(place, CONTENT * 3)
    store.faults.refused_part = 0

    assert read_whole(place) == CONTENT * 2
    assert store.names("large") == ["file"]


def test_renewed_credentials_are_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a role expire while a search runs, and are renewed in the environment."""
    place = Location.of_storage(store.address("renewed/file"))
    write_whole(place, b"first")
    store.faults.only_key = "renewed"
    with pytest.raises(UnavailableError, match="denied"):
        read_whole(place)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")

    assert read_whole(place) == b"first"


def test_renewed_credentials_of_a_file_are_used(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a profile; without this, pyarrow reads the file again after minutes."""
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = expired\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store.faults.only_key = "fresh"
    place = Location.of_storage(store.address("profile/file"))
    with pytest.raises(UnavailableError, match="denied"):
        write_whole(place, b"first")

    file.write_text("[default]\naws_access_key_id = fresh\naws_secret_access_key = x\n")
    write_whole(place, b"first")

    assert read_whole(place) == b"first"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_server_of_the_environment_is_used(store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Other tools have it there for MinIO and the like; pyarrow itself ignores it."""
    monkeypatch.setenv(name, store.endpoint)
    place = Location.of_storage("s3://searches/plain/file")

    write_whole(place, b"here")

    assert store.read("plain/file") == b"here"
    assert str(place) == "s3://searches/plain/file"
    monkeypatch.delenv(name)
    assert read_whole(Location.of_storage(store.address("plain/file"))) == b"here"


def test_an_explicit_address_needs_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of other machines do not have the variable."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")

    assert str(Location.of_storage("s3://b/x?region=eu").explicit()) == (
        "s3://b/x?region=eu&endpoint_override=http://store:9000"
    )
    assert str(Location.of_storage("s3://b/x?endpoint_override=http://o").explicit()).endswith("=http://o")
    assert str(Location.of_storage("here").explicit()) == "here"


@pytest.mark.parametrize("text", ["s3://", "s3://bucket//x", "s3://bucket/../x", "s3://bucket/./x", "s3://bucket/x#y"])
def test_an_address_that_is_no_storage_is_refused(text: str) -> None:
    """One with '..' could lead out of the storage, and out of its mirror."""
    with pytest.raises(InputError, match="is not valid for a storage; use the form s3://bucket/searches"):
        Location.of_storage(text)
