"""A data set is composed into a remote storage as into a directory, and resumes there as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.compose.composition import Composition
from data.compose.estimate import plan_composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
from data.dataset.dataset import Dataset
from tests.data.compose.compose_kit import kit
from tests.s3 import Store


@pytest.mark.slow
def test_it_is_composed_at_an_address(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same data set, resumed from the pieces in the cache, of which nothing is left."""
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "cache"))
    composition = Composition(**kit(tmp_path))
    sources = open_sources(composition)
    here = materialise(composition, sources, tmp_path / "set", processes=1)
    destination = store.address("composed")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        materialise(composition, sources, destination, processes=1, on_sample=stop)
    assert store.names("composed") == []
    assert plan_composition(composition, sources, destination, processes=1).pieces_finished >= 1
    info = materialise(composition, sources, destination, processes=1)

    assert info.fingerprint == here.fingerprint
    assert Dataset.open(destination, verify=True).info == info
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
