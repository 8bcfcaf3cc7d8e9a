"""The state of a search as rows for a terminal, and as one line for a log.

`search`, `compare`, `train` and `retrain` show them while they run, `twinhead status --watch` from another terminal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from search.results.status import ACTIVE, SearchStatus
from search.terminal import Ragged, clock

SPARKS = "▁▂▃▄▅▆▇█"
SPARK_COLUMNS = 24
"""Longest sparkline."""
TITLE_COLUMNS = 12
DOING = {"search": "searching", "compare": "comparing", "train": "training"}
STYLES = {"failed": "red", "damaged": "red", "lost": "red", "waiting": "yellow", "finished": "green"}
"""Colours of states; the words say the same."""


def view(status: SearchStatus, width: int) -> RenderableType:
    """The state as titles and texts, at most `width` columns wide."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=TITLE_COLUMNS - 2, style="dim")
    table.add_column(overflow="fold")
    for name, text in rows(status, width - TITLE_COLUMNS).items():
        table.add_row(name, text)
    return Ragged(table)


def rows(status: SearchStatus, width: int) -> Mapping[str, Text]:
    """The rows by title, each at most `width` columns wide where its parts can be on several lines."""
    columns = max(8, min(24, width // 4))
    style = f"bold {STYLES.get(status.state, '')}".rstrip()
    found: dict[str, Text] = {status.kind: Text.assemble(f"{status.name}: ", (doing(status), style))}
    retraining, budget = status.retraining, status.budget
    if status.state in ACTIVE:
        found["time"] = Text(" · ".join(filter(None, (clock(3600 * budget.hours), left(status)))))
    if retraining is not None:
        found["epochs"] = _bar(retraining.epoch, retraining.epochs, columns)
        if retraining.losses:
            found["loss"] = Text.assemble(
                "training ",
                (f"{retraining.losses[-1]:.4f} ", "bold"),
                (sparkline(retraining.losses, columns), "cyan"),
            )
    elif status.max_epochs is not None:
        found["epochs"] = _bar(status.epochs, status.max_epochs, columns)
    if budget.max_trials > 1:
        counts = [Text(f"{count} {name}") for name, count in status.trials.items() if count]
        found["trials"] = _joined([_bar(budget.trials, budget.max_trials, columns), *counts], width)
    found["best"] = _best(status, columns)
    if status.best is not None and status.best.settings:
        found[""] = Text(status.best.settings)
    if status.rungs and retraining is None:
        found["rungs"] = _rungs(status, width)
    if status.kind == "search":
        found["used"] = Text(spent(status))
    if status.cpus_busy or status.gpus_busy:
        found["speed"] = _speed(status, width)
    return found


def line(status: SearchStatus) -> str:
    """The state in one line, without its settings."""
    budget, parts = status.budget, []
    if status.retraining is not None:
        parts.append(f"epoch {status.retraining.epoch} of {status.retraining.epochs}")
        parts += [f"training loss {status.retraining.losses[-1]:.4f}"] if status.retraining.losses else []
    else:
        parts += [f"epoch {status.epochs} of {status.max_epochs}"] if status.max_epochs is not None else []
        parts += [f"{budget.trials} of {budget.max_trials} trials ended"] if budget.max_trials > 1 else []
        parts += [f"{status.trials['running']} running"] if status.trials.get("running") else []
    if status.best is not None:
        whose = f" of trial {status.best.trial}" if budget.max_trials > 1 else ""
        parts.append(f"best {status.objective} {status.best.value:.4f}{whose}")
    if status.state in ACTIVE:
        parts += [f"{status.samples_per_second:,.0f} samples/s"] if status.samples_per_second else []
        parts.append(f"{clock(3600 * budget.hours)} so far")
        parts += [left(status)] if status.seconds_left is not None and not is_measuring(status) else []
    return f"{doing(status)}: {', '.join(parts)}"


def doing(status: SearchStatus) -> str:
    """The state in a word or two, with its reason."""
    return f"{in_words(status)} ({status.reason})" if status.reason else in_words(status)


def in_words(status: SearchStatus) -> str:
    """The state in a word or two: what a running command does."""
    words: str = status.state
    if status.state == "running":
        words = "retraining" if status.retraining is not None else DOING[status.kind]
        words = "measuring on the test images" if is_measuring(status) else words
    elif status.state == "waiting":
        words = "waits for room on the cluster"
    return words


def spent(status: SearchStatus) -> str:
    """The used budget: hours and, if GPUs are used or limited, GPU hours."""
    budget = status.budget

    def of(used: float, limit: float | None, unit: str) -> str:
        return f"{used:.2f}{f' of {limit:g}' if limit is not None else ''} {unit}"

    gpu = budget.gpu_hours or budget.max_gpu_hours
    return of(budget.hours, budget.max_hours, "h") + (
        f", {of(budget.gpu_hours, budget.max_gpu_hours, 'GPU h')}" if gpu else ""
    )


def sparkline(values: Sequence[float], columns: int = SPARK_COLUMNS) -> str:
    """Values as a line of blocks from the smallest to the largest; each block is the last value of its share."""
    columns = min(columns, SPARK_COLUMNS, len(values))
    shown = [values[(number + 1) * len(values) // columns - 1] for number in range(columns)]
    shown = [value for value in shown if math.isfinite(value)]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1)) if span else 0] for value in shown)


def left(status: SearchStatus) -> str:
    """The time left, or why it is not known; '' while only the measurement on test is left."""
    if is_measuring(status):
        return ""
    if status.seconds_left is not None:
        about = f"about {clock(status.seconds_left)}"
        is_of_trials = status.kind == "search" and status.retraining is None
        return f"its trials end in {about}" if is_of_trials else f"{about} left"
    if status.retraining is None and status.budget.trials >= status.budget.max_trials:
        return "its trials have ended; the retraining and the test remain"
    first = "an epoch" if status.retraining is not None or status.max_epochs is not None else "a trial"
    return f"time left unknown before {first} ended"


def is_measuring(status: SearchStatus) -> bool:
    """Whether all trainings are complete, and their networks are measured on the test images."""
    if status.retraining is not None:
        return status.retraining.epoch >= status.retraining.epochs
    return status.max_epochs is not None and status.budget.trials >= status.budget.max_trials


def _bar(done: float, total: float, columns: int) -> Text:
    full = round(columns * min(1.0, done / total)) if total else 0
    return Text.assemble(("━" * full, "cyan"), ("─" * (columns - full), "dim"), f"  {done:g} of {total:g}")


def _joined(parts: Sequence[Text], width: int) -> Text:
    """Parts with dots between them, on several lines if they do not fit on one."""
    shown, used = Text(), 0
    for part in parts:
        between = " · " if used else ""
        if used and used + len(between) + part.cell_len > width:
            between, used = "\n", 0
        shown.append(between).append_text(part)
        used += part.cell_len + (len(between) if between != "\n" else 0)
    return shown


def _best(status: SearchStatus, columns: int) -> Text:
    best = status.best
    if best is None:
        return Text("none yet")
    whose = f"trial {best.trial}, epoch {best.epoch}" if status.budget.max_trials > 1 else f"epoch {best.epoch}"
    recipe = f", {best.recipe}" if best.recipe and status.kind != "train" else ""
    return Text.assemble(
        f"{status.objective} ",
        (f"{best.value:.4f} ", "bold"),
        (sparkline(status.scores, columns), "green"),
        f" {whose}{recipe}",
    )


def _rungs(status: SearchStatus, width: int) -> Text:
    """Each rung with the number of its trials, and a block of that height."""
    most = max([1, *status.rungs.values()])
    blocks = {
        rung: SPARKS[count and 1 + round(count / most * (len(SPARKS) - 2))] for rung, count in status.rungs.items()
    }
    parts = [
        Text.assemble(f"epoch {rung} ", (blocks[rung], "cyan"), f" {count}") for rung, count in status.rungs.items()
    ]
    return _joined(parts, width)


def _speed(status: SearchStatus, width: int) -> Text:
    busy = [f"{count:g} {unit}" for count, unit in ((status.cpus_busy, "CPU"), (status.gpus_busy, "GPU")) if count]
    parts = [f"{status.samples_per_second:,.0f} samples/s"] if status.samples_per_second else []
    parts.append(f"{' and '.join(busy)} in use")
    if status.retraining is None and (status.concurrent or 0) > 1:
        parts.append(f"{status.concurrent} trials at a time")
    return _joined([Text(part) for part in parts], width)
