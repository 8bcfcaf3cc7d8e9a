"""The directory of a search: it appears complete, is found by its name, and no name leads out of the storage."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from data.errors import InputError
from search.results.summary import is_complete
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.names import free_name
from search.study.summary import Summary, TrialSummary

SPEC = load_spec(data_path="set")


def created(storage: Path, name: str = "first") -> Experiment:
    experiment = Experiment(storage=storage, name=name)
    experiment.create(SPEC)
    return experiment


def test_spec_is_stored_as_run(tmp_path: Path) -> None:
    """What comes out a year later must say what went in."""
    experiment = created(tmp_path / "deep" / "storage")

    assert experiment.spec() == SPEC
    assert [path.name for path in experiment.root.iterdir()] == ["spec.yaml"]
    assert [path.name for path in experiment.storage.iterdir()] == ["first"]


def test_a_name_in_use_is_refused(tmp_path: Path) -> None:
    """A second search must never write over the first."""
    experiment = created(tmp_path)
    before = experiment.spec_file.read_text()

    with pytest.raises(
        InputError, match=r"'first' is in use .* choose another --name, or continue with .*--resume first"
    ):
        Experiment(storage=tmp_path, name="first").create(SPEC.with_retraining(3))

    assert experiment.spec_file.read_text() == before


def test_of_two_creations_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sentence for a name in use, not as a storage that cannot be written to."""
    late, refuse = Experiment(storage=tmp_path, name="first"), Experiment.refuse_existing

    def refuse_and_be_overtaken(experiment: Experiment) -> None:
        refuse(experiment)
        monkeypatch.setattr(Experiment, "refuse_existing", refuse)
        created(tmp_path)

    monkeypatch.setattr(Experiment, "refuse_existing", refuse_and_be_overtaken)
    with pytest.raises(InputError, match=r"'first' is in use in"):
        late.create(SPEC.with_retraining(3))
    assert late.spec() == SPEC


def test_a_killed_removal_leaves_no_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is free, and nothing is taken for a search; the directory is removed by the next command there."""
    experiment = created(tmp_path)

    def kill(work: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("data.dataset.partial._remove", kill)
        experiment.remove()

    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".first.partial-")] == []
    created(tmp_path)


def test_a_search_on_a_full_disk_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is how room is made; no directory can be created there."""
    experiment = created(tmp_path)

    def refuse(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("data.dataset.partial._claim", refuse)
    experiment.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "../other", ".hidden", "-x", "a b", "ä", "a\n", "/etc", "x" * 101])
def test_name_that_is_not_a_directory_name_is_refused(tmp_path: Path, name: str) -> None:
    """A name with '/' or '..' would lie outside of the storage, one with '-' would be taken for an option."""
    storage = tmp_path / "storage"
    experiment = Experiment(storage=storage, name=name)
    for use in (
        lambda: experiment.create(SPEC),
        experiment.spec,
        experiment.summary,
        lambda: experiment.extend([("budget.trials", "3")]),
    ):
        with pytest.raises(InputError, match="letters, digits"):
            use()

    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file in the way is found before hours of training."""
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match=r"cannot be written to '.*file/storage' \(Not a directory\); give another"):
        Experiment(storage=tmp_path / "file" / "storage", name="first").create(SPEC)


def test_missing_search_is_named_with_existing_ones(tmp_path: Path) -> None:
    """The commonest slip is a name or a --storage."""
    with pytest.raises(
        InputError, match=r"no search 'third' in '.*'; start one with 'twinhead search --data DATA --name NAME'"
    ):
        Experiment(storage=tmp_path, name="third").spec()
    created(tmp_path)
    created(tmp_path, "second")

    with pytest.raises(InputError, match=r"no search 'third' in '.*'; there are first, second"):
        Experiment(storage=tmp_path, name="third").spec()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: [", r"no valid YAML at line 1.*spec.yaml"),
        ("", r"data set is missing"),
        ("3", r"must hold sections"),
        ("model: {width: x}", r"spec.yaml|data set is missing"),
    ],
)
def test_a_damaged_spec_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    """People look into the directory, and edit."""
    experiment = created(tmp_path)
    experiment.spec_file.write_text(text)

    with pytest.raises(InputError, match=sentence):
        experiment.spec()


@pytest.mark.slow
def test_a_larger_budget_is_kept(tmp_path: Path) -> None:
    """A search that is resumed twice has the last budget."""
    experiment = created(tmp_path)
    budget = experiment.extend([("budget.trials", "30"), ("budget.hours", "2.5")]).plan.budget

    assert (budget.trials, budget.hours) == (30, 2.5)
    assert experiment.spec().plan.budget == budget
    assert experiment.spec().space == SPEC.space
    with pytest.raises(InputError, match=r"'budget.trials' is 0"):
        experiment.extend([("budget.trials", "0")])
    assert experiment.spec().plan.budget == budget


def test_only_the_budget_can_change(tmp_path: Path) -> None:
    """Trials of before and after would be compared that cannot be."""
    experiment = created(tmp_path)

    with pytest.raises(InputError, match=r"'scheduler.max_epochs' cannot be changed after the start of 'first'"):
        experiment.extend([("budget.trials", "30"), ("scheduler.max_epochs", "99")])
    assert experiment.spec() == SPEC


def test_existing_trials_count(tmp_path: Path) -> None:
    """The error explains that the number is the total, not the number of further trials."""
    experiment = created(tmp_path)
    experiment.write_summary(Summary(trials=6))

    with pytest.raises(
        InputError, match=r"'budget.trials' is 3, but 'first' already has 6 trials, which count; give at least 6"
    ):
        experiment.extend([("budget.trials", "3")])
    assert experiment.extend([("budget.trials", "7")]).plan.budget.trials == 7


def test_the_summary_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Before a search came that far there is none, and the sentence says how to get it."""
    experiment = created(tmp_path)
    with pytest.raises(InputError, match=r"no summary yet; continue it with 'twinhead search --resume first --storage"):
        experiment.summary()
    experiment.write_summary(Summary(name="first", best=TrialSummary(trial=3, epoch=2, score=0.5)))

    assert experiment.summary().best == TrialSummary(trial=3, epoch=2, score=0.5)
    assert json.loads(experiment.summary_file.read_text()) == experiment.summary().as_plain()
    for damaged in ('{"best": ', '{"best": {"score": "high"}}', "[]"):
        experiment.summary_file.write_text(damaged)
        with pytest.raises(InputError, match=r"summary '.*summary.json' is damaged; write it again with"):
            experiment.summary()
        assert not is_complete(experiment, SPEC)
        assert experiment.extended([("budget.trials", "30")]).plan.budget.trials == 30


def test_the_summary_of_another_version_keeps_its_keys(tmp_path: Path) -> None:
    """A key that it did not write has a default and is not added; a key that only it knows stays."""
    experiment = created(tmp_path)
    values = {"name": "first", "trials": 3, "best": {"trial": 1, "epoch": 2, "score": 0.5, "metrics": {"steps": 4}}}
    earlier = {**values, "later_key": [1, 2.5, None]}
    experiment.summary_file.write_text(json.dumps(earlier))
    summary = experiment.summary()

    assert (summary.trials, summary.retrained, summary.front) == (3, None, [])
    experiment.write_summary(summary)
    assert experiment.summary_file.read_text() == json.dumps(earlier, indent=2) + "\n"


def test_only_one_process_runs_a_search(tmp_path: Path) -> None:
    """Two that write the same journal and checkpoints would spoil both."""
    experiment = created(tmp_path)
    with experiment.lock(), pytest.raises(InputError, match=r"'first' .* is running in another process"):
        Experiment(storage=tmp_path, name="first").lock()
    with experiment.lock() as again:
        assert again.is_locked


def test_the_directory_can_be_moved(tmp_path: Path) -> None:
    """Its files name each other from its root."""
    experiment = created(tmp_path / "here")
    path = experiment.relative(experiment.trials / "00000" / "checkpoint_000001")
    experiment.storage.rename(tmp_path / "there")
    moved = Experiment(storage=tmp_path / "there", name="first")

    assert moved.spec() == SPEC
    assert moved.root / path == moved.trials / "00000" / "checkpoint_000001"


def test_a_free_name_is_found(tmp_path: Path) -> None:
    """The demo runs as often as one likes."""
    assert free_name(tmp_path, "demo") == "demo"
    created(tmp_path, "demo")
    created(tmp_path, "demo-2")

    assert free_name(tmp_path, "demo") == "demo-3"
