"""Import images of the user: find the samples, check their files, make depth far-bright.

found = import_source(Path("nyu_composed"))
write_dataset(found.samples(), destination, source=found.source, split=found.split)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.depth.meaning import UNKNOWN, DepthMeaning
from data.errors import InputError
from data.importers.archives import open_source
from data.importers.conversion import Import, prepare_import
from data.importers.hugging_face import find_saved, is_saved_dataset
from data.importers.layouts import LAYOUTS
from data.importers.pairing import FoundSamples, UnknownLayoutError, find_layout, find_quadruples
from data.importers.problems import ImportProblems
from data.importers.stems import find_paired
from data.importers.suggestion import suggested_command
from data.importers.tables import find_listed, is_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def import_source(
    source: Path,
    *,
    layout: str | None = None,
    depth_polarity: str | None = None,
    depth_meaning: DepthMeaning = UNKNOWN,
    on_checked: Callable[[int, int], None] | None = None,
) -> Import:
    """Import a table of samples, a saved data set of Hugging Face, or a published layout, whichever the source is.

    Args:
        source: a table (see `data.importers.tables`), a saved data set (see `data.importers.hugging_face`), or, of a
            published layout, a folder, a zip archive, or a folder with zip archives; nothing is extracted.
        layout: a key of `LAYOUTS`, for a published layout only; by default recognised by the file names.
        depth_polarity: 'far-bright' or 'near-bright', in case the measurement is not clear.
        depth_meaning: unit and invalid value of the depth.
        on_checked: progress callback while all files are checked: (samples checked, samples in total). They are if a
            file is missing, or a measured file is unusable.

    Raises:
        ImportProblemsError: if a file is missing or unusable.
        InputError: if the source is unusable; if the layout or the polarity is neither clear nor given; if the given
            polarity contradicts a clear measurement.
    """
    find = find_listed if is_table(source) else find_saved if is_saved_dataset(source) else None
    if find is not None and layout is not None:
        kind = "a table" if is_table(source) else "a saved data set"
        raise InputError(f"The option '--layout' is '{layout}', but '{source}' is {kind}; leave it out.")
    found = find(source) if find is not None else _find_published(source, layout)
    return prepare_import(found, depth_polarity, depth_meaning, on_checked)


def import_folders(
    folders: Mapping[str, Path],
    *,
    bg_pattern: str | None = None,
    depth_polarity: str | None = None,
    depth_meaning: DepthMeaning = UNKNOWN,
    on_checked: Callable[[int, int], None] | None = None,
) -> Import:
    """Import the samples of four folders, paired by file stem, and measure the polarity of their depth.

    Args:
        folders: the folders of 'bg', 'fg_bg', 'mask' and 'depth'; each may be a zip archive.
        bg_pattern: regular expression that finds the background of a sample; see `data.importers.stems`.
        depth_polarity: as in `import_source`.
        depth_meaning: as in `import_source`.
        on_checked: as in `import_source`.

    Raises:
        ImportProblemsError: if a file is missing or unusable.
        InputError: if a folder is unusable, or as in `import_source`.
    """
    return prepare_import(find_paired(folders, bg_pattern), depth_polarity, depth_meaning, on_checked)


def _find_published(source: Path, layout: str | None) -> FoundSamples:
    """Recognise a published data set, and pair its files by name."""
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"The value of '--layout' is '{layout}', but must be one of {', '.join(LAYOUTS)}.")
    files = open_source(source)
    try:
        arrangement = find_layout(files, layout)
    except UnknownLayoutError as error:
        command = suggested_command(files)
        raise UnknownLayoutError(f"{error}\n  try       {command}" if command else str(error)) from None
    reason = arrangement.reason if layout is None else f"chosen with --layout; {arrangement.reason}"
    problems = ImportProblems(str(source))
    return FoundSamples(
        source=source,
        files=files,
        quadruples=find_quadruples(files, arrangement, problems),
        problems=problems,
        layout=arrangement.layout,
        reason=reason,
        depth_size=LAYOUTS[arrangement.layout].depth_size,
    )
