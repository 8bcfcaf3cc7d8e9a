"""Archives: read without extraction; a damaged or hostile one gives one error, and uses neither memory nor disk."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.importers.archives import MAX_MEMBER_BYTES, Archive, open_source

PICTURE = b"a picture's bytes " * 40
LOCAL_HEADER, CENTRAL_HEADER = b"PK\x03\x04", b"PK\x01\x02"


def archive(path: Path, members: Mapping[str, bytes], method: int = ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(ZipInfo(name), content, compress_type=method)
    return path


def store(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def overwrite(path: Path, header: bytes, offset: int, value: bytes) -> None:
    """Write `value` so many bytes after where the first header of its kind begins."""
    content = bytearray(path.read_bytes())
    start = content.index(header) + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize("method", [ZIP_STORED, ZIP_DEFLATED])
def test_archive_is_read_like_a_folder(tmp_path: Path, method: int) -> None:
    """Pictures come as they were put in, and nothing appears on the disk."""
    path = archive(tmp_path / "data.zip", {"bg/b.jpg": PICTURE, "bg/": b"", "fg/a.jpg": b"other"}, method)

    files = open_source(path)

    assert files.names == ("bg/b.jpg", "fg/a.jpg")
    assert files.archives == ("data.zip",)
    assert files.read("bg/b.jpg") == PICTURE
    assert files.where("bg/b.jpg") == f"{path}/bg/b.jpg"
    assert list(tmp_path.iterdir()) == [path]


def test_archive_is_recognised_by_content(tmp_path: Path) -> None:
    """Downloads come with all kinds of names."""
    path = archive(tmp_path / "uc?export=download", {"a.jpg": PICTURE})

    assert open_source(path).read("a.jpg") == PICTURE


def test_hidden_members_are_skipped(tmp_path: Path) -> None:
    """macOS archives come with a second file for each image, of the same extension."""
    names = ("bg/a.jpg", "__MACOSX/bg/._a.jpg", "bg/.DS_Store", ".git/x.jpg")

    assert open_source(archive(tmp_path / "data.zip", dict.fromkeys(names, PICTURE))).names == ("bg/a.jpg",)


def test_backslashes_in_names_are_separators(tmp_path: Path) -> None:
    """Some programs there separate folders by backslashes."""
    files = open_source(archive(tmp_path / "data.zip", {"bg\\a.jpg": PICTURE}))

    assert files.names == ("bg/a.jpg",)
    assert files.read("bg/a.jpg") == PICTURE


def test_names_may_begin_with_a_dot(tmp_path: Path) -> None:
    """Silent loss: all members of an archive that bsdtar made of '.' would count as hidden."""
    names = ("./", "./bg/", "./bg/a.jpg", "./b.jpg", "./bg/.hidden.jpg", "./.git/x.jpg")

    files = open_source(archive(tmp_path / "data.zip", dict.fromkeys(names, PICTURE)))

    assert files.names == ("b.jpg", "bg/a.jpg")
    assert files.read("bg/a.jpg") == PICTURE


def test_member_without_a_name_is_skipped(tmp_path: Path) -> None:
    """A name ends where a zero is, be it at its beginning."""
    files = open_source(archive(tmp_path / "data.zip", {"": PICTURE, "a.jpg": PICTURE}))

    assert files.names == ("a.jpg",)


def test_last_of_members_with_the_same_name_counts(tmp_path: Path) -> None:
    """Published archives were appended to, some by a second run: extracting keeps the last, too."""
    path = archive(tmp_path / "data.zip", {"a.jpg": b"first"})
    with pytest.warns(UserWarning, match="Duplicate name"), ZipFile(path, "a") as file:
        file.writestr("a.jpg", PICTURE)

    files = open_source(path)

    assert files.names == ("a.jpg",)
    assert files.read("a.jpg") == PICTURE


def test_archives_in_a_folder_stand_for_folders(tmp_path: Path) -> None:
    """Flat or with a folder of their own inside, whatever it is called: published ones are of both kinds."""
    archive(tmp_path / "bg_images.zip", {"img_001.jpg": b"flat", "img_002.jpg": b"too"})
    archive(tmp_path / "batch1_images.ZIP", {"batch1/bg_jpg/a.jpg": b"deep", "batch1/fg_bg_jpg/b.jpg": b"also"})
    store(tmp_path / "labels" / "fg.txt", b"beside")

    files = open_source(tmp_path)

    assert files.archives == ("batch1_images.ZIP", "bg_images.zip")
    assert {name: files.read(name) for name in files.names} == {
        "batch1_images/bg_jpg/a.jpg": b"deep",
        "batch1_images/fg_bg_jpg/b.jpg": b"also",
        "bg_images/img_001.jpg": b"flat",
        "bg_images/img_002.jpg": b"too",
        "labels/fg.txt": b"beside",
    }
    assert files.where("batch1_images/bg_jpg/a.jpg") == f"{tmp_path}/batch1_images.ZIP/batch1/bg_jpg/a.jpg"
    assert files.where("labels/fg.txt") == f"{tmp_path}/labels/fg.txt"


def test_archive_beside_its_extracted_folder_is_skipped(tmp_path: Path) -> None:
    """Else every image would be there twice."""
    archive(tmp_path / "bg_images.zip", {"img_001.jpg": PICTURE})
    store(tmp_path / "bg_images" / "img_001.jpg", b"extracted")

    files = open_source(tmp_path)

    assert files.archives == ()
    assert files.names == ("bg_images/img_001.jpg",)
    assert files.read("bg_images/img_001.jpg") == b"extracted"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "/etc/evil.jpg",
        "C:/evil.jpg",
        "c:\\evil.jpg",
        "bg\\..\\..\\evil.jpg",
        ".//etc/evil.jpg",
        "./C:/evil.jpg",
        "./../evil.jpg",
    ],
)
def test_a_member_that_points_out_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is extracted, but such an archive was made to do harm, and is not to be trusted with anything."""
    files = open_source(archive(tmp_path / "data.zip", {"a.jpg": PICTURE, name: PICTURE}))

    with pytest.raises(InputError, match=r"data\.zip' has a member '.*evil\.jpg', but .* must not be absolute"):
        _ = files.names


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>quota exceeded</html>"])
def test_file_that_is_not_an_archive_is_named(tmp_path: Path, content: bytes) -> None:
    """Download pages that were saved under the archive's name are common."""
    store(tmp_path / "source" / "data.zip", content)

    for source in (tmp_path / "source", tmp_path / "source" / "data.zip"):
        with pytest.raises(InputError, match=r"source/data\.zip' is damaged or not a zip archive"):
            _ = open_source(source).names


def test_truncated_archive_is_named(tmp_path: Path) -> None:
    """The index is at the end, so that it is what a broken download lacks."""
    path = archive(tmp_path / "data.zip", {"a.jpg": PICTURE, "b.jpg": PICTURE})
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(InputError, match=r"data\.zip' is damaged"):
        _ = open_source(path).names


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    """The checksum reveals damage, even if the image still decodes."""
    path = archive(tmp_path / "data.zip", {"a.jpg": PICTURE}, ZIP_STORED)
    overwrite(path, PICTURE, 100, b"another")

    with pytest.raises(InputError, match=r"data\.zip/a\.jpg' is damaged in its archive \(Bad CRC-32"):
        open_source(path).read("a.jpg")


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    """There is nowhere to give a password."""
    path = archive(tmp_path / "data.zip", {"a.jpg": PICTURE})
    overwrite(path, CENTRAL_HEADER, 8, b"\x01")

    with pytest.raises(InputError, match=r"data\.zip/a\.jpg' is encrypted"):
        open_source(path).read("a.jpg")


def test_unknown_compression_is_named(tmp_path: Path) -> None:
    """Windows writes Deflate64 (method 9) where archives are large."""
    path = archive(tmp_path / "data.zip", {"a.jpg": PICTURE})
    overwrite(path, LOCAL_HEADER, 8, b"\x09")
    overwrite(path, CENTRAL_HEADER, 10, b"\x09")

    with pytest.raises(InputError, match=r"data\.zip/a\.jpg' has an unsupported compression"):
        open_source(path).read("a.jpg")


@pytest.mark.parametrize("method", [ZIP_BZIP2, ZIP_LZMA])
def test_compression_without_a_bound_is_refused(tmp_path: Path, method: int) -> None:
    """Memory exhaustion: some kilobytes, read as one block, unpack to gigabytes before their size is compared."""
    path = archive(tmp_path / "data.zip", {"a.jpg": PICTURE}, method)

    with pytest.raises(InputError, match=rf"a\.jpg' has an unsupported compression \(method {method}\); create"):
        open_source(path).read("a.jpg")


def test_member_larger_than_memory_is_refused(tmp_path: Path) -> None:
    """A megabyte can hold a gigabyte of zeros; what the index says of its size is checked before it is read."""
    path = archive(tmp_path / "data.zip", {"a.jpg": PICTURE})
    overwrite(path, CENTRAL_HEADER, 24, struct.pack("<I", MAX_MEMBER_BYTES + 1))

    with pytest.raises(InputError, match=r"data\.zip/a\.jpg' has 268,435,457 bytes"):
        open_source(path).read("a.jpg")


@pytest.mark.parametrize("declared", [0, 1000])
def test_member_larger_than_declared_is_not_read_further(tmp_path: Path, declared: int) -> None:
    """Memory exhaustion: an index that lies about a size must not get around the limit."""
    path = archive(tmp_path / "data.zip", {"a.jpg": bytes(2**24)})
    overwrite(path, CENTRAL_HEADER, 24, struct.pack("<I", declared))
    files = open_source(path)

    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"data\.zip/a\.jpg' is damaged in its archive \(Bad CRC-32"):
            files.read("a.jpg")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2**20


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 400))
def test_any_damage_is_an_input_error_or_harmless(tmp_path: Path, damages: list[tuple[int, int]], lost: int) -> None:
    """Whatever a disk or a download does to an archive, the user reads a sentence and not a traceback."""
    members = {"bg/a.jpg": PICTURE, "fg/b.jpg": bytes(range(256))}
    path = archive(tmp_path / "data.zip", members)
    content = bytearray(path.read_bytes())
    for place, value in damages:
        content[place % len(content)] = value
    path.write_bytes(content[: len(content) - max(0, lost - 300)])

    files = Archive(path)
    try:
        read = [files.read(name) for name in files.names]
    except InputError:
        read = []

    assert all(content in members.values() for content in read)


def test_another_file_as_source_is_refused(tmp_path: Path) -> None:
    """An image, or an archive of another kind, is neither a folder nor a zip archive."""
    store(tmp_path / "overlay.rar", b"Rar!")

    with pytest.raises(InputError, match=r"overlay\.rar' is a file, but must be a folder or a zip archive"):
        open_source(tmp_path / "overlay.rar")


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    """The commonest error is a wrong path."""
    with pytest.raises(InputError, match="nowhere' does not exist"):
        open_source(tmp_path / "nowhere")
