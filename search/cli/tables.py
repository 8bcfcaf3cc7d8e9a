"""Tables and lines that the commands print; `--json` prints the same values as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.byte_size import byte_size
from data.dataset.manifest import DatasetInfo
from data.errors import InputError
from search.commands import cited, shell_command
from search.results.export import baseline_metrics, verdict
from search.results.front import shown
from search.spec.describe import describe
from search.study.experiment import Experiment
from search.study.summary import Difference, FrontRow, StepCounts, Summary, TrainingSummary
from search.terminal import clock
from trainable.config import TrialConfig, build
from trainable.metrics.names import OBJECTIVE

ROWS = ("score", "mask_iou", "mask_rmse", "depth_delta1", "depth_rmse")


def show_metrics(console: Console, title: str, columns: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table with a row for each metric and a column for each of `columns`."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for row in ROWS:
        cells = (f"{values[row]:.4f}" if row in values else "–" for values in columns.values())
        table.add_row(row, *cells)
    console.print(table)


def show_summary(console: Console, experiment: Experiment, summary: Summary) -> None:
    """Print the result of a search, and the paths of its files."""
    counts = ", ".join(f"{count} {name}" for name, count in summary.outcomes.items() if count)
    console.print(
        f"\n[bold]{summary.name}[/bold]: {summary.trials} trials ({counts}), {summary.epochs} epochs, "
        f"{summary.seconds:.0f} s",
        highlight=False,
    )
    if (best := summary.best) is not None:
        console.print(
            f"best trial {best.trial} with validation score {best.score:.4f} at epoch {best.epoch}: "
            f"{describe_config(best.config)}",
            highlight=False,
            soft_wrap=True,
        )
    _show_warning(console, summary.optimizer_steps)
    _show_test(console, experiment, summary)
    if summary.front and len(summary.front[0].objectives) > 1:
        console.print("\n[bold]trade-offs[/bold]: no other trial beats these in every objective")
        show_front(console, experiment, summary.front)
    console.print()
    for name, path in _paths(experiment, summary).items():
        console.print(f"{name:<12}{path}", highlight=False, markup=False, soft_wrap=True)


def show_front(console: Console, experiment: Experiment, front: Sequence[FrontRow]) -> None:
    """Print the trials on a front, and the command that exports one."""
    table = Table(box=None, pad_edge=False)
    for column in ("trial", "epoch", *front[0].objectives):
        table.add_column(column, justify="right")
    table.add_column("network")
    table.add_column("checkpoint", overflow="fold")
    for row in front:
        figures = (shown(value) for value in row.objectives.values())
        name = f"{row.family} of width {row.width}" + (f", recipe {row.recipe}" if row.recipe else "")
        table.add_row(str(row.trial), str(row.epoch), *figures, name, row.checkpoint)
    console.print(table)
    middle = front[len(front) // 2].trial
    command = shell_command("twinhead", "best", experiment.name, "--trial", middle, "--storage", experiment.storage)
    console.print(f"take one of them, such as trial {middle}: {command}", highlight=False, markup=False, soft_wrap=True)


def show_training(console: Console, storage: Path, summary: TrainingSummary) -> None:
    """Print the result of `twinhead train`, and the path of its network."""
    console.print(
        f"\n[bold]{summary.name}[/bold]: recipe {summary.recipe}{', faithful' if summary.faithful else ''}, "
        f"{summary.epochs} epochs, {summary.seconds:.0f} s; validation picked epoch {summary.epoch}",
        highlight=False,
        soft_wrap=True,
    )
    _show_warning(console, summary.optimizer_steps)
    columns = {"baselines": baseline_metrics(summary.baselines), "network": summary.metrics}
    console.print()
    show_metrics(console, "on the test images", columns)
    show_verdict(console, summary.metrics, summary.baselines)
    for name, value in summary.published.items():
        console.print(f"{name:<18}{value:.4f}  (the project's own metric)", highlight=False, soft_wrap=True)
    console.print(f"\nnetwork     {storage / summary.name / summary.checkpoint}", highlight=False, soft_wrap=True)


def show_verdict(console: Console, metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]) -> None:
    """Print the metrics in which a network loses to the baselines."""
    for sentence in verdict(metrics, baselines):
        console.print(f"[bold]note:[/bold] {sentence}", highlight=False, soft_wrap=True)


def _gain_over_recipe(summary: Summary) -> list[str]:
    """Lines on the best trial's test metrics relative to those of the best recipe with the same number of epochs."""
    best, recipe, beyond = summary.best, summary.recipe, summary.beyond_recipe
    if not (best and recipe and beyond):
        return []
    if best.trial == recipe.trial:
        return [f"no trial is better than the recipe {recipe.recipe}"]
    gains = ", ".join(_gain(metric, found) for metric, found in beyond.items())
    lines = [f"trial {best.trial} minus the recipe {recipe.recipe}, with 95 % intervals over backgrounds: {gains}"]
    low = beyond[OBJECTIVE].low
    if low is not None and low <= 0:
        lines.append("the score's interval contains 0: the trial is not clearly better than the recipe on these images")
    return lines


def _gain(metric: str, found: Difference) -> str:
    """A difference with its interval, if there is one: it needs several backgrounds."""
    value, low, high = ("" if end is None else f"{end:+.4f}" for end in (found.value, found.low, found.high))
    return f"{metric} {value} ({low} to {high})" if low else f"{metric} {value}"


def describe_config(config: Mapping[str, Any]) -> str:
    """A configuration's main choices in one line."""
    return str(describe(build(TrialConfig, config, source="the summary")))


def show_dry_run(console: Console, found: Mapping[str, Any]) -> None:
    """Print the estimate of a search's cost, and its first configurations."""
    smallest, largest = found["networks"]["smallest"], found["networks"]["largest"]
    samples, epochs = found["samples"], found["epochs"]
    lines = {
        "trials": f"{found['trials']}, {found['concurrent']} at a time on this machine",
        "samples": f"{samples['train']} to train on, {samples['val']} to validate, {samples['test']} to test",
        "epochs": f"{epochs['fewest']} as trials are stopped early, {epochs['most']} if none were",
        "steps": f"{_counts(found['optimizer_steps'])} of the optimizer in a whole trial",
        "time": " to ".join(clock(3600 * hours) for hours in found["hours"]),
        "GPU-hours": _between(found["gpu_hours"], ".2g"),
        "disk": " and ".join(f"{byte_size(value)} of {name}" for name, value in found["bytes"].items()),
    }
    for end, network in (("smallest", smallest), ("largest", largest)):
        lines[end] = (
            f"{network['family']} of width {network['width']}: {network['parameters']:,} parameters, "
            f"{network['multiply_adds']:,} multiply-adds, {network['samples_per_second']:,.1f} samples/s"
        )
    for name, text in lines.items():
        console.print(f"{name:<12}{text}", highlight=False, soft_wrap=True)
    _show_warning(console, StepCounts(**found["optimizer_steps"]))
    console.print(
        "\nTimes are for training and validation, if all trials had the smallest or the largest network;\n"
        "the start of trials and the retraining are not included.",
        highlight=False,
    )
    if found["outside"]:
        console.print()
    for name, reason in found["outside"].items():
        console.print(f"outside the space: {name}: {reason}", highlight=False, soft_wrap=True)
    console.print("\n[bold]first trials[/bold]")
    for number, first in enumerate(found["first"]):
        whose = first["recipe"] or first["earlier"] or "proposed"
        console.print(f"{number:>3}  {whose}: {_first(first)}", highlight=False, soft_wrap=True)


def _show_warning(console: Console, steps: StepCounts | None) -> None:
    """Warn about too few optimizer steps; summaries of earlier versions have no count."""
    if steps is not None and steps.warning:
        console.print(f"[bold]warning:[/bold] {steps.warning}", highlight=False, soft_wrap=True)


def _counts(steps: Mapping[str, int]) -> str:
    ends = sorted({steps["fewest"], steps["most"]})
    return " to ".join(f"{count:,}" for count in ends)


def _first(first: Mapping[str, Any]) -> str:
    """A trial's main choices; its parameters if they are not a valid configuration."""
    try:
        return describe_config(first["config"])
    except InputError:
        return ", ".join(f"{key} {_short(value)}" for key, value in first["parameters"].items())


def _between(ends: Sequence[float], form: str) -> str:
    low, high = ends
    return f"{low:{form}} to {high:{form}}" if high else "0"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_dataset(console: Console, path: Path | str, info: DatasetInfo, sheet: Path | None) -> None:
    """Print the contents of a data set."""
    counts, statistics = info.counts, info.statistics
    sizes = ", ".join(f"{size.width} × {size.height} ({size.samples})" for size in info.sizes)
    lines = {
        "data set": str(path),
        "samples": f"{counts.samples} with {counts.backgrounds} backgrounds and {counts.foregrounds} foregrounds",
        "pixels": sizes,
        "depth": info.depth_polarity,
        "mask": f"covers {statistics.mask_fraction.mean:.1%} of an image on average "
        f"({statistics.mask_fraction.min:.1%} to {statistics.mask_fraction.max:.1%})",
        "bytes": f"{sum(part.bytes for part in info.parts):,} in {len(info.parts)} parts",
        "fingerprint": info.fingerprint,
    }
    if sheet is not None:
        lines["sheet"] = str(sheet)
    for name, value in lines.items():
        console.print(f"{name:<12}{value}", highlight=False, soft_wrap=True)
    table = Table(title="\nchannels, 0..1", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in ("", "mean", "standard deviation"):
        table.add_column(heading)
    for name in ("bg", "fg_bg", "mask", "depth"):
        channel = getattr(statistics, name)
        table.add_row(name, *(" ".join(f"{value:.4f}" for value in row) for row in (channel.mean, channel.std)))
    console.print(table)


def _show_test(console: Console, experiment: Experiment, summary: Summary) -> None:
    """Print the test metrics; nothing before the retraining."""
    best, retrained, baselines = summary.best, summary.retrained, summary.baselines
    if best is None or retrained is None or baselines is None:
        return
    columns = {
        "baselines": baseline_metrics(baselines),
        f"trial {best.trial}": best.test,
        "retrained": retrained.metrics,
    }
    if summary.recipe is not None:
        columns = {f"recipe {summary.recipe.recipe}": summary.recipe.test} | columns
    console.print()
    show_metrics(console, "on the test images", columns)
    for sentence in _gain_over_recipe(summary):
        console.print(sentence, highlight=False, soft_wrap=True)
    show_verdict(console, retrained.metrics, baselines)
    if retrained.metrics[OBJECTIVE] < best.test[OBJECTIVE]:
        command = shell_command(
            "twinhead", "best", experiment.name, "--trial", best.trial, "--storage", experiment.storage
        )
        console.print(
            f"[bold]note:[/bold] the retrained network loses to trial {best.trial}: {OBJECTIVE} "
            f"{retrained.metrics[OBJECTIVE]:.4f} against {best.test[OBJECTIVE]:.4f}; {escape(cited(command))} exports "
            "that one",
            highlight=False,
            soft_wrap=True,
        )


def _paths(experiment: Experiment, summary: Summary) -> dict[str, str]:
    paths = {
        "summary": str(experiment.summary_file),
        "best trial": str(experiment.best),
        "curves": shell_command("tensorboard", "--logdir", experiment.trials),
    }
    if "://" in summary.study:
        paths["study"] = shell_command("optuna-dashboard", summary.study)
    if summary.retrained:
        paths = {"retrained": str(experiment.retrained), "images": str(experiment.test_grid)} | paths
    paths["more"] = shell_command("twinhead", "trials", experiment.name, "--storage", experiment.storage)
    return paths
