"""Tables and lines that the commands print; `--json` prints the same values as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from data.dataset.manifest import DatasetInfo, StoredSplit
from data.dataset.storage import Location
from data.errors import InputError
from data.quantities import byte_size, counted
from search.commands import cited, shell_command
from search.results.export import baseline_metrics, table_metrics, verdict
from search.results.front import shown
from search.study.experiment import Experiment
from search.study.summary import Difference, FrontRow, StepCounts, Summary, TrainingSummary, TrialSummary
from search.terminal import clock, percent, print_line, print_table
from trainable.config import TrialConfig, build
from trainable.config.describe import describe
from trainable.metrics.objective import SCORE, Objective


def show_metrics(
    console: Console,
    title: str,
    columns: Mapping[str, Mapping[str, float]],
    *,
    objective: Objective = SCORE,
    intervals: Mapping[str, Mapping[str, float | None]] | None = None,
) -> None:
    """Print a table with a row for each metric and a column for each of `columns`.

    Args:
        console: where it is printed.
        title: above the table.
        columns: values by metric.
        objective: whose row comes first.
        intervals: `low` and `high` by metric, of the last column.
    """
    rows = [
        {"": row} | {name: f"{values[row]:.4f}" if row in values else "–" for name, values in columns.items()}
        for row in table_metrics(objective)
    ]
    if intervals is not None:
        rows = [row | {"95 % interval": _interval(intervals.get(row[""], {}))} for row in rows]
    print_table(console, rows, left=[""], title=title)


def _interval(found: Mapping[str, float | None]) -> str:
    low, high = found.get("low"), found.get("high")
    return "–" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def show_summary(console: Console, experiment: Experiment, summary: Summary) -> None:
    """Print the result of a search, and the paths of its files."""
    counts = ", ".join(f"{count} {name}" for name, count in summary.outcomes.items() if count)
    print_line(
        console,
        f": {counted(summary.trials, 'trial')} ({counts}), {counted(summary.epochs, 'epoch')}, {summary.seconds:.0f} s",
        title=f"\n{summary.name}",
    )
    if (best := summary.best) is not None:
        print_line(
            console,
            f"best trial {best.trial} with validation {_named_value(summary, best)} at epoch {best.epoch}: "
            f"{describe_config(best.config)}",
        )
    _show_warning(console, summary.optimizer_steps)
    _show_test(console, experiment, summary)
    if summary.front and len(summary.front[0].objectives) > 1:
        print_line(console, ": no other trial beats these in every objective", title="\ntrade-offs")
        show_front(console, experiment, summary.front)
    console.print()
    for name, path in _paths(experiment, summary).items():
        print_line(console, f"{name:<12}{path}")


def show_front(console: Console, experiment: Experiment, front: Sequence[FrontRow]) -> None:
    """Print the trials on a front, and the command that exports one."""
    rows = [
        {
            "trial": str(row.trial),
            "epoch": str(row.epoch),
            **{name: shown(value) for name, value in row.objectives.items()},
            "network": f"{row.family} of width {row.width}" + (f", recipe {row.recipe}" if row.recipe else ""),
            "checkpoint": row.checkpoint or "",
        }
        for row in front
    ]
    print_table(console, rows, left=["network"], wrapped="checkpoint", optional=["checkpoint", "epoch"])
    middle = front[len(front) // 2].trial
    command = experiment.command("best", "--trial", middle)
    print_line(console, f"take one of them, such as trial {middle}: {command}")


def show_training(console: Console, storage: Path | Location, summary: TrainingSummary) -> None:
    """Print the result of `twinhead train`, and the path of its network."""
    print_line(
        console,
        f": recipe {summary.recipe}{', faithful' if summary.faithful else ''}, "
        f"{counted(summary.epochs, 'epoch')}, {summary.seconds:.0f} s; validation picked epoch {summary.epoch}",
        title=f"\n{summary.name}",
    )
    _show_warning(console, summary.optimizer_steps)
    columns = {"baselines": baseline_metrics(summary.baselines), "network": summary.metrics}
    console.print()
    show_metrics(console, "on the test images", columns)
    show_verdict(console, summary.metrics, summary.baselines)
    for name, value in summary.published.items():
        print_line(console, f"{name:<18}{value:.4f}  (the project's own metric)")
    print_line(console, f"\nnetwork     {storage / summary.name / summary.checkpoint}")


def _named_value(summary: Summary, best: TrialSummary) -> str:
    """The value of the objective on validation with its name; summaries of earlier versions have the score."""
    objective = Objective.of(summary.objective)
    value = f"{objective.key} {best.score if best.value is None else best.value:.4f}"
    return value if objective.key == objective.name else f"{value} ({objective.name})"


def show_verdict(
    console: Console,
    metrics: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    objective: Objective = SCORE,
) -> None:
    """Print the metrics in which a network loses to the baselines."""
    for sentence in verdict(metrics, baselines, objective):
        print_line(console, f" {sentence}", title="note:")


def _gain_over_recipe(summary: Summary) -> list[str]:
    """Lines on the best trial's test metrics relative to those of the best recipe with the same number of epochs."""
    best, recipe, beyond = summary.best, summary.recipe, summary.beyond_recipe
    if not (best and recipe and beyond):
        return []
    if best.trial == recipe.trial:
        return [f"no trial is better than the recipe {recipe.recipe}"]
    gains = ", ".join(_gain(metric, found) for metric, found in beyond.items())
    lines = [f"trial {best.trial} minus the recipe {recipe.recipe}, with 95 % intervals over backgrounds: {gains}"]
    objective = Objective.of(summary.objective)
    found = beyond[objective.key]
    if found.low is not None and found.high is not None:
        ends = objective.sign * found.low, objective.sign * found.high
        if max(ends) < 0:
            lines.append(
                f"the {objective.key}'s interval excludes 0: the trial is worse than the recipe on these images"
            )
        elif min(ends) <= 0:
            contains = f"the {objective.key}'s interval contains 0"
            lines.append(f"{contains}: the trial is not clearly better than the recipe on these images")
    if found.probability is not None:
        better = "better than the recipe on other backgrounds of this kind with a probability of"
        lines.append(f"trial {best.trial} is {better} {percent(found.probability)}")
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
        "time": " to ".join(dict.fromkeys(clock(3600 * hours) for hours in sorted(found["hours"]))),
        "GPU-hours": _between(found["gpu_hours"], ".2g"),
        "disk": " and ".join(f"{byte_size(value)} of {name}" for name, value in found["bytes"].items()),
    }
    for end, network in (("smallest", smallest), ("largest", largest)):
        lines[end] = (
            f"{network['family']} of width {network['width']}: {network['parameters']:,} parameters, "
            f"{network['multiply_adds']:,} multiply-adds, {network['samples_per_second']:,.1f} samples/s"
        )
    for name, text in lines.items():
        print_line(console, f"{name:<12}{text}")
    _show_warning(console, StepCounts(**found["optimizer_steps"]))
    print_line(
        console,
        "\nTimes are for training and validation, if all trials had the smallest or the largest network;\n"
        "the start of trials and the retraining are not included.",
    )
    if found["outside"]:
        console.print()
    for reason, names in _by_reason(found["outside"]).items():
        print_line(console, f"outside the space: {', '.join(names)}: {reason}")
    print_line(console, "", title="\nfirst trials")
    for number, first in enumerate(found["first"]):
        whose = first["recipe"] or first["portfolio"] or first["earlier"] or first["proposed_by"]
        print_line(console, f"{number:>3}  {whose}: {_first(first)}")


def _by_reason(outside: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of recipes and earlier trials by the reason why they are outside the space."""
    grouped: dict[str, list[str]] = {}
    for name, reason in outside.items():
        grouped.setdefault(reason.removeprefix("its "), []).append(name)
    return grouped


def _show_warning(console: Console, steps: StepCounts | None) -> None:
    """Warn about too few optimizer steps; summaries of earlier versions have no count."""
    if steps is not None and steps.warning:
        print_line(console, f" {steps.warning}", title="warning:")


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
        "samples": f"{counts.samples:,} with {counted(counts.backgrounds, 'background')} and "
        f"{counted(counts.foregrounds, 'foreground')}",
        "pixels": sizes,
        "images": "composed when they are read" if info.is_recipe else "stored",
        "depth": info.depth_polarity,
        **({"split": f"{shown_split(info.split)}, with data.split_by: stored"} if info.split else {}),
        "mask": f"covers {statistics.mask_fraction.mean:.1%} of an image on average "
        f"({statistics.mask_fraction.min:.1%} to {statistics.mask_fraction.max:.1%})",
        "bytes": f"{sum(part.bytes for part in info.parts):,} in {len(info.parts)} parts",
        "fingerprint": info.fingerprint,
    }
    if valid := statistics.valid_fraction:
        lines["depth"] += (
            f", measured in {valid.mean:.1%} of an image on average ({valid.min:.1%} to {valid.max:.1%}); "
            f"{valid.masks} of {counts.samples} samples have a validity mask"
        )
    lines |= {"sheet": str(sheet)} if sheet is not None else {}
    for name, value in lines.items():
        print_line(console, f"{name:<12}{value}")
    channels = {name: getattr(statistics, name) for name in ("bg", "fg_bg", "mask", "depth")}
    rows = [
        {
            "": name,
            "mean": " ".join(f"{value:.4f}" for value in channel.mean),
            "standard deviation": " ".join(f"{value:.4f}" for value in channel.std),
        }
        for name, channel in channels.items()
    ]
    measured = "" if info.statistics_samples is None else f", from {info.statistics_samples:,} samples at random"
    print_table(console, rows, left=rows[0], title=f"\nchannels, 0..1{measured}")


def shown_split(split: StoredSplit) -> str:
    """'70 train, 15 val and 15 test samples'."""
    return f"{split.train:,} train, {split.val:,} val and {split.test:,} test samples"


def _show_test(console: Console, experiment: Experiment, summary: Summary) -> None:
    """Print the test metrics; nothing before the retraining."""
    best, retrained, baselines = summary.best, summary.retrained, summary.baselines
    objective = Objective.of(summary.objective)
    if best is None or retrained is None or baselines is None:
        return
    columns = {
        "baselines": baseline_metrics(baselines, objective),
        f"trial {best.trial}": best.test,
        "retrained": retrained.metrics,
    }
    if summary.recipe is not None:
        columns = {f"recipe {summary.recipe.recipe}": summary.recipe.test} | columns
    console.print()
    show_metrics(console, "on the test images", columns, objective=objective)
    for sentence in _gain_over_recipe(summary):
        print_line(console, sentence)
    show_verdict(console, retrained.metrics, baselines, objective)
    if note := loss_by_retraining(experiment, summary):
        print_line(console, f" {note}", title="note:")


def loss_by_retraining(experiment: Experiment, summary: Summary) -> str:
    """A sentence if the retrained network is below the best trial on the test images; '' if not, or not measured."""
    retrained, best, objective = summary.retrained, summary.best, Objective.of(summary.objective)
    if retrained is None or best is None or not best.test:
        return ""
    ours, its = objective.value(retrained.metrics), objective.value(best.test)
    if objective.oriented(ours) >= objective.oriented(its):
        return ""
    command = experiment.command("best", "--trial", best.trial)
    report = experiment.command("report")
    return (
        f"the retrained network is below trial {best.trial} on the test images: {objective.key} {ours:.4f} against "
        f"{its:.4f}; {cited(report)} says whether that is real, and {cited(command)} exports that one"
    )


def _paths(experiment: Experiment, summary: Summary) -> dict[str, str]:
    paths = {
        "summary": str(experiment.in_storage(experiment.summary_file)),
        "best trial": str(experiment.in_storage(experiment.best)),
        "report": experiment.command("report"),
        "curves": experiment.command("tensorboard"),
    }
    if "://" in summary.study:
        paths["study"] = shell_command("optuna-dashboard", summary.study)
    if summary.retrained:
        retrained, grid = (experiment.in_storage(path) for path in (experiment.retrained, experiment.test_grid))
        paths = {"retrained": str(retrained), "images": str(grid)} | paths
    paths["more"] = experiment.command("trials")
    return paths
