"""Faults of the transforms in a configuration: unknown names, wrong arguments, and results of another shape.

Each transform is built and tried on a small sample of noise, so that what is wrong is found before a trial.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping

import numpy as np
import pydantic

from data.augment.catalog import (
    SET_HERE,
    Arguments,
    arguments_of,
    build,
    is_geometric,
    reason_against,
    usable,
    version,
)
from data.augment.transforms import ResultError, Transforms
from data.errors import KeyFault, did_you_mean

TRIES = 4
"""Number of samples on which a transform is tried."""


def faults(transforms: Mapping[str, Arguments], height: int, width: int) -> list[KeyFault]:
    """The faults of transforms, with images of (height, width), at keys such as 'CLAHE' and 'CLAHE.p'.

    Args:
        transforms: arguments by name, such as from `by_name`.
        height: in pixels.
        width: in pixels.
    """
    found: list[KeyFault] = []
    for name, arguments in transforms.items():
        found += _faults(name, json.dumps(arguments), height, width)
    return found


@functools.lru_cache(maxsize=1024)
def _faults(name: str, arguments: str, height: int, width: int) -> tuple[KeyFault, ...]:
    """Cached: a search checks one transform in many configurations. `arguments` are JSON, and thereby hashable."""
    found = _fault_of_name(name)
    if found:
        return (found,)
    given = json.loads(arguments)
    return (
        tuple(_faults_of_keys(name, given))
        or tuple(_faults_of_values(name, given))
        or tuple(_faults_of_result(name, given, height, width))
    )


def _fault_of_name(name: str) -> KeyFault | None:
    if reason := reason_against(name):
        return KeyFault(key=name, said=reason, advice="remove it from", is_key=True)
    known = usable()
    if name in known:
        return None
    capitals = [each for each in known if each.lower() == name.lower()]
    meant = did_you_mean(capitals[0] if capitals else name, known)
    return KeyFault(key=name, said=f"is no transform of albumentations {version()}{meant}", is_key=True)


def _faults_of_keys(name: str, arguments: Arguments) -> Iterator[KeyFault]:
    known = arguments_of(name)
    for argument in arguments:
        if argument in SET_HERE:
            said = SET_HERE[argument]
            yield KeyFault(key=f"{name}.{argument}", said=said, advice="remove it from", is_key=True)
        elif argument not in known:
            meant = did_you_mean(argument, known)
            said = f"is no argument of {name}, which has {', '.join(known)}{meant}"
            yield KeyFault(key=f"{name}.{argument}", said=said, is_key=True)


def _faults_of_values(name: str, arguments: Arguments) -> Iterator[KeyFault]:
    for argument, value in arguments.items():
        if isinstance(value, Mapping):
            said = f"is {value!r}, but must be a plain value or a list"
            yield KeyFault(key=f"{name}.{argument}", said=said, value=value)
            return
    try:
        build(name, arguments)
    except Exception as error:  # noqa: BLE001  its own checks let other errors through
        yield _fault_of_build(name, arguments, error)


def _fault_of_build(name: str, arguments: Arguments, error: Exception) -> KeyFault:
    """The first argument that albumentations refuses, or all of them together if it names none."""
    schema = error if isinstance(error, pydantic.ValidationError) else error.__cause__
    if not isinstance(schema, pydantic.ValidationError):
        return _refused(name, arguments, str(error))
    problems = schema.errors(include_url=False)
    argument = str(problems[0]["loc"][0]) if problems[0]["loc"] else ""
    if argument not in arguments:
        return _refused(name, arguments, problems[0]["msg"])
    # For a union, there is a message for each of its types.
    messages = dict.fromkeys(problem["msg"] for problem in problems if problem["loc"][0] == argument)
    value, prefix = arguments[argument], "Input should be "
    said = f"is {value!r}, which albumentations refuses ({_reason(next(iter(messages)))})"
    if all(message.startswith(prefix) for message in messages):
        wanted = " or ".join(message.removeprefix(prefix) for message in messages)
        said = f"is {value!r}, but must be {wanted.replace('a valid tuple', 'a list')}"
    return KeyFault(key=f"{name}.{argument}", said=said, value=value)


def _faults_of_result(name: str, arguments: Arguments, height: int, width: int) -> Iterator[KeyFault]:
    """Try a transform on noise: its result must have the same shape and type."""
    certain = {name: {**arguments, "p": 1.0}}
    rng = np.random.default_rng(0)
    try:
        Transforms(certain).change(
            {
                key: rng.integers(0, 256, (TRIES, height, width, *channels), np.uint8)
                for key, channels in (("bg", (3,)), ("fg_bg", (3,)), ("mask", ()), ("depth", ()), ("valid", ()))
                if channels or is_geometric(name)
            },
            0,
        )
    except ResultError as error:
        yield KeyFault(key=name, said=f"is {dict(arguments)!r}, but it {error}", value=dict(arguments))
    except Exception as error:  # noqa: BLE001  whatever it is, it would stop a trial
        failed = f"fails on images of {height} x {width} px ({_reason(str(error))})"
        yield KeyFault(key=name, said=f"is {dict(arguments)!r}, which {failed}", value=dict(arguments))


def _refused(name: str, arguments: Arguments, reason: str) -> KeyFault:
    said = f"is {dict(arguments)!r}, which albumentations refuses ({_reason(reason)})"
    return KeyFault(key=name, said=said, value=dict(arguments))


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").strip().partition("\n")[0].removesuffix(".")
