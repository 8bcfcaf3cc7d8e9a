"""What every part of a configuration is made of, and the one way from plain values to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import InputError

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a configuration: keyword-only, immutable, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


SectionT = TypeVar("SectionT", bound=BaseModel)


def build(section: type[SectionT], values: Mapping[str, Any], *, source: str) -> SectionT:
    """`section` from plain values, as they come from YAML or JSON.

    Args:
        section: the class to build.
        values: nested mappings of plain values.
        source: where the values came from, for the error's sentence.

    Raises:
        InputError: at the first value that does not fit, naming it and what would.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(_sentence(error, source)) from None


def _sentence(error: ValidationError, source: str) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"The key '{key}' is not known; remove it from {source}, or correct its spelling."
    if first["type"] == "missing":
        return f"The key '{key}' is missing; add it to {source}."
    wanted = first["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    if not key:
        return f"The configuration must {wanted}; correct it in {source}."
    return f"The value of '{key}' is {first['input']!r}, but must {wanted}; correct it in {source}."
