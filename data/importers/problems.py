"""Problems with the files of a source, collected over all samples and reported together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAMED = 5
"""Limit for the files named in the message, over all kinds of problems; at least one per kind."""


@dataclass(kw_only=True)
class ImportProblem:
    """A problem with a file."""

    kind: str
    """'missing', 'unusable' or 'size'."""
    role: str
    """'bg', 'fg_bg', 'mask' or 'depth'."""
    file: str
    """Path of the file for the user."""
    sentence: str
    """The error message: the file, its problem, and what to do."""
    sample_id: str
    """The first affected sample."""
    row: int | None = None
    """Row of that sample in the table that lists it; None without a table."""
    samples: int = 0
    """Number of affected samples."""


class ImportProblemsError(InputError):
    """Some samples of the source cannot be imported."""

    def __init__(self, problems: Sequence[ImportProblem], source: str, samples: int) -> None:
        super().__init__(_message(problems, source, samples))
        self.problems = tuple(problems)
        self._arguments = (self.problems, source, samples)

    def __reduce__(self) -> tuple[type[ImportProblemsError], tuple[Any, ...]]:
        """Pickle by the constructor's arguments instead of the message."""
        return ImportProblemsError, self._arguments

    def as_plain(self) -> list[dict[str, str | int]]:
        """All problems as JSON values."""
        return [asdict(problem) for problem in self.problems]


class ImportProblems:
    """Collects the problems of a source; a file shared by several samples counts once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[tuple[str, str], ImportProblem] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, kind: str, role: str, file: str, sentence: str, sample_id: str, *, row: int | None = None) -> None:
        """Add a problem with a file of a sample."""
        problem = ImportProblem(kind=kind, role=role, file=file, sentence=sentence, sample_id=sample_id, row=row)
        self._found.setdefault((kind, file), problem).samples += 1

    def error(self, samples: int) -> ImportProblemsError:
        """An error with all problems, among `samples` checked samples."""
        return ImportProblemsError(tuple(self._found.values()), self._source, samples)


def _message(problems: Sequence[ImportProblem], source: str, samples: int) -> str:
    """A sentence per kind of problem; if there are several kinds, below a heading."""
    groups: dict[tuple[str, ...], list[ImportProblem]] = defaultdict(list)
    for problem in problems:
        # Sentences about files that are unusable for the same reason differ only in the file.
        reason = problem.sentence.replace(problem.file, "") if problem.kind == "unusable" else ""
        groups[problem.kind, problem.role, reason].append(problem)
    lines = [_sentence(group, samples, max(1, MAX_NAMED // len(groups))) for group in groups.values()]
    if len(lines) == 1:
        return lines[0]
    shown = lines[:MAX_NAMED]
    left = len(lines) - len(shown)
    if left:
        shown.append(f"and {left} more {'kind of problem' if left == 1 else 'kinds of problems'}")
    heading = f"{len(problems)} files of '{source}' cannot be imported as they are; --json lists all of them:"
    return "\n  ".join([heading, *shown])


def _sentence(group: Sequence[ImportProblem], samples: int, named: int) -> str:
    """The sentence of the first problem, with the number of affected samples and some of the other files."""
    notes = [f"row {group[0].row}"] if group[0].row is not None else []
    affected = sum(problem.samples for problem in group)
    if affected > 1 or group[0].kind != "unusable":
        notes.append(_affected(group, affected, samples, named))
    if not notes:
        return group[0].sentence
    problem_text, semicolon, advice = group[0].sentence.rpartition("; ")
    note = f"({'; '.join(notes)})"
    return f"{problem_text} {note}{semicolon}{advice}" if semicolon else f"{advice} {note}"


def _affected(group: Sequence[ImportProblem], affected: int, samples: int, named: int) -> str:
    """Number of affected samples, and some of the other files."""
    verb = "lack a file" if group[0].kind == "missing" else "are affected" if affected > 1 else "is affected"
    counted = f"{affected} of {samples} samples {verb}"
    if len(group) > 1:
        counted += f", {len(group)} files in all"
    others = [f"'{problem.file}'" for problem in group[1:named]]
    if others:
        left = len(group) - 1 - len(others)
        counted += f", also {', '.join(others)}" + (f" and {left} more" if left else "")
    return counted
