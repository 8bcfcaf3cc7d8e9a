"""Commands on networks: `best`, `evaluate`, `predict`, and their errors."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.images import encode_png
from data.scenes.scenes import SceneSet
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.study import open_study
from trainable.config import TrialConfig, build
from trainable.loop.checkpoint_files import CONFIG, WEIGHTS, load_origin

Command = Callable[..., Any]


def picture(path: Path, height: int = 24, width: int = 40) -> Path:
    path.write_bytes(encode_png(np.full((height, width, 3), 127, np.uint8)))
    return path


def test_best_exports_the_retrained_network(
    twinhead: Command, refused: Command, experiment: Experiment, network: Path
) -> None:
    """Before the retraining there is none, and the sentence says what to do."""
    sentence = refused("best", "first", "--out", "mine")
    assert "no retrained network yet; continue it with 'twinhead search --resume first" in sentence

    shutil.copytree(network, experiment.retrained)
    said = twinhead("best", "first", "--out", "mine", "--json")

    assert said.code == 0
    assert json.loads(said.out)["out"] == "mine"
    assert {path.name for path in Path("mine").iterdir()} >= {"model.safetensors", "config.json", "README.md"}


@pytest.mark.parametrize("command", ["best", "report", "front", "importance"])
def test_results_of_a_running_search_are_worth_waiting_for(refused: Command, command: str) -> None:
    """To resume it would be refused."""
    running = Experiment(storage=Path("artifacts"), name="running")
    running.create(load_spec(data_path="set"))
    open_study(running)
    Heartbeat.of_this_process().write(running)

    said = refused(command, "running")
    assert "wait for it, since it still runs: 'twinhead status running --watch --storage artifacts'" in said


def test_best_exports_a_trial(twinhead: Command, experiment: Experiment) -> None:
    """Any trial's own weights, by its number."""
    said = twinhead("best", "first", "--trial", 0, "--out", "mine", "--json")

    assert said.code == 0
    assert json.loads(said.out) == {"what": "trial 0 of 'first', epoch 1", "out": "mine"}
    assert json.loads(Path("mine", "metrics.json").read_text()) == {
        "val": json.loads(Path("raw", "metrics.json").read_text())
    }


def test_best_keeps_other_files(refused: Command, experiment: Experiment) -> None:
    """`--out` may name any directory, by a slip as well."""
    Path("letters").mkdir()
    Path("letters", "a.txt").write_text("dear")

    assert "other files in 'letters'" in refused("best", "first", "--trial", 0, "--out", "letters")
    assert Path("letters", "a.txt").read_text() == "dear"


def test_best_replaces_an_export_of_the_same_network_only(
    twinhead: Command, refused: Command, experiment: Experiment, network: Path
) -> None:
    """The default directory is the same for every search, so that a second one would silently replace the first."""
    first = twinhead("best", "first", "--trial", 0, "--out", "mine").out
    again = twinhead("best", "first", "--trial", 0, "--out", "mine").out
    before = Path("mine", "metrics.json").read_text()
    shutil.copytree(network, experiment.retrained)

    assert "in place of an earlier export" not in first
    assert again == first.replace("mine\n", "mine, in place of an earlier export\n")
    assert "'mine' has trial 0 of 'first'; give --out another directory" in refused("best", "first", "--out", "mine")
    assert "best' has another network" in refused("best", "first", "--trial", 0, "--out", network)
    assert Path("mine", "metrics.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["third"], "no search 'third' in 'artifacts'; there are first"),
        (["../first"], "is not a valid name"),
        (["first", "--trial", "7"], "no trial 7; give --trial one of its trials (0 to 0)"),
        (["first", "--storage", "elsewhere"], "'elsewhere', which does not exist; give --storage that of the searches"),
    ],
)
def test_missing_network_is_named(
    refused: Command, experiment: Experiment, arguments: list[str], sentence: str
) -> None:
    """A wrong name is answered with the right ones."""
    assert sentence in refused("best", *arguments)


def test_damaged_retrained_network_is_not_exported(refused: Command, experiment: Experiment, network: Path) -> None:
    """The exported network can be loaded."""
    shutil.copytree(network, experiment.retrained)
    (experiment.retrained / WEIGHTS).write_bytes(b"")

    assert "retrained/model.safetensors' is truncated or altered" in refused("best", "first", "--out", "mine")
    assert not Path("mine").exists()


def test_evaluate_shows_baselines(twinhead: Command, network: Path, scenes: Path) -> None:
    """A figure alone says nothing: the same images without a network are next to it."""
    said = twinhead("evaluate", network, scenes, "--split", "val", "--json")
    values = json.loads(said.out)
    shown = twinhead("evaluate", network, scenes, "--split", "val").out

    assert said.code == 0
    assert 0 <= values["metrics"]["score"] <= 1
    assert set(values["baselines"]) == {"mask_threshold", "depth_mean"}
    assert (values["split"], values["same_data"]) == ("val", True)
    assert f"{values['metrics']['mask_iou']:.4f}" in shown
    assert "warning" not in said.err


def _lose_weights(network: Path) -> None:
    (network / WEIGHTS).unlink()


def _cut_weights(network: Path) -> None:
    path = network / WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])


def _widen(network: Path) -> None:
    path = network / CONFIG
    values = json.loads(path.read_text())
    values["trial"]["model"]["width"] = 4
    path.write_text(json.dumps(values))


def _renew(network: Path) -> None:
    path = network / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (shutil.rmtree, "is not a directory; give a directory made by 'twinhead best'"),
        (lambda network: (network / CONFIG).write_text("{"), "config.json' is truncated or altered"),
        (_lose_weights, "model.safetensors' is missing"),
        (_cut_weights, "model.safetensors' is truncated or altered"),
        (_widen, "config.json' is truncated or altered"),
        (_renew, "has format 99"),
    ],
)
def test_unusable_network_is_named(
    refused: Command, network: Path, scenes: Path, damage: Callable[[Path], Any], sentence: str
) -> None:
    """Missing, cut off, of another width, of another time: each has its sentence."""
    damage(network)
    photo = picture(Path("photo.png"))

    assert sentence in refused("evaluate", network, scenes)
    assert sentence in refused("predict", network, "--bg", photo, "--fg-bg", photo)
    assert not Path("out").exists()


def test_a_part_without_samples_is_named(twinhead: Command, refused: Command, network: Path) -> None:
    """With a single room there is nothing to test on."""
    twinhead("render", "set", "--backgrounds", 1, "--per-background", 1, "--size", 32)

    assert "has no samples: the data set has 1 background" in refused("evaluate", network, "set")


def test_predict_warns_of_swapped_photographs(twinhead: Command, network: Path) -> None:
    """The prediction is of something that is not there, and looks like one; what is written is the same."""
    scene = SceneSet(seed=3, backgrounds=1, per_background=1, size=96)[0]
    for name, pixels in (("room.png", scene.bg), ("figure.png", scene.fg_bg)):
        Path(name).write_bytes(encode_png(pixels))

    right = twinhead("predict", network, "--bg", "room.png", "--fg-bg", "figure.png", "--out", "out", "--json")
    swapped = twinhead("predict", network, "--bg", "figure.png", "--fg-bg", "room.png", "--out", "swapped", "--json")

    assert (right.code, swapped.code) == (0, 0)
    assert json.loads(right.out)["looks_swapped"] is False
    assert "warning" not in right.err
    assert json.loads(swapped.out)["looks_swapped"] is True
    assert json.loads(swapped.out)["written"] == [
        f"swapped/{Path(path).name}" for path in json.loads(right.out)["written"]
    ]
    assert "the object seems to be in 'figure.png', not in 'room.png'; if so, swap --bg and --fg-bg" in swapped.err


def test_predict_replaces_a_prediction_of_the_same_images_only(
    twinhead: Command, refused: Command, network: Path
) -> None:
    """Another pair in the same directory, which has a default, would silently replace the first."""
    scene = SceneSet(seed=3, backgrounds=1, per_background=1, size=96)[0]
    for name, pixels in (("room.png", scene.bg), ("figure.png", scene.fg_bg)):
        Path(name).write_bytes(encode_png(pixels))
    pair = ("--bg", "room.png", "--fg-bg", "figure.png")

    first = twinhead("predict", network, *pair)
    binary = twinhead("predict", network, *pair, "--threshold", 0.5)
    before = Path("out/mask.png").read_bytes()
    sentence = refused("predict", network, "--bg", picture(Path("a.png")), "--fg-bg", picture(Path("b.png")))

    assert "replaced" not in first.err
    assert "replaced the earlier prediction in 'out'" in binary.err
    assert "'out/mask.png' is not of this network and these images; give another --out" in sentence
    assert Path("out/mask.png").read_bytes() == before


def test_predict_writes_images_of_the_input_size(twinhead: Command, network: Path) -> None:
    """The network's own size is nobody's concern."""
    said = twinhead(
        "predict", network, "--bg", picture(Path("a.png")), "--fg-bg", picture(Path("b.png")), "--out", "out", "--json"
    )
    written = json.loads(said.out)["written"]

    assert said.code == 0
    assert [Path(path).name for path in written] == ["mask.png", "depth.png", "overlay.png"]
    for path in written:
        pixels = cv2.imread(path)
        assert pixels is not None
        assert pixels.shape[:2] == (24, 40)


@pytest.mark.parametrize(
    ("bg", "sentence"),
    [
        ("nowhere.png", "'nowhere.png' cannot be read (No such file or directory)"),
        (".", "'.' cannot be read (Is a directory)"),
        ("text.png", "'text.png' is not an image, or is cut off"),
        ("larger.png", "are 40 × 48 and 40 × 24 pixels; give two of the same size"),
    ],
)
def test_unusable_images_are_named(refused: Command, network: Path, bg: str, sentence: str) -> None:
    """The two images are a person's own, and of any origin."""
    Path("text.png").write_text("text")
    picture(Path("larger.png"), height=48)

    given = ("predict", network, "--bg", bg, "--fg-bg", picture(Path("b.png")), "--out", "out")

    assert sentence in refused(*given)
    assert not Path("out").exists()


def scene_files(directory: Path, count: int = 3) -> tuple[Path, Path]:
    """Folders of backgrounds and of photographs with figures, whose files have the same names."""
    folders = directory / "rooms", directory / "figures"
    for folder in folders:
        folder.mkdir(parents=True)
    for number, scene in enumerate(SceneSet(seed=3, backgrounds=count, per_background=1, size=64)):
        for folder, pixels in zip(folders, (scene.bg, scene.fg_bg), strict=True):
            (folder / f"{number}.png").write_bytes(encode_png(pixels))
    return folders


def test_predict_folders_and_continue(twinhead: Command, network: Path, tmp_path: Path) -> None:
    """The same command again predicts nothing twice."""
    rooms, figures = scene_files(tmp_path)
    command = ("predict", network, "--bg", rooms, "--fg-bg", figures, "--out", "out", "--device", "cpu")

    first = twinhead(*command, "--json")
    Path("out/mask/1.png").unlink()
    again = twinhead(*command)

    counts = {"made": 3, "replaced": 0, "kept": 0}
    assert (first.code, again.code) == (0, 0)
    assert json.loads(first.out) == {"out": "out", **counts, "failed": {}, "looks_swapped": []}
    assert again.out == (
        "1 pair predicted, 1 of them in place of earlier predictions, 2 kept: out/mask/, out/depth/, out/overlay/\n"
    )
    assert sorted(path.name for path in Path("out/overlay").iterdir()) == ["0.png", "1.png", "2.png"]


def test_predict_goes_on_after_a_bad_image(twinhead: Command, network: Path, tmp_path: Path) -> None:
    """The exit code tells, and the output says which, so that a script can correct them."""
    rooms, figures = scene_files(tmp_path)
    (rooms / "0.png").write_text("text")
    (rooms / "2.png").unlink()

    said = twinhead("predict", network, "--bg", rooms, "--fg-bg", figures, "--out", "out", "--json")

    values = json.loads(said.out)
    assert said.code == 2
    assert values["made"] == 1
    assert "0.png' is not an image" in values["failed"]["0"]
    assert "2.png' has no background" in values["failed"]["2"]
    assert "twinhead: There is no prediction of 2 pairs of 3, such as '2'; correct" in said.err
    assert [path.name for path in Path("out/mask").iterdir()] == ["1.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bg", "fg_bg", "out", "sentence"),
    [
        ("rooms", "nowhere", "out", "The folder 'nowhere' does not exist"),
        ("rooms", "figures", "figures/out", "'figures/out' lies in 'figures', whose photographs are predicted"),
        ("nowhere.png", "figures", "out", "'nowhere.png' cannot be read (No such file or directory)"),
    ],
)
def test_predict_refuses_folders_it_cannot_use(
    refused: Command, network: Path, tmp_path: Path, bg: str, fg_bg: str, out: str, sentence: str
) -> None:
    """A slip is one sentence, not a failure for each image."""
    scene_files(tmp_path)
    assert sentence in refused("predict", network, "--bg", bg, "--fg-bg", fg_bg, "--out", out)
    assert not Path(out).exists()


def test_predict_warns_of_swapped_folders(twinhead: Command, network: Path, tmp_path: Path) -> None:
    """Then all predictions are wrong, and none looks so."""
    rooms, figures = scene_files(tmp_path)
    said = twinhead("predict", network, "--bg", figures, "--fg-bg", rooms, "--out", "out", "--json")

    assert json.loads(said.out)["looks_swapped"] == ["0", "1", "2"]
    assert "in 3 pairs, the object seems to be in the background (0, 1, 2)" in said.err


def test_predict_a_csv_file_and_a_data_set(twinhead: Command, network: Path, scenes: Path, tmp_path: Path) -> None:
    """Lists and data sets are predicted as folders are."""
    scene_files(tmp_path)
    Path("pairs.csv").write_text("bg,fg_bg\nrooms/1.png,figures/1.png\n")
    listed = twinhead("predict", network, "pairs.csv", "--out", "listed", "--json")
    of_set = twinhead("predict", network, scenes, "--split", "val", "--out", "of-set", "--threshold", 0.5, "--json")

    assert json.loads(listed.out)["made"] == 1
    assert Path("listed/mask/1.png").is_file()
    assert json.loads(of_set.out)["made"] == 3
    assert len(list(Path("of-set/mask").iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "The photographs are needed; give --bg and --fg-bg, a CSV file, or a data set"),
        (["--bg", "a.png"], "The photographs are needed"),
        (["pairs.csv", "--bg", "a.png"], "given twice, by 'pairs.csv' and by --bg or --fg-bg"),
        (["pairs.csv", "--split", "val"], "'--split val' is only for a data set"),
        (["nowhere"], "The data set 'nowhere' does not exist"),
        (["nowhere.csv"], "The file 'nowhere.csv' cannot be read"),
        (["nowhere.csv", "--device", "tpu"], "'--device' is 'tpu', but this machine has cpu"),
        (["nowhere.csv", "--out", "raw/config.json"], "Nothing can be written to 'raw/config.json'"),
    ],
)
def test_predict_refuses_what_it_cannot_use(
    refused: Command, network: Path, arguments: list[str], sentence: str
) -> None:
    """One sentence, before the work."""
    assert sentence in refused("predict", network, *arguments)


def test_evaluate_writes_intervals_images_and_the_worst(twinhead: Command, network: Path, scenes: Path) -> None:
    """The mean hides where a network fails."""
    said = twinhead("evaluate", network, scenes, "--split", "all", "--out", "evaluation", "--json")
    values = json.loads(said.out)
    rows = list(csv.DictReader(Path("evaluation/images.csv").read_text().splitlines()))
    shown = twinhead("evaluate", network, scenes, "--split", "all", "--out", "evaluation").out

    assert values == json.loads(Path("evaluation/evaluation.json").read_text())
    for name in ("score", "mask_iou", "depth_rmse"):
        interval = values["intervals"][name]
        assert interval["low"] <= interval["value"] <= interval["high"]
        assert interval["value"] == pytest.approx(values["metrics"][name], abs=1e-9)
    assert len(rows) == 30
    for name in ("score", "mask_iou", "depth_delta1"):  # the others are no means over images
        assert np.mean([float(row[name]) for row in rows]) == pytest.approx(values["metrics"][name], abs=1e-5)
    assert cv2.imread("evaluation/worst.png").shape[0] > 16 * 128
    assert f"{values['intervals']['score']['low']:.4f} to {values['intervals']['score']['high']:.4f}" in shown
    assert "evaluation/worst.png" in shown


def test_evaluate_measures_unchanged_images(
    twinhead: Command, network: Path, scenes: Path, save_warmed: Callable[[TrialConfig], Path]
) -> None:
    """The metrics are of the same images as their intervals and the baselines, also if a published error augments."""
    values = load_origin(network).config.model_dump()
    values["data"]["augment"] |= {"in_evaluation": True, "jitter": 0.5}
    changed = save_warmed(build(TrialConfig, values, source="the test"))
    evaluated = ["evaluate", changed, scenes, "--split", "val", "--json"]
    alone, written = (json.loads(twinhead(*evaluated, *out).out) for out in ([], ["--out", "evaluation"]))

    assert alone["metrics"] == pytest.approx(written["metrics"], rel=1e-9)
    for name, value in written["metrics"].items():
        assert written["intervals"][name]["value"] == pytest.approx(value, rel=1e-9)


def test_evaluate_refuses_an_output_that_cannot_be_written(refused: Command, network: Path, scenes: Path) -> None:
    """Before the evaluation, which may take minutes."""
    Path("file").write_text("")
    assert "Nothing can be written to 'file'" in refused("evaluate", network, scenes, "--out", "file")


@pytest.mark.slow
def test_export_writes_and_describes_a_file(twinhead: Command, network: Path) -> None:
    """The numbers of the comparison are printed, not promised."""
    said = twinhead("export", network, "--format", "torch", "--json")
    values = json.loads(said.out)

    assert said.code == 0
    assert values["file"] == "model.pt2"
    assert Path("model.pt2").stat().st_size == values["bytes"]
    assert values["difference"] <= 1e-4
    assert len(values["checked"]) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["raw", "--out", "model.txt"], "'model.txt' must end in .onnx for the format 'onnx'"),
        (["artifacts"], "'artifacts' is not a directory; give a directory made by 'twinhead best'"),
        (["raw", "--out", "raw/config.json/model.onnx"], "Nothing can be written to 'raw/config.json/model.onnx'"),
        (["raw", "--out", "raw"], "Nothing can be written to 'raw' (Is a directory); give another --out"),
        (["raw", "--out", "/proc/model.onnx"], "Nothing can be written to '/proc/model.onnx'"),
    ],
)
def test_export_refuses_what_it_cannot_use(
    refused: Command, network: Path, arguments: list[str], sentence: str
) -> None:
    """One sentence, and no file."""
    assert sentence in refused("export", *arguments)
