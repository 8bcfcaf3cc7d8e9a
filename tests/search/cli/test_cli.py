"""The command line without a cluster: its output, and that bad input gives one sentence and exit code 2."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click import Group

from data.dataset.dataset import Dataset
from data.schema import SCHEMA_VERSION
from search.cli import main as command_line
from search.study.experiment import Experiment
from search.study.study import open_study
from tests.data.importers.test_importers import birender

Command = Callable[..., Any]


def commands() -> list[str]:
    assert isinstance(command_line.cli, Group)
    return sorted(command_line.cli.commands)


@pytest.mark.parametrize("name", commands())
def test_help_shows_an_example(twinhead: Command, name: str) -> None:
    """People copy: each command's help ends with a line that can be typed."""
    said = twinhead(name, "--help")

    assert (said.code, said.err) == (0, "")
    assert f"  twinhead {name} " in said.out.split("Example")[1]


def test_help_lists_every_command(twinhead: Command) -> None:
    """What is not listed is not found."""
    said = twinhead("--help")

    assert [name for name in commands() if f"\n  {name} " not in said.out] == []
    assert twinhead("--version").out.startswith("twinhead")


def test_help_groups_commands_one_line_each(twinhead: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is found by its heading, and its sentence is read whole in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    grouped = [str(each.name) for listed in command_line.SECTIONS.values() for each in listed]
    lines = twinhead("--help").out.splitlines()

    assert sorted(grouped) == commands()
    assert [title for title in command_line.SECTIONS if f"{title}:" not in lines] == []
    for name in grouped:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert line.endswith("."), line
        assert "..." not in line


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["best"], ["evaluate", "a", "b", "--split", "tests"], ["render", "--size", "x", "d"]]
)
def test_command_line_typos_are_named(twinhead: Command, arguments: list[str]) -> None:
    """Unknown commands and options get one sentence like any other bad input, with where to look."""
    said = twinhead(*arguments)

    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("twinhead: ")
    assert said.err.endswith("--help'.\n")
    assert len(said.err.splitlines()) == 1


@pytest.mark.slow
def test_render_and_inspect(twinhead: Command, tmp_path: Path) -> None:
    """Standard output is one JSON document with --json: everything else is on standard error."""
    rendered = twinhead("render", "set", "--backgrounds", 2, "--per-background", 1, "--size", 32, "--json")
    inspected = twinhead("inspect", "set", "--samples", 2, "--json")

    assert (rendered.code, inspected.code) == (0, 0)
    values = json.loads(rendered.out)
    assert values["counts"]["samples"] == 2
    assert json.loads(inspected.out) == {**values, "path": "set", "sheet": "set-sheet.png"}
    assert cv2.imread(str(tmp_path / "set-sheet.png")) is not None
    assert "samples     2 with 2 backgrounds" in twinhead("inspect", "set").out


@pytest.mark.parametrize(
    ("option", "value"), [("--backgrounds", 0), ("--per-background", -1), ("--size", 0), ("--seed", -1)]
)
def test_unusable_scene_options_are_named(refused: Command, option: str, value: int) -> None:
    """A refused command leaves no files."""
    sentence = refused("render", "set", "--backgrounds", 1, "--per-background", 1, option, value)

    assert str(value) in sentence
    assert not Path("set").exists()


@pytest.mark.slow
def test_an_existing_destination_is_refused(refused: Command, scenes: Path) -> None:
    """A data set is never written over."""
    sentence = refused("render", scenes, "--backgrounds", 1, "--per-background", 1, "--size", 32)

    assert "exists already; remove it, or give another destination" in sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["import", "nowhere", "taken"], "'taken' exists already"),
        (["import", "nowhere", "file/set"], "cannot be written to '.*file' \\(Not a directory"),
        (["render", "taken", "--backgrounds", 10**6], "'taken' exists already"),
        (
            ["compose", "--backgrounds=no", "--depths=no", "--depth-unit=mm", "--foregrounds=no", "--out=taken"],
            "'taken' exists already",
        ),
        (["best", "first", "--out", "taken"], "other files in 'taken'"),
        (["predict", "nowhere", "--bg", "nowhere", "--fg-bg", "nowhere", "--out", "file"], "written to 'file'"),
        (["inspect", "nowhere", "--out", "file/sheet.png"], "written to 'file/sheet.png'"),
        (["profile", "birender-cnn", "nowhere", "--out", "file"], "written to 'file'"),
        (["front", "nowhere", "--svg", "file/front.svg"], "written to 'file/front.svg'"),
        (["search", "--data", "nowhere", "--name", "first"], "'first' is in use"),
        (["search", "--data", "nowhere", "--name", "first", "--dry-run"], "'first' is in use"),
        (["search", "--data", "nowhere", "--name", "a/b", "--dry-run"], "'a/b' is not a valid name"),
        (["train", "birender-cnn", "nowhere", "--name", "first"], "'first' is in use"),
        (["compare", "nowhere", "--name", "first"], "'first' is in use"),
    ],
)
@pytest.mark.usefixtures("experiment")
def test_a_destination_is_refused_before_anything_is_read(
    refused: Command, arguments: list[object], sentence: str
) -> None:
    """The inputs do not exist and would be reported first: with real data, hours may pass before that."""
    Path("taken").mkdir()
    Path("taken/letter.txt").write_text("dear")
    Path("file").write_text("")

    assert re.search(sentence, refused(*arguments))


@pytest.mark.slow
def test_published_images_are_imported(twinhead: Command) -> None:
    """The published layout is recognised, and what was found is said."""
    root = os.environ.get("TWINHEAD_REAL")
    if root is None:
        pytest.skip("TWINHEAD_REAL does not name a folder of real images")
    said = twinhead("import", Path(root, "nyu_composed"), "set", "--json")

    assert said.code == 0
    assert json.loads(said.out)["counts"]["samples"] > 0
    assert "samples; depth is far-bright" in said.err
    assert Dataset.open(Path("set"), verify=True).info.source["kind"] == "import"


def test_import_reports_changes_of_masks_and_depth(twinhead: Command, tmp_path: Path) -> None:
    """Masks of 0 and 1, and 16 bits with holes, come in as 0 to 255: that is said, and recorded."""
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:20] = 1
    depth = np.where(mask, np.uint16(900), np.uint16(4000))
    depth[0] = 0
    photos = tmp_path / "photos"
    for folder, name, pixels in (
        ("bg_images", "img_001", np.full((32, 32, 3), 90, np.uint8)),
        ("fg_bg_images", "fg001_bg001_01", np.full((32, 32, 3), 120, np.uint8)),
        ("fg_bg_mask_images", "fg001_bg001_01", mask),
        ("fg_bg_depth_images", "fg001_bg001_01", depth),
    ):
        (photos / folder).mkdir(parents=True)
        (photos / folder / f"{name}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    said = twinhead("import", photos, "set", "--json")

    assert said.code == 0
    assert "masks hold only 0 and 1; they are multiplied by 255" in said.err
    assert "depth has 16 bits; the range of each image is scaled to 0..255; 0 means no measurement" in said.err
    source = json.loads(said.out)["source"]
    assert (source["mask_factor"], source["depth_bits"]) == (255, 16)
    (sample,) = Dataset.open(Path("set")).read()
    assert np.unique(sample.depth).tolist() == [0, 255]
    np.testing.assert_array_equal(sample.mask, mask * 255)


def test_a_source_that_cannot_be_imported_is_named(refused: Command, tmp_path: Path) -> None:
    """A wrong folder, an empty one, a file, an unknown layout."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_bytes(b"")

    assert "'nowhere' does not exist" in refused("import", "nowhere", "set")
    assert "'file.png' is a file, but must be a folder" in refused("import", "file.png", "set")
    assert "'empty'" in refused("import", "empty", "set")
    assert "'--layout' is 'mine'" in refused("import", "empty", "set", "--layout", "mine")
    assert not Path("set").exists()


def test_import_names_a_file_that_is_not_an_image(refused: Command, tmp_path: Path) -> None:
    """One broken download among thousands has to be found by its name."""
    root = os.environ.get("TWINHEAD_REAL")
    if root is None:
        pytest.skip("TWINHEAD_REAL does not name a folder of real images")
    shutil.copytree(Path(root, "nyu_composed"), tmp_path / "photos")
    broken = min((tmp_path / "photos" / "fg_bg_images").iterdir())
    broken.write_bytes(b"not a picture")

    sentence = refused("import", "photos", "set")

    assert broken.name in sentence
    assert "is not an image, or is cut off; replace it" in sentence
    assert not Path("set").exists()


def _truncate(data: Path) -> None:
    part = data / "samples-00000.parquet"
    part.write_bytes(part.read_bytes()[:-5])


def _alter(data: Path) -> None:
    part = data / "samples-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)


def _age(data: Path) -> None:
    manifest = data / "dataset.json"
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**values, "schema_version": SCHEMA_VERSION + 1}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_truncate, "samples-00000.parquet' was altered since it was written"),
        (_alter, "its SHA-256 differs"),
        (_age, "upgrade Twinhead"),
        (shutil.rmtree, "does not exist"),
        (lambda data: (data / "dataset.json").unlink(), "has no dataset.json"),
    ],
)
def test_unusable_data_is_named(
    refused: Command, scenes: Path, network: Path, damage: Callable[[Path], Any], sentence: str
) -> None:
    """Every command that reads a data set compares it with its checksums first; a search leaves no name in use."""
    shutil.copytree(scenes, "set")
    damage(Path("set"))

    assert sentence in refused("inspect", "set")
    assert sentence in refused("evaluate", network, "set", "--json")
    assert sentence in refused("search", "--data", "set", "--name", "first")
    assert not Path("artifacts").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name", "first"], "data set is missing; give --data"),
        (["--data", "set"], "name of the search is missing; give --name"),
        (["nowhere.yaml", "--data", "set"], "The spec 'nowhere.yaml' cannot be read"),
        ([".", "--data", "set"], "The spec '.' cannot be read"),
        (["broken.yaml"], "no valid YAML at line 2, column 1 of the spec 'broken.yaml'"),
        (["--data", "set", "--name", "a", "--set", "lr"], "--set is 'lr', but must be KEY=VALUE"),
        (["--data", "set", "--name", "a", "--set", "optimizer.lr=x"], "'optimizer.lr' is 'x'"),
        (
            ["--data", "set", "--name", "a", "--set", "optimizer.lr=0,001"],
            "'0,001' in --set optimizer.lr has a decimal",
        ),
        (["comma.yaml", "--name", "a"], "comma.yaml:1:37: The number '0,5'"),
        (["--data", "set", "--name", "a", "--trials", "0"], "'budget.trials' is 0"),
        (["--data", "SCENES", "--name", "../a"], "'../a' is not a valid name"),
        (["--data", "SCENES", "--name", "first"], "'first' is in use"),
        (["--resume", "third"], "no search 'third' in 'artifacts'; there are first"),
        (["--resume", "first", "--name", "x"], "--resume continues 'first' as it was started"),
    ],
)
def test_a_search_that_cannot_start_is_named(
    refused: Command, scenes: Path, experiment: Experiment, arguments: list[str], sentence: str
) -> None:
    """Each is found before a cluster is started."""
    Path("broken.yaml").write_text("data: [\n")
    Path("comma.yaml").write_text("loss: {mask: {bce: 1.0, dice: {low: 0,5, high: 2}}}\n")
    given = [str(scenes) if argument == "SCENES" else argument for argument in arguments]

    assert sentence in refused("search", *given)
    assert [path.name for path in experiment.storage.iterdir()] == ["first"]


def test_import_problems_are_printed_as_json(twinhead: Command, tmp_path: Path) -> None:
    """A script that prepares data reads all of them; the exit code, and the sentence on standard error, stay."""
    root = birender(tmp_path / "source", 12)
    masks = sorted((root / "fg_bg_mask_images").iterdir())
    for path in masks[:3]:
        path.write_bytes(b"<html>")
    masks[3].unlink()

    said = twinhead("import", "source", "set", "--json")
    nowhere = twinhead("import", "nowhere", "set", "--json")

    assert (said.code, nowhere.code) == (2, 2)
    values = json.loads(said.out)
    assert values["ok"] is False
    assert [(problem["kind"], problem["samples"]) for problem in values["problems"]] == [
        ("missing", 1),
        *[("unusable", 1)] * 3,
    ]
    assert {Path(problem["file"]).name for problem in values["problems"][1:]} == {path.name for path in masks[:3]}
    assert "twinhead: 4 files of 'source' cannot be imported as they are; --json lists all of them:" in said.err
    (problem,) = json.loads(nowhere.out)["problems"]
    assert "'nowhere' does not exist" in problem["sentence"]
    assert not Path("set").exists()


def test_unrecognised_layout_is_compared_with_the_closest(twinhead: Command, tmp_path: Path) -> None:
    """What was found, what would have been, and what differs; not all layouts in one line."""
    root = birender(tmp_path / "source")
    (root / "bg_images").rename(root / "backgrounds")
    for folder in ("fg_bg_images", "fg_bg_mask_images", "fg_bg_depth_images"):
        for number, path in enumerate(sorted((root / folder).iterdir())):
            path.rename(path.with_name(f"{number:04d}{path.suffix}"))

    said = twinhead("import", "source", "set")

    assert said.code == 2
    lines = said.err.splitlines()
    assert lines[0].startswith("twinhead: The layout of 'source' is not recognised: its file names match none of")
    assert lines[1].split() == ["found", "backgrounds/:", "img_001.jpg,", "img_002.jpg"]
    assert "fg_bg_images/: 0000.jpg, 0001.jpg, 0002.jpg, … (4 files)" in said.err
    assert "closest: birender  bg     bg_images/img_BBB: a file with such a name, 'img_001.jpg', is in " in said.err
    assert "the folder 'fg_bg_images' exists, but '0000.jpg' is not named 'fgFFF[flip]_bgBBB_NN'" in said.err


@pytest.mark.slow
def test_a_sheet_that_cannot_be_written_is_named(refused: Command, scenes: Path) -> None:
    """A directory that is not there is a slip like any other."""
    Path("file").write_text("")

    assert "sheet.png" in refused("inspect", scenes, "--out", "file/sheet.png")


def test_outcomes_have_the_same_words_everywhere(twinhead: Command, experiment: Experiment) -> None:
    """A trial that the summary calls stopped is not called otherwise in the table of trials."""
    open_study(experiment).tell(0, 0.5)
    shown = twinhead("trials", "first", "--storage", experiment.storage)
    counted = json.loads(twinhead("status", "first", "--storage", experiment.storage, "--json").out)["trials"]

    assert (shown.code, counted["stopped"]) == (0, 1)
    assert shown.out.splitlines()[1].split()[:2] == ["0", "stopped"]


@pytest.mark.parametrize(
    "command", ["list --storage", "status first --storage", "inspect", "spec --check", "recipes", "train"]
)
def test_path_that_is_too_long_is_refused(refused: Callable[..., str], command: str) -> None:
    """A traceback: even to ask whether such a path exists is an error."""
    path = "a" * 300
    said = refused(*command.split(), path, *([path] if command == "train" else []))

    assert said.startswith(f"twinhead: The path '{path}")
    assert said.endswith("' cannot be used (File name too long); give a shorter one.")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_path_of_another_user_is_refused(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A traceback: a directory that the user must not read cannot be asked for its files either."""

    def exists(path: Path, **_: object) -> bool:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "exists", exists)
    said = refused("list", "--storage", "/home/other/searches")

    assert said == (
        f"twinhead: The path '/home/other/searches' cannot be used ({os.strerror(number)}); give another one, or have "
        "its permissions changed."
    )
