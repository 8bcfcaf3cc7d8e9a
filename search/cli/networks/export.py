"""The command `export`: a network as one file that runs without Twinhead."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.shared import json_option, plugins_option, print_result, refuse_unwritable, screen

if TYPE_CHECKING:
    from trainable.evaluation.portable import Exported, Format


@click.command(
    epilog="\b\nExamples:\n  twinhead export best/ --format onnx --out model.onnx\n"
    "  twinhead export best/ --format torch --out model.pt2"
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["onnx", "torch"]), default="onnx", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="File; when left out, model.onnx or model.pt2.")
@plugins_option
@json_option
def export(checkpoint: Path, form: Format, out: Path | None, as_json: bool) -> None:
    """Export a network to ONNX or to torch.export.

    The model takes two stacks of photographs, (batch, height, width, 3) of uint8, and returns mask and depth, (batch,
    height, width) of float32 in 0..1; batch, height and width are free. Its outputs are compared with PyTorch's at
    three sizes before the file is written. The file has a description of its inputs and outputs.
    """
    out = out or Path("model.onnx" if form == "onnx" else "model.pt2")
    refuse_unwritable(out, "--out")

    from search.results.damaged import naming_alternatives
    from trainable.evaluation.portable import export_network

    replaced = out.exists()
    with naming_alternatives():
        exported = export_network(checkpoint, out, form)
    if exported.note:
        screen().warn(exported.note)
    print_result(asdict(exported), as_json, lambda: click.echo(_shown(exported, replaced=replaced)))


def _shown(exported: Exported, *, replaced: bool) -> str:
    from data.quantities import byte_size

    sizes = ", ".join(f"{batch} × {height} × {width}" for batch, height, width in exported.checked)
    place = ", in place of an earlier file" if replaced else ""
    return (
        f"{exported.file}: {byte_size(exported.bytes)}{place}\n"
        f"equal to PyTorch up to {exported.difference:.1e}, with images of {sizes} (batch × height × width)"
    )
