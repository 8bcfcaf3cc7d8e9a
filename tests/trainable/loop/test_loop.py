"""The loop: it reduces the loss, is reproducible bit for bit, resumes exactly, and reports how it ended."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from data.errors import InputError
from data.loader import Loader
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop import checkpoint, loop
from trainable.loop.checkpoint import load_model
from trainable.loop.checkpoint_files import load_origin
from trainable.loop.clock import Clock
from trainable.loop.loaders import evaluation_loader, read_part, training_loaders
from trainable.loop.loop import EpochEnd, NonFiniteLossError
from trainable.loop.state import DistributedContext, Training, start
from trainable.loop.step import train_step
from trainable.loss.dual_loss import DualLoss
from trainable.metrics.objective import SCORE, Objective
from trainable.optim.optimizers import OPTIMIZERS
from trainable.optim.schedules import POLICIES

ALONE = DistributedContext(device=torch.device("cpu"))
AUGMENT = {"hflip": 0.5, "rotate": 10.0, "zoom": 0.2, "jitter": 0.2, "noise": 0.1}


def config(**changes: Any) -> TrialConfig:
    """The tiny network at 16 px, four epochs of three steps; sections are merged with what is given."""
    values: dict[str, Any] = {
        "data": {"image_size": 16, "batch_size": 8, "augment": {"hflip": 0.0}},
        "model": {"family": "debug", "width": 4, "precision": "fp32"},
        "optimizer": {"lr": 0.02},
        "epochs": 4,
    }
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
    return build(TrialConfig, values, source="the test")


def begin(
    config: TrialConfig, data: TrialData, context: DistributedContext = ALONE
) -> tuple[Training, list[Loader], Loader]:
    train, val = training_loaders(config, data, context), evaluation_loader(config, data, "val", context)
    steps = [len(loader) for loader in train]
    training = start(config, steps_of_epochs=steps, context=context, data_fingerprint=data.fingerprint)
    return training, train, val


def run(
    config: TrialConfig,
    data: TrialData,
    *,
    validate: bool = True,
    rungs: frozenset[int] = frozenset(),
    resume_from: Path | None = None,
    listen: Callable[[EpochEnd], None] | None = None,
    objective: Objective = SCORE,
) -> tuple[Training, list[EpochEnd]]:
    """Train to the end; return the reports of all epochs."""
    ends: list[EpochEnd] = []
    training, train, val = begin(config, data)
    if resume_from is not None:
        training.resume(resume_from)

    def report(end: EpochEnd) -> None:
        ends.append(end)
        if listen is not None:
            listen(end)

    loop.fit(
        training,
        train,
        val if validate else None,
        context=ALONE,
        report=report,
        checkpoint_epochs=rungs,
        objective=objective,
    )
    return training, ends


MEASURED = re.compile(r"second|^time_|^memory_")


def curve(ends: list[EpochEnd]) -> list[dict[str, float]]:
    """The reported metrics without times and memory."""
    return [{name: value for name, value in end.metrics.items() if not MEASURED.search(name)} for end in ends]


def weights(training: Training) -> torch.Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in training.network.state_dict().values()])


def test_training_reduces_the_loss(trial_data: TrialData) -> None:
    """The loop trains: both heads get better on images that they see again and again."""
    _, ends = run(config(epochs=12), trial_data)
    first, last = ends[0].metrics, ends[-1].metrics
    for part in ("train_loss", "train_mask_bce", "train_depth_l1"):
        assert last[part] < 0.8 * first[part]
    assert last["score"] > first["score"]
    assert first["train_loss"] == pytest.approx(first["train_mask_bce"] + first["train_depth_l1"], rel=1e-5)


@pytest.mark.parametrize("family", ["debug", "resunet"])
def test_seed_determines_a_trial(trial_data: TrialData, family: str) -> None:
    """Trials must differ only by their configuration, which includes the seed."""
    sections = {"data": {"augment": AUGMENT}, "model": {"family": family, "width": 2}}
    first, ends = run(config(**sections, epochs=2), trial_data)
    torch.rand(5)
    second, again = run(config(**sections, epochs=2), trial_data)
    third, other = run(config(**sections, epochs=2, seed=1), trial_data)
    assert curve(ends) == curve(again)
    assert torch.equal(weights(first), weights(second))
    assert curve(ends) != curve(other)
    assert not torch.equal(weights(first), weights(third))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_resumed_trial_equals_the_uninterrupted_one(
    trial_data: TrialData, tmp_path: Path, optimizer: str, policy: str
) -> None:
    """Workers die: the decisions of a search must not depend on which trials were interrupted."""
    chosen = config(
        data={"augment": AUGMENT},
        optimizer={"name": optimizer, "lr": 0.01},
        # Every epoch is a plateau: the learning rate is lowered before the interruption and after it.
        policy={"name": policy, "warmup": 0.2, "plateau": {"patience": 0.0, "threshold": 1.0}},
    )

    def keep(end: EpochEnd) -> None:
        if end.epoch == 2:
            assert end.save is not None
            end.save(tmp_path)

    whole, ends = run(chosen, trial_data, rungs=frozenset({2}), listen=keep)
    resumed, rest = run(chosen, trial_data, resume_from=tmp_path)
    assert [end.epoch for end in rest] == [3, 4]
    assert curve(rest) == curve(ends[2:])
    assert torch.equal(weights(resumed), weights(whole))
    assert (resumed.best_score, resumed.best_epoch) == (whole.best_score, whole.best_epoch)
    assert resumed.policies[0].history == whole.policies[0].history
    if policy == "plateau":
        assert len(set(whole.policies[0].history)) > 2


@pytest.mark.slow
def test_resumed_trial_continues_the_random_numbers_of_its_network(trial_data: TrialData, tmp_path: Path) -> None:
    """Repeated random numbers: with the masks of the first epochs, dropout would make another curve."""
    network = {"family": "dmnet-cnn", "width": 1, "dropout": 0.3, "eval_mode": "dropout"}
    chosen = config(model=network, optimizer={"lr": 0.01}, epochs=3)

    def keep(end: EpochEnd) -> None:
        if end.epoch == 1:
            assert end.save is not None
            end.save(tmp_path)

    whole, ends = run(chosen, trial_data, listen=keep)
    torch.rand(5)
    resumed, rest = run(chosen, trial_data, resume_from=tmp_path)

    assert curve(rest) == curve(ends[1:])
    assert torch.equal(weights(resumed), weights(whole))


def test_random_numbers_differ_between_epochs_and_workers(
    trial_data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated random numbers: the same masks of dropout in each epoch, or on each worker, are no random masks."""
    drawn: list[float] = []

    def step(*_: object) -> dict[str, torch.Tensor]:
        drawn.append(torch.rand(()).item())
        return {"loss": torch.ones(())}

    monkeypatch.setattr(loop, "train_step", step)
    training, train, _ = begin(config(), trial_data)
    for epoch, rank in ((1, 0), (2, 0), (2, 1), (2, 1)):
        context = DistributedContext(device=ALONE.device, rank=rank)
        loop.train_epoch(training, train, epoch, context, Clock(ALONE.device))

    steps = len(train[0])
    assert drawn[2 * steps : 3 * steps] == drawn[3 * steps :]
    assert len(set(drawn)) == 3 * steps


@pytest.mark.parametrize(("world_size", "pieces"), [(1, 4), (2, 1)])
def test_resumed_trial_keeps_the_number_of_pieces_of_a_batch(
    trial_data: TrialData, tmp_path: Path, world_size: int, pieces: int
) -> None:
    """Lost state: with other pieces, batch norm would see other samples. Several workers do not split their batches."""
    training, *_ = begin(config(), trial_data)
    training.micro_batches = 4
    training.save(tmp_path, {})
    resumed, *_ = begin(config(), trial_data)
    resumed.resume(tmp_path, world_size=world_size)

    assert resumed.micro_batches == pieces


def test_state_of_an_earlier_version_has_whole_batches(
    trial_data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost state: earlier versions did not save the number of pieces, and their trials must resume."""
    training, *_ = begin(config(), trial_data)
    training.save(tmp_path, {})
    state = checkpoint.load_state(tmp_path)
    monkeypatch.setattr(
        checkpoint, "load_state", lambda _: {key: state[key] for key in state if key != "micro_batches"}
    )
    training.resume(tmp_path)

    assert training.micro_batches == 1


def test_a_finished_trial_that_is_resumed_does_nothing(trial_data: TrialData, tmp_path: Path) -> None:
    """It was interrupted after its last checkpoint, before the report."""
    training, ends = run(config(), trial_data)
    training.save(tmp_path, ends[-1].metrics)
    resumed, rest = run(config(), trial_data, resume_from=tmp_path)
    assert rest == []
    assert torch.equal(weights(resumed), weights(training))


def test_non_finite_loss_ends_the_trial(trial_data: TrialData) -> None:
    """The searcher must know, and the user needs the cause in one line."""
    absurd = config(optimizer={"name": "sgd", "lr": 1e30, "clip_norm": 0.0}, policy={"name": "constant"})
    with pytest.raises(NonFiniteLossError) as caught:
        run(absurd, trial_data)
    sentence = str(caught.value)
    assert "at step 1 (epoch 1)" in sentence or "at step 2 (epoch 1)" in sentence
    assert "optimizer.name sgd, optimizer.lr 1e+30, optimizer.clip_norm 0, policy.name constant, loss." in sentence
    assert len(sentence) < 400
    assert sentence.endswith("lower optimizer.lr or optimizer.clip_norm.")
    pickled = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (str(pickled), pickled.epoch) == (sentence, 1)


class OnGpu(torch.Tensor):
    """A number on a GPU, whose `item` waits for all steps that are queued."""

    def to(self, device: str, *, non_blocking: bool) -> torch.Tensor:  # type: ignore[override]
        assert (device, non_blocking) == ("cpu", True)
        return self.as_subclass(torch.Tensor)

    def item(self) -> float:
        raise AssertionError("waits for the next step too")


def test_a_loss_is_read_while_the_device_has_another_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without work: the host waited for the step that it had just queued, before it queued the next one."""
    log: list[str] = []

    def recorded(_: torch.device) -> Any:
        number = len([entry for entry in log if entry.startswith("queued")])
        log.append(f"queued {number}")
        return SimpleNamespace(synchronize=lambda: log.append(f"waited for {number}"))

    monkeypatch.setattr(loop, "_event_after_work", recorded, raising=False)
    means = loop._LossMeans(SimpleNamespace(config=config()), ALONE, epoch=1)  # type: ignore[arg-type]
    for step, loss in enumerate((1.0, float("nan"))):
        means.add({"loss": torch.tensor(loss).as_subclass(OnGpu)}, 1, step)
    with pytest.raises(NonFiniteLossError, match="at step 1"):
        means.add({"loss": torch.tensor(1.0).as_subclass(OnGpu)}, 1, 2)

    assert log == ["queued 0", "waited for 0", "queued 1", "waited for 1"]


def test_clipping_bounds_a_step(trial_data: TrialData) -> None:
    """One bad batch must not destroy the weights; 0 disables clipping."""
    moved = {}
    for clip_norm in (0.0, 1e-3):
        plain = {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": clip_norm}
        training, train, _ = begin(config(optimizer=plain, policy={"name": "constant"}), trial_data)
        before = weights(training)
        train_step(training, next(iter(train[0].epoch(1))), 0, ALONE, Clock(ALONE.device))
        moved[clip_norm] = float((weights(training) - before).norm())
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert moved[0.0] > 10 * moved[1e-3]


def test_a_checkpoint_is_due_after_every_epoch(trial_data: TrialData) -> None:
    """A process can die at any time, and what it did since the last checkpoint is repeated."""
    _, ends = run(config(epochs=10, optimizer={"lr": 0.2}), trial_data)
    scores = [end.metrics["score"] for end in ends]
    assert max(scores) > scores[-1]
    assert all(end.save is not None for end in ends)


@pytest.mark.slow
def test_slow_checkpoints_are_due_at_rungs_new_bests_the_end_and_every_second_epoch(
    trial_data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may not take most of the time of a search; but never more than one completed epoch is lost."""
    monkeypatch.setattr(loop, "MAX_CHECKPOINT_SHARE", 0.0)
    _, ends = run(config(epochs=10, optimizer={"lr": 0.2}), trial_data, rungs=frozenset({1, 4}))
    scores = [end.metrics["score"] for end in ends]
    needed = {epoch for epoch, score in enumerate(scores, start=1) if score > max([-1.0, *scores[: epoch - 1]])}
    needed |= {1, 4, 10}
    assert len(needed) < 9
    expected: set[int] = set()
    for end in ends:
        if end.epoch in needed or end.epoch - 1 not in expected:
            expected.add(end.epoch)
    assert {end.epoch for end in ends if end.save is not None} == expected
    assert expected - needed
    assert len(expected) < 10


def test_without_validation_there_is_no_score_and_training_works(trial_data: TrialData) -> None:
    """The final training uses train + val, and has no split for evaluation."""
    training, ends = run(config(epochs=5), trial_data, validate=False)
    assert not any(name.startswith(("score", "mask", "depth")) for end in ends for name in end.metrics)
    assert ends[-1].metrics["train_loss"] < ends[0].metrics["train_loss"]
    assert training.best_epoch == 0


def test_checkpoint_holds_the_weights_of_its_epoch(trial_data: TrialData, tmp_path: Path) -> None:
    """Its weights give the metrics that are stored with them."""

    def keep(end: EpochEnd) -> None:
        if end.save is not None:
            end.save(tmp_path / str(end.epoch))

    chosen = config(model={"family": "resunet", "width": 2})
    run(chosen, trial_data, rungs=frozenset({1, 3}), listen=keep)
    val = evaluation_loader(chosen, trial_data, "val", ALONE)
    for epoch in (1, 3, 4):
        model, origin = load_model(tmp_path / str(epoch))
        stored = json.loads((tmp_path / str(epoch) / "metrics.json").read_text())
        measured = loop.evaluate(model, val, chosen, ALONE)
        assert (origin.epoch, origin.data_fingerprint) == (epoch, trial_data.fingerprint)
        assert measured == pytest.approx({name: stored[name] for name in measured}, rel=1e-6)


PLATEAU = {"patience": 0.0, "factor": 0.1, "threshold": 1.0, "watch": "val_loss"}
"""No loss but 0 is an improvement by all of it, so that every epoch after the first one is followed by a drop."""


def test_the_validation_loss_is_measured_where_a_policy_watches_it(trial_data: TrialData) -> None:
    """It is the training loss as a mean over samples; it is computed only if a policy watches it."""
    chosen = config(policy={"name": "cyclic", "cyclic": {"plateau": PLATEAU}}, loss={"combine": "sqrt"}, epochs=1)
    training, [end] = run(chosen, trial_data)
    [batch] = evaluation_loader(chosen, trial_data, "val", ALONE).epoch(0)
    mask, depth = batch.targets()
    with torch.no_grad():
        predicted = training.network.eval()(*batch.inputs())
    roots = [
        (loss + 1e-6) ** 0.5
        for loss in (
            binary_cross_entropy_with_logits(predicted.mask_logits, mask).item(),
            (predicted.depth - depth).abs().mean().item(),
        )
    ]
    assert end.metrics["val_loss"] == pytest.approx(sum(roots), rel=1e-5)
    _, [unwatched] = run(config(policy={"name": "cyclic"}, epochs=1), trial_data)
    assert "val_loss" not in unwatched.metrics


@pytest.mark.parametrize("watch", ["val_loss", "score"])
def test_a_plateau_rule_beside_a_cycle_lowers_the_rate_of_a_run(trial_data: TrialData, watch: str) -> None:
    """The third and the fourth epoch, for the first one is always the best so far."""
    cyclic = {"period": 1.0, "floor": 0.5, "cadence": "epoch"}
    _, plain = run(config(policy={"name": "cyclic", "cyclic": cyclic}), trial_data)
    policy = {"name": "cyclic", "cyclic": {**cyclic, "plateau": {**PLATEAU, "watch": watch}}}
    _, dropped = run(config(policy=policy), trial_data)
    ratios = [low.metrics["lr"] / high.metrics["lr"] for low, high in zip(dropped, plain, strict=True)]
    assert ratios == pytest.approx([1.0, 1.0, 0.1, 0.1])


def test_metrics_do_not_depend_on_the_evaluation_batch(trial_data: TrialData) -> None:
    """Machines that evaluate with different batch sizes are compared."""
    chosen = config(model={"family": "resunet", "width": 2}, epochs=1)
    training, _ = run(chosen, trial_data)
    split = read_part(chosen.data, trial_data, "all")
    measured = [
        loop.evaluate(training.model, Loader(split=split, batch_size=size, device=ALONE.device), chosen, ALONE)
        for size in (1, 7, 64)
    ]
    assert measured[1] == pytest.approx(measured[0], rel=1e-6)
    assert measured[2] == pytest.approx(measured[0], rel=1e-6)
    assert 0 < measured[0]["score"] < 1


def test_batch_norm_updates_in_every_epoch(trial_data: TrialData) -> None:
    """Evaluation disables it, and must enable it again for the rest of the run."""
    training, _ = run(config(model={"family": "resunet", "width": 2}, epochs=3), trial_data)
    assert training.network.get_buffer("body.enc1.main.1.num_batches_tracked") == 3 * 3


def test_plateau_watches_the_validation_score(trial_data: TrialData) -> None:
    """The learning rate falls after the epochs whose score did not improve, and after no other."""
    plateau = {"name": "plateau", "plateau": {"patience": 0.0, "factor": 0.5, "threshold": 0.0}}
    training, ends = run(config(epochs=8, optimizer={"lr": 0.1}, policy=plateau), trial_data)
    expected, best = [1.0], -1.0
    for end in ends[:-1]:
        has_risen = end.metrics["score"] > best
        best = max(best, end.metrics["score"])
        expected.append(expected[-1] * (1.0 if has_risen else 0.5))
    assert training.policies[0].history == pytest.approx(expected)
    assert 2 < len(set(expected)) < 7  # both happened


@pytest.mark.parametrize("notation", ["-depth_rmse", {"mask_iou": 0.7, "depth_delta1": 0.3}], ids=str)
def test_plateau_and_best_epoch_follow_the_objective(trial_data: TrialData, notation: str | dict[str, float]) -> None:
    """The rate falls where the objective did not improve; a checkpoint is due where it did."""
    objective = Objective.of(notation)
    plateau = {"name": "plateau", "plateau": {"patience": 0.0, "factor": 0.5, "threshold": 0.0}}
    chosen = config(epochs=8, optimizer={"lr": 0.1}, policy=plateau)
    training, ends = run(chosen, trial_data, objective=objective)
    expected, ranks = [1.0], [objective.rank(end.metrics) for end in ends]
    for number in range(len(ranks) - 1):
        has_risen = ranks[number] > max([-1e9, *ranks[:number]])
        expected.append(expected[-1] * (1.0 if has_risen else 0.5))

    assert training.policies[0].history == pytest.approx(expected)
    assert 1 < len(set(expected)) < 8  # both happened
    assert (training.best_score, training.best_epoch) == (max(ranks), 1 + ranks.index(max(ranks)))
    assert all(end.metrics[objective.key] == objective.value(end.metrics) for end in ends)


@pytest.mark.parametrize("watch", ["score", "val_loss"])
def test_replay_replaces_a_plateau(trial_data: TrialData, watch: str) -> None:
    """The final training has no score to watch, and replays the learning rate of the trial."""
    chosen = config(policy={"name": "plateau", "plateau": {"watch": watch}}, optimizer={"lr": 0.01})
    factors = [1.0, 1.0, 0.3, 0.09]
    train = training_loaders(chosen, trial_data, ALONE)
    training = start(
        chosen,
        steps_of_epochs=[len(loader) for loader in train],
        context=ALONE,
        data_fingerprint=trial_data.fingerprint,
        replay=factors,
    )
    ends: list[EpochEnd] = []
    loop.fit(training, train, None, context=ALONE, report=ends.append)
    assert [end.metrics["lr"] for end in ends] == pytest.approx([0.01 * factor for factor in factors])


def test_replay_is_not_of_the_depth_policy(trial_data: TrialData) -> None:
    """The learning rates of the mask network would be those of the depth network."""
    plateau = {"name": "plateau"}
    chosen = config(model={"family": "pair", "width": 2}, policy=plateau, depth_policy=plateau)
    given = {"steps_of_epochs": [1] * 4, "context": ALONE, "data_fingerprint": trial_data.fingerprint}

    with pytest.raises(InputError, match=r"'depth_policy.plateau.watch' is 'score', .* use train_loss"):
        start(chosen, **given, replay=[1.0, 1.0, 0.3, 0.09])

    watching = config(
        model={"family": "pair", "width": 2},
        policy=plateau,
        depth_policy={"name": "plateau", "plateau": {"watch": "train_loss"}},
    )
    training = start(watching, **given, replay=[1.0, 1.0, 0.3, 0.09])
    assert [policy.factor(3) for policy in training.policies] == [0.09, 1.0]


def test_plateau_of_separate_networks_watches_the_loss_of_its_own(
    trial_data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask network kept its learning rate for as long as the depth network, which it does not share, improved."""
    plateau = {"name": "plateau", "plateau": {"watch": "train_loss", "patience": 0.0, "factor": 0.5}}
    chosen = config(
        model={"family": "pair", "width": 2}, policy=plateau, depth_policy=plateau, loss={"mask": {"bce": 2.0}}
    )
    losses = iter([{"train_mask_bce": 0.5, "train_depth_l1": depth} for depth in (0.9, 0.7, 0.5, 0.3)])

    def trained(*_: object) -> dict[str, float]:
        parts = next(losses)
        return {**parts, "train_loss": 2 * parts["train_mask_bce"] + parts["train_depth_l1"], "lr": 0.02}

    monkeypatch.setattr(loop, "train_epoch", trained)
    training, _ = run(chosen, trial_data, validate=False)
    assert [policy.history for policy in training.policies] == [[1.0, 1.0, 0.5, 0.25], [1.0] * 4]


def test_average_starts_from_the_weights_of_a_checkpoint_without_one(trial_data: TrialData, tmp_path: Path) -> None:
    """After the last epoch, the result would be weights that were never trained."""
    given = {"steps_of_epochs": [4, 4], "context": ALONE, "data_fingerprint": trial_data.fingerprint}
    earlier = start(config(seed=1), **given)
    earlier.epoch = 1
    earlier.save(tmp_path / "earlier", {})
    training = start(config(seed=2), **given, averaged=True)

    training.resume(tmp_path / "earlier")

    assert training.average is not None
    found, expected = training.average.module.state_dict(), earlier.network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_average_keeps_integers() -> None:
    """The mean of an integer with itself was rounded down, so that the indices in a plugin's buffers changed."""
    small = config(model={"family": "resunet-lite", "width": 1})
    training = start(small, steps_of_epochs=[200], context=ALONE, data_fingerprint="ab12", averaged=True)
    assert training.average is not None
    counts = [name for name, buffer in training.network.named_buffers() if not buffer.is_floating_point()]
    for name in counts:
        training.network.get_buffer(name).fill_(3)
    for _ in range(200):
        training.average.update_parameters(training.network)

    assert {training.average.module.get_buffer(name).item() for name in counts} == {3}


def train_as_one_of_two(rank: int, data: TrialData, folder: Path, chosen: TrialConfig) -> list[dict[str, float]]:
    """Train on one of two workers; return the metrics of each epoch. Both save the network."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    try:
        context = DistributedContext(device=torch.device("cpu"), rank=rank, world_size=2)
        train = training_loaders(chosen, data, context)
        training = start(
            chosen,
            steps_of_epochs=[len(loader) for loader in train],
            context=context,
            data_fingerprint=data.fingerprint,
            wrap=DistributedDataParallel,
        )
        ends: list[EpochEnd] = []
        val = evaluation_loader(chosen, data, "val", context)
        loop.fit(training, train, val, context=context, report=ends.append)
        training.save(folder / str(rank), ends[-1].metrics)
    finally:
        torch.distributed.destroy_process_group()
    return curve(ends)


def train_with_two_workers(chosen: TrialConfig, data: TrialData, folder: Path) -> list[list[dict[str, float]]]:
    """The metrics of each epoch as each of two workers reports them."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(train_as_one_of_two, rank, data, folder, chosen) for rank in range(2)]
        return [future.result(timeout=300) for future in futures]


@pytest.mark.slow
def test_two_workers_train_as_one_does(trial_data: TrialData, tmp_path: Path) -> None:
    """With the same effective batch, also of odd size, the number of workers changes no more than the rounding.

    The network has no batch norm, whose statistics are of the samples of a worker alone.
    """
    penalties = {"mask": {"bce": 1.0, "dice": 0.5}, "l1_sum": 1e-4, "combine": "uncertainty"}
    chosen = config(data={"batch_size": 5}, loss=penalties, optimizer={"name": "adamw"}, epochs=4)
    alone, ends = run(chosen, trial_data)
    assert {len(batch) % 2 for batch in begin(chosen, trial_data)[1][0].epoch(1)} == {0, 1}
    both, _ = train_with_two_workers(chosen, trial_data, tmp_path)
    assert len(both) == 4
    for found, expected in zip(both, curve(ends), strict=True):
        assert found == pytest.approx({**expected, "workers": 2}, rel=1e-4)
    network = load_model(tmp_path / "0")[0]
    found = torch.cat([tensor.double().flatten() for tensor in network.state_dict().values()])
    assert torch.allclose(found, weights(alone), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_workers_report_the_metrics_of_the_whole_split(trial_data: TrialData, tmp_path: Path) -> None:
    """Each worker evaluates half of the images; the score must be that of one network on all of them."""
    watching = {"name": "plateau", "plateau": {"watch": "val_loss"}}
    chosen = config(model={"family": "resunet", "width": 2}, policy=watching, epochs=2)
    first, second = (reported[-1] for reported in train_with_two_workers(chosen, trial_data, tmp_path))
    assert first == second
    networks = [load_model(tmp_path / str(rank))[0] for rank in range(2)]
    for left, right in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(left, right)
    chosen = load_origin(tmp_path / "0").config
    val = evaluation_loader(chosen, trial_data, "val", ALONE)
    alone = loop.evaluate(networks[0], val, chosen, ALONE, loss=DualLoss(chosen.loss))
    assert "val_loss" in alone
    assert {name: first[name] for name in alone} == pytest.approx(alone, rel=1e-6)
