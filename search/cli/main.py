"""The command line. Commands import what they need when they run: `twinhead --help` loads neither torch nor Ray."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data.disk import disk_error
from data.errors import InputError, UnfinishedError, without_comma
from search.cli.compose import compose
from search.cli.data import import_, inspect, render
from search.cli.front import front
from search.cli.predict import predict
from search.cli.profile import profile
from search.cli.recipes import recipes
from search.cli.shared import (
    BAD_INPUT,
    INTERRUPTED,
    console,
    json_option,
    pair,
    print_result,
    resumable,
    screen,
    storage_option,
    written_places,
)
from search.cli.spec import spec as spec_command
from search.cli.streams import prepare_terminal
from search.cli.train import compare, train
from search.cli.trials import importance
from search.cli.trials import trials as trials_command
from search.cli.verify import verify
from search.commands import cited, shell_command
from search.run.cluster import prepare_environment

if TYPE_CHECKING:
    from search.spec.spec import SearchSpec
    from search.study.experiment import Experiment
    from trainable.config import ConfigError

_EXAMPLES = """
\b
Examples:
  twinhead demo
  twinhead import classroom-photos classroom
  twinhead search --data classroom --name first --trials 12
  twinhead best first --out best/
  twinhead predict best/ --bg bg.jpg --fg-bg fg_bg.jpg --out out/
"""


SECTIONS = {
    "Data": ("render", "compose", "import", "inspect", "verify"),
    "Search": ("demo", "spec", "search", "retrain"),
    "Results": ("trials", "importance", "front", "best", "evaluate", "predict"),
    "Recipes": ("recipes", "train", "compare", "profile"),
}
"""The commands under the headings of `twinhead --help`."""


class _Sections(click.Group):
    """A group whose help lists its commands under headings, a line each."""

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in SECTIONS.items():
            with formatter.section(title):
                width = max(map(len, self.commands))
                formatter.write_dl(
                    [(f"{name:{width}}", self.commands[name].get_short_help_str(limit=1000)) for name in names]
                )


@click.group(
    cls=_Sections, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="twinhead")
def cli() -> None:
    """Hyperparameter search for dual-head networks: mask and depth from two images."""


@cli.command(epilog="\b\nExample:\n  twinhead demo --storage artifacts")
@storage_option
@json_option
def demo(storage: Path, as_json: bool) -> None:
    """Run a small search end to end on rendered scenes."""
    from search.run.demo import run_demo

    with contextlib.redirect_stdout(sys.stderr):  # Ray's words are not the result
        experiment, summary = run_demo(storage, screen())
    _show_summary(experiment, summary, as_json)


@cli.command(
    epilog="\b\nExamples:\n  twinhead search --data classroom --name first --trials 12\n"
    "  twinhead search spec.yaml --name second --set optimizer.lr=0.01\n"
    "  twinhead search spec.yaml --dry-run\n"
    "  twinhead search --resume first\n"
    "  twinhead search --resume first --trials 24 --set budget.hours=8"
)
@click.argument("spec", type=click.Path(path_type=Path), required=False)
@click.option("--data", help="The data set to search on.")
@click.option("--name", help="Name of the search; its directory in the storage.")
@click.option("--trials", type=int, help="How many configurations to try, in all.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a key of the spec; may be repeated.")
@click.option("--study", metavar="URL", help="Database that keeps the study, in place of a file beside the spec.")
@click.option("--resume", metavar="NAME", help="Go on with a search that was stopped.")
@click.option("--dry-run", is_flag=True, help="Only say what it would come to, and what it would try first.")
@storage_option
@json_option
def search(
    spec: Path | None,
    data: str | None,
    name: str | None,
    trials: int | None,
    overrides: tuple[str, ...],
    study: str | None,
    resume: str | None,
    dry_run: bool,
    storage: Path,
    as_json: bool,
) -> None:
    """Search for the best configuration, then retrain and test it.

    SPEC is a YAML file that says what to search; what it leaves out, and all without it, is the default.
    """
    from search.study.experiment import Experiment

    pairs = [pair(override) for override in overrides]
    if study is not None:
        pairs.append(("search.study", json.dumps(study)))
    if trials is not None:
        if any(key == "budget.trials" for key, _ in pairs):
            raise InputError("The number of trials is given twice; leave out --trials or --set budget.trials.")
        pairs.append(("budget.trials", str(trials)))
    if resume:
        if spec or name or data or dry_run:
            raise InputError(
                f"--resume goes on with '{resume}' as it was started; beside it, give a larger budget at most, with "
                "--trials or --set budget.KEY=VALUE."
            )
        experiment = Experiment(storage=storage, name=resume)
        checked = experiment.extend(pairs) if pairs else experiment.spec()
    else:
        from search.spec.spec import load_spec
        from trainable.config import ConfigError

        try:
            checked = load_spec(spec, pairs, data_path=data).anywhere()
        except ConfigError as error:
            raise _with_count(error, spec) from None
        if dry_run:
            _dry_run(checked, storage, as_json)
            return
        experiment = Experiment(storage=storage, name=name or checked.subject.name or _default_name(spec))
        experiment.refuse_existing()

    # Here, for they take seconds: what is wrong with the spec is said at once.
    from search.run.prepare import open_data
    from search.run.run import begin, run_search
    from search.spec.locate import placed

    shown = screen()
    dataset = open_data(checked.data_path, shown)
    if not resume:
        try:
            begin(experiment, checked, dataset)
        except InputError as error:
            raise placed(error, spec, given_elsewhere=[key for key, _ in pairs]) from None
    summary = resumable(experiment, experiment.resume_command, lambda: run_search(experiment, checked, dataset, shown))
    _show_summary(experiment, summary, as_json)


@cli.command(epilog="\b\nExample:\n  twinhead retrain first --epochs 30")
@click.argument("name")
@click.option("--epochs", type=int, help="Epochs of the retraining; those of a whole trial when left out.")
@click.option("--cpus", type=int, help="CPUs of the retraining; as many as are measured to be fastest when left out.")
@storage_option
@json_option
def retrain(name: str, epochs: int | None, cpus: int | None, storage: Path, as_json: bool) -> None:
    """Retrain the best configuration of a search, and test it."""
    from search.study.experiment import Experiment

    experiment = Experiment(storage=storage, name=name)
    spec = experiment.spec().with_retraining(epochs, cpus)

    from search.run.prepare import open_data
    from search.run.run import retrain_again

    shown = screen()
    dataset = open_data(spec.data_path, shown)
    given = [word for pair in (("--epochs", epochs), ("--cpus", cpus)) if pair[1] is not None for word in pair]
    command = shell_command("twinhead", "retrain", name, *given, "--storage", storage)
    summary = resumable(experiment, command, lambda: retrain_again(experiment, spec, dataset, shown, command))
    _show_summary(experiment, summary, as_json)


@cli.command(epilog="\b\nExamples:\n  twinhead best first --out best/\n  twinhead best first --trial 3")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Directory; when left out, best, or trialN with --trial.")
@click.option("--trial", type=int, help="Hand over this trial's own weights in place of the retrained ones.")
@storage_option
@json_option
def best(name: str, out: Path | None, trial: int | None, storage: Path, as_json: bool) -> None:
    """Export the best network of a search.

    It is a directory with model.safetensors, config.json, metrics.json, checksums.json and README.md, a model card.
    """
    from search.study.experiment import Experiment

    experiment = Experiment(storage=storage, name=name)
    experiment.spec()  # which fails at once if there is no such search

    from search.run.deliver import deliver

    out = out or Path("best" if trial is None else f"trial{trial}")
    delivered = deliver(experiment, out, trial)
    print_result(delivered, as_json, lambda: click.echo(f"{delivered['what']}: {out}"))


@cli.command(epilog="\b\nExample:\n  twinhead evaluate best/ classroom --split test")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default="test", show_default=True)
@json_option
def evaluate(checkpoint: Path, data: str, split: str, as_json: bool) -> None:
    """Evaluate a network on a data set, with baselines."""
    from search.cli.tables import show_metrics, show_verdict
    from search.results.export import baseline_metrics
    from search.run.deliver import evaluate_beside_baselines

    shown = screen()
    measured = evaluate_beside_baselines(checkpoint, data, split, shown)
    columns: dict[str, Mapping[str, float]] = {"network": measured["metrics"]}
    if measured["baselines"]:
        columns = {"baselines": baseline_metrics(measured["baselines"])} | columns

    def show() -> None:
        show_metrics(console(), f"{split} pictures of {data}", columns)
        if measured["baselines"]:
            show_verdict(console(), measured["metrics"], measured["baselines"])

    print_result(measured, as_json, show)


for command in (
    render,
    compose,
    import_,
    inspect,
    verify,
    recipes,
    train,
    compare,
    spec_command,
    profile,
    trials_command,
    importance,
    front,
    predict,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line, and turn what a user can cause into a sentence and an exit code."""
    prepare_environment()
    prepare_terminal()
    try:
        cli.main(prog_name="twinhead", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        asked = context.command_path if context else "twinhead"
        message = error.format_message()
        written = re.match(r".*'(\S+)' is not a valid float", message)
        if written and (meant := without_comma(written[1])):
            message = f"{message} Write {meant}."
        click.echo(f"twinhead: {message} See '{asked} --help'.", err=True)
        sys.exit(error.exit_code)
    except InputError as error:
        click.echo(f"twinhead: {error}", err=True)
        sys.exit(BAD_INPUT)
    except UnfinishedError as error:
        click.echo(f"twinhead: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        fault = disk_error(error, *written_places())
        if fault is None:
            raise
        click.echo(f"twinhead: {fault}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # a second Ctrl-C: no waiting for anything


def _dry_run(spec: SearchSpec, storage: Path, as_json: bool) -> None:
    from search.cli.tables import show_dry_run
    from search.run.dry_run import dry_run
    from search.run.prepare import open_data

    shown = screen()
    dataset = open_data(spec.data_path, shown)
    shown.say("measuring a step of the smallest and of the largest network")
    found = dry_run(spec, dataset, storage)
    print_result(found, as_json, lambda: show_dry_run(console(), found))


def _with_count(error: ConfigError, spec: Path | None) -> InputError:
    """The first of a spec's problems, and where the others are named."""
    more = len(error.problems) - 1
    if spec is None or not more:
        return error
    command = cited(shell_command("twinhead", "spec", "--check", spec))
    return InputError(f"{error} ({command} names this and {more} more.)")


def _default_name(spec: Path | None) -> str:
    if spec is None:
        raise InputError("The name of the search is missing; give --name.")
    return spec.stem


def _show_summary(experiment: Experiment, summary: dict[str, Any], as_json: bool) -> None:
    from search.cli.tables import show_summary

    print_result(summary, as_json, lambda: show_summary(console(), experiment, summary))


if __name__ == "__main__":
    main()
