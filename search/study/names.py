"""The names of the experiments in a storage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from data.dataset.storage import AnyPath, Location
from data.dataset.transfer import directories, reaching
from data.errors import InputError
from search.spec.sections import NAME

SPEC_NAME = "spec.yaml"
"""The spec of a search."""
FIXED_NAME = "given.yaml"
"""The fixed configurations of an experiment without a spec."""
CONCURRENT_REQUESTS = 8


def check_name(name: str) -> None:
    """Refuse a name that no experiment can have.

    Raises:
        InputError: if it is not a name, and could lead out of the storage.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"The name '{name}' is not a valid name; use up to 100 letters, digits, '.', '_' and '-', "
            "starting with a letter or digit."
        )


def search_names(storage: AnyPath) -> list[str]:
    """Names of all searches in a storage, sorted.

    Raises:
        UnavailableError: if a remote storage cannot be used.
    """
    return names_with(storage, SPEC_NAME)


def names_with(storage: AnyPath, file: str) -> list[str]:
    """Names of all directories of a storage that have a file of this name, sorted; raises as `search_names`."""
    location = Location.of_storage(storage)
    if location.local is not None:
        return sorted(path.parent.name for path in location.local.glob(f"*/{file}"))
    names = directories(location)

    def has_file(name: str) -> bool:
        with reaching(location):
            return (location / name / file).is_file()

    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as requests:
        return [name for name, found in zip(names, requests.map(has_file, names), strict=True) if found]


def free_name(storage: AnyPath, wanted: str) -> str:
    """The first of `wanted`, `wanted`-2, `wanted`-3, … that is not in use; raises as `search_names`."""
    location = Location.of_storage(storage)
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, 10_000))]
    if location.local is not None:
        directory = location.local
        return next(name for name in names if not (directory / name).exists())
    used = {*directories(location)}
    return next(name for name in names if name not in used)
