"""Labelled image grids of samples and predictions, mask overlays, contact sheets.

Shapes: H and W are height and width in pixels. A photo is (H, W, 3) RGB, a plane (mask or depth) is (H, W).
"""

from __future__ import annotations

import functools
import math
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
BACKGROUND_COLOUR: Colour = (255, 255, 255)
TEXT_COLOUR: Colour = (40, 40, 40)
MASK_COLOUR: Colour = (0, 190, 255)
INVALID_COLOUR: Colour = (150, 40, 90)
"""Of pixels where the depth was not measured; no level of grey."""

FONT = cv2.FONT_HERSHEY_SIMPLEX
MAX_TEXT_HEIGHT = 12
"""Height of capital letters in pixels, in large cells."""
SUPERSAMPLING = 4
"""Text is drawn larger by this factor, then shrunk, which keeps thin strokes even."""

GOLDEN = (math.sqrt(5) - 1) / 2

COLUMNS = ("bg", "fg_bg", "mask", "depth", "overlay")


def image_grid(
    rows: Sequence[Sequence[Pixels]],
    titles: Sequence[str],
    *,
    row_titles: Sequence[str] | None = None,
    cell: int = 128,
) -> Pixels:
    """Arrange images in labelled rows and columns.

    Args:
        rows: one image per title in each row, of any size; planes are shown as grey.
        titles: one per column, above it.
        row_titles: one per row, left of it.
        cell: longer side of each shown image in pixels; the aspect ratio is kept, and rows and columns are as
            large as their largest image.

    Returns:
        (H, W, 3) RGB.

    Raises:
        ValueError: if there are no rows, or the number of titles does not match.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise ValueError(f"Each row must have an image for each of {len(titles)} titles, and there must be a row.")
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"There must be a title for each of {len(rows)} rows, not {len(row_titles)}.")
    height = min(MAX_TEXT_HEIGHT, max(7, cell // 9))
    left = MARGIN if row_titles is None else max(_text_width(title, height) for title in row_titles) + 2 * MARGIN
    sizes = np.array([[_fitted_size(pixels, cell) for pixels in row] for row in rows])
    titled = [min(cell, _text_width(title, height)) for title in titles]
    heights, widths = sizes[:, :, 0].max(axis=1), np.maximum(sizes[:, :, 1].max(axis=0), titled)
    tops = 2 * height + MARGIN + np.cumsum([0, *heights + MARGIN])
    lefts = left + np.cumsum([0, *widths + MARGIN])
    grid = np.full((tops[-1], lefts[-1], 3), BACKGROUND_COLOUR, np.uint8)
    for x, width, title in zip(lefts, widths, titles, strict=False):
        _draw_text(grid[: tops[0], x : x + width], title, height)
    for line, (y, tall, row) in enumerate(zip(tops, heights, rows, strict=False)):
        if row_titles is not None:
            _draw_text(grid[y : y + tall, MARGIN : left - MARGIN], row_titles[line], height)
        for x, width, pixels in zip(lefts, widths, row, strict=False):
            _draw_image(grid[y : y + tall, x : x + width], pixels, cell)
    return grid


def overlay(photo: Pixels, mask: Pixels, color: Colour = MASK_COLOUR) -> Pixels:
    """Tint the masked area of a photo, and draw its outline.

    Args:
        photo: (H, W, 3) RGB.
        mask: (H, W), 0..255; the opacity of the tint is proportional to it, up to 45 %.
        color: RGB of the tint and the outline.

    Returns:
        (H, W, 3) RGB.
    """
    strength = 0.45 * mask[:, :, None].astype(np.float32) / 255
    tinted = (photo * (1 - strength) + np.asarray(color, np.float32) * strength).round().astype(np.uint8)
    outlines, _ = cv2.findContours((mask > FOREGROUND_ABOVE).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(max(mask.shape) / 160))
    cv2.drawContours(tinted, outlines, -1, color, thickness, cv2.LINE_8)
    return tinted


def depth_image(depth: Pixels, valid: Pixels | None) -> Pixels:
    """Show a depth (H, W), with `INVALID_COLOUR` where `valid` (H, W) is 0: it was not measured.

    Returns:
        (H, W, 3) RGB, or `depth` itself if it was measured everywhere.
    """
    if valid is None or valid.all():
        return depth
    return np.where(valid[:, :, None] > 0, depth[:, :, None], np.array(INVALID_COLOUR, np.uint8))


def contact_sheet(dataset: Dataset, samples: int = 8, columns: Sequence[str] = COLUMNS, *, cell: int = 160) -> Pixels:
    """Show samples of a data set, spread evenly over its backgrounds.

    Args:
        dataset: an opened data set.
        samples: number of rows; fewer if the data set has fewer samples.
        columns: some of 'bg', 'fg_bg', 'mask', 'depth' and 'overlay' (the mask over `fg_bg`).
        cell: longer side of each shown image in pixels.

    Returns:
        (H, W, 3) RGB.

    Raises:
        InputError: if the data set cannot be read.
    """
    if not set(columns) <= set(COLUMNS):
        raise ValueError(f"The columns are {tuple(columns)}, but each must be one of {', '.join(COLUMNS)}.")
    rows, ids = [], []
    for sample in dataset.read(_spread(dataset.ids.bg_id, samples)):
        images = {
            "bg": sample.bg,
            "fg_bg": sample.fg_bg,
            "mask": sample.mask,
            "depth": depth_image(sample.depth, sample.valid),
            "overlay": overlay(sample.fg_bg, sample.mask),
        }
        rows.append([images[column] for column in columns])
        ids.append(sample.sample_id)
    return image_grid(rows, columns, row_titles=ids, cell=cell)


def save_png(pixels: Pixels, path: Path) -> None:
    """Write (H, W, 3) RGB or (H, W) as a PNG file, atomically.

    Raises:
        DiskError: if the file system is full or has another fault.
        OSError: for any other reason.
    """
    with replacing(path, durable=False) as partial:  # a trial writes one after every best epoch
        partial.write_bytes(encode_png(pixels))


def _spread(bg_ids: Sequence[str], count: int) -> list[int]:
    """Choose rows: one sample of each background, then a second one, …, evenly spread if not all fit.

    A background's samples are taken in golden-section order, each background's from another start: the first samples
    of the backgrounds, and neighbours, often show the same foreground.
    """
    rows_of: dict[str, list[int]] = {}
    for row, bg_id in enumerate(bg_ids):
        rows_of.setdefault(bg_id, []).append(row)
    rounds: dict[int, list[int]] = {}
    for number, rows in enumerate(rows_of.values()):
        start, step = int(number * GOLDEN % 1 * len(rows)), _coprime(len(rows))
        for turn in range(min(len(rows), count)):
            rounds.setdefault(turn, []).append(rows[(start + turn * step) % len(rows)])
    chosen: list[int] = []
    for rows in rounds.values():
        wanted = min(count - len(chosen), len(rows))
        chosen += [rows[index] for index in np.linspace(0, len(rows) - 1, wanted).round().astype(int)]
    return chosen


def _coprime(count: int) -> int:
    """The step nearest below the golden section of `count` that visits all of them."""
    return next(step for step in range(max(1, round(GOLDEN * count)), 0, -1) if math.gcd(step, count) == 1)


def _fitted_size(pixels: Pixels, cell: int) -> tuple[int, int]:
    """Height and width of an image whose longer side becomes `cell` pixels."""
    height, width = pixels.shape[:2]
    longer = max(height, width)
    return max(1, round(height * cell / longer)), max(1, round(width * cell / longer))


def _draw_image(area: Pixels, pixels: Pixels, cell: int) -> None:
    """Draw an image in the middle of an area, with a longer side of `cell` pixels."""
    height, width = _fitted_size(pixels, cell)
    shown = resize_to(pixels, height, width)
    y, x = (area.shape[0] - height) // 2, (area.shape[1] - width) // 2
    area[y : y + height, x : x + width] = shown if shown.ndim == 3 else shown[:, :, None]


def _draw_text(area: Pixels, text: str, height: int) -> None:
    """Draw a line of text in the middle of an area, smaller if it does not fit."""
    if not text:
        return
    while height > 5 and _text_width(text, height) > area.shape[1]:
        height -= 1
    line = _render_text(text, height)[: area.shape[0], : area.shape[1]]
    y, x = ((long - short) // 2 for long, short in zip(area.shape[:2], line.shape[:2], strict=True))
    area[y : y + line.shape[0], x : x + line.shape[1]] = line


@functools.lru_cache(maxsize=64)
def _render_text(text: str, height: int) -> Pixels:
    """A line of text; do not modify the result. Cached, because OpenCV takes 20 ms to load the font in each thread."""
    scale, thickness, size, descent = _text_metrics(text, height)
    canvas = np.full((size[1] + 2 * descent, size[0], 3), BACKGROUND_COLOUR, np.uint8)
    cv2.putText(canvas, text, (0, size[1] + descent // 2), FONT, scale, TEXT_COLOUR, thickness, cv2.LINE_AA)
    return resize_to(canvas, *(max(1, length // SUPERSAMPLING) for length in canvas.shape[:2]))


def _text_width(text: str, height: int) -> int:
    return _text_metrics(text, height)[2][0] // SUPERSAMPLING


@functools.lru_cache(maxsize=64)
def _text_metrics(text: str, height: int) -> tuple[float, int, tuple[int, int], int]:
    """Font scale, stroke, (width, height) and descent of the text before it is shrunk."""
    drawn = height * SUPERSAMPLING
    thickness = max(1, drawn // 12)
    scale = cv2.getFontScaleFromHeight(FONT, drawn, thickness)
    (width, _), _ = cv2.getTextSize(text, FONT, scale, thickness)
    # Letters with ascender and descender give all lines the same base line.
    (_, tall), descent = cv2.getTextSize("Ag", FONT, scale, thickness)
    return scale, thickness, (width, tall), descent
