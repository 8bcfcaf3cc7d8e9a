"""Recovery of a damaged journal: which records are intact, and which still refer to the right trial.

Optuna numbers trials in the order of the records that create them. A lost record is left out. If it created a trial, a
failed trial replaces it, because all later numbers would shift otherwise. If it is uncertain whether it created one,
all later records are discarded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Required, TypedDict

from optuna.storages.journal._storage import JournalOperation
from optuna.study import StudyDirection
from optuna.trial import TrialState

from trainable.metrics.names import MODE


class Record(TypedDict, total=False):
    """A record of Optuna's journal, with the keys that recovery uses; each operation has some of them."""

    op_code: Required[int]
    worker_id: Required[str]
    study_id: int
    study_name: str
    directions: list[int]
    trial_id: int
    datetime_start: str | None
    state: int
    user_attrs: dict[str, str]


_KEYS = {
    JournalOperation.CREATE_STUDY: ("study_name", "directions"),
    JournalOperation.DELETE_STUDY: ("study_id",),
    JournalOperation.SET_STUDY_USER_ATTR: ("study_id", "user_attr"),
    JournalOperation.SET_STUDY_SYSTEM_ATTR: ("study_id", "system_attr"),
    JournalOperation.CREATE_TRIAL: ("study_id", "datetime_start"),
    JournalOperation.SET_TRIAL_PARAM: ("trial_id", "param_name", "param_value_internal", "distribution"),
    JournalOperation.SET_TRIAL_STATE_VALUES: ("trial_id", "state", "values"),
    JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE: ("trial_id", "step", "intermediate_value"),
    JournalOperation.SET_TRIAL_USER_ATTR: ("trial_id", "user_attr"),
    JournalOperation.SET_TRIAL_SYSTEM_ATTR: ("trial_id", "system_attr"),
    JournalOperation.DISCARD_TRIALS: (),
}
"""Keys that Optuna reads in a record of each kind, besides 'op_code' and 'worker_id'."""
_BEGIN = b'{"op_code":'
_OPERATION = re.compile(rb'"op_code":\s*(\d+)')
LOST_REASON = "its record in the journal was damaged"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """The content of a journal; `lines` and `torn` are empty if it is intact."""

    records: list[Record] = field(default_factory=list)
    """The usable records in order, with failed trials in place of lost ones."""
    lines: tuple[int, ...] = ()
    """Numbers of the damaged lines, from 1, except those at the end."""
    after: int = 0
    """Number of intact records that are discarded because their trials are uncertain."""
    torn: bytes = b""
    """The incomplete end of the file: all bytes after the last intact record."""

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.lines[:5])) + (", …" if len(self.lines) > 5 else "")
        one = len(self.lines) == 1
        said = f"line{'' if one else 's'} {shown} cannot be read and {'is' if one else 'are'} left out"
        if not self.after:
            return said
        return f"{said}, and so are the {self.after} records after, whose trials are uncertain"


def parse(line: bytes) -> Record | None:
    """The record in a line; None if Optuna cannot use it."""
    try:
        record: Record = json.loads(line)
        keys = _KEYS[JournalOperation(record["op_code"])]
    except (ValueError, TypeError, KeyError):
        return None
    return record if "worker_id" in record and all(key in record for key in keys) else None


def examine(content: bytes, mode: str = MODE) -> Damage:
    """Examine the content of a journal file; `mode` is 'max' or 'min', for a study whose first record is damaged."""
    *lines, rest = content.split(b"\n")
    parsed = [parse(line) for line in lines]
    intact = len(parsed)
    while intact and parsed[intact - 1] is None and _appended_to_torn(lines[intact - 1]) is None:
        intact -= 1
    torn = b"\n".join([*lines[intact:], rest])
    damaged = tuple(number for number, record in enumerate(parsed[:intact], start=1) if record is None)
    if not damaged:
        return Damage(records=[record for record in parsed[:intact] if record is not None], torn=torn)
    records, after = _recover(lines[:intact], parsed[:intact], mode)
    return Damage(records=records, lines=damaged, after=after, torn=torn)


def _recover(lines: list[bytes], parsed: list[Record | None], mode: str) -> tuple[list[Record], int]:
    """The usable records, and the number of intact records that are discarded."""
    found: list[Record | bytes] = []  # a line's bytes where the record is lost
    for line, record in zip(lines, parsed, strict=True):
        found.append(record or _appended_to_torn(line) or line)
    if isinstance(found[0], bytes):
        found[0] = _study_record(mode)
    lost = [index for index, one in enumerate(found) if isinstance(one, bytes)]
    creations = _lost_creations(found, lost)
    if creations is None:
        kept = [one for one in found[: lost[0]] if not isinstance(one, bytes)]
        return kept, sum(not isinstance(one, bytes) for one in found[lost[0] :])
    stand_ins = {index: _trial_record() for index in creations}
    records = [stand_ins.get(index, one) for index, one in enumerate(found)]
    kept = [one for one in records if not isinstance(one, bytes)]
    _fail_unfinished(kept, list(stand_ins.values()))
    return kept, 0


def _appended_to_torn(line: bytes) -> Record | None:
    """An intact record that was appended to one that a full disk cut short; None if there is none.

    The write of the cut record failed, so that nothing depends on it.
    """
    begin = line.rfind(_BEGIN)
    return parse(line[begin:]) if begin > 0 else None


def _lost_creations(found: list[Record | bytes], lost: list[int]) -> list[int] | None:
    """Indices of the lost records that created a trial, inferred from later records; None if that is uncertain."""
    sure = {index for index in lost if _operation(found[index]) == JournalOperation.CREATE_TRIAL}
    maybe = [index for index in lost if _operation(found[index]) is None]
    created, highest = 0, -1
    for index, record in enumerate(found):
        if isinstance(record, bytes):
            created += index in sure
            continue
        created += record["op_code"] == JournalOperation.CREATE_TRIAL
        highest = max(highest, int(record.get("trial_id", -1)))
        if highest < created:
            continue
        candidates = [other for other in maybe if other < index and other not in sure]
        if len(candidates) != highest - created + 1:
            return None
        sure |= set(candidates)
        created = highest + 1
    unknown = [index for index in maybe if index not in sure]
    if unknown and highest < created - 1 and _creates(found[unknown[0] :]):
        return None  # the last of these may be a different trial than its number suggests
    return sorted(sure)


def _operation(line: Record | bytes) -> int | None:
    """The operation of a damaged line, if it is still readable."""
    match = _OPERATION.search(line) if isinstance(line, bytes) else None
    return int(match[1]) if match else None


def _creates(found: list[Record | bytes]) -> bool:
    return any(not isinstance(one, bytes) and one["op_code"] == JournalOperation.CREATE_TRIAL for one in found)


def _study_record(mode: str) -> Record:
    """The record that creates the study, with which a journal begins; its name does not matter."""
    direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
    return {
        "op_code": int(JournalOperation.CREATE_STUDY),
        "worker_id": "",
        "study_name": "study",
        "directions": [int(direction)],
    }


def _trial_record() -> Record:
    """A running trial, to which later records can refer."""
    return {
        "op_code": int(JournalOperation.CREATE_TRIAL),
        "worker_id": "",
        "study_id": 0,
        "datetime_start": None,
        "user_attrs": {"reason": LOST_REASON},
    }


def _fail_unfinished(records: list[Record], stand_ins: list[Record]) -> None:
    """Mark recreated trials without an end as failed: their attributes, such as the recipe, are lost."""
    creations = [id(record) for record in records if record["op_code"] == JournalOperation.CREATE_TRIAL]
    ended = {
        record["trial_id"]
        for record in records
        if record["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES and TrialState(record["state"]).is_finished()
    }
    for record in stand_ins:
        if creations.index(id(record)) not in ended:
            record |= {"state": int(TrialState.FAIL), "user_attrs": {"outcome": "failed", "reason": LOST_REASON}}
