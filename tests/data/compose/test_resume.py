"""A killed or interrupted run can be resumed, and writes the same files as an uninterrupted one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.compose.compose import refuse_unfinished
from data.compose.composition import Composition
from data.compose.estimate import plan_composition
from data.compose.materialise import materialise, run_record
from data.compose.pieces import PieceFolder
from data.compose.sources import open_sources
from data.dataset.dataset import Dataset
from data.errors import InputError
from tests.data.compose.compose_kit import kit, photo, put

PROGRAM = """
import sys
from pathlib import Path
from data.compose.composition import Composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
root = Path(sys.argv[1])
composition = Composition(
    backgrounds=root / "bg", foregrounds=root / "fg", depths=root / "depth", depth_unit="mm", size=32,
    placements=int(sys.argv[2]), flips=True,
)
materialise(composition, open_sources(composition), root / "set", processes=2)
"""


def options(root: Path, placements: int) -> dict[str, Any]:
    return kit(root) | {"size": 32, "placements": placements, "flips": True}


def run(
    given: dict[str, Any], destination: Path, processes: int = 1, on_sample: Callable[[int], None] | None = None
) -> None:
    composition = Composition(**given)
    materialise(composition, open_sources(composition), destination, processes=processes, on_sample=on_sample)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def stop_after(count: int) -> Callable[[int], None]:
    def stop(number: int) -> None:
        if number == count:
            raise KeyboardInterrupt

    return stop


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if int(line.split()[1]) == pid]


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "this takes far too long"
        time.sleep(0.02)


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set's fingerprint, and each of its files, must be the same on every machine."""
    monkeypatch.setattr("data.compose.pieces.MIN_SAMPLES_PER_PROCESS", 1)
    given = options(tmp_path, 110)  # four pieces
    run(given, tmp_path / "one")
    run(given, tmp_path / "three", processes=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


@pytest.mark.slow
def test_killed_run_can_be_resumed(tmp_path: Path) -> None:
    """What is finished is not composed again, no worker outlives the run, and the set is that of a whole run."""
    given = options(tmp_path, 250)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), "250"]
    pieces = tmp_path / ".set.compose"
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    try:
        wait_until(lambda: any(pieces.glob("piece-*.arrow")) or process.poll() is not None)
        workers = children(process.pid)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert workers
    wait_until(lambda: not any(is_alive(worker) for worker in workers))
    assert not (tmp_path / "set").exists()
    finished = {path.name: path.stat().st_mtime_ns for path in pieces.glob("piece-*.arrow")}
    assert finished
    (pieces / ".set.partial-1").mkdir()  # as a run that is killed while it writes leaves it

    seen: dict[str, int] = {}

    def look(number: int) -> None:
        if number == 1:
            seen.update({path.name: path.stat().st_mtime_ns for path in pieces.glob("piece-*.arrow")})
            assert not (pieces / ".set.partial-1").exists()

    run(given, tmp_path / "set", on_sample=look)
    assert {name: seen[name] for name in finished} == finished
    assert not pieces.exists()

    (tmp_path / "elsewhere").mkdir()
    run(given, tmp_path / "elsewhere/set", processes=2)
    assert contents(tmp_path / "set") == contents(tmp_path / "elsewhere/set")


@pytest.mark.slow
def test_interrupted_run_can_be_resumed(tmp_path: Path) -> None:
    """Ctrl-C leaves the finished pieces, and nothing at the destination."""
    given = options(tmp_path, 110)
    with pytest.raises(KeyboardInterrupt):
        run(given, tmp_path / "set", on_sample=stop_after(300))
    assert not (tmp_path / "set").exists()
    assert len(list((tmp_path / ".set.compose").glob("piece-*.arrow"))) == 2

    composition = Composition(**given)
    plan = plan_composition(composition, open_sources(composition), tmp_path / "set", processes=1)
    assert (plan.samples, plan.pieces, plan.pieces_finished) == (880, 4, 2)
    run(given, tmp_path / "set")
    run(given, tmp_path / "whole")
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_complete_data_set_is_moved_to_its_destination(tmp_path: Path) -> None:
    """A run that is killed at the very end has nothing left to compose."""
    given = options(tmp_path, 2)
    run(given, tmp_path / "set")
    composition, folder = Composition(**given), PieceFolder(tmp_path / "set")
    with folder.locked(run_record(composition, open_sources(composition))):
        (tmp_path / "set").rename(folder.dataset)
    run(given, tmp_path / "set", on_sample=stop_after(1))
    assert Dataset.open(tmp_path / "set", verify=True).info.counts.samples == 16


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 1}, "other values of seed;"),
        ({"placements": 3, "scale": (0.3, 0.4)}, "other values of placements and scale;"),
        ({"depth_far": 4.0}, "other values of depth;"),
    ],
)
def test_other_arguments_are_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    """Pieces of two runs must not be mixed, and a mistyped argument must not discard hours of work."""
    given = options(tmp_path, 2)
    with pytest.raises(KeyboardInterrupt):
        run(given, tmp_path / "set", on_sample=stop_after(1))
    with pytest.raises(InputError, match=said):
        run(given | changed, tmp_path / "set")
    run(given, tmp_path / "set")
    assert Dataset.open(tmp_path / "set").info.counts.samples == 16


def test_a_record_without_pieces_refuses_nothing(tmp_path: Path) -> None:
    """A run that is killed when its data set is complete, or before its first piece, leaves nothing to resume."""
    given = options(tmp_path, 2)
    with PieceFolder(tmp_path / "set").locked({"seed": "of another run"}):
        pass
    refuse_unfinished(tmp_path / "set")
    run(given, tmp_path / "set")
    assert not (tmp_path / ".set.compose").exists()


def test_changed_sources_are_refused(tmp_path: Path) -> None:
    """An image that was replaced between two runs, and one that is replaced during a run."""
    given = options(tmp_path, 2)
    composition = Composition(**given)
    sources = open_sources(composition)
    with pytest.raises(KeyboardInterrupt):
        run(given, tmp_path / "set", on_sample=stop_after(1))
    put(tmp_path / "bg/room1.png", photo(9))
    with pytest.raises(InputError, match="other values of backgrounds;"):
        run(given, tmp_path / "set")
    with pytest.raises(InputError, match=r"room1.png' was changed while"):
        materialise(composition, sources, tmp_path / "other", processes=1)


def test_concurrent_second_run_is_refused(tmp_path: Path) -> None:
    """Two runs would remove each other's partial files."""
    given = options(tmp_path, 2)
    composition = Composition(**given)
    with (
        PieceFolder(tmp_path / "set").locked(run_record(composition, open_sources(composition))),
        pytest.raises(InputError, match="Another process composes"),
    ):
        run(given, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_damaged_piece_is_named(tmp_path: Path) -> None:
    """By its file, which is all that there is to remove."""
    given = options(tmp_path, 110)
    with pytest.raises(KeyboardInterrupt):
        run(given, tmp_path / "set", on_sample=stop_after(300))
    piece = tmp_path / ".set.compose/piece-000000.arrow"
    piece.write_bytes(piece.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"piece-000000.arrow' cannot be read"):
        run(given, tmp_path / "set")
    piece.unlink()
    run(given, tmp_path / "set")
    assert Dataset.open(tmp_path / "set").info.counts.samples == 880


def test_an_altered_piece_is_named(tmp_path: Path) -> None:
    """Its images are not decoded when they are copied, so that a faulty disk shows in their checksum only."""
    given = options(tmp_path, 110)
    with pytest.raises(KeyboardInterrupt):
        run(given, tmp_path / "set", on_sample=stop_after(300))
    piece = tmp_path / ".set.compose/piece-000000.arrow"
    content = bytearray(piece.read_bytes())
    content[content.index(b"\xff\xd8", len(content) // 2) + 300] ^= 1  # in a photograph
    piece.write_bytes(content)
    with pytest.raises(InputError, match=r"piece-000000.arrow' cannot be read \(the checksum of its samples differs"):
        run(given, tmp_path / "set")


def test_an_existing_destination_is_left_alone(tmp_path: Path) -> None:
    """It is refused before anything is composed."""
    given = options(tmp_path, 2)
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError, match="exists already"):
        run(given, tmp_path / "set")
    assert not (tmp_path / ".set.compose").exists()


def test_growing_a_data_set_keeps_its_samples(tmp_path: Path) -> None:
    """A sample depends on its own pictures' names and contents, not on what else is in the folders."""
    given = options(tmp_path, 2)
    run(given, tmp_path / "small")
    put(tmp_path / "bg/attic.png", photo(7))
    shutil.copy(tmp_path / "depth/room0.png", tmp_path / "depth/attic.png")
    shutil.copy(tmp_path / "fg/thing0.png", tmp_path / "fg/first.png")
    run(given | {"placements": 3}, tmp_path / "large")
    small, large = (
        {sample.sample_id: sample for sample in Dataset.open(tmp_path / name).read_encoded()}
        for name in ("small", "large")
    )
    assert len(large) == 3 * 3 * 2 * 3
    assert {name: large[name] for name in small} == small


def test_another_seed_gives_other_placements(tmp_path: Path) -> None:
    """And so do the next placement, and the other direction."""
    given = options(tmp_path, 2)
    masks = []
    for seed in (0, 1):
        run(given | {"seed": seed}, tmp_path / f"seed{seed}")
        masks += [sample.mask.tobytes() for sample in Dataset.open(tmp_path / f"seed{seed}").read()]
    assert len(set(masks)) > 0.9 * len(masks)


def test_estimated_size_is_close(tmp_path: Path) -> None:
    """The size is within 30 %; the time is more than 0."""
    given = options(tmp_path, 100)
    composition = Composition(**given)
    sources = open_sources(composition)
    plan = plan_composition(composition, sources, tmp_path / "set", processes=1)
    info = materialise(composition, sources, tmp_path / "set", processes=1)
    assert plan.samples == info.counts.samples == 800
    assert plan.bytes == pytest.approx(sum(part.bytes for part in info.parts), rel=0.3)
    assert plan.seconds > 0


def test_insufficient_space_is_reported_before_composing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the free and the needed space, before hours of composing."""
    composition = Composition(**options(tmp_path, 100))
    sources = open_sources(composition)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**5))
    with pytest.raises(InputError, match=r"has 100 kB free, but composing takes about .* MB, half"):
        plan_composition(composition, sources, tmp_path / "deep/down/set")
