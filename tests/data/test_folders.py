"""Directories with symbolic links: links are followed, also in cycles, and broken ones are named."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest

from data.compose.composition import Composition
from data.compose.sources import count_images, open_sources
from data.errors import InputError
from data.folders import Folder, escaped
from data.importers.archives import open_source
from data.importers.importers import import_source
from data.importers.pairing import find_layout, find_quadruples
from data.importers.problems import ImportProblems
from tests.data.compose.compose_kit import kit


def store(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture")


def ramana(root: Path) -> Path:
    """A sample in the layout of that name; of its files only the names count here."""
    for name in ("bg/bg_01", "fg_bg/bg_01/bg_01_fg_02_F_03", "fg_bg_masks/bg_01/bg_01_fg_02_F_03"):
        store(root / f"{name}.jpg")
    store(root / "fg_bg_depth/bg_01/bg_01_fg_02_F_03.jpg")
    return root


def missing(source: Path) -> str:
    files, problems = open_source(source), ImportProblems(str(source))
    found = find_quadruples(files, find_layout(files), problems)
    return str(problems.error(len(found)))


def test_links_to_directories_and_files_are_followed(tmp_path: Path) -> None:
    """Large folders lie on another disk, and are linked from where the others are."""
    store(tmp_path / "disk/photos/deep/a.jpg")
    store(tmp_path / "disk/b.jpg")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/bg").symlink_to(tmp_path / "disk/photos")
    (tmp_path / "source/c.jpg").symlink_to("../disk/b.jpg")

    files = open_source(tmp_path / "source")

    assert files.names == ("bg/deep/a.jpg", "c.jpg")
    assert files.read("bg/deep/a.jpg") == files.read("c.jpg") == b"picture"
    assert files.gaps == {}


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_link_to_a_parent_directory_is_skipped(tmp_path: Path, target: str) -> None:
    """What is in it is listed already, and would be so without end; the whole disk is not the source."""
    store(tmp_path / "source/bg/a.jpg")
    (tmp_path / "source/bg/again").symlink_to(target)

    assert Folder(tmp_path / "source").names == ("bg/a.jpg",)


def test_directories_linking_each_other_do_not_loop(tmp_path: Path) -> None:
    """Each is listed below the other once."""
    for one, other in (("a", "b"), ("b", "a")):
        store(tmp_path / one / f"{one}.jpg")
        (tmp_path / one / other).symlink_to(tmp_path / other)

    assert Folder(tmp_path).names == ("a/a.jpg", "a/b/b.jpg", "b/a/a.jpg", "b/b.jpg")


def test_pipe_is_not_a_file(tmp_path: Path) -> None:
    """To read it would wait for ever."""
    store(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")

    assert Folder(tmp_path).names == ("a.jpg",)


@pytest.mark.parametrize("gone", ["bg", "bg/bg_01.jpg", "fg_bg", "fg_bg_masks/bg_01", "fg_bg_depth"])
def test_broken_link_is_named_when_its_files_are_missing(tmp_path: Path, gone: str) -> None:
    """The disk that it leads to is not mounted: to restore what is missing would be the wrong advice."""
    source = ramana(tmp_path / "source")
    (source / gone).rename(tmp_path / "elsewhere")
    (source / gone).symlink_to("/mnt/gone")

    assert missing(source) == (
        f"The link '{source / gone}' points to '/mnt/gone', which does not exist (1 of 1 samples lack a file); restore "
        "its target, or remove the link."
    )


def test_irrelevant_broken_link_is_ignored(tmp_path: Path) -> None:
    """Such as an editor's lock file."""
    source = ramana(tmp_path / "source")
    (source / "notes").symlink_to("/mnt/gone")
    (source / "circle").symlink_to("circle")

    assert len(find_quadruples(open_source(source), find_layout(open_source(source)), ImportProblems(""))) == 1
    assert "points to itself" in open_source(source).gaps["circle"]


def test_broken_link_is_named_when_no_layout_fits(tmp_path: Path) -> None:
    """All folders of a source may be links to one disk."""
    store(tmp_path / "readme.txt")
    (tmp_path / "fg_bg").symlink_to("/mnt/gone")

    with pytest.raises(InputError, match=r"(?s)not recognised.*The link '.*/fg_bg' points to '/mnt/gone'"):
        find_layout(open_source(tmp_path))


def test_source_that_is_a_broken_link_is_named(tmp_path: Path) -> None:
    """Here as anywhere."""
    (tmp_path / "source").symlink_to("/mnt/gone")

    with pytest.raises(InputError, match=r"The link '.*/source' points to '/mnt/gone', which does not exist"):
        open_source(tmp_path / "source")


def test_a_link_within_an_archive_is_named(tmp_path: Path) -> None:
    """'zip -y' stores the link in place of what it points to."""
    source = ramana(tmp_path / "source")
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in source.rglob("*.jpg"):
            if path.parent.name != "bg":
                archive.write(path, path.relative_to(source))
        link = ZipInfo("bg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "../photos")

    assert "set.zip/bg' is a symbolic link, which is not followed within an archive" in missing(tmp_path / "set.zip")
    assert "set.zip/bg' is a symbolic link" in missing(tmp_path / "set.zip")


LONG = "a" * 300


@pytest.mark.parametrize("name", [LONG, f"{LONG}.csv", f"{LONG}/a.jsonl", f"{LONG}.zip"])
def test_a_source_that_cannot_be_examined_is_named(tmp_path: Path, name: str) -> None:
    """Traceback of the file system."""
    with pytest.raises(InputError, match=r"The path '.*' cannot be examined \(File name too long\); correct it"):
        import_source(tmp_path / name)
    with pytest.raises(InputError, match=r"The path '.*' cannot be examined \(File name too long\); correct it"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["backgrounds", "depths", "foregrounds"])
def test_a_folder_to_compose_that_cannot_be_examined_is_named(tmp_path: Path, name: str) -> None:
    """Traceback of the file system."""
    with pytest.raises(InputError, match=r"The path '.*' cannot be examined \(File name too long\); correct it"):
        open_sources(Composition(**kit(tmp_path) | {name: tmp_path / LONG}))


@pytest.mark.parametrize("name", ["backgrounds", "foregrounds"])
def test_a_name_that_is_not_utf8_is_not_composed(tmp_path: Path, name: str) -> None:
    """Traceback of an encoding: ids are made of the names."""
    given = kit(tmp_path)
    image = min(given[name].iterdir())
    image.rename(image.with_name(os.fsdecode(b"k\xfcche.png")))

    with pytest.raises(InputError, match=r"^The file name 'k\\xfcche\.png' is not UTF-8; rename the file, such as "):
        count_images(Composition(**given))


@pytest.mark.parametrize(("text", "shown"), [("Küche", "Küche"), ("k\udcfcche", r"k\xfcche"), ("\ud800", r"\ud800")])
def test_what_is_not_utf8_is_shown_by_escapes(text: str, shown: str) -> None:
    """Neither a terminal nor a log prints it."""
    assert escaped(text) == shown


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Path]]:
    """Paths whose status another user cannot get; for root, there are none."""
    paths: set[Path] = set()
    status_of = Path.stat

    def stat(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self in paths:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return status_of(self, follow_symlinks=follow_symlinks)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        yield paths


def test_a_source_of_another_user_is_named(tmp_path: Path, locked: set[Path]) -> None:
    """Traceback of the file system."""
    locked |= {tmp_path, tmp_path / "state.json", tmp_path / "t.csv"}

    for source in (tmp_path, tmp_path / "t.csv"):
        with pytest.raises(InputError, match=r"' cannot be examined \(Permission denied\); correct it, or make its "):
            import_source(source)
    with pytest.raises(InputError, match=r"The folder '.*' cannot be read \(Permission denied\); make it readable"):
        _ = Folder(tmp_path).names


def test_a_folder_that_cannot_be_entered_is_a_gap(tmp_path: Path, locked: set[Path]) -> None:
    """Traceback of the file system; the other files may be all that is needed."""
    store(tmp_path / "bg/a.jpg")
    store(tmp_path / "fg/a.jpg")
    locked.add(tmp_path / "fg")

    files = Folder(tmp_path)

    assert files.names == ("bg/a.jpg",)
    assert files.gaps == {"fg": f"The folder '{tmp_path / 'fg'}' cannot be read (Permission denied); make it readable."}


@pytest.mark.parametrize("name", ["backgrounds", "depths", "foregrounds"])
def test_composition_follows_links(tmp_path: Path, name: str) -> None:
    """A link that leads nowhere is named, and not passed over as if there were one image less."""
    given = kit(tmp_path)
    folder: Path = given[name]
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in folder.iterdir():
        (linked / path.name).symlink_to(path)
    (tmp_path / "link").symlink_to(linked)
    composition = Composition(**given | {name: tmp_path / "link"})

    assert open_sources(composition).digests() == open_sources(Composition(**given)).digests()

    (linked / "more.png").symlink_to("/mnt/gone.png")
    with pytest.raises(InputError, match=r"The link '.*/more\.png' points to '/mnt/gone\.png', which does not exist"):
        open_sources(composition)
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("/mnt/gone")
    with pytest.raises(InputError, match=r"The link '.*/link' points to '/mnt/gone', which does not exist"):
        open_sources(composition)
