"""Pictures for people: labelled grids of samples and predictions, masks over photographs, contact sheets.

Shapes: H and W height and width in pixels. Photographs are (H, W, 3) RGB, planes (H, W).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data.atomic import replacing
from data.dataset.statistics import FOREGROUND_ABOVE
from data.images import encode_png, resize_to

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from data.dataset.dataset import Dataset
    from data.schema import Pixels

Colour = tuple[int, int, int]

MARGIN = 6
"""Pixels around and between cells."""
PAPER: Colour = (255, 255, 255)
INK: Colour = (40, 40, 40)
TINT: Colour = (0, 190, 255)

FONT = cv2.FONT_HERSHEY_SIMPLEX
TALLEST_TEXT = 12
"""Height of capital letters in pixels, where there is room."""
DRAWN_LARGER = 4
"""Text is drawn so many times larger and shrunk, which keeps thin strokes even."""

COLUMNS = ("bg", "fg_bg", "mask", "depth", "overlay")


def picture_grid(
    rows: Sequence[Sequence[Pixels]],
    titles: Sequence[str],
    *,
    row_titles: Sequence[str] | None = None,
    cell: int = 128,
) -> Pixels:
    """Lay pictures out in labelled columns.

    Args:
        rows: each with a picture for every title, of any size: photographs, or planes shown as grey.
        titles: one for each column, above it.
        row_titles: one for each row, left of it.
        cell: longer side in pixels that each picture is shown at; its shape is kept.

    Returns:
        (H, W, 3) RGB.

    Raises:
        ValueError: if there are no rows, or their lengths differ from the titles'.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise ValueError(f"Each row must have a picture for each of {len(titles)} titles, and there must be a row.")
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"There must be a title for each of {len(rows)} rows, not {len(row_titles)}.")
    height = min(TALLEST_TEXT, max(7, cell // 9))
    top = 2 * height + MARGIN
    left = MARGIN if row_titles is None else max(_text_width(title, height) for title in row_titles) + 2 * MARGIN
    step = cell + MARGIN
    grid = np.full((top + len(rows) * step, left + len(titles) * step, 3), PAPER, np.uint8)
    for column, title in enumerate(titles):
        x = left + column * step
        _write(grid[:top, x : x + cell], title, height)
    for line, row in enumerate(rows):
        y = top + line * step
        if row_titles is not None:
            _write(grid[y : y + cell, MARGIN : left - MARGIN], row_titles[line], height)
        for column, pixels in enumerate(row):
            x = left + column * step
            _place(grid[y : y + cell, x : x + cell], pixels)
    return grid


def overlay(photo: Pixels, mask: Pixels, color: Colour = TINT) -> Pixels:
    """Tint the mask's area of a photograph, and draw its outline.

    Args:
        photo: (H, W, 3) RGB.
        mask: (H, W), 0..255: the tint is as strong as the mask, up to 45 %.
        color: RGB, of the tint and the outline.

    Returns:
        (H, W, 3) RGB.
    """
    strength = 0.45 * mask[:, :, None].astype(np.float32) / 255
    tinted = (photo * (1 - strength) + np.asarray(color, np.float32) * strength).round().astype(np.uint8)
    outlines, _ = cv2.findContours((mask > FOREGROUND_ABOVE).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(max(mask.shape) / 160))
    cv2.drawContours(tinted, outlines, -1, color, thickness, cv2.LINE_8)
    return tinted


def contact_sheet(dataset: Dataset, samples: int = 8, columns: Sequence[str] = COLUMNS, *, cell: int = 160) -> Pixels:
    """Show samples of a data set, spread evenly over its backgrounds.

    Args:
        dataset: an opened data set.
        samples: how many rows to show; fewer if the data set has fewer.
        columns: some of 'bg', 'fg_bg', 'mask', 'depth' and 'overlay', which is the mask over `fg_bg`.
        cell: side of a picture in pixels.

    Returns:
        (H, W, 3) RGB.

    Raises:
        InputError: if the data set cannot be read.
    """
    if not set(columns) <= set(COLUMNS):
        raise ValueError(f"The columns are {tuple(columns)}, but each must be one of {', '.join(COLUMNS)}.")
    rows, ids = [], []
    for sample in dataset.read(_spread(dataset.ids.bg_id, samples)):
        pictures = {
            "bg": sample.bg,
            "fg_bg": sample.fg_bg,
            "mask": sample.mask,
            "depth": sample.depth,
            "overlay": overlay(sample.fg_bg, sample.mask),
        }
        rows.append([pictures[column] for column in columns])
        ids.append(sample.sample_id)
    return picture_grid(rows, columns, row_titles=ids, cell=cell)


def save_png(pixels: Pixels, path: Path) -> None:
    """Write (H, W, 3) RGB or (H, W) as a PNG file, which is never seen half written.

    Raises:
        DiskError: if the file system is full or has another fault of its own.
        OSError: if it refuses for another reason.
    """
    with replacing(path, durable=False) as partial:  # a trial writes one after every best epoch
        partial.write_bytes(encode_png(pixels))


def _spread(bg_ids: Sequence[str], count: int) -> list[int]:
    """Choose rows: each background's first sample, then its second, …, evenly spread where not all fit."""
    seen: dict[str, int] = {}
    turns: dict[int, list[int]] = {}
    for row, bg_id in enumerate(bg_ids):
        turn = seen[bg_id] = seen.get(bg_id, -1) + 1
        turns.setdefault(turn, []).append(row)
    chosen: list[int] = []
    for rows in turns.values():
        wanted = min(count - len(chosen), len(rows))
        chosen += [rows[place] for place in np.linspace(0, len(rows) - 1, wanted).round().astype(int)]
    return chosen


def _place(cell: Pixels, pixels: Pixels) -> None:
    """Draw a picture in the middle of a square cell, as large as it fits."""
    side = len(cell)
    height, width = (max(1, round(length * side / max(pixels.shape[:2]))) for length in pixels.shape[:2])
    shown = resize_to(pixels, height, width)
    y, x = (side - height) // 2, (side - width) // 2
    cell[y : y + height, x : x + width] = shown if shown.ndim == 3 else shown[:, :, None]


def _write(area: Pixels, text: str, height: int) -> None:
    """Draw a line of text in the middle of an area, smaller where it would not fit."""
    if not text:
        return
    while height > 5 and _text_width(text, height) > area.shape[1]:
        height -= 1
    line = _drawn(text, height)[: area.shape[0], : area.shape[1]]
    y, x = ((long - short) // 2 for long, short in zip(area.shape[:2], line.shape[:2], strict=True))
    area[y : y + line.shape[0], x : x + line.shape[1]] = line


@functools.lru_cache(maxsize=64)
def _drawn(text: str, height: int) -> Pixels:
    """A line of text, not to be changed; kept, for OpenCV sets its letters anew in every thread, which takes 20 ms."""
    scale, thickness, size, descent = _type(text, height)
    canvas = np.full((size[1] + 2 * descent, size[0], 3), PAPER, np.uint8)
    cv2.putText(canvas, text, (0, size[1] + descent // 2), FONT, scale, INK, thickness, cv2.LINE_AA)
    return resize_to(canvas, *(max(1, length // DRAWN_LARGER) for length in canvas.shape[:2]))


def _text_width(text: str, height: int) -> int:
    return _type(text, height)[2][0] // DRAWN_LARGER


@functools.lru_cache(maxsize=64)
def _type(text: str, height: int) -> tuple[float, int, tuple[int, int], int]:
    """Scale, stroke, (width, height) and descent of text as it is drawn: larger than shown."""
    drawn = height * DRAWN_LARGER
    thickness = max(1, drawn // 12)
    scale = cv2.getFontScaleFromHeight(FONT, drawn, thickness)
    (width, _), _ = cv2.getTextSize(text, FONT, scale, thickness)
    # Of a text with the tallest and the deepest letters, so that all lines stand on one base line.
    (_, tall), descent = cv2.getTextSize("Ag", FONT, scale, thickness)
    return scale, thickness, (width, tall), descent
