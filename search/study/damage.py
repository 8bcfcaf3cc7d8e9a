"""What of a damaged journal can be used: which records are whole, and which still mean the trials they meant.

Optuna numbers trials in the order of the records that create them. A record that is lost is left out, unless it created
a trial: then all later numbers would shift, and another trial stands in its place. Where it is not certain whether it
did, nothing after it is used.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from optuna.storages.journal._storage import JournalOperation
from optuna.study import StudyDirection
from optuna.trial import TrialState

from trainable.metrics.names import MODE

Record = dict[str, Any]

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
"""What Optuna reads of a record, beside 'op_code' and 'worker_id'."""
_BEGIN = b'{"op_code":'
_OPERATION = re.compile(rb'"op_code":\s*(\d+)')
LOST = "its record in the journal was damaged"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """The content of a journal; `lines` is empty and `torn` too if nothing is wrong with it."""

    records: list[Record] = field(default_factory=list)
    """Those that can be used, and failed trials in the place of those that are lost, in order."""
    lines: tuple[int, ...] = ()
    """Numbers of the damaged lines, from 1, without those at the end."""
    after: int = 0
    """Whole records that cannot be used, for what they belong to is not certain."""
    torn: bytes = b""
    """The end of the file from the first byte that belongs to no whole record."""

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.lines[:5])) + (", …" if len(self.lines) > 5 else "")
        one = len(self.lines) == 1
        said = f"line{'' if one else 's'} {shown} cannot be read and {'is' if one else 'are'} left out"
        if not self.after:
            return said
        return f"{said}, and so are the {self.after} records after, whose trials are not certain"


def parse(line: bytes) -> Record | None:
    """The record in a line; None if it is none that Optuna could use."""
    try:
        record = json.loads(line)
        keys = _KEYS[record["op_code"]]
    except (ValueError, TypeError, KeyError):
        return None
    return record if "worker_id" in record and all(key in record for key in keys) else None


def examine(content: bytes) -> Damage:
    """Take a journal apart.

    Args:
        content: of the whole file.
    """
    *lines, rest = content.split(b"\n")
    parsed = [parse(line) for line in lines]
    whole = len(parsed)
    while whole and parsed[whole - 1] is None and _behind_a_torn_one(lines[whole - 1]) is None:
        whole -= 1
    torn = b"\n".join([*lines[whole:], rest])
    damaged = tuple(number for number, record in enumerate(parsed[:whole], start=1) if record is None)
    if not damaged:
        return Damage(records=[record for record in parsed[:whole] if record is not None], torn=torn)
    records, after = _mended(lines[:whole], parsed[:whole])
    return Damage(records=records, lines=damaged, after=after, torn=torn)


def _mended(lines: list[bytes], parsed: list[Record | None]) -> tuple[list[Record], int]:
    """The records that can be used, and how many whole ones cannot."""
    found: list[Record | bytes] = []  # a line's bytes where the record is lost
    for line, record in zip(lines, parsed, strict=True):
        found.append(record or _behind_a_torn_one(line) or line)
    if isinstance(found[0], bytes):
        found[0] = _study()
    lost = [place for place, one in enumerate(found) if isinstance(one, bytes)]
    creations = _lost_creations(found, lost)
    if creations is None:
        kept = [one for one in found[: lost[0]] if not isinstance(one, bytes)]
        return kept, sum(not isinstance(one, bytes) for one in found[lost[0] :])
    stand_ins = {place: _trial() for place in creations}
    records = [stand_ins.get(place, one) for place, one in enumerate(found)]
    kept = [one for one in records if not isinstance(one, bytes)]
    _fail_unfinished(kept, list(stand_ins.values()))
    return kept, 0


def _behind_a_torn_one(line: bytes) -> Record | None:
    """A record that was appended to one that a full disk cut short; None if there is none.

    Nobody has acted on the one that was cut short, so that nothing is lost with it.
    """
    begin = line.rfind(_BEGIN)
    return parse(line[begin:]) if begin > 0 else None


def _lost_creations(found: list[Record | bytes], lost: list[int]) -> list[int] | None:
    """Which of the lost records created a trial, by what comes after; None if that is not certain."""
    sure = {place for place in lost if _operation(found[place]) == JournalOperation.CREATE_TRIAL}
    maybe = [place for place in lost if _operation(found[place]) is None]
    created, highest = 0, -1
    for place, record in enumerate(found):
        if isinstance(record, bytes):
            created += place in sure
            continue
        created += record["op_code"] == JournalOperation.CREATE_TRIAL
        highest = max(highest, int(record.get("trial_id", -1)))
        if highest < created:
            continue
        candidates = [other for other in maybe if other < place and other not in sure]
        if len(candidates) != highest - created + 1:
            return None
        sure |= set(candidates)
        created = highest + 1
    unknown = [place for place in maybe if place not in sure]
    if unknown and highest < created - 1 and _creates(found[unknown[0] :]):
        return None  # of these, the last one may be another trial than it seems
    return sorted(sure)


def _operation(line: Record | bytes) -> int | None:
    """As far as it can still be read."""
    said = _OPERATION.search(line) if isinstance(line, bytes) else None
    return int(said[1]) if said else None


def _creates(found: list[Record | bytes]) -> bool:
    return any(isinstance(one, dict) and one["op_code"] == JournalOperation.CREATE_TRIAL for one in found)


def _study() -> Record:
    """A journal begins with the study's creation; its name does not matter."""
    direction = StudyDirection.MAXIMIZE if MODE == "max" else StudyDirection.MINIMIZE
    return {
        "op_code": int(JournalOperation.CREATE_STUDY),
        "worker_id": "",
        "study_name": "study",
        "directions": [int(direction)],
    }


def _trial() -> Record:
    """A running trial, to which later records can add."""
    return {
        "op_code": int(JournalOperation.CREATE_TRIAL),
        "worker_id": "",
        "study_id": 0,
        "datetime_start": None,
        "user_attrs": {"reason": LOST},
    }


def _fail_unfinished(records: list[Record], stand_ins: list[Record]) -> None:
    """A trial without its creation does not go on: its recipe, say, is not known any more."""
    creations = [id(record) for record in records if record["op_code"] == JournalOperation.CREATE_TRIAL]
    ended = {
        record["trial_id"]
        for record in records
        if record["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES and TrialState(record["state"]).is_finished()
    }
    for record in stand_ins:
        if creations.index(id(record)) not in ended:
            record |= {"state": int(TrialState.FAIL), "user_attrs": {"outcome": "failed", "reason": LOST}}
