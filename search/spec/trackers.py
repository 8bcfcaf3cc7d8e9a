"""Check where a search is logged, besides its own directory: an MLflow server and a Weights & Biases project.

Also, whether the packages are installed that a search needs for its choices.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from search.spec.locate import with_locations
from search.spec.sampler import PACKAGES_OF_CLASSES, class_of
from search.spec.sections import LoggingConfig, Plan
from search.spec.study_url import masked
from trainable.config import ConfigError, Problem

PACKAGES = {"mlflow": "MLflow", "wandb": "Weights & Biases"}
"""Names of the extras and modules, and of the tools."""
_TRACKING_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_PROJECT = re.compile(r"[A-Za-z0-9][\w.-]{0,127}(/[A-Za-z0-9][\w.-]{0,127})?")
_API_KEY = re.compile(r"[0-9a-f]{40}|wandb_v\d.*")


def problems_of_logging(config: LoggingConfig, source: str) -> Iterator[Problem]:
    """Problems of the section `logging` that can be found without a connection.

    Secrets are problems: they come from the environment alone, and are not repeated here.
    """
    if config.mlflow is not None and (wanted := _wanted_uri(config.mlflow)):
        sentence = f"The value of 'logging.mlflow' is '{_without_user(config.mlflow)}', but {wanted} in {source}."
        yield Problem(key="logging.mlflow", sentence=sentence)
    if config.wandb is not None and _API_KEY.fullmatch(config.wandb):
        sentence = (
            "The value of 'logging.wandb' is an API key, but must be a project; give the key in $WANDB_API_KEY, and "
            f"the project in {source}."
        )
        yield Problem(key="logging.wandb", sentence=sentence)
    elif config.wandb is not None and not _PROJECT.fullmatch(config.wandb):
        wanted = "must be PROJECT or ENTITY/PROJECT, of letters, digits, '.', '_' and '-'"
        sentence = f"The value of 'logging.wandb' is '{config.wandb}', but {wanted}; correct it in {source}."
        yield Problem(key="logging.wandb", sentence=sentence)


def check_packages(plan: Plan, file: Path | None = None, *, overridden: Sequence[str] = ()) -> None:
    """Check that what a spec names is installed on this machine, which the driver of the search needs.

    Args:
        plan: of the spec.
        file: of the spec, for the locations of problems.
        overridden: dotted keys whose values did not come from the file.

    Raises:
        InputError: if a package is not installed; ConfigError with a problem for each.
    """
    problems = [
        Problem(
            key=f"logging.{name}",
            sentence=f"The spec sets 'logging.{name}', but {PACKAGES[name]} is not installed; install it with "
            f"\"pip install 'twinhead[{name}]'\", or remove the key.",
        )
        for name, value in plan.logging.model_dump().items()
        if value is not None and importlib.util.find_spec(name) is None
    ]
    sampler = class_of(plan.search.sampler)
    package = PACKAGES_OF_CLASSES.get(sampler)
    if package and importlib.util.find_spec(package) is None:
        sentence = (
            f"The value of 'search.sampler' is {sampler}, but it needs the package {package}, which is not installed; "
            f"install it with 'pip install {package}', or choose another sampler."
        )
        problems.append(Problem(key="search.sampler", sentence=sentence))
    if problems:
        raise with_locations(ConfigError(problems), file, overridden=overridden)


def _wanted_uri(uri: str) -> str:
    """What an MLflow URI must be, as a clause; '' if it is valid."""
    scheme, _, rest = uri.partition("://")
    if uri != "databricks" and (scheme.partition("+")[0] not in _TRACKING_SCHEMES or not rest):
        return "must be the URI of a server, such as http://HOST:5000, or of a database; correct it"
    if _has_secret(uri):
        return (
            "contains credentials, which would be kept in spec.yaml; leave them out, and give them in "
            "$MLFLOW_TRACKING_USERNAME and $MLFLOW_TRACKING_PASSWORD, or $MLFLOW_TRACKING_TOKEN; correct it"
        )
    if scheme == "sqlite" and not rest.startswith("//"):
        return "must name an absolute path, with four slashes, as in sqlite:////home/me/mlflow.db; correct it"
    return ""


def _has_secret(uri: str) -> bool:
    """Whether a URI has a password, or a server's URI any user: a token takes the place of the name."""
    return masked(uri) != uri or (uri.startswith("http") and "@" in urlsplit(uri).netloc)


def _without_user(uri: str) -> str:
    """A URI for output, without its user and password."""
    return re.sub(r"[^/]*@", "***@", masked(uri))
