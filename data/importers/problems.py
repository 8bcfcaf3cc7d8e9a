"""What is wrong with the files of a source: all of it, gathered while every sample is looked at, and told at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAMED = 5
"""So many files are named on the screen, of all kinds of problems together, and at least one of each kind."""


@dataclass(kw_only=True)
class ImportProblem:
    """What is wrong with a file."""

    kind: str
    """'missing', 'unusable' or 'size'."""
    role: str
    """'bg', 'fg_bg', 'mask' or 'depth'."""
    file: str
    """As a user finds it."""
    sentence: str
    """Names the file and its problem, and says what to do."""
    sample_id: str
    """The first sample that has it."""
    samples: int = 0
    """How many samples have it."""


class ImportProblemsError(InputError):
    """A source whose samples cannot all be imported."""

    def __init__(self, problems: Sequence[ImportProblem], source: str, samples: int) -> None:
        super().__init__(_told(problems, source, samples))
        self.problems = tuple(problems)
        self._given = (self.problems, source, samples)

    def __reduce__(self) -> tuple[type[ImportProblemsError], tuple[Any, ...]]:
        """As pickle needs it: an exception's message is not what it was made from."""
        return ImportProblemsError, self._given

    def as_plain(self) -> list[dict[str, Any]]:
        """All problems as JSON values."""
        return [asdict(problem) for problem in self.problems]


class ImportProblems:
    """Gathers the problems of a source; a file that several samples have counts once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[tuple[str, str], ImportProblem] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, kind: str, role: str, file: str, sentence: str, sample_id: str) -> None:
        """Note that a sample has a problem in one of its files."""
        problem = ImportProblem(kind=kind, role=role, file=file, sentence=sentence, sample_id=sample_id)
        self._found.setdefault((kind, file), problem).samples += 1

    def error(self, samples: int) -> ImportProblemsError:
        """All that was found, of so many samples that were looked at."""
        return ImportProblemsError(tuple(self._found.values()), self._source, samples)


def _told(problems: Sequence[ImportProblem], source: str, samples: int) -> str:
    """A sentence for each kind of problem; where there are several kinds, below a line that counts them."""
    groups: dict[tuple[str, ...], list[ImportProblem]] = defaultdict(list)
    for problem in problems:
        # Files that cannot be used for the same reason differ in their name alone.
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
    """That of the first problem, with how many samples have the same one, and some of their files."""
    affected = sum(problem.samples for problem in group)
    if affected == 1 and group[0].kind == "unusable":
        return group[0].sentence
    verb = "lack a file" if group[0].kind == "missing" else "are affected" if affected > 1 else "is affected"
    counted = f"{affected} of {samples} samples {verb}"
    if len(group) > 1:
        counted += f", {len(group)} files in all"
    others = [f"'{problem.file}'" for problem in group[1:named]]
    if others:
        left = len(group) - 1 - len(others)
        counted += f", also {', '.join(others)}" + (f" and {left} more" if left else "")
    said, semicolon, advice = group[0].sentence.rpartition("; ")
    return f"{said} ({counted}){semicolon}{advice}" if semicolon else f"{advice} ({counted})"
