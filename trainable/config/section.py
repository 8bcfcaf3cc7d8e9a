"""What every part of a configuration is made of, and the one way from plain values to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from data.errors import InputError, without_comma
from trainable.config.text import Place

LONGEST = 100
"""Characters of a section that an error shows."""

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a configuration: keyword-only, immutable, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


SectionT = TypeVar("SectionT", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a configuration."""

    key: str
    """Dotted name of what it is about; '' for the whole."""
    sentence: str
    value: Any = None
    """What the key holds, where that is what is wrong."""
    is_key: bool = False
    """Whether it is the key itself that is wrong."""
    file: str = ""
    """Where it stands, if that is known."""
    place: Place | None = None
    """Where in that file."""

    def __str__(self) -> str:
        """As FILE:LINE:COLUMN: SENTENCE, as far as the place is known."""
        return f"{self.file}:{self.place.line}:{self.place.column}: {self.sentence}" if self.place else self.sentence


class ConfigError(InputError):
    """A configuration that cannot be used: all that was found wrong with it; its message is of the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(str(problems[0]))
        self.problems = tuple(problems)

    @classmethod
    def about(cls, key: str, sentence: str, *, value: Any = None, is_key: bool = False) -> ConfigError:
        """The error of a single problem."""
        return cls([Problem(key=key, sentence=sentence, value=value, is_key=is_key)])

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        """As pickle needs it: an exception's message is not what it was made from."""
        return ConfigError, (self.problems,)


def build(section: type[SectionT], values: Mapping[str, Any], *, source: str) -> SectionT:
    """`section` from plain values, as they come from YAML or JSON.

    Args:
        section: the class to build.
        values: nested mappings of plain values.
        source: where the values came from, for the error's sentence.

    Raises:
        ConfigError: for the values that do not fit, naming each and what would.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(found, section, source) for found in error.errors(include_url=False)]
        raise ConfigError(problems) from None


def _problem(found: ErrorDetails, section: type[BaseModel], source: str) -> Problem:
    key = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        known = ", ".join(_known(section, found["loc"][:-1]))
        instead = f"use one of {known}" if known else "correct its spelling"
        sentence = f"The key '{key}' is not known; remove it from {source}, or {instead}."
        return Problem(key=key, sentence=sentence, is_key=True)
    if found["type"] == "missing":
        return Problem(key=key, sentence=f"The key '{key}' is missing; add it to {source}.")
    wanted = found["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    if not key:
        return Problem(key="", sentence=f"The configuration must {wanted}; correct it in {source}.")
    value = repr(found["input"])
    # Of a whole section what is wrong would be lost.
    is_long = isinstance(found["input"], Mapping) and len(value) > LONGEST
    said = f"The section '{key}'" if is_long else f"The value of '{key}' is {value}, but"
    meant = without_comma(found["input"]) if isinstance(found["input"], str) else None
    sentence = f"{said} must {wanted}; {f'write {meant}' if meant else 'correct it'} in {source}."
    return Problem(key=key, sentence=sentence, value=found["input"])


def _known(section: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys of the section at `path`; none where that is no section."""
    for name in path:
        field = section.model_fields.get(str(name))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        section = field.annotation
    return list(section.model_fields)
