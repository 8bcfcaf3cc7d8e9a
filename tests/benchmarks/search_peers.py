"""What other search methods find in the same budget: those of syne-tune, and the one-epoch baseline.

python tests/benchmarks/search_peers.py [--on curves|lcbench|both] [--methods dehb ...] [--seeds 5] [--budgets 10 40]
    [--refit-every N] [--processes N] [--python .venv-peers/bin/python] [--json FILE]

`make bench BENCH=search_peers` makes the environment of the methods first: syne-tune 0.13.0 needs numpy below 1.27.
Each method runs in a process of its own, and proposes trials for the same surrogates of learning curves, the same eight
workers in simulated time and the same noise as in `search_quality.py`, which says what regret and worth are. Ours are
run beside them, with the grace period of a search by default. The spaces of the methods are flat: `FlatSpace` says how
a space with conditions becomes one. A trial that is paused keeps its checkpoint, and a resumed one continues at its
next epoch. `proposal_seconds` are those of CPU that a proposal takes, on one core. Left out is ifBO: the
weights of its network are in no package registry.
"""

from __future__ import annotations

import argparse
import functools
import logging
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))

from search.strategy.space import define_space
from tests.benchmarks import search_quality
from tests.benchmarks.curves import simulation
from tests.benchmarks.curves.simulation import Chosen, Floats, Reference
from tests.benchmarks.curves.surrogate import EPOCHS
from tests.benchmarks.peers.flat_space import Config, FlatSpace
from tests.benchmarks.peers.loop import Training, run
from tests.benchmarks.peers.messages import Begin, Values
from tests.benchmarks.peers.process import PeerProcess
from tests.benchmarks.peers.serve import ONE_EPOCH
from tests.benchmarks.results import Row, arguments, publish, write
from tests.benchmarks.search_quality import BOTH, CURVES, FULL, LCBENCH, Found, Job

PYTHON = Path(__file__).parents[2] / ".venv-peers/bin/python"
METHODS = (ONE_EPOCH, "asha-stopping", "asha-promotion", "bohb", "dehb", "mobster", "hypertune", "dyhpo")
OURS = {LCBENCH: (search_quality.OURS,), CURVES: (search_quality.OURS, search_quality.DEFAULT)}
"""The published surrogate is not of this project's networks, which recipes and portfolio are of."""
GRACE, FACTOR = 3, 3
"""Of our searches, as by default."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a method searches: a data set of the curves, or a task of the published surrogate."""

    on: str
    name: str
    kind: str
    """Kind of the surrogate of the curves."""
    seed: int
    """Of the noise."""

    @property
    def epochs(self) -> int:
        """Of a full training."""
        return FULL if self.on == LCBENCH else EPOCHS

    def training(self, config: Config) -> Training:
        """The training of a configuration, with noise where there is some."""
        if self.on == LCBENCH:
            return Training(config=config, curve=curves_of_lcbench()(self.name, config).tolist(), seconds=1.0)
        surrogate = simulation.surrogate_of(self.name, self.kind)
        curve = surrogate.observed(config, self.seed).tolist()
        return Training(config=config, curve=curve, seconds=surrogate.seconds(config))

    def scores(self, configurations: Sequence[Config]) -> Floats:
        """The best epoch of each configuration without noise, (n,)."""
        if self.on == LCBENCH:
            return search_quality.best_accuracies(curves_of_lcbench(), self.name, configurations)
        return simulation.best_epoch_scores(simulation.surrogate_of(self.name, self.kind), configurations)


def main() -> None:
    """Run all methods and ours on every task and seed, once for each budget."""
    parser = arguments(__doc__)
    search_quality.add_options(parser, seeds=5)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS, help="all when left out")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(search_quality.BUDGETS), help="full trainings")
    parser.add_argument("--refit-every", type=int, default=1, help="results, of MOBSTER and Hyper-Tune")
    parser.add_argument("--python", type=Path, default=PYTHON, help="that of the environment of the methods")
    options = parser.parse_args()
    if set(options.methods) - {ONE_EPOCH} and not options.python.is_file():
        sys.exit(f"There is no {options.python}; make it by 'make bench BENCH=search_peers', or set --python.")
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    run_one = functools.partial(simulate, python=options.python, refit_every=options.refit_every)
    with search_quality.processes(options.processes) as pool:
        for on in (LCBENCH, CURVES) if options.on == BOTH else (options.on,):
            all_jobs = jobs(on, options)
            found = []
            for each in pool.imap(run_one, all_jobs):
                found.append(each)
                note(each)
            tasks = list(dict.fromkeys(job.task for job in all_jobs))
            named = [(on, task, options.surrogate) for task in tasks]
            references = dict(zip(tasks, pool.starmap(search_quality.reference, named, chunksize=1), strict=True))
            new = rows_of(on, found, references)
            rows += new
            ratios |= ratios_of(on, new)
    publish(rows, ratios, options.json)


def jobs(on: str, options: argparse.Namespace) -> list[Job]:
    """All simulations of a surrogate. All sides of a seed stand together, so that other load meets them alike."""
    names, epochs = search_quality.tasks_of(on)
    setting = {"max_epochs": epochs, "grace_epochs": GRACE, "reduction_factor": FACTOR}
    return [
        Job(on=on, task=name, seed=seed, side=side, setting=setting, kind=options.surrogate, budgets=(budget,))
        for seed in range(options.seeds)
        for budget in options.budgets
        for name in names
        for side in (*OURS[on], *options.methods)
    ]


def note(found: Found) -> None:
    """A line about a simulation that ended: the scores without noise, and the CPU seconds."""
    job = found.job
    (outcome,) = found.outcomes.values()
    write(
        f"{job.on} {job.task}, seed {job.seed}, budget {job.budgets[0]}, {job.side}: {outcome.chosen:.4f} chosen, "
        f"{outcome.best_tried:.4f} tried; {found.proposals} proposals of {_per_proposal([found]):.3f} s"
    )


def simulate(job: Job, python: Path, refit_every: int) -> Found:
    """Run one simulation: one of ours as in `search_quality`, or a method in its process."""
    logging.disable(logging.WARNING)
    if job.side in OURS[job.on]:
        return search_quality.simulate(job)
    task = Task(on=job.on, name=job.task, kind=job.kind, seed=job.seed)
    (budget,) = job.budgets
    epochs, chosen, space, best = budget * task.epochs, Chosen(), flat_space(job.on), -math.inf

    def train(values: Values) -> Training:
        return task.training(space.configuration(values))

    def observe(trial: int, training: Training, score: float) -> None:
        nonlocal best
        chosen.observe(str(trial), training.config, score)
        best = max(best, score)

    begin = Begin(
        method=job.side,
        seed=job.seed,
        max_epochs=task.epochs,
        budget=epochs,
        space=space.parameters,
        refit_every=refit_every,
    )
    started = time.process_time()
    # The baseline needs nothing but Python.
    with PeerProcess(Path(sys.executable) if job.side == ONE_EPOCH else python, begin) as peer:
        run(peer, train, observe, workers=simulation.WORKERS, epochs=epochs)
    spent = time.process_time() - started
    worth = {budget: -search_quality.simulator().log_share(job.task, best)} if job.on == LCBENCH else {}
    return Found(
        job=job,
        outcomes={budget: chosen.outcomes([epochs], task.scores)[epochs]},
        log_worth=worth,
        seconds=spent,
        proposals=peer.proposals,
        proposal_seconds=peer.seconds,
    )


@functools.cache
def flat_space(on: str) -> FlatSpace:
    """The space of a surrogate, found once in a process."""
    if on == LCBENCH:
        return FlatSpace(search_quality.simulator().space)
    return FlatSpace(define_space(simulation.spec_of({"max_epochs": EPOCHS})))


@functools.cache
def curves_of_lcbench() -> Any:
    """The published surrogate, read once in a process."""
    return search_quality.simulator().Curves()


def rows_of(on: str, found: Sequence[Found], references: Mapping[str, Reference]) -> list[Row]:
    """The rows of `search_quality`, with proposals."""
    return search_quality.rows_of(on, found, references, row)


def row(on: str, side: str, budget: int, found: Sequence[Found], references: Mapping[str, Reference]) -> Row:
    """The row of `search_quality`, with the number of proposals and the seconds of each instead of those in all."""
    of_quality = search_quality.row_of(on, side, budget, found, references)
    return {
        **{key: value for key, value in of_quality.items() if key != "cpu_seconds"},
        "proposals": statistics.mean(each.proposals for each in found),
        "proposal_seconds": _per_proposal(found),
    }


def ratios_of(on: str, rows: Sequence[Row]) -> dict[str, float]:
    """Regret and worth of our default over those of each method, over all tasks."""
    ours = {each["budget"]: each for each in rows if (each["on"], each["side"]) == (on, OURS[on][-1])}
    return {
        f"{on}_{figure}_{str(each['side']).replace('-', '_')}_{each['budget']}": float(ours[each["budget"]][figure])  # type: ignore[arg-type]
        / (float(each[figure]) or math.nan)  # type: ignore[arg-type]
        for figure in ("regret", "worth")
        for each in rows
        if each["on"] == on and each["side"] not in OURS[on]
    }


def _per_proposal(found: Sequence[Found]) -> float:
    return sum(each.proposal_seconds for each in found) / max(1, sum(each.proposals for each in found))


if __name__ == "__main__":
    main()
