"""Own families, losses and metrics: they behave as built-in ones, and a mistake in one is named before it trains."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from data.errors import InputError
from data.loader import Loader
from trainable import trial
from trainable.config import ConfigError, DataConfig, LossConfig, ModelConfig, TrialConfig
from trainable.config.loss import DepthLoss
from trainable.evaluation.evaluate import evaluate_checkpoint, evaluate_images
from trainable.job import TrialData
from trainable.loop.checkpoint import load_model, save
from trainable.loop.checkpoint_files import Origin, load_origin
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext, Training
from trainable.loss.dual_loss import DualLoss
from trainable.metrics.bootstrap import difference, intervals
from trainable.metrics.per_image import ImageFigures, figures
from trainable.metrics.pooled import MetricSums
from trainable.models import build_model, parameter_count
from trainable.models.prediction import Prediction
from trainable.plugins.active import PluginSource, active_records, own_losses, sources_of
from trainable.plugins.load import check_plugins, read_source, use_plugins

HEAD = "import torch\nimport twinhead\nfrom torch import nn\n"
CONFIG = TrialConfig(
    model=ModelConfig(family="tiny", width=2, precision="fp32"),
    loss=LossConfig(depth=DepthLoss.model_validate({"l1": 0.0, "log_l1": 1.0})),
    data=DataConfig(image_size=32, batch_size=8),
    epochs=1,
)


def plugin(text: str, file: str = "own.py") -> PluginSource:
    return PluginSource(file, HEAD + text)


def test_a_trial_uses_the_parts_of_a_plugin(own_plugin: Path, trial_data: TrialData) -> None:
    """The network is of the own family, the loss trains it, and the metric is reported with the others."""
    use_plugins([read_source(own_plugin)])
    ends: list[EpochEnd] = []

    def report(end: EpochEnd, _: Training, __: Loader | None) -> None:
        ends.append(end)

    trained = trial.run(CONFIG, trial_data, context=DistributedContext(device=torch.device("cpu")), report=report)

    metrics = ends[0].metrics
    assert parameter_count(trained.network) == 2 * 6 * 9 + 2 + 2 * 2 * 9 + 2
    assert 0 <= metrics["mask_f1"] <= 1
    assert metrics["mask_iou"] <= metrics["mask_f1"]  # for each image, and so for their means
    assert metrics["train_depth_log_l1"] > 0
    assert "train_depth_l1" not in metrics


def test_the_loss_of_a_plugin_has_its_value(own_plugin: Path) -> None:
    """It gets the output of the head after the activation, in float32."""
    use_plugins([read_source(own_plugin)])
    plane = torch.full((2, 1, 4, 4), 0.25)
    prediction = Prediction(mask=plane, depth=plane, mask_logits=plane, depth_logits=plane.neg())

    _, parts = DualLoss(CONFIG.loss)(prediction, torch.zeros_like(plane), torch.zeros_like(plane))

    assert parts["depth_log_l1"].item() == pytest.approx(math.log(1.25))


def test_a_loss_on_logits_gets_the_logits() -> None:
    """A loss that applies the sigmoid itself must not get a probability."""
    use_plugins([plugin("PLUGINS = [twinhead.Loss('raw', lambda x, y: x.mean(), on_logits=True)]")])
    plane, logits = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 3.0)
    prediction = Prediction(mask=plane, depth=plane, mask_logits=plane, depth_logits=logits)
    config = LossConfig(depth=DepthLoss.model_validate({"raw": 1.0}))

    _, parts = DualLoss(config)(prediction, plane, plane)

    assert parts["depth_raw"].item() == 3.0
    use_plugins([])


def test_the_metric_of_a_plugin_is_the_mean_over_images() -> None:
    """Independent of the batches, and of the order in which the sums of workers are added."""
    use_plugins(
        [plugin("PLUGINS = [twinhead.Metric('depth_top', lambda m, d, tm, td: d.amax((1, 2, 3)), better='lower')]")]
    )
    depth = torch.rand(5, 1, 8, 8)
    one, two = MetricSums(), MetricSums()
    one.update_values(depth[:3], depth[:3], depth[:3], depth[:3])
    two.update_values(depth[3:], depth[3:], depth[3:], depth[3:])
    one.merge(two.state())

    assert one.compute()["depth_top"] == pytest.approx(depth.amax((1, 2, 3)).mean().item())
    assert active_records()[0].metrics == ["-depth_top"]
    use_plugins([])


def test_the_metric_of_a_plugin_is_measured_for_each_image(
    own_plugin: Path, trial_data: TrialData, tmp_path: Path
) -> None:
    """So that it has an interval, and a difference of two networks one; also from a file."""
    use_plugins([read_source(own_plugin)])
    device = torch.device("cpu")
    torch.manual_seed(1)
    save(tmp_path / "best", build_model(CONFIG.model), Origin(config=CONFIG, data_fingerprint="ab", epoch=1), {})

    table = evaluate_images(tmp_path / "best", trial_data, "train", device=device)
    pooled = evaluate_checkpoint(tmp_path / "best", trial_data, "train", device=device)
    table.save(tmp_path / "images.npz")
    use_plugins([])
    loaded = ImageFigures.load(tmp_path / "images.npz")

    assert table.own["mask_f1"].shape == (24,)
    assert figures(loaded)["mask_f1"] == pytest.approx(pooled["mask_f1"], rel=1e-12)
    interval = intervals(loaded)["mask_f1"]
    assert interval.low <= interval.value <= interval.high
    assert difference(loaded, loaded, "mask_f1").value == 0


def test_a_plugin_is_one_of_a_process() -> None:
    """The parts of an earlier search must not be those of a later one; the same file does not run twice."""
    use_plugins([plugin("PLUGINS = [twinhead.Loss('first', torch.nn.functional.l1_loss)]")])
    before = own_losses()["first"]
    use_plugins([plugin("PLUGINS = [twinhead.Loss('first', torch.nn.functional.l1_loss)]")])
    assert own_losses()["first"] is before

    use_plugins([plugin("PLUGINS = [twinhead.Loss('second', torch.nn.functional.l1_loss)]", "other.py")])

    assert list(own_losses()) == ["second"]
    use_plugins([])
    assert own_losses() == {}


WRONG = {
    "def f(:": r"cannot be run \(SyntaxError in line 4: ",
    "\n1 / 0": r"cannot be run \(ZeroDivisionError in line 5: division by zero\)",
    "import sys; sys.exit(3)": r"cannot be run \(SystemExit in line 4: 3\)",
    "import nowhere_at_all": r"No module named 'nowhere_at_all'",
    "x = 1": r"has no list PLUGINS",
    "PLUGINS = []": r"has no list PLUGINS",
    "PLUGINS = [torch.nn.functional.l1_loss]": r"contains <function l1_loss",
    "PLUGINS = [twinhead.Loss('Bad-Name', sum)]": r"name of the loss 'Bad-Name' must be",
    "PLUGINS = [twinhead.Metric('f1', sum)]": r"name of the metric 'f1' must be .*starting with mask_ or depth_",
    "PLUGINS = [twinhead.Metric('mask_f', sum, better='up')]": r"'better' of the metric 'mask_f' is 'up'",
    "PLUGINS = [twinhead.Loss('dice', sum)]": r"loss 'dice' of the plugin 'own.py' exists already \(built in\)",
    "PLUGINS = [twinhead.Metric('mask_iou', sum)]": r"metric 'mask_iou' .* exists already",
    "PLUGINS = [twinhead.Metric('depth_images', sum)]": r"metric 'depth_images' .* exists already",
    "PLUGINS = [twinhead.Family('resunet', sum)]": r"family 'resunet' .* exists already",
    "PLUGINS = 2 * [twinhead.Loss('two', sum)]": r"loss 'two' .* exists already \(in 'own.py'\)",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_refused(text: str) -> None:
    """One sentence with the file and the line, and no part of the file is used."""
    with pytest.raises(InputError, match=WRONG[text]):
        use_plugins([plugin(text)])
    assert active_records() == []


WRONG_PARTS = {
    "Loss('a', lambda x, y: (x - y).abs())": r"loss 'a' .* returns a tensor of shape \(2, 1, 16, 16\) .* scalar",
    "Loss('a', lambda x, y: 3.0)": r"returns 3.0, but must return a scalar",
    "Loss('a', lambda x, y: (x.detach() - y).abs().mean())": r"has no gradient",
    "Loss('a', lambda x, y: (x - x).sqrt().mean())": r"is not finite",
    "Loss('a', lambda x: x.mean())": r"raises TypeError",
    "Metric('mask_a', lambda m, d, tm, td: m.mean())": r"returns a tensor of shape \(\) .* for 3 images",
    "Family('a', lambda width: nn.Conv2d(3, 1, 3))": r"family 'a' .* raises TypeError",
    "Family('a', lambda: nn.Identity())": r"raises TypeError",
    "Family('a', lambda width: Small())": r"returns mask and depth of shapes \(2, 1, 62, 62\)",
}
SMALL = """
class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3)
    def forward(self, bg, fg_bg):
        return self.conv(bg), self.conv(fg_bg)
"""


@pytest.mark.parametrize("part", WRONG_PARTS)
def test_a_wrong_part_is_named_before_any_training(part: str) -> None:
    """Otherwise each trial of a search would fail."""
    use_plugins([plugin(f"{SMALL}\nPLUGINS = [twinhead.{part}]")])
    with pytest.raises(InputError, match=WRONG_PARTS[part]):
        check_plugins()
    use_plugins([])


def test_the_check_leaves_the_random_state(own_plugin: Path) -> None:
    """A program that loads a plugin draws the same numbers as without it."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    use_plugins([read_source(own_plugin)])
    check_plugins()
    assert torch.equal(torch.rand(3), expected)


def test_a_network_needs_the_plugin_of_its_family(own_plugin: Path, tmp_path: Path) -> None:
    """A checkpoint holds no code: without the file, or with another one, its network would be a guess."""
    use_plugins([read_source(own_plugin)])
    save(tmp_path / "best", build_model(CONFIG.model), Origin(config=CONFIG, data_fingerprint="ab", epoch=1), {})

    use_plugins([])
    assert load_origin(tmp_path / "best").config == CONFIG  # the configuration is readable without it
    with pytest.raises(InputError, match=r"plugin 'own.py' \(SHA-256 [0-9a-f]{12}…\) is needed.*--plugins"):
        load_model(tmp_path / "best")

    own_plugin.write_text(own_plugin.read_text().replace("F.relu", "F.gelu"))
    use_plugins([read_source(own_plugin)])
    with pytest.raises(InputError, match="restore the file"):
        load_model(tmp_path / "best")


def test_an_unknown_loss_is_refused_where_it_would_train() -> None:
    """A misspelt loss in a configuration must not be left out in silence."""
    config = LossConfig(depth=DepthLoss.model_validate({"log_l1": 1.0}))
    with pytest.raises(ConfigError, match=r"'loss.depth.log_l1' is not known; .*inverse_huber"):
        DualLoss(config)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A path that does not exist, and a name that no module can have."""
    with pytest.raises(InputError, match=r"own.py' cannot be read \(No such file"):
        read_source(tmp_path / "own.py")
    with pytest.raises(InputError, match=r"my plugin.txt' must have a name of letters"):
        read_source(tmp_path / "my plugin.txt")


def test_the_recorded_file_is_the_one_that_is_used(own_plugin: Path) -> None:
    """What travels to a trial is the text whose SHA-256 the search recorded."""
    source = read_source(own_plugin)
    use_plugins([source])
    assert sources_of(active_records()) == (source,)
