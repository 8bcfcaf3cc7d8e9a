"""What a submitted search does on the cluster before it runs: it compares versions, and waits for its turn."""

from __future__ import annotations

import json
import os
import time
from importlib import metadata

from data.dataset.storage import UnavailableError
from data.dataset.transfer import stored
from data.errors import InputError
from search.cluster.client import Cluster, RefusedError, UnreachableError
from search.cluster.status import search_status
from search.cluster.submission import AFTER, VERSIONS
from search.results.status import LIVE
from search.study.experiment import Experiment
from search.study.names import SPEC_NAME
from search.terminal import Screen

POLL_SECONDS = 5.0


def prepare_driver(experiment: Experiment, screen: Screen) -> None:
    """Say which versions differ from those of the submitting machine, and wait for the search that comes first.

    Raises:
        InputError: if a package is missing, or this machine does not see the search in its storage.
    """
    _check_versions(screen)
    try:
        experiment.spec()
    except InputError as error:
        raise InputError(
            f"{error} The search was submitted with this storage: a directory must be seen by every node of the "
            "cluster at the same path; give an address such as s3://bucket/searches otherwise."
        ) from None
    if other := os.environ.get(AFTER):
        _wait_for(Experiment(storage=experiment.storage, name=other), screen)


def _check_versions(screen: Screen) -> None:
    for name, there in json.loads(os.environ.get(VERSIONS, "{}")).items():
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise InputError(
                f"The package '{name}' is not installed on the cluster; install this project there, with 'make setup'."
            ) from None
        if here != there:
            screen.warn(f"the cluster has {name} {here}, the submitting machine {there}")


def _is_live(other: Experiment) -> bool:
    """Whether a search runs or waits; what cannot be read now is taken for alive, and a removed search has ended."""
    try:
        if stored(other.location / SPEC_NAME) is None:
            return False
        return search_status(other, Cluster.connect(insecure=True)).state in LIVE
    except (UnreachableError, RefusedError, UnavailableError):
        return True


def _wait_for(other: Experiment, screen: Screen) -> None:
    """Return when `other` does not run or wait any more."""
    said = False
    while _is_live(other):
        if not said:
            screen.say(f"waiting until the search '{other.name}' ended")
        said = True
        time.sleep(POLL_SECONDS)
    if said:
        screen.say(f"the search '{other.name}' ended")
