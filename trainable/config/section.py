"""The base class of all parts of a configuration, and their construction from plain values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from data.errors import FaultsError, InputError, did_you_mean, without_comma
from trainable.config.text import Place

MAX_SHOWN = 100
"""Maximum number of characters of a section that an error message shows."""
_NAME = re.compile(r"'([^']*)'")
"""A name among those that pydantic expects."""
_OPENING = re.compile(r"^Value error, |^\w+ should ")
"""What pydantic's sentences begin with, such as 'Input should ' and 'String should '."""

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a configuration: keyword-only, immutable, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


SectionT = TypeVar("SectionT", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem of a configuration."""

    key: str
    """Dotted key; '' for the whole configuration."""
    sentence: str
    value: object = None
    """Value of the key, if that is the problem."""
    is_key: bool = False
    """Whether the key itself is the problem."""
    file: str = ""
    """File of the key, if known."""
    place: Place | None = None
    """Line and column in that file, if known."""

    def __str__(self) -> str:
        """Format as FILE:LINE:COLUMN: SENTENCE, or as SENTENCE if the place is unknown."""
        return f"{self.file}:{self.place.line}:{self.place.column}: {self.sentence}" if self.place else self.sentence


class ConfigError(InputError):
    """An invalid configuration, with all its problems. The message is that of the first one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(str(problems[0]))
        self.problems = tuple(problems)

    @classmethod
    def about(cls, key: str, sentence: str, *, value: object = None, is_key: bool = False) -> ConfigError:
        """An error with a single problem."""
        return cls([Problem(key=key, sentence=sentence, value=value, is_key=is_key)])

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        """Pickle the problems, because the constructor does not take the message."""
        return ConfigError, (self.problems,)


def build(section: type[SectionT], values: Mapping[str, object], *, source: str) -> SectionT:
    """Build `section` from plain values, as read from YAML or JSON.

    Args:
        section: the class to build.
        values: nested mappings of plain values.
        source: origin of the values, for the error message.

    Raises:
        ConfigError: with a problem for each invalid value, which names what is valid.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        problems: list[Problem] = []
        for found in error.errors(include_url=False):
            problems += _problems(found, section, source)
        raise ConfigError(problems) from None


def _problems(found: ErrorDetails, section: type[BaseModel], source: str) -> Iterator[Problem]:
    cause = found.get("ctx", {}).get("error")
    if not isinstance(cause, FaultsError):
        yield _problem(found, section, source)
        return
    for fault in cause.faults:
        key = ".".join([*(str(part) for part in found["loc"]), fault.key])
        subject = "key" if fault.is_key else "value of"
        sentence = f"The {subject} '{key}' {fault.said}; {fault.advice} {source}."
        yield Problem(key=key, sentence=sentence, value=fault.value, is_key=fault.is_key)


def _problem(found: ErrorDetails, section: type[BaseModel], source: str) -> Problem:
    key = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        known = _known(section, found["loc"][:-1])
        meant = did_you_mean(str(found["loc"][-1]), known)
        instead = f"use one of {', '.join(known)}" if known else "correct its spelling"
        sentence = f"The key '{key}' is not known; remove it from {source}, or {instead}{meant}."
        return Problem(key=key, sentence=sentence, is_key=True)
    if found["type"] == "missing":
        return Problem(key=key, sentence=f"The key '{key}' is missing; add it to {source}.")
    wanted = _OPENING.sub("", found["msg"])
    if not key:
        return Problem(key="", sentence=f"The configuration must {wanted}; correct it in {source}.")
    value = repr(found["input"])
    # The problem would get lost in the text of a whole section.
    is_long = isinstance(found["input"], Mapping) and len(value) > MAX_SHOWN
    subject = f"The section '{key}'" if is_long else f"The value of '{key}' is {value}, but"
    corrected = without_comma(found["input"]) if isinstance(found["input"], str) else None
    names = _NAME.findall(found["ctx"]["expected"]) if found["type"] == "literal_error" else []
    meant = did_you_mean(str(found["input"]), names)
    sentence = f"{subject} must {wanted}; {f'write {corrected}' if corrected else 'correct it'} in {source}{meant}."
    return Problem(key=key, sentence=sentence, value=found["input"])


def _known(section: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys of the section at `path`; empty if there is no section."""
    for name in path:
        field = section.model_fields.get(str(name))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        section = field.annotation
    return list(section.model_fields)
