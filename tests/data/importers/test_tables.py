"""Tables of samples: every kind of file reads alike, ids are stable, and a bad row is named by its number."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.dataset.dataset import Dataset, write_dataset
from data.errors import InputError
from data.folders import Folder
from data.images import encode_jpeg, encode_png
from data.importers.importers import import_source
from data.importers.problems import ImportProblemsError
from data.importers.tables import find_listed
from data.splits.splits import PARTS
from data.splits.splits import rows as parts
from tests.data.importers.test_importers import depth_of, mask_at, photo, store, write

Row = Mapping[str, object]
ROLES = ("bg", "fg_bg", "mask", "depth")


def images(root: Path, samples: int = 4) -> list[dict[str, object]]:
    """Samples over two rooms, as the user happens to keep them; the rows of their table."""
    rows: list[dict[str, object]] = []
    for number in range(samples):
        room = number % 2
        mask = mask_at(3 + number % 12)
        row = {
            "bg": f"rooms/room {room}.jpg",
            "fg_bg": f"shots/{number}.png",
            "mask": f"targets/{number}/m.png",
            "depth": f"targets/{number}/d.png",
        }
        encoded = (
            encode_jpeg(photo(room)),
            encode_png(photo(9 + number)),
            encode_png(mask),
            encode_png(depth_of(mask)),
        )
        for name, content in zip(row.values(), encoded, strict=True):
            store(root / name, content)
        rows.append(dict(row))
    return rows


def table(path: Path, rows: Sequence[Row], delimiter: str = ",") -> Path:
    """Write the rows as the suffix of the path says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("name", "delimiter"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t"), ("t.jsonl", ""), ("t.parquet", "")]
)
def test_every_kind_of_table_lists_the_same_samples(tmp_path: Path, name: str, delimiter: str) -> None:
    """Order, ids and bytes; a background that several rows name is stored once."""
    rows = images(tmp_path)

    found = import_source(table(tmp_path / name, rows, delimiter))
    dataset = write(found, tmp_path / "set")

    assert found.reason == f"4 rows of '{name}'"
    assert dataset.info.source["layout"] == "table"
    assert dataset.info.counts.backgrounds == 2
    assert list(dataset.ids.sample_id) == [f"shots_{number}" for number in range(4)]
    assert list(dataset.ids.bg_id) == ["rooms_room 0", "rooms_room 1"] * 2
    assert list(dataset.ids.fg_id) == list(dataset.ids.sample_id)
    for row, sample in zip(rows, dataset.read_encoded(), strict=True):
        for role in ROLES:
            assert getattr(sample, role) == (tmp_path / str(row[role])).read_bytes()


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_ids_of_the_table_are_kept(tmp_path: Path, name: str) -> None:
    """Leading zeros too; ids that are numbers in the file are the same text."""
    rows = images(tmp_path)
    for number, row in enumerate(rows):
        row |= {"sample_id": f"00{number}", "bg_id": 10 + number % 2, "fg_id": "chair"}

    ids = write(import_source(table(tmp_path / name, rows)), tmp_path / "set").ids

    assert list(ids.sample_id) == ["000", "001", "002", "003"]
    assert list(ids.bg_id) == ["10", "11", "10", "11"]
    assert set(ids.fg_id) == {"chair"}


def test_absolute_paths_and_spellings_of_one_file_are_read(tmp_path: Path) -> None:
    """'./a' and 'a' are one background."""
    rows = images(tmp_path / "images")
    (tmp_path / "elsewhere").mkdir()
    for number, row in enumerate(rows):
        row |= {role: str(tmp_path / "images" / str(row[role])) for role in ROLES}
        if number > 1:
            row["bg"] = str(row["bg"]).replace("rooms/", "rooms/./")

    dataset = write(import_source(table(tmp_path / "elsewhere/t.csv", rows)), tmp_path / "set")

    assert dataset.info.counts.backgrounds == 2


def test_ids_do_not_depend_on_other_rows(tmp_path: Path) -> None:
    """A background keeps its part of the split when the table grows."""
    rows = images(tmp_path, 8)

    few = write(import_source(table(tmp_path / "t.csv", rows[3:6])), tmp_path / "few").ids
    all_ids = write(import_source(table(tmp_path / "t.csv", rows)), tmp_path / "all").ids

    assert list(few.sample_id) == list(all_ids.sample_id)[3:6]
    assert list(few.bg_id) == list(all_ids.bg_id)[3:6]


@pytest.mark.parametrize("has_id", [False, True])
def test_copies_of_a_background_are_one_unless_the_table_says_otherwise(tmp_path: Path, has_id: bool) -> None:
    """A leak: copies under several names would be in several parts of a split by background."""
    rows = images(tmp_path, 6)
    for number, row in enumerate(rows):
        copy = f"copies/{number}.jpg"
        store(tmp_path / copy, (tmp_path / str(row["bg"])).read_bytes())
        row |= {"bg": copy} | ({"bg_id": f"room {number % 3}"} if has_id and number else {"bg_id": ""})
    (tmp_path / "copies/1.jpg").unlink()
    (tmp_path / "copies/1.jpg").symlink_to(tmp_path / "copies/3.jpg")

    found = import_source(table(tmp_path / "t.csv", rows))

    expected = ["copies_0", "copies_1"] * 3 if not has_id else ["copies_0", *(f"room {n % 3}" for n in range(1, 6))]
    assert [quadruple.bg_id for quadruple in found.quadruples] == expected


def test_a_shared_background_is_read_once_for_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours: a table of 400,000 rows names few background files."""
    path, names, read = table(tmp_path / "t.csv", images(tmp_path, 8)), Counter[str](), Folder.read

    def counted(self: Folder, name: str) -> bytes:
        names[name] += 1
        return read(self, name)

    monkeypatch.setattr(Folder, "read", counted)
    find_listed(path)

    assert names == {"rooms/room 0.jpg": 1, "rooms/room 1.jpg": 1}


def test_swapped_masks_and_depths_are_noticed(tmp_path: Path) -> None:
    """Each is an image with one channel; the training would run for hours on them."""
    rows = images(tmp_path, 12)
    swapped = [row | {"mask": row["depth"], "depth": row["mask"]} for row in rows]
    side = mask_at(3).shape[0]
    ramp = np.tile(np.linspace(30, 220, side).astype(np.uint8), (side, 1))
    for row in rows:
        store(tmp_path / str(row["depth"]), encode_png(ramp))

    assert import_source(table(tmp_path / "swapped.csv", swapped)).look_swapped
    assert not import_source(table(tmp_path / "right.csv", rows), depth_polarity="far-bright").look_swapped

    for row in rows:  # which no longer shows a polarity
        store(tmp_path / str(row["depth"]), encode_png(np.ascontiguousarray(ramp.T)))
    with pytest.raises(InputError, match="as if mask and depth were swapped; correct the names of the columns"):
        import_source(table(tmp_path / "swapped.csv", swapped))


def test_missing_columns_are_named_with_those_that_exist(tmp_path: Path) -> None:
    """Most often they have other names."""
    rows = [{"bg": row["bg"], "fgbg": row["fg_bg"], "mask": row["mask"], "z": row["depth"]} for row in images(tmp_path)]

    said = r"no column 'fg_bg' and no 'depth' \(did you mean 'fgbg'\?\); its columns are 'bg', 'fgbg', 'mask', 'z'"
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        with pytest.raises(InputError, match=said):
            import_source(table(tmp_path / name, rows))


def test_missing_files_are_counted_and_the_first_named_with_their_row(tmp_path: Path) -> None:
    """All in one pass, a shared background once."""
    rows = images(tmp_path, 8)
    for number in (2, 4, 5):
        (tmp_path / f"targets/{number}/m.png").unlink()
    (tmp_path / "rooms/room 1.jpg").unlink()

    with pytest.raises(ImportProblemsError) as caught:
        import_source(table(tmp_path / "t.csv", rows))

    assert [(problem.role, problem.row, problem.samples) for problem in caught.value.problems] == [
        ("bg", 2, 4),
        ("mask", 3, 1),
        ("mask", 5, 1),
        ("mask", 6, 1),
    ]
    masks = f"The file '{tmp_path}/targets/2/m.png' does not exist (row 3; 3 of 8 samples lack a file, 3 files in all,"
    assert masks in str(caught.value)


def test_sizes_that_differ_within_a_sample_are_named_with_the_row(tmp_path: Path) -> None:
    """The odd one of the four."""
    rows = images(tmp_path)
    store(tmp_path / "targets/1/m.png", encode_png(mask_at(3, 16)))

    with pytest.raises(InputError, match=r"1/m\.png' is 16x16, but must be 32x32 .* of its sample \(row 2; 1 of 4"):
        write(
            import_source(
                table(tmp_path / "t.csv", rows),
            ),
            tmp_path / "set",
        )
    assert not (tmp_path / "set").exists()


def test_unusable_image_is_named_with_the_row(tmp_path: Path) -> None:
    """In a table, a number finds it faster than a name."""
    rows = images(tmp_path)
    store(tmp_path / "shots/2.png", b"<html>")

    with pytest.raises(InputError, match=r"2\.png' is not an image, or is cut off \(row 3\); replace it"):
        write(import_source(table(tmp_path / "t.csv", rows)), tmp_path / "set")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sample_id": "a"}, r"sample id 'a' is in rows 1 and 2 of '.*t\.csv'; give each row its own"),
        ({"mask": ""}, r"Column 'mask' is empty in row 1 of "),
        ({"mask": "../m.png"}, r"path '\.\./m\.png' in row 1, column 'mask' of .* leaves the directory of the table"),
        ({"mask": "a/../../m.png"}, "leaves the directory of the table"),
        ({"mask": "targets"}, r"targets' is a directory, not a file \(row 1; 4 of 4 samples lack a file\)"),
    ],
)
def test_a_bad_value_is_named_with_its_row(tmp_path: Path, changes: Row, said: str) -> None:
    """One sentence, before anything is written."""
    rows = [row | changes for row in images(tmp_path)]

    with pytest.raises(InputError, match=said):
        import_source(table(tmp_path / "t.csv", rows))


def test_an_image_in_place_of_its_path_is_named_in_short(tmp_path: Path) -> None:
    """Traceback of the file system: no path has thousands of characters."""
    rows = [row | {"mask": "data:image/png;base64," + "A" * 5000} for row in images(tmp_path)]

    with pytest.raises(InputError, match=r"A…' cannot be examined \(File name too long\) \(row 1; 4 of 4 .*") as caught:
        import_source(table(tmp_path / "t.csv", rows))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("column", ["fg_bg", "bg_id"])
def test_a_value_that_is_not_utf8_is_named_with_its_row(tmp_path: Path, column: str) -> None:
    """Traceback of an encoding: JSON has escapes for the names that Python gives such files, and ids are text."""
    rows = images(tmp_path)
    rows[1][column] = "k\udcfcche.png"

    with pytest.raises(InputError, match=rf"Column '{column}' has 'k\\xfcche\.png' in row 2 of .*, which is not UTF-8"):
        import_source(table(tmp_path / "t.jsonl", rows))


def test_one_image_in_two_rows_needs_sample_ids(tmp_path: Path) -> None:
    """The derived ids would be equal."""
    rows = images(tmp_path)
    rows[3]["fg_bg"] = rows[0]["fg_bg"]

    with pytest.raises(InputError, match=r"'shots_0', the path of its fg_bg without extension, is in rows 1 and 4"):
        import_source(table(tmp_path / "t.csv", rows))


def test_different_backgrounds_with_one_id_are_refused(tmp_path: Path) -> None:
    """They would be shown with the wrong samples."""
    rows = [row | {"bg_id": "room"} for row in images(tmp_path)]

    with pytest.raises(
        InputError, match=r"room 1\.jpg' is another image than '.*room 0\.jpg', but both have the id 'room'"
    ):
        write(import_source(table(tmp_path / "t.csv", rows)), tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "", "has no rows"),
        ("t.csv", "bg,fg_bg,mask,depth\n", "has no rows"),
        ("t.csv", "bg,fg_bg,mask,depth\na,b,c\n", "Row 1 .* has 3 values, but the header has 4"),
        ("t.csv", "bg,bg,mask,depth\na,b,c,d\n", "two columns 'bg'"),
        ("t.csv", b"bg\xff\xfe", "cannot be read"),
        ("t.jsonl", "{\n", "Row 1 .* is not JSON"),
        ("t.jsonl", "[1]\n", "Row 1 .* is not a JSON object"),
        ("t.jsonl", '{"bg": ' + "1" * 5000 + "}\n", "Row 1 .* is not JSON"),
        ("t.jsonl", "[" * 100_000 + "\n", "Row 1 .* is not JSON"),
        (
            "t.jsonl",
            '{"bg": 1.5, "fg_bg": "", "mask": "", "depth": ""}\n',
            "Column 'bg' has a value of type float in row 1",
        ),
        ("t.parquet", "bg", "cannot be read"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    """Before any image is read."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)

    with pytest.raises(InputError, match=said):
        import_source(path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    """A table is known by its name."""
    with pytest.raises(InputError, match=r"nowhere\.csv' cannot be read \(No such file or directory\)"):
        import_source(tmp_path / "nowhere.csv")


def test_a_layout_for_a_table_is_refused(tmp_path: Path) -> None:
    """It would be ignored."""
    with pytest.raises(InputError, match=r"'--layout' is 'ramana', but .* is a table"):
        import_source(table(tmp_path / "t.csv", images(tmp_path)), layout="ramana")


def test_depth_near_bright_is_measured_and_inverted(tmp_path: Path) -> None:
    """As in published layouts."""
    rows = images(tmp_path)
    for number in range(4):
        store(tmp_path / f"targets/{number}/d.png", encode_png(255 - depth_of(mask_at(3 + number))))

    found = import_source(table(tmp_path / "t.csv", rows))

    assert found.depth_polarity == "near-bright"
    for number, sample in enumerate(write(found, tmp_path / "set").read()):
        np.testing.assert_array_equal(sample.depth, depth_of(mask_at(3 + number)))


def test_the_split_of_a_table_is_that_of_the_data_set(tmp_path: Path) -> None:
    """Each sample is in the part that its row says, whatever the hash of its ids."""
    names = ["test", "train", "validation", "train", "val", "Test", "train", "valid"]
    rows = [row | {"split": split} for row, split in zip(images(tmp_path, 8), names, strict=True)]

    found = import_source(table(tmp_path / "t.csv", rows))
    write_dataset(found.samples(), tmp_path / "set", source=found.source, split=found.split)
    ids = Dataset.open(tmp_path / "set").ids

    in_part = {part: [ids.sample_id[row] for row in parts(ids, part, "stored")] for part in PARTS}
    assert in_part == {
        "train": ["shots_1", "shots_3", "shots_6"],
        "val": ["shots_2", "shots_4", "shots_7"],
        "test": ["shots_0", "shots_5"],
    }
    assert found.backgrounds_in_several_parts() == 2


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("holdout", "'split' is 'holdout' in row 3 .* must be one of train, val"),
        ("", "'split' is empty in 1 of 4 rows"),
    ],
)
def test_an_unknown_or_empty_part_is_named_with_its_row(tmp_path: Path, split: str, said: str) -> None:
    """A sample in no part would be lost without a word."""
    rows = [row | {"split": "train"} for row in images(tmp_path)]
    rows[2]["split"] = split

    with pytest.raises(InputError, match=said):
        import_source(table(tmp_path / "t.csv", rows))


def test_an_empty_split_column_is_none(tmp_path: Path) -> None:
    """Spreadsheets keep columns that nobody filled."""
    rows = [row | {"split": ""} for row in images(tmp_path)]

    assert import_source(table(tmp_path / "t.csv", rows)).split is None
