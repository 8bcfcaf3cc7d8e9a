"""Numbers that a refactoring must not change: losses of every family, and proposals of the searcher, from fixed seeds.

python tests/same_numbers.py FILE               # write them, before the change
python tests/same_numbers.py --against FILE     # compute them again and name what differs; exit code 1 if anything does

Floats are compared exactly: run both on the same machine, one thread, in fp32.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna
import torch

from data.dataset.dataset import write_dataset
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from search.spec.spec import load_spec
from search.strategy.searcher import RungSearcher
from search.strategy.space import define_space
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext
from trainable.models import MODELS
from trainable.trial import run

EPOCHS = 2
TRIALS = 40
WIDTHS = {"resunet": 8, "resunet-lite": 8, "pair": 8, "resnet-dual": 8, "sepunet": 8}
SMALLEST = 4
"""Of the families that have no width above."""


def losses(data: TrialData) -> dict[str, list[list[float]]]:
    """Training loss and score of each epoch, by family."""
    found: dict[str, list[list[float]]] = {}
    for family in MODELS:
        model = {"family": family, "width": WIDTHS.get(family, SMALLEST), "precision": "fp32"}
        image = {"image_size": 32, "batch_size": 8, "augment": {"hflip": 0.5, "rotate": 10.0, "jitter": 0.2}}
        config = build(TrialConfig, {"model": model, "data": image, "epochs": EPOCHS}, source=__file__)
        epochs: list[list[float]] = []

        def report(end: EpochEnd, *_: Any, kept: list[list[float]] = epochs) -> None:
            kept.append([end.metrics["train_loss"], end.metrics["score"]])

        run(config, data, context=DistributedContext(device=torch.device("cpu")), report=report)
        found[family] = epochs
    return found


def proposals(data: TrialData) -> list[dict[str, Any]]:
    """What the searcher proposes in the default space, trial by trial, for made-up curves."""
    spec = load_spec(data_path=data.path)
    rungs = [3, 9]
    searcher = RungSearcher(define_space(spec), rungs=rungs, seed=5)
    found = []
    for number in range(TRIALS):
        config = searcher.suggest(f"trial-{number}")
        assert isinstance(config, dict)
        found.append(config)
        distance = abs(math.log10(config["optimizer"]["lr"]) + 2)
        curve = [{"epoch": epoch, "score": (1 - 1 / (1 + epoch)) / (1 + distance)} for epoch in rungs]
        searcher.on_trial_result(f"trial-{number}", curve[0])
        searcher.on_trial_complete(f"trial-{number}", curve[1])
    return found


def main() -> int:
    """Write the numbers, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="where to write the numbers")
    parser.add_argument("--against", type=Path, metavar="FILE", help="a file of numbers to compare with")
    options = parser.parse_args()
    if (options.file is None) == (options.against is None):
        parser.error("give either a file or --against FILE")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "set"
        scenes = SceneSet(seed=3, backgrounds=10, per_background=3, size=32)
        info = write_dataset(render(scenes, processes=1), path, source={"kind": "scenes"})
        data = TrialData(path=str(path), fingerprint=info.fingerprint)
        found = {"fingerprint": info.fingerprint, "losses": losses(data), "proposals": proposals(data)}
    for proposal in found["proposals"]:
        proposal["data"].pop("path", None)
    text = json.dumps(found, indent=1, default=str, sort_keys=True)
    if options.against is None:
        options.file.write_text(text)
        return 0
    before, after = json.loads(options.against.read_text()), json.loads(text)
    differing = [name for name in before["losses"] if before["losses"][name] != after["losses"].get(name)]
    differing += [
        f"proposal {number}"
        for number, (one, other) in enumerate(zip(before["proposals"], after["proposals"], strict=True))
        if one != other
    ]
    differing += ["the rendered data set"] if before["fingerprint"] != after["fingerprint"] else []
    print("\n".join(differing) or f"the same: {len(after['losses'])} families, {TRIALS} proposals, the data set")  # noqa: T201
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
