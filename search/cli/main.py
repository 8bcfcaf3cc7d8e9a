"""The `twinhead` command. Commands import torch and Ray only when they run, so that `twinhead --help` is fast."""

from __future__ import annotations

import errno
import itertools
import os
import re
import sys

import click

from data.disk import disk_error
from data.errors import InputError, UnfinishedError, without_comma
from search.cli.cluster.control import rm, stop
from search.cli.cluster.submit import resume, submit
from search.cli.cluster.watch import list_, logs, status
from search.cli.compose import compose
from search.cli.data import inspect, render, verify
from search.cli.importing import import_
from search.cli.networks.best import best
from search.cli.networks.evaluate import evaluate
from search.cli.networks.export import export
from search.cli.networks.predict import predict
from search.cli.profile import profile
from search.cli.results.front import front
from search.cli.results.report import report
from search.cli.search import demo, retrain, search
from search.cli.shared import BAD_INPUT, INTERRUPTED, written_directories
from search.cli.spec import spec
from search.cli.streams import prepare_terminal
from search.cli.train import compare, recipes, train
from search.cli.trials import importance, tensorboard, trials
from search.run.cluster import prepare_environment
from search.signals import end_like_ctrl_c

_EXAMPLES = """
\b
Examples:
  twinhead demo
  twinhead import classroom-photos classroom
  twinhead search --data classroom --name first --trials 24
  twinhead best first --out best/
  twinhead predict best/ --bg bg.jpg --fg-bg fg_bg.jpg --out out/
"""


SECTIONS = {
    "Data": (render, compose, import_, inspect, verify),
    "Search": (demo, spec, search, retrain),
    "Cluster": (submit, list_, status, logs, stop, resume, rm),
    "Results": (report, trials, importance, front, tensorboard, best, evaluate, predict, export),
    "Recipes": (recipes, train, compare, profile),
}
"""Headings of `twinhead --help`, with their commands."""
PATH_FAULTS = {
    errno.EACCES: "give another one, or have its permissions changed",
    errno.EPERM: "give another one, or have its permissions changed",
    errno.ENAMETOOLONG: "give a shorter one",
}
"""What to do about a path, by the error number."""


class _Sections(click.Group):
    """A group whose help lists its commands under headings."""

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{each.name:{width}}", each.get_short_help_str(limit=1000)) for each in commands])


@click.group(
    cls=_Sections, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="twinhead")
def cli() -> None:
    """Hyperparameter search for dual-head networks: mask and depth from two images."""


for command in itertools.chain(*SECTIONS.values()):
    cli.add_command(command)


def main() -> None:
    """Run the command line; errors that a user can cause become a sentence and an exit code."""
    prepare_environment()
    prepare_terminal()
    end_like_ctrl_c()
    try:
        cli.main(prog_name="twinhead", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command_path = context.command_path if context else "twinhead"
        message = error.format_message()
        number = re.match(r".*'(\S+)' is not a valid float", message)
        if number and (corrected := without_comma(number[1])):
            message = f"{message} Write {corrected}."
        click.echo(f"twinhead: {message} See '{command_path} --help'.", err=True)
        sys.exit(error.exit_code)
    except InputError as error:
        click.echo(f"twinhead: {error}", err=True)
        sys.exit(BAD_INPUT)
    except UnfinishedError as error:
        click.echo(f"twinhead: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        sentence, code = _fault(error)
        if not sentence:
            raise
        click.echo(f"twinhead: {sentence}", err=True)
        sys.exit(code)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # after a second Ctrl-C, exit without waiting for Ray


def _fault(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code for a path or a file system that cannot be used; '' for any other error."""
    if isinstance(error, OSError) and error.errno in PATH_FAULTS and isinstance(error.filename, str | bytes):
        advice = PATH_FAULTS[error.errno]
        return f"The path '{os.fsdecode(error.filename)}' cannot be used ({error.strerror}); {advice}.", BAD_INPUT
    return str(disk_error(error, *written_directories()) or ""), 1


if __name__ == "__main__":
    main()
