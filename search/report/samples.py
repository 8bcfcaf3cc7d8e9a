"""The best, median and worst images of a network, each with its truth and prediction, as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.errors import InputError
from data.images import encode_jpeg, resize_to
from data.schema import Pixels
from search.report.findings import Findings
from search.report.networks import Answer
from trainable.evaluation.evaluate import predict_images
from trainable.evaluation.grid import COLUMNS
from trainable.loop.checkpoint_files import load_origin
from trainable.loop.loaders import sample_ids
from trainable.metrics.objective import SCORE
from trainable.metrics.per_image import Floats, metrics_of, values_of

EACH = 2
"""Images of each kind."""
MAX_SIDE = 192
"""Longer side of an image on the page, in pixels."""
QUALITY = 85
KINDS = ("best", "median", "worst")
SHORT_TITLES = {"score": "score", "mask_iou": "mask IoU", "depth_delta1": "depth δ"}
"""Metrics of each image."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image on the page."""

    source: str
    """A data URI."""
    alt: str
    width: int
    height: int
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class SampleRow:
    """A measured image with its truth and prediction."""

    kind: str
    """'best', 'median' or 'worst'."""
    value: str
    """Name and value of the objective."""
    others: str
    """Names and values of the metrics in `SHORT_TITLES`."""
    sample: str
    """Its id."""
    pictures: Sequence[Picture]


def sample_rows(answer: Answer, problems: list[str]) -> list[SampleRow]:
    """The best, median and worst images of the result; empty, with a reason in `problems`, if they cannot be had."""
    result = answer.result
    if result is None or result.table is None or result.checkpoint is None or answer.data is None:
        return []
    metrics = metrics_of(result.table.columns(), tuple(result.table.own))
    objective = answer.objective if answer.objective.is_in(metrics) else SCORE
    metrics[objective.key] = values_of(metrics, objective)
    chosen = _chosen(objective.sign * metrics[objective.key])
    try:
        ids = sample_ids(load_origin(result.checkpoint).config.data, answer.data, answer.part)
        predicted = predict_images(
            result.checkpoint,
            answer.data,
            answer.part,
            [row for _, row in chosen],
            device=torch.device("cpu"),
        )
    except InputError as error:
        problems.append(str(error))
        return []
    others = {name: title for name, title in SHORT_TITLES.items() if name != objective.key}
    return [
        SampleRow(
            kind=kind,
            value=f"{objective.key} {metrics[objective.key][row]:.3f}",
            others=", ".join(f"{title} {metrics[name][row]:.3f}" for name, title in others.items()),
            sample=ids[row],
            pictures=[
                _picture(pixels, f"{column} of the {kind} image, {ids[row]}", column)
                for column, pixels in zip(COLUMNS, images, strict=True)
            ],
        )
        for (kind, row), images in zip(chosen, predicted, strict=True)
    ]


def stored_grid(findings: Findings) -> Picture | None:
    """The grid of test images that the retraining wrote; None if there is none."""
    file = findings.experiment.test_grid
    if not file.is_file():
        return None
    alt = "Backgrounds, images, true and predicted masks and depths of evenly spread test images"
    return png_picture(file.read_bytes(), alt)


def png_picture(png: bytes, alt: str, caption: str = "") -> Picture:
    """A PNG file as it is; its header has the size."""
    width, height = (int.from_bytes(png[begin : begin + 4]) for begin in (16, 20))
    return Picture(source=_data_uri(png, "png"), alt=alt, width=width, height=height, caption=caption)


def _chosen(ranks: Floats) -> list[tuple[str, int]]:
    """The kind and the row of each image, (N,), without repetition if they are few; larger ranks are better."""
    order = np.argsort(-ranks, kind="stable")
    each = min(EACH, max(1, len(order) // len(KINDS)))
    middle = (len(order) - each) // 2
    begins = dict(zip(KINDS, (0, middle, len(order) - each), strict=True))
    found: dict[int, str] = {}
    for kind, begin in begins.items():
        for row in order[begin : begin + each]:
            found.setdefault(int(row), kind)
    return [(kind, row) for row, kind in found.items()]


def _picture(pixels: Pixels, alt: str, caption: str) -> Picture:
    height, width = pixels.shape[:2]
    if (longer := max(height, width)) > MAX_SIDE:
        height, width = (max(1, round(side * MAX_SIDE / longer)) for side in (height, width))
        pixels = resize_to(pixels, height, width)
    return Picture(
        source=_data_uri(encode_jpeg(pixels, quality=QUALITY), "jpeg"),
        alt=alt,
        width=width,
        height=height,
        caption=caption,
    )


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
