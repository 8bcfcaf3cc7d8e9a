"""`train` and `compare` without a cluster: bad input gives one sentence, and nothing is created."""

from __future__ import annotations

import subprocess
import sys
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
        (("compare", "--resume", "x", "--epochs", "9"), "leave out the other arguments"),
        (("compare", "--resume", "x", "--recipes", "all"), "leave out the other arguments"),
        (("train", "--resume", "x", "--workers", "2"), "leave out the other arguments"),
        (("train", "ramana-dnn", "set", "--epochs", "2", "--set", "epochs=3"), "The key 'epochs' is set twice"),
        (("compare", "set", "--epochs", "2", "--set", "epochs=3"), "The key 'epochs' is set twice"),
    ],
)
def test_bad_input_of_trainings_gets_one_sentence(
    refused: Callable[..., str], arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    """A mistyped argument gives one sentence, before any file is created."""
    assert sentence in refused(*arguments, "--storage", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train no-such set", "There is no recipe 'no-such'"),
        ("train ramana-dnn set", "The data set 'set' does not exist"),
        ("train --resume no-such", "no comparison or training 'no-such'"),
        ("compare set --recipes no-such", "There is no recipe 'no-such'"),
        ("compare set", "The data set 'set' does not exist"),
        ("profile ramana-dnn set", "The data set 'set' does not exist"),
        ("profile ramana-dnn set --set model.wide=3", "The key 'model.wide' of --set is not known"),
    ],
)
def test_bad_input_is_refused_without_torch_and_ray(command: str, sentence: str, tmp_path: Path) -> None:
    """A delay: both were imported before the arguments were looked at, which takes five seconds."""
    code = (
        f"import sys; sys.argv[1:] = {command.split()!r}\nfrom search.cli.main import main\ntry: main()\n"
        "finally: print(*sorted({'torch', 'ray'} & {*sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.splitlines()[-1] == ""
