"""Data sets saved by the library `datasets`: rows become samples, and nothing outside the directory is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.errors import InputError
from data.images import encode_jpeg, encode_png
from data.importers.importers import import_source
from tests.data.importers.test_importers import depth_of, mask_at, photo, write

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROLES = ("bg", "fg_bg", "mask", "depth")


def samples(count: int = 4, first: int = 0) -> list[dict[str, Any]]:
    """Rows over two rooms, as `datasets` stores images."""
    rows = []
    for number in range(first, first + count):
        mask = mask_at(3 + number % 12)
        images = (
            encode_jpeg(photo(number % 2)),
            encode_jpeg(photo(50 + number)),
            encode_png(mask),
            encode_png(depth_of(mask)),
        )
        rows.append(
            {role: {"bytes": content, "path": f"{number}.png"} for role, content in zip(ROLES, images, strict=True)}
        )
    return rows


def saved(
    directory: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    files: int = 2,
    split: str | None = "train",
    kind: Any = IMAGE,
) -> Path:
    """The directory that `Dataset.save_to_disk` writes: Arrow streams, the state and the description."""
    directory.mkdir(parents=True)
    others = [name for name in rows[0] if name not in ROLES]
    schema = pa.schema(
        [*((role, kind) for role in ROLES if role in rows[0]), *((name, pa.string()) for name in others)]
    )
    names = [f"data-{number:05d}-of-{files:05d}.arrow" for number in range(files)]
    for number, name in enumerate(names):
        of_file = rows[number * len(rows) // files : (number + 1) * len(rows) // files]
        with pa.OSFile(str(directory / name), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for row in of_file:  # one batch each: a row is not found by counting in the first batch
                writer.write_batch(pa.RecordBatch.from_pylist([dict(row)], schema))
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": split}
    (directory / "state.json").write_text(json.dumps(state))
    (directory / "dataset_info.json").write_text(json.dumps({"features": {role: {"_type": "Image"} for role in ROLES}}))
    return directory


def dict_saved(directory: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """The directory that `DatasetDict.save_to_disk` writes."""
    for name, rows in splits.items():
        saved(directory / name, rows, files=1, split=name)
    (directory / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return directory


@pytest.mark.parametrize("files", [1, 3])
def test_rows_of_a_saved_dataset_are_samples(tmp_path: Path, files: int) -> None:
    """With their bytes; a background that is stored in many rows is one."""
    rows = samples()

    found = import_source(saved(tmp_path / "saved", rows, files=files))
    dataset = write(found, tmp_path / "set")

    assert found.layout == "datasets"
    assert found.split is None
    assert dataset.ids.sample_id == dataset.ids.fg_id == ("train_0", "train_1", "train_2", "train_3")
    assert dataset.info.counts.backgrounds == 2
    assert dataset.ids.bg_id[0] == dataset.ids.bg_id[2] != dataset.ids.bg_id[1]
    for row, sample in zip(rows, dataset.read_encoded(), strict=True):
        assert {role: getattr(sample, role) for role in ROLES} == {role: row[role]["bytes"] for role in ROLES}


def test_ids_of_the_columns_are_kept(tmp_path: Path) -> None:
    """As in a table."""
    rows = [row | {"sample_id": f"s{n}", "bg_id": f"room{n % 2}", "fg_id": "cat"} for n, row in enumerate(samples())]

    ids = write(import_source(saved(tmp_path / "saved", rows)), tmp_path / "set").ids

    assert ids.sample_id == ("s0", "s1", "s2", "s3")
    assert ids.bg_id == ("room0", "room1", "room0", "room1")
    assert set(ids.fg_id) == {"cat"}


def test_the_background_id_does_not_depend_on_the_row(tmp_path: Path) -> None:
    """It decides the part of the split."""
    few = write(import_source(saved(tmp_path / "few", samples(2, first=3), split=None)), tmp_path / "1").ids
    many = write(import_source(saved(tmp_path / "many", samples(5))), tmp_path / "2").ids

    assert few.sample_id == ("row_0", "row_1")
    assert list(few.bg_id) == list(many.bg_id)[3:]


def test_splits_of_a_dataset_dict_are_kept(tmp_path: Path) -> None:
    """In the order train, val, test, whatever theirs; backgrounds are shared between them."""
    splits = {"test": samples(1), "validation": samples(2, first=1), "train": samples(3, first=3)}

    found = import_source(dict_saved(tmp_path / "saved", splits))
    ids = write(found, tmp_path / "set").ids

    assert found.split is not None
    assert (found.split.train, found.split.val, found.split.test) == (3, 2, 1)
    assert ids.sample_id == ("train_0", "train_1", "train_2", "validation_0", "validation_1", "test_0")
    assert len(set(ids.bg_id)) == 2


def test_a_single_split_is_none(tmp_path: Path) -> None:
    """Most data sets have only 'train', which is then divided by background as any other."""
    assert import_source(dict_saved(tmp_path / "saved", {"train": samples()})).split is None


def test_a_split_of_another_name_is_refused(tmp_path: Path) -> None:
    """It can be imported alone."""
    path = dict_saved(tmp_path / "saved", {"train": samples(2), "extra": samples(2, first=2)})

    with pytest.raises(
        InputError, match=r"The split 'extra' of .* give the directory of one split, such as '.*/extra'"
    ):
        import_source(path)
    assert len(import_source(path / "extra")) == 2


def test_images_may_be_stored_as_bytes(tmp_path: Path) -> None:
    """A feature of type Value('binary')."""
    rows = [{role: row[role]["bytes"] for role in ROLES} for row in samples()]

    assert len(write(import_source(saved(tmp_path / "saved", rows, kind=pa.binary())), tmp_path / "set").ids) == 4


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"bytes": None, "path": "/etc/hostname"}, "only the path '/etc/hostname' in '.*saved'.1."),
        (None, "no image in"),
    ],
)
def test_an_image_without_bytes_is_refused(tmp_path: Path, image: Any, said: str) -> None:
    """A path in it could name any file of the machine: none is opened."""
    rows = samples()
    rows[1]["bg"] = image

    with pytest.raises(InputError, match=f"Column 'bg' has {said}"):
        import_source(saved(tmp_path / "saved", rows))


def test_an_unusable_image_is_named_as_in_python(tmp_path: Path) -> None:
    """The row is found with what the message says."""
    rows = samples()
    rows[2]["mask"]["bytes"] = b"<html>"

    with pytest.raises(InputError, match=r"saved\[2\]\['mask'\]' is not an image"):
        write(import_source(saved(tmp_path / "saved", rows)), tmp_path / "set")


def test_missing_and_wrong_columns_are_named(tmp_path: Path) -> None:
    """With what to call in Python."""
    without = [{"bg": row["bg"], "fg_bg": row["fg_bg"], "mask": row["mask"], "depths": "x"} for row in samples()]
    with pytest.raises(
        InputError, match=r"no column 'depth' \(did you mean 'depths'\?\); its columns are 'bg', 'fg_bg', 'mask'"
    ):
        import_source(saved(tmp_path / "without", without))
    paths = [dict.fromkeys(ROLES, "x.png")]
    with pytest.raises(
        InputError, match=r"Column 'bg' of .* is string, but must be an image; convert it with cast_column"
    ):
        import_source(saved(tmp_path / "paths", paths, files=1, kind=pa.string()))


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match="The sample id 'a' occurs twice in"):
        import_source(saved(tmp_path / "saved", [row | {"sample_id": "a"} for row in samples()]))


@pytest.mark.parametrize("name", ["../outside.arrow", "/etc/hostname", "..", "", 3])
def test_files_outside_the_directory_are_not_read(tmp_path: Path, name: Any) -> None:
    """The state of a downloaded data set is not trusted."""
    path = saved(tmp_path / "saved", samples(), files=1)
    (path / "data-00000-of-00001.arrow").rename(tmp_path / "outside.arrow")
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))

    with pytest.raises(InputError, match="does not list Arrow files in its directory"):
        import_source(path)


def test_splits_outside_the_directory_are_not_read(tmp_path: Path) -> None:
    """The same of the list of splits."""
    path = dict_saved(tmp_path / "saved", {"train": samples()})
    (path / "dataset_dict.json").write_text(json.dumps({"splits": ["../other"]}))

    with pytest.raises(InputError, match="does not list names of splits"):
        import_source(path)


@pytest.mark.parametrize("length", [0, 40, 400, 2000])
def test_a_truncated_file_is_named(tmp_path: Path, length: int) -> None:
    """A download that was interrupted."""
    path = saved(tmp_path / "saved", samples(), files=1)
    file = path / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:length])

    with pytest.raises(InputError, match=r"data-00000-of-00001\.arrow' cannot be read \(.*\); save the data set again"):
        import_source(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Not copied along."""
    path = saved(tmp_path / "saved", samples())
    (path / "data-00001-of-00002.arrow").unlink()

    with pytest.raises(InputError, match=r"data-00001-of-00002\.arrow' cannot be read"):
        import_source(path)


def test_a_selection_of_rows_is_refused(tmp_path: Path) -> None:
    """Earlier versions stored it beside the files; ignoring it would import other samples."""
    path = saved(tmp_path / "saved", samples())
    state = json.loads((path / "state.json").read_text()) | {"_indices_data_files": [{"filename": "indices.arrow"}]}
    (path / "state.json").write_text(json.dumps(state))

    with pytest.raises(InputError, match=r"has a selection of rows .*flatten_indices\(\)"):
        import_source(path)
