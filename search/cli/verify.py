"""The command that checks every byte and every picture of a data set."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from data.byte_size import byte_size
from search.cli.shared import counted, json_option, print_result, screen

if TYPE_CHECKING:
    from data.dataset.verify import Verification

BROKEN = 1


@click.command(
    epilog="\b\nExamples:\n  twinhead verify classroom\n  twinhead verify s3://bucket/classroom --json\n\n"
    "The exit code is 0 when all is well, 1 when something is broken, 2 when there is no data set to look at."
)
@click.argument("data")
@json_option
def verify(data: str, as_json: bool) -> None:
    """Verify every checksum and decode every image of a data set.

    What is broken is named: the part, the sample's id, the picture, and why. DATA is a directory or an address.
    """
    from data.dataset.verify import verify as verify_dataset

    found = verify_dataset(data, bar=screen().bar)
    values = {"data": data, "whole": found.is_whole} | asdict(found)
    print_result(values, as_json, lambda: _show(data, found))
    if not found.is_whole:
        sys.exit(BROKEN)


def _show(data: str, found: Verification) -> None:
    for fault in found.faults:
        click.echo(str(fault))
    left = found.fault_count - len(found.faults)
    if left:
        click.echo(f"… and {left} more")
    looked_at = (
        f"{counted(found.samples, 'sample')} and {counted(found.backgrounds, 'background')} in "
        f"{byte_size(found.bytes)}, {counted(found.pictures, 'picture')} decoded"
    )
    faults = "whole" if found.is_whole else f"broken, with {counted(found.fault_count, 'fault')}"
    click.echo(f"{data} is {faults}: {looked_at}")
