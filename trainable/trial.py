"""One trial from a configuration and a data set, without Ray.

python -m trainable.trial DATA OUT epochs=2 optimizer.lr=0.01     # in this process, for a debugger
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from data.dataset.dataset import Dataset
from data.errors import EnvironmentFaultError, InputError
from data.loader import Loader
from trainable.config import TrialConfig, build
from trainable.config.settings import Value, nest
from trainable.job import TrialData
from trainable.loop import loop
from trainable.loop.checkpoint_files import DamagedCheckpointError, load_metrics
from trainable.loop.loaders import evaluation_loader, training_loaders, with_scaled_batches
from trainable.loop.loop import EpochEnd, Report
from trainable.loop.precision import resolve_for_trial
from trainable.loop.state import DistributedContext, Training, start
from trainable.metrics.objective import SCORE, Objective


def run(
    config: TrialConfig,
    data: TrialData,
    *,
    context: DistributedContext,
    report: Callable[[EpochEnd, Training, Loader | None], None],
    checkpoint_epochs: frozenset[int] = frozenset(),
    objective: Objective = SCORE,
    resume_from: Sequence[Path] = (),
    damaged: Sequence[str] = (),
    replay: Sequence[float] | None = None,
    batch_scale: float = 1.0,
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Training:
    """Train `config` on `data` from the first epoch, or from a checkpoint, to the last.

    Args:
        config: the configuration of the trial.
        data: the data set and its parts. Without a validation part, the result is an average of the weights.
        context: the distributed context of this process.
        report: callback after each epoch, with the training and the validation loader.
        checkpoint_epochs: epochs after which a checkpoint is due, in addition to the best ones.
        objective: picks the best epochs, and is the 'score' that a plateau policy watches.
        resume_from: checkpoints with state, newest first. The trial resumes from the first undamaged one and records
            the damaged ones in `Training.note`; it starts over if all are damaged. After the last epoch, that one is
            reported again.
        damaged: problems of newer checkpoints that were found before, as clauses, for the same note.
        replay: see `trainable.loop.state.start`.
        batch_scale: factor of batch size and learning rate, for more or fewer workers than `config` is meant for.
        wrap: see `trainable.loop.state.start`.

    Raises:
        EnvironmentFaultError: if the data set or the cache cannot be used, the fingerprint of the data set differs from
            that in `data`, or a checkpoint does not exist.
        InputError: if a checkpoint belongs to another network.
        NonFiniteLossError: at the first loss that is not finite.
    """
    config = resolve_for_trial(config, context, resume_from=resume_from)
    train = training_loaders(with_scaled_batches(config, batch_scale), data, context)
    val = evaluation_loader(config, data, data.val, context) if data.val else None
    training = start(
        config,
        steps_of_epochs=[len(loader) for loader in train],
        context=context,
        data_fingerprint=data.fingerprint,
        replay=list(replay) if replay is not None else None,
        lr_scale=batch_scale,
        averaged=val is None,
        wrap=wrap,
    )
    resumed = _resume(training, resume_from, damaged, context)
    # Not a closure: an error's traceback keeps the frame of a closure, and with it the training, alive.
    callback: Report = functools.partial(_report, report, training, val)
    if resumed is not None and training.epoch == config.epochs:
        # The process ended after its last epoch, and before this was known: nothing is left but to report it again.
        metrics = load_metrics(resumed)
        callback(
            EpochEnd(epoch=training.epoch, metrics=metrics, save=functools.partial(training.save, metrics=metrics))
        )
    loop.fit(
        training,
        train,
        val,
        context=context,
        report=callback,
        checkpoint_epochs=checkpoint_epochs,
        objective=objective,
    )
    return training


def _report(
    report: Callable[[EpochEnd, Training, Loader | None], None], training: Training, val: Loader | None, end: EpochEnd
) -> None:
    report(end, training, val)


def _resume(
    training: Training, checkpoints: Sequence[Path], damaged: Sequence[str], context: DistributedContext
) -> Path | None:
    """Resume from the first undamaged checkpoint, the same on all workers, and return it; None if there is none."""
    problems, resumed = list(damaged), None
    if context.broadcast(problems) != problems:
        raise InputError(f"Workers read different bytes ({'; '.join(problems)}); start the trial again.")
    for directory in checkpoints:
        if not directory.is_dir():
            raise EnvironmentFaultError(f"The checkpoint '{directory}' does not exist; bring the storage back.")
        damage: DamagedCheckpointError | None = None
        try:
            training.resume(directory, world_size=context.world_size)
        except DamagedCheckpointError as error:
            damage = error
        problem = context.broadcast(f"the file '{damage.file}' {damage.problem}" if damage else "")
        if bool(problem) != bool(damage):
            raise damage or InputError(
                f"Workers read different bytes in '{directory}' ({problem}); start the trial again."
            )
        if not problem:
            resumed = directory
            break
        problems.append(problem)
    if problems:
        outcome = f"the trial resumes after epoch {training.epoch}" if training.epoch else "the trial starts over"
        training.note = f"{'; '.join(problems)}; {outcome}"
    return resumed


@contextlib.contextmanager
def releasing_memory(device: torch.device) -> Iterator[None]:
    """Run a trial in this context; on exit, cached device memory is freed for the next trial of the process.

    It is freed after an error too: the frames in the traceback are cleared, because they reference the trial's tensors.
    """
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def main(data_path: str, out: str, *settings: str) -> None:
    """Train in this process and keep the best checkpoint in `out`.

    Args:
        data_path: directory or address of a data set.
        out: directory for the checkpoint.
        settings: changes to the default configuration, such as 'epochs=2' or 'optimizer.lr=0.01'.

    Raises:
        InputError: if the data set or a setting cannot be used.
    """
    pairs = (setting.partition("=") for setting in settings)
    values = nest({key: _value(text) for key, _, text in pairs})
    config = build(TrialConfig, values, source="the command line")
    dataset = Dataset.open(data_path)
    data = TrialData(path=data_path, fingerprint=dataset.info.fingerprint)

    def report(end: EpochEnd, training: Training, _: Loader | None) -> None:
        sys.stdout.write(f"epoch {end.epoch}: {end.metrics}\n")
        if training.best_epoch == end.epoch:
            training.save(Path(out), end.metrics)

    run(config, data, context=DistributedContext(device=torch.device("cpu")), report=report)


def _value(text: str) -> Value:
    """A JSON value; other text is a string."""
    try:
        value: Value = json.loads(text)
    except ValueError:
        return text
    return value


if __name__ == "__main__":
    main(*sys.argv[1:])
