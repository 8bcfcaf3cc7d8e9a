"""A search with Ray Tune alone, as its documentation describes it: a checkpoint each epoch, `Tuner.restore` to resume.

python -m tests.benchmarks.tune_alone run|restore DIRECTORY TRIALS EPOCHS     # on a cluster; see tune_faults.py
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

EPOCH_SECONDS = 0.2
RETRIES = 2
"""As Twinhead has them."""


def train(config: dict[str, Any]) -> None:
    """Epochs that only sleep, with a checkpoint each; every epoch that ends is noted in a file."""
    first = 1
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as directory:
            first = json.loads((Path(directory) / "epoch.json").read_text()) + 1
    for epoch in range(first, config["epochs"] + 1):
        time.sleep(EPOCH_SECONDS)
        with (Path(config["notes"]) / f"{config['number']}").open("a") as file:
            file.write(f"{epoch}\n")
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "epoch.json").write_text(json.dumps(epoch))
            tune.report({"score": epoch}, checkpoint=tune.Checkpoint.from_directory(directory))


def main(action: str, directory: str, trials: str, epochs: str) -> None:
    """Run or restore the search, and print how its trials ended."""
    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    notes = Path(directory) / "notes"
    notes.mkdir(parents=True, exist_ok=True)
    path = str(Path(directory) / "tune")
    if action == "restore":
        tuner = tune.Tuner.restore(path, trainable=train, resume_errored=True)
    else:
        space = {"number": tune.grid_search(list(range(int(trials)))), "epochs": int(epochs), "notes": str(notes)}
        run_config = tune.RunConfig(
            name="tune", storage_path=directory, failure_config=tune.FailureConfig(max_failures=RETRIES), verbose=0
        )
        tuner = tune.Tuner(train, param_space=space, run_config=run_config)
    results = tuner.fit()
    sys.stdout.write(json.dumps({"errors": results.num_errors, "trials": len(results)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
