"""Output on narrow terminals: the time left stays visible, and tables leave out columns instead of wrapping."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest
from rich.console import Console

from search.recipes.listing import RecipeRow, show_recipes
from search.terminal import Screen, print_table

ROW = RecipeRow(
    name="birender-resnet",
    source="BirenderPanwar",
    family="resnet-dual",
    width=32,
    losses="bce mask, ssim + l1 depth",
    optimizer="sgd 0.5, nesterov 0.9",
    policy="one-cycle",
    parameters=11_000_000,
    macs=18_210_000_000,
    image_size=224,
    epochs=16,
    batch_size=16,
    metric="none",
    faithful=False,
)


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_time_left_is_visible(width: int) -> None:
    """How long a search still takes matters more than the note beside it, which is cut off first."""
    console = terminal(width)
    note = "2 running, best score 0.6123, and a note that no terminal has room for"
    with Screen(console).bar("searching", 240, "trials", note=note):
        pass
    [line, *_] = (line for line in written(console).splitlines() if "searching" in line)

    assert "· left -:--:--" in line
    assert "0/240 trials" in line
    assert "…" in line


def test_a_table_leaves_out_the_least_important_columns() -> None:
    """Only as many as must be, and they are named."""
    narrow, wide = terminal(50), terminal(100)
    for console in (narrow, wide):
        print_table(console, [dict.fromkeys("abc", "x" * 20)], optional=["b", "c"])

    assert [len(line.split()) for line in written(narrow).splitlines()[:2]] == [2, 2]
    assert "not shown in 50 columns: b (--json shows everything)" in written(narrow)
    assert [len(line.split()) for line in written(wide).splitlines()] == [3, 3]


def test_recipes_have_a_line_each_on_80_columns() -> None:
    """Wrapped into a column of eight characters, none of it could be read."""
    console = terminal(80)
    show_recipes(console, [ROW])
    lines = written(console).splitlines()

    assert lines[1].split() == ["birender-resnet", "resnet-dual", "32", "11,000,000", "18.21", "G", "at", "224"]
    assert "not shown in 80 columns: losses, optimizer and policy" in lines[2]


@pytest.mark.parametrize("width", [80, 70, 60])
def test_numbers_are_whole_on_narrow_terminals(width: int) -> None:
    """A wrong number: Rich crops a column that must not wrap, and 1.234 G was shown as 1.234."""
    numbers = {"trial": "12", "score": "0.8123", "macs": "1.234 G", "ms_per_picture": "12.34"}
    texts = {
        "network": "resnet-dual of width 32, recipe birender-resnet",
        "checkpoint": "trials/00012/checkpoint_000015",
    }
    console = terminal(width)
    print_table(
        console, [numbers | texts], left=["network"], wrapped="checkpoint", optional=["checkpoint"], title="trade-offs"
    )
    _, headings, first, *rest = written(console).splitlines()

    assert headings.split() == [*numbers, "network"]
    assert first.split()[:5] == ["12", "0.8123", "1.234", "G", "12.34"]
    assert "resnet-dual of width 32, recipe birender-resnet" in " ".join(f"{first} {' '.join(rest)}".split())
    assert all(len(line) <= width for line in (headings, first))


def test_lines_of_a_table_have_no_blanks_at_their_ends() -> None:
    """Noise in a copied table, and empty lines where the terminal becomes narrower."""
    console = terminal(80)
    print_table(console, [{"name": "a", "what": "short"}, {"name": "b", "what": "a longer text"}], left=["what"])

    assert written(console).splitlines() == ["name  what", "   a  short", "   b  a longer text"]


def test_an_output_that_cannot_be_written_does_not_end_the_work(tmp_path: Path) -> None:
    """Standard error may be a file on a full disk; the log of the run has the line anyway, if there is room."""

    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    screen = Screen(Console(file=Full()))
    with screen.logging_to(tmp_path / "driver.log"):
        screen.say("trial 3 starts")
    assert (tmp_path / "driver.log").read_text().endswith("trial 3 starts\n")
