"""Pairs of photographs: by name in folders, listed in a CSV file, in a data set, or one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.dataset.dataset import Dataset
from data.errors import InputError
from trainable.config import DataConfig
from trainable.evaluation.pairs import Pair, pairs_in_csv, pairs_in_dataset, pairs_in_folders


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_files_of_two_folders_pair_by_name(tmp_path: Path) -> None:
    """The extension may differ, folders within them count, and other files are ignored."""
    bg = files(tmp_path / "bg", "b.png", "a.JPG", "day/a.png", "unused.png", "notes.txt")
    fg_bg = files(tmp_path / "fg_bg", "a.png", "b.jpeg", "day/a.jpg", "Thumbs.db", "lonely.png", ".hidden.png")

    found = pairs_in_folders(bg, fg_bg)

    assert found.names == ["a", "b", "day/a"]
    assert [pair.read() for pair in found] == [
        (b"a.JPG", b"a.png"),
        (b"b.png", b"b.jpeg"),
        (b"day/a.png", b"day/a.jpg"),
    ]
    assert list(found.unpaired) == ["lonely"]
    assert "lonely.png' has no background" in found.unpaired["lonely"]


def test_one_background_is_for_all_files_of_a_folder(tmp_path: Path) -> None:
    """A fixed camera has a single photograph of the empty room."""
    bg = files(tmp_path, "empty.jpg") / "empty.jpg"
    found = pairs_in_folders(bg, files(tmp_path / "frames", "1.png", "2.png"))

    assert [pair.read() for pair in found] == [(b"empty.jpg", b"1.png"), (b"empty.jpg", b"2.png")]


@pytest.mark.parametrize(
    ("backgrounds", "objects", "sentence"),
    [
        (["a.png"], ["b.png"], "No photograph in .* has the name of one in .*name the two of a pair alike"),
        (["a.png"], ["a.png", "a.jpg"], "differ only in their extension; rename one"),
        (["a.png"], ["a.txt"], "fg_bg' has no photographs"),
    ],
)
def test_folders_without_pairs_are_refused(
    tmp_path: Path, backgrounds: list[str], objects: list[str], sentence: str
) -> None:
    """Two files of one name would have one prediction."""
    with pytest.raises(InputError, match=sentence):
        pairs_in_folders(files(tmp_path / "bg", *backgrounds), files(tmp_path / "fg_bg", *objects))


def listed(tmp_path: Path, text: str) -> Path:
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    return tmp_path / "pairs.csv"


def test_paths_in_a_csv_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file can be used from any working directory; names are what the photographs do not share."""
    files(tmp_path / "photos", "a/empty.png", "a/1.png", "b/1.png")
    monkeypatch.chdir(tmp_path / "photos" / "a")
    file = listed(tmp_path, "fg_bg,note,bg\nphotos/a/1.png,x,photos/a/empty.png\nphotos/b/1.png,y,photos/a/empty.png\n")

    found = pairs_in_csv(file)

    assert found.names == ["a/1", "b/1"]
    assert [pair.read() for pair in found] == [(b"a/empty.png", b"a/1.png"), (b"a/empty.png", b"b/1.png")]


def test_csv_file_of_a_spreadsheet(tmp_path: Path) -> None:
    """Spreadsheets write a byte order mark, and semicolons where the comma is decimal; a column 'name' names."""
    found = pairs_in_csv(listed(tmp_path, "\ufeffname;bg;fg_bg\nfirst;bg.png;1.png\nsecond;bg.png;1.png\n"))

    assert found.names == ["first", "second"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no columns, but must have 'bg' and 'fg_bg'"),
        ("bg,foreground\na,b\n", "has the columns 'bg', 'foreground', but must have"),
        (",".join(f"c{number}" for number in range(150)) + "\n", "'c6', 'c7' and 142 more, but must have"),
        ("bg,fg_bg\n", "has no pairs"),
        ("bg,fg_bg\na.png\n", r"The column 'fg_bg' is empty \(.*pairs.csv:2\)"),
        ("bg,fg_bg\na.png,1.png\nb.png,1.jpg\n", "lines 2 and 3 of .* would both be named '1'; add a column 'name'"),
        ("name,bg,fg_bg\n../x,a.png,1.png\n", r"'\.\./x' .* leads out of --out"),
    ],
)
def test_unusable_csv_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """The sentence names the line."""
    with pytest.raises(InputError, match=sentence):
        pairs_in_csv(listed(tmp_path, text))


def test_missing_csv_file_is_named(tmp_path: Path) -> None:
    """And one in the encoding of another century."""
    with pytest.raises(InputError, match=r"pairs.csv' cannot be read \(No such file or directory\)"):
        pairs_in_csv(tmp_path / "pairs.csv")
    (tmp_path / "pairs.csv").write_bytes(b"bg,fg_bg\nm\xfcller.png,1.png\n")
    with pytest.raises(InputError, match="it is not UTF-8"):
        pairs_in_csv(tmp_path / "pairs.csv")


def test_pairs_of_a_data_set_are_those_of_the_networks_split(scenes: Path) -> None:
    """'test' means the images that the network was not trained on."""
    found = pairs_in_dataset(scenes, "test", DataConfig())
    dataset = Dataset.open(scenes)
    encoded = {sample.sample_id: (sample.bg, sample.fg_bg) for sample in dataset.read_encoded()}

    assert 0 < len(found.names) < len(encoded)
    assert {pair.name: pair.read() for pair in found} == {name: encoded[name] for name in found.names}


def test_name_of_a_data_set_that_leads_elsewhere_is_refused() -> None:
    """A data set comes from anywhere; its ids must not write files outside of the output directory."""
    for name in ("/etc/x", "a/../../x"):
        with pytest.raises(InputError, match="leads out of --out"):
            Pair(name=name, bg="bg", fg_bg="fg_bg", read=lambda: (b"", b""))
