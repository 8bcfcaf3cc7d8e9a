"""The `import` command: makes a data set of images that a user has."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from data.errors import InputError
from data.quantities import counted
from search.cli.shared import json_option, print_dataset, print_result, screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data.importers.conversion import Import
    from search.terminal import Screen

_FOLDER = click.Path(path_type=Path)


@click.command(
    "import",
    epilog="\b\nExamples:\n"
    "  twinhead import samples.csv classroom\n"
    "  twinhead import --bg rooms --fg-bg photos --mask masks --depth depths \\\n"
    "      --bg-pattern '(.+)_[^_]+' classroom\n"
    "  twinhead import samples.csv classroom --depth-unit mm --depth-invalid 65535\n"
    "  twinhead import saved-dataset classroom\n"
    "  twinhead import classroom-photos classroom\n"
    "  twinhead import dataset.zip footballers",
)
@click.argument("paths", type=str, nargs=-1, metavar="[SOURCE] DESTINATION")
@click.option("--bg", type=_FOLDER, help="Folder or zip archive of the backgrounds, in place of SOURCE.")
@click.option("--fg-bg", type=_FOLDER, help="The same of the images with a foreground.")
@click.option("--mask", type=_FOLDER, help="The same of the masks.")
@click.option("--depth", type=_FOLDER, help="The same of the depth images.")
@click.option(
    "--bg-pattern",
    metavar="REGEX",
    help="Finds the file stem of the background in that of the sample: what the group matches. '(.+)_[^_]+' takes all "
    "before the last '_': room1 is the background of room1_7. The stem of the sample when left out.",
)
@click.option("--layout", help="Layout of the source; detected from the file names when left out.")
@click.option(
    "--depth-polarity",
    type=click.Choice(["far-bright", "near-bright"]),
    help="What bright depth means in the source; measured when left out.",
)
@click.option(
    "--depth-unit",
    type=click.Choice(["mm", "cm", "m", "relative"]),
    help="Unit of the depth values. 0 is no measurement in mm, cm and m. Required for floating-point depth.",
)
@click.option("--depth-invalid", type=float, help="A value of the depth that is no measurement, such as 65535.")
@json_option
def import_(
    paths: tuple[str, ...],
    bg: Path | None,
    fg_bg: Path | None,
    mask: Path | None,
    depth: Path | None,
    bg_pattern: str | None,
    layout: str | None,
    depth_polarity: str | None,
    depth_unit: str | None,
    depth_invalid: float | None,
    as_json: bool,
) -> None:
    """Import images as a data set.

    SOURCE is a table (.csv, .jsonl or .parquet) with the columns bg, fg_bg, mask and depth, which hold paths relative
    to the table, and optionally sample_id, bg_id, fg_id and split (train, val or test).

    Or it is a directory that datasets of Hugging Face saved with save_to_disk, whose columns bg, fg_bg, mask and depth
    are images.

    Or it is a published layout: a folder, a zip archive, or a folder of zip archives, which are read without being
    extracted.

    With --bg, --fg-bg, --mask and --depth there is no SOURCE: files with the same name, without extension, are the
    images of a sample.
    """
    from data.depth.meaning import DepthMeaning
    from data.importers.importers import import_folders, import_source

    folders = {"bg": bg, "fg_bg": fg_bg, "mask": mask, "depth": depth}
    source, destination = _source_and_destination(paths, folders)
    _refuse_contradictions(source, bg_pattern, layout)

    def find(on_checked: Callable[[int, int], None]) -> Import:
        values = DepthMeaning(unit=cast("Any", depth_unit), invalid=depth_invalid)
        if source is not None:
            return import_source(
                source, layout=layout, depth_polarity=depth_polarity, depth_meaning=values, on_checked=on_checked
            )
        given = {role: path for role, path in folders.items() if path is not None}
        return import_folders(
            given, bg_pattern=bg_pattern, depth_polarity=depth_polarity, depth_meaning=values, on_checked=on_checked
        )

    try:
        _import(find, destination, screen())
    except InputError as error:
        from data.importers.problems import ImportProblemsError

        if as_json:
            problems = error.as_plain() if isinstance(error, ImportProblemsError) else [{"sentence": str(error)}]
            print_result({"ok": False, "problems": problems}, as_json, lambda: None)
        raise
    print_dataset(destination, None, as_json)


def _source_and_destination(paths: tuple[str, ...], folders: dict[str, Path | None]) -> tuple[Path | None, str]:
    """The source, None for four folders, and the destination."""
    absent = [f"--{role.replace('_', '-')}" for role, path in folders.items() if path is None]
    if absent and len(absent) < len(folders):
        raise click.UsageError(f"Missing option {' and '.join(absent)}: four folders hold the images of a sample.")
    expected = "SOURCE DESTINATION" if absent else "DESTINATION"
    if len(paths) != len(expected.split()):
        with_folders = "" if absent else " with --bg, --fg-bg, --mask and --depth"
        raise click.UsageError(f"Give {expected}{with_folders}; there {_are(len(paths))}.")
    return (Path(paths[0]) if absent else None), paths[-1]


def _refuse_contradictions(source: Path | None, bg_pattern: str | None, layout: str | None) -> None:
    if source is not None and bg_pattern is not None:
        raise click.UsageError("--bg-pattern is for four folders: give --bg, --fg-bg, --mask and --depth, not SOURCE.")
    if source is None and layout is not None:
        raise click.UsageError("--layout is for a SOURCE: give it without --bg, --fg-bg, --mask and --depth.")


def _are(count: int) -> str:
    return "is 1 argument" if count == 1 else f"are {count or 'no'} arguments"


def _import(find: Callable[[Callable[[int, int], None]], Import], destination: str, shown: Screen) -> None:
    from data.dataset.dataset import write_dataset
    from data.dataset.publish import refuse_existing
    from search.cli.tables import shown_split

    refuse_existing(destination)
    with _checking(shown) as on_checked:
        found = find(on_checked)
    measured = found.measured
    shown.say(f"layout {found.layout}: {found.reason}")
    shown.say(
        f"{counted(len(found), 'sample')}; depth is {found.depth_polarity} (inside the mask it differs "
        f"from just around it by {measured.difference:.1f} grey levels, {measured.agreement:.0%} of {measured.samples} "
        f"samples agree)"
    )
    if found.look_swapped:
        shown.warn("the masks have many grey levels and the depth has hardly any, as if mask and depth were swapped")
    if found.mask_factor != 1:
        shown.say(f"masks hold only 0 and 1; they are multiplied by {found.mask_factor}")
    if sentence := _depth_sentence(found):
        shown.say(sentence)
    if found.split is not None:
        several = found.backgrounds_in_several_parts()
        shown.say(
            f"split: {shown_split(found.split)}; data.split_by: stored uses it"
            + (f"; {counted(several, 'background')} in more than one part" if several else "")
        )
    with shown.bar("importing", len(found), "samples") as move:
        write_dataset(
            found.samples(), destination, source=found.source, split=found.split, on_sample=lambda _: move(1, "")
        )
    if joined := found.mask_forms.get("labels"):
        shown.say(f"{counted(joined, 'mask')} of several labels: all labels above 0 are joined as the foreground")
    if cutouts := found.mask_forms.get("alpha"):
        shown.say(f"{counted(cutouts, 'mask')} with transparency: the alpha channel is the mask")


def _depth_sentence(found: Import) -> str:
    """How depth is converted, and what is no measurement in it; '' if 8-bit depth keeps its levels."""
    meaning, parts = found.depth_meaning, []
    if found.depth_bits > 8 or meaning.is_metric:
        kind = "floating-point values" if found.depth_bits > 16 else f"{found.depth_bits} bits"
        unit = f" in {meaning.unit}" if meaning.is_metric else ""
        parts.append(f"depth has {kind}{unit}; the range of each image is scaled to 0..255")
    is_sensor = meaning.unit is None and found.depth_bits == 16 and found.depth_polarity == "far-bright"
    invalid = ["0"] if meaning.is_metric or is_sensor else []
    invalid += [f"{meaning.invalid:g}"] if meaning.invalid is not None else []
    if invalid:
        verbs = ("mean", "are") if len(invalid) > 1 else ("means", "is")
        parts.append(
            f"{' and '.join(invalid)} {verbs[0]} no measurement, and {verbs[1]} filled with the depth of the nearest "
            "pixel that has one, and marked as not valid"
        )
    return "; ".join(parts)


@contextlib.contextmanager
def _checking(shown: Screen) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that appears once all samples must be checked."""
    with contextlib.ExitStack() as stack:
        move: Callable[[int, str], None] | None = None

        def show(_: int, total: int) -> None:
            nonlocal move
            if move is None:
                shown.say("a file is missing or cannot be used; all samples are checked for others")
                move = stack.enter_context(shown.bar("checking", total, "samples"))
            move(1, "")

        yield show
