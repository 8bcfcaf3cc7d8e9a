"""What averaging the weights is worth in a training without a validation part, such as the retraining of a search.

python tests/benchmarks/averaging.py [DATA] [--recipes NAMES] [--epochs 9] [--size 64] [--seeds 2] [--json FILE]

DATA is a data set; without it, $TWINHEAD_REAL/nyu_composed is imported, and removed at the end. Each recipe is trained
on train + validation. After the last epoch, both the weights of the last step and their moving average, which counts,
are measured on the test images.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from results import Row, arguments, publish
from wait import dataset

from data.loader import Loader
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.loaders import evaluation_loader
from trainable.loop.loop import EpochEnd, evaluate
from trainable.loop.state import DistributedContext, Training
from trainable.metrics.objective import SCORE
from trainable.recipes import load_recipe

RECIPES = "portfolio-1,portfolio-2,portfolio-7,raguram-resunet-lite,monimoyd-unet"
ALONE = DistributedContext(device=torch.device("cpu"))


def main() -> None:
    """Train each recipe with each seed, and print both scores."""
    parser = arguments(__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--recipes", default=RECIPES, help="names, separated by commas")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with dataset(options.data) as data:
        for name in options.recipes.split(","):
            for seed in range(options.seeds):
                config = config_of(name, seed, options.epochs, options.size, options.batch)
                last, averaged = scores(config, data)
                rows.append({"recipe": name, "seed": seed, "last": last, "averaged": averaged})
    publish(rows, ratios(rows), options.json)


def config_of(name: str, seed: int, epochs: int, size: int, batch: int) -> TrialConfig:
    """A recipe at an image size, with its policies scaled to the epochs."""
    values = load_recipe(name).scaled(epochs).model_dump()
    values["data"] |= {"image_size": size, "batch_size": batch}
    return build(TrialConfig, values | {"seed": seed}, source=f"the recipe '{name}'")


def scores(config: TrialConfig, data: TrialData) -> tuple[float, float]:
    """The test scores of the last weights and of the average."""
    found: list[float] = []
    test = evaluation_loader(config, data, "test", ALONE)

    def report(end: EpochEnd, training: Training, _: Loader | None) -> None:
        if end.epoch == config.epochs:
            assert training.average is not None
            networks = (training.network, training.average.module)
            found.extend(SCORE.value(evaluate(network, test, training.config, ALONE)) for network in networks)

    trial.run(config, replace(data, train="train+val", val=None), context=ALONE, report=report)
    last, averaged = found
    return last, averaged


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """The mean score of the averages over that of the last weights, and their mean difference."""
    last, averaged = ([float(row[side]) for row in rows] for side in ("last", "averaged"))  # type: ignore[arg-type]
    return {
        "averaged_over_last": statistics.mean(averaged) / statistics.mean(last),
        "difference": statistics.mean(averaged) - statistics.mean(last),
        "share_of_trainings_that_gain": statistics.mean(one > other for one, other in zip(averaged, last, strict=True)),
    }


if __name__ == "__main__":
    main()
