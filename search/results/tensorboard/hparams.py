"""The trials of a study as events of TensorBoard's HParams: dimensions with their domains, and results.

TensorBoard's own classes describe them; its functions that import TensorFlow are avoided.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as hp

from search.spec.domains import Choices, Domain, Leaf, Leaves, Per, Range, representatives
from search.study.trials import EpochRecord, TrialRecord
from trainable.config.settings import Value, flatten
from trainable.metrics.names import OBJECTIVE
from trainable.metrics.objective import Objective

RESULTS = "result"
"""Group of the scalars with a trial's best epoch so far, which are the results in the table."""
RESULT_GROUPS = ("mask", "depth")
"""Prefixes of the metrics that are results, beside the objective."""

Kind = Literal["bool", "number", "text"]


@dataclass(frozen=True)
class Dimension:
    """A searched setting as a column of the table."""

    key: str
    """Dotted key of the spec."""
    kind: Kind
    values: tuple[Value, ...]
    """All choices; of a range, its bounds."""
    is_range: bool

    def value(self, settings: Mapping[str, Value]) -> bool | float | str | None:
        """The value of a trial with these settings by dotted key; None if the trial lacks the setting."""
        return _as(self.kind, settings[self.key]) if self.key in settings else None

    def as_column(self) -> api_pb2.HParamInfo:
        """The column for TensorBoard."""
        values = [_as(self.kind, value) for value in self.values]
        column = api_pb2.HParamInfo(name=self.key, differs=True)
        if self.is_range:
            numbers = [value for value in values if isinstance(value, float)]
            hp.RealInterval(min(numbers), max(numbers)).update_hparam_info(column)
        else:
            hp.Discrete(list(dict.fromkeys(values))).update_hparam_info(column)
        return column


def searched_dimensions(space: Leaves) -> list[Dimension]:
    """The dimensions of a search space, in the order of the spec."""
    return [_dimension(key, representatives(leaf), _has_range(leaf)) for key, leaf in space.items() if _is_free(leaf)]


def differing_dimensions(configs: Iterable[Mapping[str, Any]]) -> list[Dimension]:
    """The settings in which fixed configurations differ."""
    values: dict[str, list[Value]] = {}
    for config in configs:
        for key, value in flatten(config).items():
            values.setdefault(key, []).append(value)
    return [_dimension(key, found, False) for key, found in values.items() if len({*map(repr, found)}) > 1]


def table_event(dimensions: Sequence[Dimension], metrics: Iterable[str], created: float) -> Event:
    """The columns of the table: one event for all trials.

    Args:
        dimensions: of the search.
        metrics: names of the results.
        created: seconds since the epoch.
    """
    experiment = api_pb2.Experiment(
        hparam_infos=[dimension.as_column() for dimension in dimensions],
        metric_infos=[hp.Metric(f"{RESULTS}/{name}", display_name=name).as_proto() for name in metrics],
        time_created_secs=created,
    )
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    return _event(_summary(metadata.EXPERIMENT_TAG, data), created)


def start_event(name: str, trial: FrozenTrial, dimensions: Sequence[Dimension]) -> Event:
    """A started trial: a row of the table with its settings."""
    settings = flatten(TrialRecord.of(trial).config)
    values = {dimension.key: dimension.value(settings) for dimension in dimensions}
    present = {key: value for key, value in values.items() if value is not None}
    started = _started(trial)
    return _event(hp.hparams_pb(present, trial_id=name, start_time_secs=started), started)


def result_events(trial: FrozenTrial, after: int, objective: Objective) -> list[Event]:
    """The results of a trial after each epoch that is later than the epoch `after`: those of its best one so far."""
    best: EpochRecord | None = None
    now, events = _started(trial), []
    for record in TrialRecord.of(trial, objective).epochs:
        now += record.metrics.get("seconds", 0.0)
        best = record if best is None or record.rank > best.rank else best
        if record.epoch > after:
            metrics = objective.with_value(best.metrics)
            values = [
                Summary.Value(tag=f"{RESULTS}/{name}", simple_value=metrics[name])
                for name in result_names(metrics, objective)
                if name in metrics
            ]
            events.append(_event(Summary(value=values), now, step=record.epoch))
    return events


def end_event(trial: FrozenTrial) -> Event:
    """The end of a trial, and whether it was trained."""
    is_success = trial.state == TrialState.COMPLETE and TrialRecord.of(trial).outcome in {"", "trained"}
    status = api_pb2.STATUS_SUCCESS if is_success else api_pb2.STATUS_FAILURE
    ended = trial.datetime_complete.timestamp() if trial.datetime_complete else _started(trial)
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=ended)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    return _event(_summary(metadata.SESSION_END_INFO_TAG, data), ended)


def result_names(metrics: Iterable[str], objective: Objective) -> list[str]:
    """The metrics that are results, the objective first."""
    names = (objective.key, OBJECTIVE, *(name for name in metrics if name.partition("_")[0] in RESULT_GROUPS))
    return list(dict.fromkeys(names))


def _is_free(leaf: Leaf) -> bool:
    return isinstance(leaf, Domain) and len({*map(repr, representatives(leaf))}) > 1


def _has_range(leaf: Leaf) -> bool:
    cases = leaf.domains.values() if isinstance(leaf, Per) else [leaf]
    return any(isinstance(case, Range) for case in cases) and not any(
        isinstance(case, Choices) and not _are_numbers(case.values) for case in cases
    )


def _dimension(key: str, values: Sequence[Value], is_range: bool) -> Dimension:
    if all(isinstance(value, bool) for value in values):
        kind: Kind = "bool"
    else:
        kind = "number" if _are_numbers(values) else "text"
    return Dimension(key, kind, tuple(values), is_range)


def _are_numbers(values: Iterable[Value]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _as(kind: Kind, value: Value) -> bool | float | str:
    """A value in the type of its column, which TensorBoard requires to be one."""
    if kind == "number" and isinstance(value, int | float):
        return float(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    return value if isinstance(value, str) else json.dumps(value)


def _started(trial: FrozenTrial) -> float:
    return trial.datetime_start.timestamp() if trial.datetime_start else 0.0


def _summary(tag: str, data: plugin_data_pb2.HParamsPluginData) -> Summary:
    """A summary that is read by the HParams plugin."""
    shown = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=shown, tensor=metadata.NULL_TENSOR)])


def _event(summary: Summary, time: float, *, step: int = 0) -> Event:
    return Event(wall_time=time, step=step, summary=summary)
