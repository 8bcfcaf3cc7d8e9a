"""The `import` command on images of the user: each form is imported, shown and verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.dataset.dataset import Dataset
from data.schema import Pixels
from tests.data.importers.test_depth_import import npy, with_depth
from tests.data.importers.test_hugging_face import dict_saved, samples
from tests.data.importers.test_importers import mask_at, photo
from tests.data.importers.test_stems import folders
from tests.data.importers.test_tables import images, table

Command = Callable[..., Any]


def check(twinhead: Command, *arguments: object) -> dict[str, Any]:
    """Import to 'set', inspect and verify it; the JSON of the import."""
    said = twinhead("import", *arguments, "set", "--json")
    assert said.code == 0, said.err
    assert twinhead("inspect", "set", "--out", "sheet.png").code == 0
    assert Path("sheet.png").exists()
    verified = twinhead("verify", "set", "--json")
    assert (verified.code, json.loads(verified.out)["whole"]) == (0, True)
    values = json.loads(said.out)
    assert isinstance(values, dict)
    return values


def test_a_table_is_imported_inspected_and_verified(twinhead: Command, tmp_path: Path) -> None:
    """From the files to a whole data set."""
    table(tmp_path / "t.csv", images(tmp_path))

    values = check(twinhead, "t.csv")

    assert values["counts"] == {"samples": 4, "backgrounds": 2, "foregrounds": 4}
    assert values["source"]["reason"] == "4 rows of 't.csv'"


def test_problems_of_a_table_have_their_rows_in_json(twinhead: Command, tmp_path: Path) -> None:
    """A script corrects the rows."""
    table(tmp_path / "t.csv", images(tmp_path))
    (tmp_path / "targets/2/d.png").unlink()

    said = twinhead("import", "t.csv", "set", "--json")

    assert said.code == 2
    (problem,) = json.loads(said.out)["problems"]
    assert (problem["kind"], problem["role"], problem["row"]) == ("missing", "depth", 3)
    assert not Path("set").exists()


def test_four_folders_are_imported_inspected_and_verified(twinhead: Command, tmp_path: Path) -> None:
    """With one background for several samples."""
    given = folders(tmp_path, shared=True)
    options = [word for role, path in given.items() for word in (f"--{role.replace('_', '-')}", path.name)]

    values = check(twinhead, *options, "--bg-pattern", "(.+)_[^_]+")

    assert values["counts"] == {"samples": 4, "backgrounds": 2, "foregrounds": 4}
    assert values["source"]["bg_pattern"] == "(.+)_[^_]+"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give SOURCE DESTINATION; there are no arguments"),
        (["source"], "Give SOURCE DESTINATION; there is 1 argument"),
        (["--bg", "a", "--mask", "b", "set"], "Missing option --fg-bg and --depth"),
        (
            ["--bg", "a", "--fg-bg", "b", "--mask", "c", "--depth", "d", "source", "set"],
            "Give DESTINATION with --bg, --fg-bg, --mask and --depth; there are 2 arguments",
        ),
        (
            ["--bg", "a", "--fg-bg", "b", "--mask", "c", "--depth", "d", "--layout", "x", "s"],
            "--layout is for a SOURCE",
        ),
        (["--bg-pattern", "x", "source", "set"], "--bg-pattern is for four folders"),
    ],
)
def test_contradicting_arguments_are_refused(twinhead: Command, arguments: list[str], said: str) -> None:
    """Before anything is read."""
    found = twinhead("import", *arguments)

    assert found.code == 2
    assert said in found.err


def test_a_saved_dataset_is_imported_inspected_and_verified(twinhead: Command, tmp_path: Path) -> None:
    """With its split."""
    dict_saved(tmp_path / "saved", {"train": samples(3), "val": samples(2, first=3), "test": samples(1, first=5)})

    values = check(twinhead, "saved")

    assert values["counts"] == {"samples": 6, "backgrounds": 2, "foregrounds": 6}
    assert values["split"] == {"train": 3, "val": 2, "test": 1}


def test_depth_in_metres_is_imported_inspected_and_verified(twinhead: Command, tmp_path: Path) -> None:
    """What is not measured is said, and marked."""
    with_depth(tmp_path, ".npy", npy)

    values = check(twinhead, "t.csv", "--depth-unit", "m", "--depth-invalid", "6")
    again = twinhead("import", "t.csv", "again", "--depth-unit", "m", "--depth-invalid", "6")

    assert values["statistics"]["valid_fraction"]["masks"] == 4
    assert (values["source"]["depth_unit"], values["source"]["depth_invalid"]) == ("m", 6)
    assert (
        "depth has floating-point values in m; the range of each image is scaled to 0..255; 0 and 6 mean no measurement"
        in again.err.replace("\n", " ")
    )


def test_masks_of_labels_and_cutouts_are_counted(twinhead: Command, tmp_path: Path) -> None:
    """Whoever wanted a single instance sees that all were taken."""
    rows = images(tmp_path, 6)
    for number in range(3):
        labels = mask_at(3 + number).astype(np.uint16) // 255
        labels[:, :2] = 2
        encoded = (
            cv2.imencode(".png", labels)[1].tobytes()
            if number < 2
            else encode_png_rgba(np.dstack([photo(1), mask_at(3 + number)]))
        )
        (tmp_path / str(rows[number]["mask"])).write_bytes(encoded)
    table(tmp_path / "t.csv", rows)

    said = twinhead("import", "t.csv", "set", "--json")

    assert said.code == 0, said.err
    assert json.loads(said.out)["source"]["mask_forms"] == {"labels": 2, "alpha": 1, "levels": 3}
    assert "2 masks of several labels: all labels above 0 are joined as the foreground" in said.err
    assert "1 mask with transparency: the alpha channel is the mask" in said.err
    masks = [sample.mask for sample in Dataset.open(Path("set")).read()]
    assert (masks[0][:, :2] == 255).all()
    np.testing.assert_array_equal(masks[2], mask_at(5))


def encode_png_rgba(pixels: Pixels) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))[1].tobytes()
