"""The key `plugins` of a spec: the file of a path is run, a record only read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data.errors import InputError
from search.spec.domains import Choices, Range, resolve
from search.spec.spec import load_spec
from search.spec.template import as_text, summary_lines
from search.strategy.space import default_parameters
from search.study.experiment import Experiment
from tests.search.conftest import Said
from trainable.config import ConfigError
from trainable.plugins.active import active_records, sources_of
from trainable.plugins.load import read_source, use_plugins

SPEC = """\
plugins: [own.py]
data: {path: rooms, image_size: 32}
model: {family: {choices: [tiny, debug]}}
loss: {depth: {log_l1: {low: 0.5, high: 1.5}}}
objectives: [score, mask_f1]
"""


@pytest.fixture
def spec_file(own_plugin: Path) -> Path:
    """A spec beside its plugin."""
    file = own_plugin.parent / "spec.yaml"
    file.write_text(SPEC)
    return file


def stored(spec_file: Path) -> Experiment:
    """The experiment of the spec, in a process that has no plugin any more."""
    experiment = Experiment(storage=spec_file.parent / "artifacts", name="first")
    experiment.create(load_spec(spec_file))
    use_plugins([])
    return experiment


def test_parts_of_a_plugin_are_searched_like_built_in_ones(spec_file: Path) -> None:
    """The weight is a leaf, the width of the family has choices, and the metric is an objective."""
    spec = load_spec(spec_file)

    assert spec.space["loss.depth.log_l1"] == Range(0.5, 1.5)
    assert spec.space["loss.mask.log_l1"] == 0.0
    assert resolve("model.width", spec.space["model.width"], {"model.family": "tiny"})[1] == Choices((8, 16, 32))
    assert {trial.model.family for trial in spec.largest_trials()} == {"tiny", "debug"}
    assert spec.plan.objectives == ["score", "mask_f1"]
    assert default_parameters(spec)["loss.depth.log_l1"] == 0.5


def test_the_printed_spec_has_the_losses_of_a_plugin(spec_file: Path) -> None:
    """What is printed and what is run are the same; the summary names the file."""
    spec = load_spec(spec_file)
    printed = yaml.safe_load(as_text(spec))

    assert printed["loss"]["depth"]["log_l1"] == {"low": 0.5, "high": 1.5, "log": False}
    assert any(line.startswith("plugins: own.py (SHA-256 ") for line in summary_lines(spec))


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("log_l1:", "log_l2:", r"spec.yaml:4:16: .*'loss.depth.log_l2' is not known.*did you mean 'log_l1'"),
        ("tiny, debug", "tinny, debug", r"spec.yaml:3:\d+: .*'model.family' is 'tinny', but must be one of .*tiny"),
        ("score, mask_f1", "score, -mask_f1", r"must be 'mask_f1', since larger is better"),
        ("own.py", "other.py", r"spec.yaml:1:11: The plugin '.*other.py' cannot be read \(No such file"),
        ("[own.py]", "{own: 1}", r"'plugins' is {'own': 1}, but must be a list of paths"),
        ("[own.py]", "[3]", r"'plugins.0' is 3, but must be a path"),
    ],
)
def test_mistakes_have_their_place(spec_file: Path, before: str, after: str, sentence: str) -> None:
    """As in every other key of a spec."""
    spec_file.write_text(SPEC.replace(before, after))
    with pytest.raises(ConfigError, match=sentence):
        load_spec(spec_file)


def test_an_error_in_the_file_is_one_of_the_spec(spec_file: Path) -> None:
    """It names the file and its line."""
    (spec_file.parent / "own.py").write_text("import torch\n\nPLUGINS = torch.nowhere\n")
    with pytest.raises(ConfigError, match=r"own.py' cannot be run \(AttributeError in line 3: "):
        load_spec(spec_file)


def test_a_stored_search_is_read_without_its_plugin(spec_file: Path) -> None:
    """Results are looked at where the file is not; the constraints of its networks were checked when it was created."""
    spec_file.write_text(f"{SPEC}constraints: {{parameters: 100000}}\n")
    before = load_spec(spec_file)
    experiment = stored(spec_file)

    assert experiment.spec() == before
    assert active_records() == []


def test_nothing_of_a_storage_is_run(spec_file: Path) -> None:
    """Others may write to a storage: neither the copy of a plugin, nor one that a spec there names, runs on reading."""
    experiment = stored(spec_file)
    ran = spec_file.parent / "ran"
    trap = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
    (experiment.root / "own.py").write_text(trap)
    experiment.spec()
    with pytest.raises(InputError, match=r"plugin 'own.py' .* is needed"):
        sources_of(experiment.spec().plan.plugins)

    (experiment.root / "evil.py").write_text(trap)
    values = yaml.safe_load(experiment.spec_file.read_text())
    values["plugins"].append("evil.py")
    experiment.spec_file.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(InputError, match=r"spec.yaml:\d+:\d+: The plugin 'evil.py' is not recorded .* never run"):
        experiment.spec()

    assert not ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["$(touch ran).py", "../own.py", "own.py; ls", "own"])
def test_a_record_of_a_storage_is_no_command(spec_file: Path, file: str) -> None:
    """The name of the file is a word of the command of a job."""
    experiment = stored(spec_file)
    values = yaml.safe_load(experiment.spec_file.read_text())
    values["plugins"][0]["file"] = file
    experiment.spec_file.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(InputError, match=r"'plugins.0.file'"):
        experiment.spec()


def test_the_copy_in_the_storage_is_for_the_reader(spec_file: Path) -> None:
    """Who lost the file finds it there, and its SHA-256 is the recorded one."""
    experiment = stored(spec_file)
    (record,) = experiment.spec().plan.plugins

    assert (record.families, record.losses, record.metrics) == (["tiny"], ["log_l1"], ["mask_f1"])
    assert read_source(experiment.root / record.file).sha256 == record.sha256


def test_the_command_that_resumes_names_the_plugin(spec_file: Path) -> None:
    """It is copied from the screen, and must work."""
    assert "--resume first --plugins own.py --storage" in stored(spec_file).resume_command


@pytest.mark.slow
def test_a_search_is_resumed_with_the_same_file_only(
    spec_file: Path, refused: Callable[..., str], twinhead: Callable[..., Said], drawn: Path
) -> None:
    """Without it, or with another content, the trials of one search would not be comparable."""
    spec_file.write_text(SPEC.replace("rooms", str(drawn)))
    storage = stored(spec_file).storage
    resume = ("search", "--resume", "first", "--storage", storage)

    assert "plugin 'own.py' (SHA-256" in refused(*resume)
    changed = spec_file.parent / "changed" / "own.py"
    changed.parent.mkdir()
    changed.write_text(f"{(spec_file.parent / 'own.py').read_text()}\n# changed\n")
    assert "restore the file, or start anew" in refused(*resume, "--plugins", changed)
    assert (Path(str(storage)) / "first" / "spec.yaml").is_file()  # a refusal removes nothing
    assert twinhead("trials", "first", "--storage", storage).code == 0
