"""The `spec` command: prints a commented spec, or checks one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.errors import InputError
from search.cli.shared import BAD_INPUT, json_option, pair, plugins_option, print_result, refuse_twice

if TYPE_CHECKING:
    from trainable.config import Problem


@click.command(
    epilog="\b\nExamples:\n  twinhead spec --data classroom > spec.yaml\n  twinhead spec --check spec.yaml\n"
    "  twinhead spec --set budget.patience=10 --data classroom > spec.yaml"
)
@click.option("--check", "file", type=click.Path(path_type=Path), metavar="FILE", help="Check this spec; print none.")
@click.option("--data", help="The data set.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a key of the spec; may be repeated.")
@plugins_option
@json_option
def spec(file: Path | None, data: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print a commented spec with all defaults, or check a spec.

    --check prints what would be searched, or every error with FILE:LINE:COLUMN and exits with code 2.
    """
    from search.spec.spec import load_spec
    from search.spec.template import as_text, describe, summary_lines
    from search.spec.trackers import check_packages
    from search.strategy.warm_start import starts_within

    pairs = [pair(override) for override in overrides]
    refuse_twice(pairs, "data.path", "--data", data)
    if file is None:
        printed = load_spec(overrides=pairs, data_path=data or "DATA")
        print_result(printed.as_plain(), as_json, lambda: click.echo(as_text(printed), nl=False))
        return
    try:
        checked = load_spec(file, pairs, data_path=data)
        check_packages(checked.plan, file, overridden=[key for key, _ in pairs])
    except InputError as error:
        _refuse(error, as_json)
    count, outside = starts_within(checked)
    within = f"{count} of {count + len(outside)} are within the space" if count or outside else ""
    lines = [f"{file}: ok", *summary_lines(checked, within)]
    print_result({"ok": True, **describe(checked), "outside": outside}, as_json, lambda: click.echo("\n".join(lines)))


def _refuse(error: InputError, as_json: bool) -> None:
    """Print every problem and exit."""
    from trainable.config import ConfigError, Problem

    problems = error.problems if isinstance(error, ConfigError) else (Problem(key="", sentence=str(error)),)
    if as_json:
        print_result({"ok": False, "problems": [_plain(problem) for problem in problems]}, True, lambda: None)
    for problem in problems:
        click.echo(str(problem), err=True)
    sys.exit(BAD_INPUT)


def _plain(problem: Problem) -> dict[str, object]:
    location = problem.place
    return {
        "file": problem.file or None,
        "line": location.line if location else None,
        "column": location.column if location else None,
        "key": problem.key or None,
        "sentence": problem.sentence,
    }
