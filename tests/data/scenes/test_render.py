"""Rendering on several processes: the same samples in the same order as on one."""

from __future__ import annotations

import pytest

from data.images import encode_sample
from data.scenes.render import render
from data.scenes.scenes import SceneSet

SCENES = SceneSet(seed=1, backgrounds=3, per_background=2, size=32)


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing() -> None:
    """A data set's fingerprint must be the same on every machine, however many cores it has."""
    expected = [encode_sample(SCENES[index]) for index in range(len(SCENES))]
    assert list(render(SCENES, processes=1)) == expected
    assert list(render(SCENES, processes=2)) == expected


def test_rendering_can_be_abandoned() -> None:
    """A writer that stops, e.g. on a full disk, also stops the rendering."""
    drawn = render(SCENES, processes=1)
    first = next(drawn)
    drawn.close()
    assert first == encode_sample(SCENES[0])
    assert list(drawn) == []
