"""`train` and `compare` without a cluster: bad input gives one sentence, and nothing is created."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train",), "'twinhead train RECIPE DATA'"),
        (("train", "no-such", "set"), "no-such"),
        (("compare",), "'twinhead compare DATA'"),
        (("compare", "set", "--recipes", "ramana-dnn,ramana-dnn"), "given twice"),
        (("compare", "set", "--set", "data.size=3"), "data.size"),
        (("train", "ramana-dnn", "set", "--set", "optimizer"), "KEY=VALUE"),
        (("train", "--resume", "no-such"), "no comparison or training 'no-such'"),
        (("compare", "set", "--resume", "x"), "leave out the other arguments"),
    ],
)
def test_bad_input_of_trainings_gets_one_sentence(
    refused: Callable[..., str], arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    """A mistyped argument gives one sentence, before any file is created."""
    assert sentence in refused(*arguments, "--storage", tmp_path)
    assert list(tmp_path.iterdir()) == []
