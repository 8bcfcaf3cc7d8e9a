"""The Python API: its names, what importing it costs, and the examples of its chapter and its notebook."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import twinhead
from search.run.cluster import ENVIRONMENT
from search.study.experiment import Experiment
from tests.commands import GIVE_UP
from tests.examples import DOCS, PLUGIN, blocks, plugin_text
from tests.notebook import code_cells, run_notebook

ROOT = DOCS.parent
UNCHANGED = """
import signal as _signal

_before = [_signal.getsignal(number) for number in (_signal.SIGINT, _signal.SIGTERM)]
"""
"""Before the program of the chapter."""
CHECKS = """
import os

import ray

from search.run.cluster import cluster

assert [_signal.getsignal(number) for number in (_signal.SIGINT, _signal.SIGTERM)] == _before
assert not ray.is_initialized()
ray.init(os.environ["RAY_ADDRESS"], logging_level="ERROR", log_to_driver=False)
with cluster():
    assert ray.nodes()
assert ray.is_initialized()
"""
"""After it: nothing of a search is left, and the Ray of a program itself is used and stays."""


@pytest.fixture(scope="module")
def program(shared_cluster: str, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the examples of the chapter ran as one program."""
    directory = tmp_path_factory.mktemp("python")
    (directory / "rooms").symlink_to(drawn)
    (directory / PLUGIN).write_text(plugin_text())
    text = "\n".join([UNCHANGED, *(block for block in blocks() if block != plugin_text()), CHECKS])
    (directory / "program.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, "program.py"],
        cwd=directory, capture_output=True, text=True, timeout=GIVE_UP, check=False, env=environment(),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    (directory / "printed.txt").write_text(ran.stdout)
    (directory / "progress.txt").write_text(ran.stderr)
    return directory


def environment() -> dict[str, str]:
    """That of a user, whose program sets nothing for Ray."""
    kept = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    return kept | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module", autouse=True)
def _restore_environment() -> Iterator[None]:
    """Undo what the first use of a name sets for Ray."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, os.environ.get(name, value))
        yield


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `code`."""
    shown = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_the_public_names_are_the_documented_ones() -> None:
    """The table of the chapter, `__all__`, what type checkers see, and what is imported on use are the same."""
    table = re.findall(r"^\| (`.*`) \|", (DOCS / "python.md").read_text(), flags=re.MULTILINE)
    documented = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    tree = ast.parse((ROOT / "twinhead.py").read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname or alias.name: node for node in checked.body for alias in node.names}  # type: ignore[attr-defined]

    assert set(twinhead.__all__) == documented == set(seen) == set(twinhead._FOUND_IN)
    for name, node in seen.items():
        module, _, attribute = twinhead._FOUND_IN[name].partition(":")
        assert module == node.module  # type: ignore[attr-defined]
        assert attribute in {alias.name for alias in node.names}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", twinhead.__all__)
def test_every_name_is_documented(name: str) -> None:
    """`help` shows what it does, and every public attribute of it."""
    found = getattr(twinhead, name)
    assert inspect.getdoc(found)
    if inspect.isclass(found) and not issubclass(found, Exception):
        own = {key: value for key, value in vars(found).items() if not key.startswith("_")}
        assert [key for key, value in own.items() if callable(value) and not inspect.getdoc(value)] == []


def test_the_import_is_light() -> None:
    """A program that only catches an error must not wait for torch and Ray."""
    loaded = loaded_after("import twinhead\ntwinhead.InputError\ndir(twinhead)")

    assert "data.errors" in loaded
    assert not {"torch", "ray", "optuna", "pandas", "numpy", "cv2", "pydantic"} & loaded


@pytest.mark.slow
def test_reading_data_loads_no_ray() -> None:
    """A program that trains its own network on the samples has its own cluster, or none."""
    assert "ray" not in loaded_after("import twinhead\ntwinhead.Samples\ntwinhead.Family")


def test_an_unknown_name_says_which_there_are() -> None:
    """As a misspelt import should."""
    with pytest.raises(AttributeError, match=r"no attribute 'serach'; it has .*search"):
        twinhead.serach  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.cluster
def test_the_examples_run(program: Path) -> None:
    """They form one program: it searches, reads the results, predicts, trains, and says which searches there are."""
    printed = (program / "printed.txt").read_text()

    assert "There is no search 'last' in 'artifacts'; there are first." in printed
    assert re.search(r"Network\('.*', family='tiny', width=4, epochs=1\)", printed)
    assert "\x1b" not in (program / "progress.txt").read_text()  # plain lines where there is no terminal


@pytest.mark.cluster
def test_the_results_of_a_search_in_python(program: Path) -> None:
    """Records and frame have the same trials, with the metric and the loss of the plugin."""
    search = twinhead.load("first", program / "artifacts")
    trials, frame = search.trials(), search.frame()

    assert [trial.number for trial in trials] == list(frame.index)
    assert frame["score"].is_monotonic_decreasing
    assert all(0.1 <= trial.params["loss.depth.log_l1"] <= 1.0 for trial in trials)
    assert {"mask_f1", "train_depth_log_l1", "loss.depth.log_l1", "optimizer.name"} <= set(frame.columns)
    assert search.best == trials[0]
    assert search.summary.complete
    assert twinhead.Network(search.network(trial=trials[-1].number).directory).config.model.family == "debug"


@pytest.mark.cluster
def test_the_own_loss_trains_on_the_cluster_and_the_own_metric_is_reported(program: Path) -> None:
    """The text of the file reached the processes of the trials, of the retraining and of the test."""
    search = twinhead.load("first", program / "artifacts")
    retrained = search.summary.retrained

    assert all("train_depth_log_l1" in trial.metrics and "mask_f1" in trial.metrics for trial in search.trials())
    assert retrained is not None
    assert 0 <= retrained.metrics["mask_f1"] <= 1


@pytest.mark.cluster
def test_the_notebook_runs(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stored outputs are of the same kinds as those of a run."""
    monkeypatch.chdir(program)
    artifacts = program / "artifacts"
    shutil.copytree(artifacts / "first", artifacts / "demo")
    (artifacts / "demo-scenes").symlink_to(program / "rooms")

    outputs = run_notebook(DOCS / "python.ipynb")

    stored = [cell["outputs"] for cell in code_cells(DOCS / "python.ipynb")]
    assert kinds(outputs) == kinds(stored)
    assert any("image/png" in output.get("data", {}) for cell in stored for output in cell)
    assert (DOCS / "python.ipynb").stat().st_size < 300_000


def kinds(outputs: list[list[dict[str, Any]]]) -> list[list[tuple[str, list[str]]]]:
    return [[(output["output_type"], sorted(output.get("data", []))) for output in cell] for cell in outputs]


@pytest.fixture(scope="module")
def network(save_warmed: Any) -> twinhead.Network:
    """An untrained network at 32 px."""
    from tests.search.conftest import CONFIGURATION

    return twinhead.Network(save_warmed(CONFIGURATION))


def photos(height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    bg, fg_bg = generator.integers(0, 256, (2, height, width, 3), np.uint8)
    return bg, fg_bg


def test_a_prediction_has_the_size_of_the_images(network: twinhead.Network) -> None:
    """Float32 in 0..1, and the same for an array, a PIL image, and one with an opaque alpha channel."""
    bg, fg_bg = photos()
    mask, depth = network.predict(bg, fg_bg)

    assert (mask.shape, depth.shape, mask.dtype, depth.dtype) == ((40, 56), (40, 56), np.float32, np.float32)
    assert all(0 <= plane.min() <= plane.max() <= 1 for plane in (mask, depth))
    assert mask.std() > 0
    with_alpha = np.dstack([bg, np.full(bg.shape[:2], 255, np.uint8)])
    for other in (Image.fromarray(bg), with_alpha, Image.fromarray(with_alpha)):
        assert np.array_equal(network.predict(other, Image.fromarray(fg_bg)).mask, mask)


def test_an_image_without_resizing_is_what_the_network_returns(network: twinhead.Network) -> None:
    """At the size of the network, the planes are its own outputs."""
    bg, fg_bg = photos(32, 32)
    mask, depth = network.predict(bg, fg_bg)
    with torch.no_grad():
        direct = network.module(*(torch.from_numpy(p).permute(2, 0, 1)[None] / 255 for p in (bg, fg_bg)))

    assert np.allclose(mask, direct.mask[0, 0].clamp(0, 1), atol=1e-6)
    assert np.allclose(depth, direct.depth[0, 0].clamp(0, 1), atol=1e-6)


def test_the_orientation_of_a_photograph_is_applied(network: twinhead.Network) -> None:
    """A phone stores an upright photograph on its side, with a note."""
    bg, fg_bg = (Image.fromarray(photo) for photo in photos(40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right
    turned = bg.transpose(Image.Transpose.ROTATE_90)
    turned.getexif().update(exif)

    assert np.array_equal(network.predict(turned, fg_bg).mask, network.predict(bg, fg_bg).mask)


GREY = np.zeros((8, 8), np.uint8)
WRONG_IMAGES = {
    "float": (GREY / 255, r"'bg' is float64 of shape \(8, 8\), but must be uint8"),
    "batch": (np.zeros((1, 8, 8, 3), np.uint8), r"'bg' is uint8 of shape \(1, 8, 8, 3\)"),
    "channels first": (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\)"),
    "empty": (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
    "path": ("bg.jpg", r"'bg' is a str; give a numpy array or a PIL image"),
    "size": (np.zeros((8, 9, 3), np.uint8), r"'bg' and 'fg_bg' are 9 × 8 and 8 × 8 pixels"),
    "transparent": (np.zeros((8, 8, 4), np.uint8), r"'bg' is transparent in 64 of 64 pixels"),
    "16 bits": (Image.fromarray(np.zeros((8, 8), np.uint16)), r"'bg' .*uint16"),
    "mode": (Image.new("CMYK", (8, 8)), r"mode CMYK cannot be used"),
}


@pytest.mark.parametrize("wrong", WRONG_IMAGES)
def test_images_that_cannot_be_used_are_refused(network: twinhead.Network, wrong: str) -> None:
    """A float image in 0..255 or channels first would be predicted as noise."""
    image, sentence = WRONG_IMAGES[wrong]
    with pytest.raises(twinhead.InputError, match=sentence):
        network.predict(image, GREY)  # type: ignore[arg-type]


@pytest.mark.slow
def test_items_and_batches_hold_the_same_samples(drawn: Path) -> None:
    """Both are uint8; a batch is the item with the batch first."""
    samples = twinhead.Samples(drawn, split="train", image_size=32)
    items = [samples[index] for index in range(len(samples))]
    batches = list(samples.batches(5, device="cpu"))

    assert samples.info.counts.samples == 48
    assert sum(map(len, batches)) == len(samples) == len(items)
    assert (items[0]["bg"].shape, items[0]["mask"].shape) == ((3, 32, 32), (1, 32, 32))
    assert {tensor.dtype for tensor in items[0].values()} == {torch.uint8}
    for name in ("bg", "fg_bg", "mask", "depth"):
        stacked = torch.stack([item[name] for item in items])
        assert torch.equal(stacked, torch.cat([getattr(batch, name) for batch in batches])), name
    assert torch.equal(samples[-1]["bg"], items[-1]["bg"])
    with pytest.raises(IndexError):
        samples[len(samples)]


@pytest.mark.slow
def test_samples_work_in_a_data_loader_with_workers(drawn: Path) -> None:
    """A worker opens the cache by itself; the order and the pixels are those of this process."""
    samples = twinhead.Samples(drawn, split="test", image_size=32)
    expected = torch.stack([samples[index]["fg_bg"] for index in range(len(samples))])
    loader = DataLoader(samples, batch_size=3, num_workers=1, multiprocessing_context="spawn")

    assert torch.equal(torch.cat([batch["fg_bg"] for batch in loader]), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"split": "tset"}, "'tset' is not known"),
        ({"image_size": 30}, "'image_size' is 30, but must be a multiple of 16"),
        ({"split_by": "room"}, "'split_by' is 'room'"),
    ],
)
def test_samples_that_cannot_be_read_are_refused(drawn: Path, arguments: dict[str, Any], sentence: str) -> None:
    """At once, not in the first epoch."""
    with pytest.raises(twinhead.InputError, match=sentence):
        twinhead.Samples(drawn, **arguments)


def test_a_search_is_refused_before_it_starts(drawn: Path, tmp_path: Path) -> None:
    """Each is an InputError with one sentence, and nothing is written."""
    for arguments, sentence in (
        ({"spec": {}, "name": "x"}, "data set is missing"),
        ({"spec": {}, "data": drawn}, "name of the search is missing; give name="),
        ({"spec": {"modle": {}}, "data": drawn, "name": "x"}, "section 'modle' is not known.*did you mean 'model'"),
        ({"spec": {"budget": {"trials": 0}}, "data": drawn, "name": "x"}, "'budget.trials' is 0"),
        ({"spec": {"model": {"width": object()}}, "data": drawn, "name": "x"}, "not those of a YAML file"),
        ({"spec": tmp_path / "no.yaml", "data": drawn}, "no.yaml' cannot be read"),
        ({"spec": {}, "data": drawn, "name": "x", "plugins": ["no.py"]}, "plugin 'no.py' cannot be read"),
        ({"spec": {}, "data": drawn, "name": "x", "settings": {"budget.trails": 3}}, "'budget.trails' is not known"),
    ):
        with pytest.raises(twinhead.InputError, match=sentence):
            twinhead.search(**arguments, storage=tmp_path / "artifacts")  # type: ignore[arg-type]
    assert not (tmp_path / "artifacts").exists()


def test_a_search_without_a_finished_trial_says_so(tmp_path: Path) -> None:
    """Its records are there; its best trial, summary and network are not yet."""
    from search.spec.spec import load_spec

    Experiment(storage=tmp_path, name="new").create(load_spec(data_path="set"))
    search = twinhead.load("new", tmp_path)

    assert (search.trials(), len(search.frame())) == ([], 0)
    assert search.spec["data"]["path"] == "set"  # type: ignore[index, call-overload]
    with pytest.raises(twinhead.InputError, match=r"'new' has no trial with a result yet; continue it with .*resume"):
        _ = search.best
    with pytest.raises(twinhead.InputError, match="has no summary yet"):
        _ = search.summary
    with pytest.raises(twinhead.InputError, match="has no trial with a result yet"):
        search.network()


def test_the_frame_says_that_pandas_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional; the records are not."""
    from search.spec.spec import load_spec

    Experiment(storage=tmp_path, name="new").create(load_spec(data_path="set"))
    search = twinhead.load("new", tmp_path)  # Ray Tune, which this imports, needs pandas itself
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(twinhead.InputError, match=r"install it with pip install 'twinhead\[pandas\]'"):
        search.frame()
