"""Other tools that record a search: what a spec may name, what is installed, and secrets that are never kept."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from data.errors import InputError
from search.spec.spec import load_spec
from tests.search.conftest import Said

SECRET = "s3cr3t"  # noqa: S105


@pytest.fixture
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in {"mlflow", "wandb"} else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mlflow", "http://tracking:5000"),
        ("mlflow", "sqlite:////home/me/mlflow.db"),
        ("mlflow", "postgresql://me@host/mlflow"),
        ("mlflow", "databricks"),
        ("wandb", "depth"),
        ("wandb", "team/depth-2.1"),
    ],
)
def test_trackers_are_read(key: str, value: str) -> None:
    """A spec that is read again has them, on machines without the packages too."""
    spec = load_spec(overrides=[(f"logging.{key}", f"'{value}'")], data_path="set")

    assert spec.as_plain()["logging"] == {"mlflow": None, "wandb": None, key: value}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mlflow", "tracking:5000", "must be the URI of a server, such as http://HOST:5000"),
        ("mlflow", "mlruns", "must be the URI of a server, such as http://HOST:5000"),
        ("mlflow", "sqlite:///mlflow.db", "must name an absolute path"),
        ("mlflow", f"http://me:{SECRET}@host:5000", "MLFLOW_TRACKING_PASSWORD"),
        ("mlflow", f"https://{SECRET}@host", "MLFLOW_TRACKING_TOKEN"),
        ("mlflow", f"postgresql://me:{SECRET}@host/mlflow", "contains credentials"),
        ("mlflow", f"me:{SECRET}@host:5000", "must be the URI of a server"),
        ("wandb", "a b", "must be PROJECT or ENTITY/PROJECT"),
        ("wandb", "0123456789abcdef" * 2 + "01234567", "is an API key"),
    ],
)
def test_bad_trackers_are_refused(key: str, value: str, said: str) -> None:
    """Before anything is written; a secret is not repeated."""
    with pytest.raises(InputError) as caught:
        load_spec(overrides=[(f"logging.{key}", f"'{value}'")], data_path="set")

    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


@pytest.mark.usefixtures("_nothing_installed")
@pytest.mark.parametrize("command", ["spec --check spec.yaml", "search spec.yaml", "search spec.yaml --dry-run"])
def test_missing_package_is_named_when_the_spec_is_checked(
    twinhead: Callable[..., Said], tmp_path: Path, command: str
) -> None:
    """With the command that installs it, and not hours later."""
    (tmp_path / "spec.yaml").write_text("data: {path: nowhere}\nlogging:\n  wandb: depth\n")
    said = twinhead(*command.split())

    assert (said.code, said.out) == (2, "")
    assert said.err.removeprefix("twinhead: ").startswith("spec.yaml:3:10: The spec sets 'logging.wandb', but")
    assert "pip install 'twinhead[wandb]'" in said.err
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.usefixtures("_nothing_installed")
def test_spec_with_a_tracker_is_read_without_its_package() -> None:
    """The results of a search on a cluster are read on a laptop."""
    assert load_spec(overrides=[("logging.wandb", "depth")], data_path="set").plan.logging.wandb == "depth"
