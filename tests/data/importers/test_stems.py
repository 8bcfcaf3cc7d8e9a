"""Four folders: files are paired by stem, backgrounds are found by a pattern, and what has no partner is named."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

import pytest

from data.errors import InputError
from data.images import encode_jpeg, encode_png
from data.importers.importers import import_folders
from data.importers.problems import ImportProblemsError
from tests.data.importers.test_importers import depth_of, mask_at, photo, store, write

PATTERN = "(.+)_[^_]+"
NAMES = ("room_1_a", "room_1_b", "room_2_a", "room_2_b")


def folders(root: Path, names: tuple[str, ...] = NAMES, *, shared: bool = False) -> dict[str, Path]:
    """Four folders with a sample of each name; `shared` backgrounds have the name up to the last '_'."""
    found = {"bg": root / "rooms", "fg_bg": root / "photos", "mask": root / "masks", "depth": root / "depths"}
    for number, name in enumerate(names):
        mask = mask_at(3 + number)
        room = name.rpartition("_")[0] if shared else name
        store(found["bg"] / f"{room}.jpg", encode_jpeg(photo(zlib.crc32(room.encode()))))
        store(found["fg_bg"] / f"{name}.jpeg", encode_jpeg(photo(50 + number)))
        store(found["mask"] / f"{name}.PNG", encode_png(mask))
        store(found["depth"] / f"{name}.png", encode_png(depth_of(mask)))
    return found


def test_files_of_one_stem_are_a_sample(tmp_path: Path) -> None:
    """Extensions may differ; other files do not count."""
    given = folders(tmp_path)
    for path in given.values():
        (path / "notes.txt").write_text("x")

    found = import_folders(given)
    dataset = write(found, tmp_path / "set")

    assert dataset.ids.sample_id == dataset.ids.bg_id == dataset.ids.fg_id == NAMES
    assert dataset.info.source["folders"] == {role: str(path) for role, path in given.items()}
    assert found.reason == "4 file stems; 4 of 4 backgrounds used"
    for sample in dataset.read_encoded():
        assert sample.bg == (given["bg"] / f"{sample.sample_id}.jpg").read_bytes()
        assert sample.fg_bg == (given["fg_bg"] / f"{sample.sample_id}.jpeg").read_bytes()
        assert sample.mask == (given["mask"] / f"{sample.sample_id}.PNG").read_bytes()
        assert sample.depth == (given["depth"] / f"{sample.sample_id}.png").read_bytes()


@pytest.mark.parametrize("pattern", [PATTERN, r"room_\d", r"^room_(?:1|2)"])
def test_samples_share_the_background_that_the_pattern_finds(tmp_path: Path, pattern: str) -> None:
    """Its group, or all that it matches."""
    dataset = write(import_folders(folders(tmp_path, shared=True), bg_pattern=pattern), tmp_path / "set")

    assert dataset.ids.bg_id == ("room_1", "room_1", "room_2", "room_2")
    assert dataset.info.counts.backgrounds == 2


def test_copies_of_a_background_are_one(tmp_path: Path) -> None:
    """A leak: without a pattern, each sample has a background file, and copies would be in several parts of a split."""
    given = folders(tmp_path)
    for room in ("room_1", "room_2"):
        shutil.copy(given["bg"] / f"{room}_a.jpg", given["bg"] / f"{room}_b.jpg")

    dataset = write(import_folders(given), tmp_path / "set")

    assert dataset.ids.bg_id == ("room_1_a", "room_1_a", "room_2_a", "room_2_a")
    assert dataset.info.counts.backgrounds == 2


def test_a_damaged_background_is_named_for_each_of_its_copies(tmp_path: Path) -> None:
    """A wrong advice: replacing one of the copies would not be enough."""
    given = folders(tmp_path)
    for path in given["bg"].iterdir():
        path.write_bytes(b"<html>quota exceeded</html>")

    with pytest.raises(ImportProblemsError) as caught:
        write(import_folders(given), tmp_path / "set")

    assert [problem.sample_id for problem in caught.value.problems] == list(NAMES)


def test_subfolders_belong_to_the_stem(tmp_path: Path) -> None:
    """Sequences are often kept so, with equal names in each."""
    given = folders(tmp_path, ("kitchen/0", "kitchen/1", "hall/0"))

    assert write(import_folders(given), tmp_path / "set").ids.sample_id == ("hall_0", "kitchen_0", "kitchen_1")


@pytest.mark.parametrize("base", [None, "masks"])
def test_a_folder_may_be_an_archive(tmp_path: Path, base: str | None) -> None:
    """Whether it holds the files, or their folder."""
    given = folders(tmp_path)
    whole = write(import_folders(given), tmp_path / "whole")
    root = given["mask"].parent if base else given["mask"]
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", root, base)
    shutil.rmtree(given["mask"])

    dataset = write(import_folders(given | {"mask": Path(archive)}), tmp_path / "set")

    assert dataset.info.fingerprint == whole.info.fingerprint
    assert dataset.info.source["archives"] == ["packed.zip"]


def test_stems_without_a_partner_are_counted_and_named(tmp_path: Path) -> None:
    """All folders at once; nothing is left out silently."""
    given = folders(tmp_path)
    (given["mask"] / "room_1_b.PNG").unlink()
    (given["mask"] / "room_2_a.PNG").unlink()
    (given["bg"] / "room_2_b.jpg").unlink()

    with pytest.raises(ImportProblemsError) as caught:
        import_folders(given)

    assert [(problem.role, problem.sample_id) for problem in caught.value.problems] == [
        ("mask", "room_1_b"),
        ("mask", "room_2_a"),
        ("bg", "room_2_b"),
    ]
    assert (
        f"'{given['mask']}/room_1_b.*' of --mask is missing (2 of 4 samples lack a file, 2 files in all, also "
        f"'{given['mask']}/room_2_a.*'); restore it, or remove the other files of the stem" in str(caught.value)
    )


def test_folders_without_a_common_stem_are_refused(tmp_path: Path) -> None:
    """Often each folder has a suffix of its own."""
    given = folders(tmp_path)
    for path in list(given["mask"].iterdir()):
        path.rename(path.with_stem(f"{path.stem}_mask"))

    said = r"in all of --fg-bg, --mask and --depth: --fg-bg has 'room_1_a', .* \(4 in all\); --mask has 'room_1_a_mask'"
    with pytest.raises(InputError, match=said):
        import_folders(given)


def test_backgrounds_of_other_stems_get_a_pattern_proposed(tmp_path: Path) -> None:
    """The one that finds a background for each sample."""
    with pytest.raises(
        InputError, match=r"it has 'room_1', 'room_2', samples are .*; give --bg-pattern '\(\.\+\)_\[\^_\]\+'\."
    ):
        import_folders(folders(tmp_path, shared=True))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(room", r"'\(room' of --bg-pattern is not a regular expression"),
        ("(room)_(1)", "has 2 groups, but must have at most one"),
        ("(room_1)", r"does not match 2 of 4 stems \('room_2_a', 'room_2_b'\)"),
        ("(room)", r"finds 'room', but --bg '.*rooms' has 'room_1', 'room_2'; give --bg-pattern"),
    ],
)
def test_a_pattern_that_finds_no_background_is_refused(tmp_path: Path, pattern: str, said: str) -> None:
    """With what it finds, and what there is."""
    with pytest.raises(InputError, match=said):
        import_folders(folders(tmp_path, shared=True), bg_pattern=pattern)


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Traceback of an encoding: ids are made of the names. Other files may have any name, and so may folders."""
    given = folders(tmp_path / os.fsdecode(b"k\xfcche"), ("a", "b"))
    store(given["mask"] / os.fsdecode(b"k\xfcche.txt"), b"")
    assert len(import_folders(given)) == 2

    for path in given.values():
        (image,) = path.glob("a.*")
        image.rename(image.with_stem(os.fsdecode(b"k\xfcche")))

    with pytest.raises(InputError, match=r"^The file name 'k\\xfcche\.jpg' is not UTF-8; rename the file, such as "):
        import_folders(given)


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    """Which one belongs to the sample is not known."""
    given = folders(tmp_path)
    store(given["fg_bg"] / "room_1_a.png", encode_png(photo(1)))

    with pytest.raises(InputError, match=r"room_1_a\.jpeg' and '.*room_1_a\.png' differ only in their extension"):
        import_folders(given)


def test_a_folder_without_images_is_named_with_its_option(tmp_path: Path) -> None:
    """Most likely a level too high or too low."""
    given = folders(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/readme.md").write_text("x")

    with pytest.raises(InputError, match=r"other' of --mask has no images; it has 'readme\.md'; give one with "):
        import_folders(given | {"mask": tmp_path / "other"})
    with pytest.raises(InputError, match="nowhere' does not exist"):
        import_folders(given | {"mask": tmp_path / "nowhere"})
