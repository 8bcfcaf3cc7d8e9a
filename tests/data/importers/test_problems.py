"""Problems of a source: all are found in one pass, and the odd file of a sample is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from data.dataset.dataset import write_dataset
from data.errors import InputError
from data.images import decode_plane, encode_png, resize_to
from data.importers.importers import import_source
from data.importers.problems import MAX_NAMED, ImportProblemsError
from tests.data.importers.test_importers import birender, photo, store

ROLES = {"bg": "bg_images", "fg_bg": "fg_bg_images", "mask": "fg_bg_mask_images", "depth": "fg_bg_depth_images"}


def files(root: Path, role: str) -> list[Path]:
    return sorted((root / ROLES[role]).iterdir())


def refused(root: Path, destination: Path) -> ImportProblemsError:
    """With which a source is refused, wherever on the way."""
    with pytest.raises(ImportProblemsError) as caught:
        write_dataset(import_source(root).samples(), destination, source={})
    assert not destination.exists()
    assert not any(path.name.startswith(".") for path in destination.parent.iterdir())
    return caught.value


def shrink(path: Path, side: int = 16) -> None:
    path.write_bytes(encode_png(photo(7, side) if "images/img" in str(path) else resize_to(plane(path), side, side)))


def plane(path: Path) -> np.ndarray:
    return decode_plane(path.read_bytes(), "") if path.suffix == ".png" else photo(8)


@pytest.mark.parametrize("role", ROLES)
def test_odd_file_of_a_sample_is_found_by_majority(tmp_path: Path, role: str) -> None:
    """Whichever of the four it is: the other three agree."""
    root = birender(tmp_path / "source", 12)
    odd = files(root, role)[0]
    shrink(odd)
    samples = 6 if role == "bg" else 1

    error = refused(root, tmp_path / "set")

    assert [(problem.kind, problem.role, problem.file, problem.samples) for problem in error.problems] == [
        ("size", role, str(odd), samples)
    ]
    assert f"'{odd}' is 16x16, but must be 32x32 to match the other three files of its sample" in str(error)
    assert f"({samples} of 12 samples " in str(error)


def test_files_without_a_majority_are_all_named_with_sizes(tmp_path: Path) -> None:
    """It is unknown which of them are wrong."""
    root = birender(tmp_path / "source", 12)
    for role in ("mask", "depth"):
        shrink(files(root, role)[0])

    said = str(refused(root, tmp_path / "set"))

    assert "differ in size (background 32x32, photograph 32x32, mask 16x16, depth 16x16)" in said


def test_samples_with_the_same_problem_are_counted(tmp_path: Path) -> None:
    """One wrong mask is an accident, a hundred are a wrong folder; the first few are named."""
    root = birender(tmp_path / "source", 300)
    wrong = files(root, "mask")[100:137]
    for path in wrong:
        shrink(path)

    error = refused(root, tmp_path / "set")

    assert {problem.file for problem in error.problems} == {str(path) for path in wrong}
    assert "(37 of 300 samples are affected, 37 files in all, also '" in str(error)
    assert str(error).count(".png'") == MAX_NAMED
    assert " and 32 more); use one size" in str(error)
    assert "\n" not in str(error)


def test_all_problems_are_found_in_one_pass(tmp_path: Path) -> None:
    """Missing, no image, cut off, of colours, of another size: to find them one a run takes as many runs."""
    root = birender(tmp_path / "source", 300)
    bg, fg_bg, masks, depths = (files(root, role) for role in ROLES)
    bg[1].write_bytes(b"")
    fg_bg[100].write_bytes(fg_bg[100].read_bytes()[:100])
    masks[101].write_bytes(encode_png(photo(7)))
    shrink(depths[102])
    masks[103].unlink()
    depths[104].unlink()
    fg_bg[104].write_bytes(b"<html>")

    error = refused(root, tmp_path / "set")

    found = {(problem.kind, Path(problem.file).name.split(".")[0], problem.samples) for problem in error.problems}
    assert found == {
        ("unusable", bg[1].stem, 150),
        ("unusable", fg_bg[100].stem, 1),
        ("unusable", masks[101].stem, 1),
        ("size", depths[102].stem, 1),
        ("missing", masks[103].stem, 1),
        ("missing", depths[104].stem, 1),
        ("unusable", fg_bg[104].stem, 1),
    }
    heading, *lines = str(error).splitlines()
    assert heading == f"7 files of '{root}' cannot be imported as they are; --json lists all of them:"
    assert len(lines) == MAX_NAMED + 1
    assert lines[-1] == "  and 1 more kind of problem"


def test_problems_found_while_writing_are_all_named(tmp_path: Path) -> None:
    """Photographs are not looked at before; of what was written until then, nothing is left."""
    root = birender(tmp_path / "source", 12)
    broken = files(root, "fg_bg")[3:5]
    for path in broken:
        path.write_bytes(b"<html>")

    found = import_source(root)
    with pytest.raises(ImportProblemsError) as caught:
        write_dataset(found.samples(), tmp_path / "set", source={})

    assert {problem.file for problem in caught.value.problems} == {str(path) for path in broken}
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_odd_first_sample_is_the_one_blamed(tmp_path: Path) -> None:
    """Where depth may have any size that all share, the size of most counts and not that of the first."""
    root = birender(tmp_path / "source", 12)
    first = import_source(root).quadruples[0]
    shrink(root / first.depth)

    assert [problem.file for problem in refused(root, tmp_path / "set").problems] == [str(root / first.depth)]


def test_file_check_reports_progress(tmp_path: Path) -> None:
    """It takes as long as an import."""
    root = birender(tmp_path / "source", 12)
    files(root, "mask")[0].unlink()
    seen: list[tuple[int, int]] = []

    with pytest.raises(ImportProblemsError):
        import_source(root, on_checked=lambda done, total: seen.append((done, total)))

    assert seen == [(number, 12) for number in range(1, 13)]


def test_problems_survive_pickling(tmp_path: Path) -> None:
    """As every error may have to."""
    root = birender(tmp_path / "source", 12)
    store(files(root, "mask")[0], b"<html>")
    error = refused(root, tmp_path / "set")

    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was made in the line itself

    assert isinstance(again, InputError)
    assert (str(again), again.as_plain()) == (str(error), error.as_plain())
