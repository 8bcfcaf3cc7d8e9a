"""A source in no published layout: the message ends with the command that imports it."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from data.importers.importers import import_folders, import_source
from data.importers.pairing import UnknownLayoutError
from tests.data.importers.test_hugging_face import dict_saved, samples
from tests.data.importers.test_importers import photo, store
from tests.data.importers.test_stems import folders
from tests.data.importers.test_tables import encode_jpeg, images, table


def suggested(source: Path) -> list[str]:
    """The words of the command; none if there is none."""
    with pytest.raises(UnknownLayoutError) as caught:
        import_source(source)
    assert "\n  found" in str(caught.value)
    match = re.search(r"\n  try +(.*)$", str(caught.value))
    words = shlex.split(match[1]) if match else []
    assert words[:2] == ["twinhead", "import"][: len(words)]
    return words[2:]


def options(words: list[str]) -> dict[str, str]:
    """Value by option of the command, which ends with the destination."""
    assert words[-1] == "DESTINATION"
    return dict(zip(words[:-1:2], words[1:-1:2], strict=True))


@pytest.mark.parametrize("shared", [False, True])
def test_four_folders_are_suggested_with_what_works(tmp_path: Path, shared: bool) -> None:
    """Also a pattern, if samples share backgrounds."""
    folders(tmp_path, shared=shared)
    store(tmp_path / "extra/notes.jpg", encode_jpeg(photo(1)))

    found = options(suggested(tmp_path))

    assert found.get("--bg-pattern") == ("(.+)_[^_]+" if shared else None)
    given = {role: Path(found[f"--{role.replace('_', '-')}"]) for role in ("bg", "fg_bg", "mask", "depth")}
    assert {role: path.name for role, path in given.items()} == {
        "bg": "rooms",
        "fg_bg": "photos",
        "mask": "masks",
        "depth": "depths",
    }
    assert len(import_folders(given, bg_pattern=found.get("--bg-pattern"))) == 4


def test_names_of_folders_are_quoted(tmp_path: Path) -> None:
    """The command can be pasted."""
    folders(tmp_path / "my images")

    assert options(suggested(tmp_path / "my images"))["--mask"] == str(tmp_path / "my images/masks")


def test_archives_of_the_folders_are_suggested(tmp_path: Path) -> None:
    """As they were downloaded."""
    given = folders(tmp_path)
    for path in given.values():
        shutil.make_archive(str(path), "zip", path)
        shutil.rmtree(path)

    assert options(suggested(tmp_path))["--depth"] == str(tmp_path / "depths.zip")


def test_a_table_beside_the_images_is_suggested(tmp_path: Path) -> None:
    """One that lists samples, not any other."""
    (tmp_path / "a.csv").write_text("name,size\nx,1\n")
    (tmp_path / "b.parquet").write_bytes(b"no table")
    path = table(tmp_path / "list.csv", images(tmp_path))

    assert suggested(tmp_path) == [str(path), "DESTINATION"]
    assert len(import_source(path)) == 4


def test_a_saved_dataset_below_is_suggested(tmp_path: Path) -> None:
    """The whole, not one of its splits."""
    dict_saved(tmp_path / "downloads/saved", {"train": samples(2), "test": samples(2, first=2)})

    assert suggested(tmp_path) == [str(tmp_path / "downloads/saved"), "DESTINATION"]


def test_nothing_is_suggested_that_would_not_work(tmp_path: Path) -> None:
    """Stems differ, a role is missing, or all is within an archive."""
    given = folders(tmp_path / "source")
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "source")
    assert suggested(Path(archive)) == []
    for path in list(given["mask"].iterdir()):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    assert suggested(tmp_path / "source") == []
    shutil.rmtree(given["mask"])
    assert suggested(tmp_path / "source") == []
