"""One object owns every path of a named search; nobody else joins them.

STORAGE/NAME/
    spec.yaml        the spec as run; given.yaml in its place where the configurations are given, not searched
    study.journal    Optuna's study: every trial, its parameters, its curve; study.id where it lies in a database
    trials/          what Tune keeps: a directory a trial, with checkpoints and TensorBoard's events
    groups/          checkpoints of trials that share several workers
    measurements.json   what trials measured of networks, such as the precision that each is trained in
    best/            the best trial's own weights
    retrained/       the best configuration, trained on train + validation
    summary.json     what came out
    comparison.*     what came out of a comparison, as a table, with measured/ and pictures/ of each network
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from data.atomic import replace_file
from data.dataset.partial import partial_directory, unwritable
from data.dataset.storage import check_path
from data.disk import disk_error
from data.errors import InputError
from search.commands import cited, shell_command
from search.spec.spec import SearchSpec, load_spec
from search.spec.study_url import masked
from trainable.config.text import read_yaml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A search's place on disk."""

    storage: Path
    name: str

    @property
    def root(self) -> Path:
        """The experiment's directory."""
        return self.storage.absolute() / self.name

    @property
    def spec_file(self) -> Path:
        """The spec as run."""
        return self.root / "spec.yaml"

    @property
    def given_file(self) -> Path:
        """The configurations that are trained where there is no spec."""
        return self.root / "given.yaml"

    @property
    def study_file(self) -> Path:
        """Optuna's journal."""
        return self.root / "study.journal"

    @property
    def study_url(self) -> str | None:
        """The database that Optuna's study lies in, as the spec names it; None where it is the journal.

        Raises:
            InputError: if the spec was damaged.
        """
        return self.spec().plan.search.study if self.spec_file.is_file() else None

    @property
    def study_id(self) -> str:
        """By which a study in a database is known as this experiment's: another may have the same name.

        Raises:
            InputError: if the experiment was not begun with its study in a database.
        """
        if not self._study_id_file.is_file():
            raise InputError(
                f"The search '{self.name}' was not begun with its study in a database; remove search.study from "
                f"'{self.spec_file}', or start anew under another --name."
            )
        return self._study_id_file.read_text(encoding="utf-8").strip()

    @property
    def _study_id_file(self) -> Path:
        return self.root / "study.id"

    @property
    def trials(self) -> Path:
        """What Tune keeps of the search."""
        return self.root / "trials"

    @property
    def retraining(self) -> Path:
        """What Tune keeps of the retraining."""
        return self.root / "retraining"

    @property
    def groups(self) -> Path:
        """Checkpoints of trials that share several workers."""
        return self.root / "groups"

    @property
    def measurements(self) -> Path:
        """What trials measured of networks, such as the precision that each is trained in."""
        return self.root / "measurements.json"

    @property
    def best(self) -> Path:
        """The best trial's own weights."""
        return self.root / "best"

    @property
    def retrained(self) -> Path:
        """The best configuration, trained on train + validation."""
        return self.root / "retrained"

    @property
    def test_pictures(self) -> Path:
        """A grid of the retrained network's predictions on test pictures."""
        return self.root / "pictures.png"

    @property
    def summary_file(self) -> Path:
        """What came out."""
        return self.root / "summary.json"

    @property
    def resume_command(self) -> str:
        """What a person types to go on."""
        command = self.given()["kind"] if self.given_file.is_file() else "search"
        return shell_command("twinhead", command, "--resume", self.name, "--storage", self.storage)

    def measured(self, trial: str) -> Path:
        """What a trial's network came to on each test picture."""
        return self.root / "measured" / f"{trial}.npz"

    def pictures(self, trial: str) -> Path:
        """A grid of a trial's predictions on test pictures."""
        return self.root / "pictures" / f"{trial}.png"

    def relative(self, path: Path | str) -> str:
        """A path below the experiment, as its files name it: the directory can be moved."""
        return str(Path(path).relative_to(self.root))

    def lock(self) -> FileLock:
        """Held by the one process that runs the search.

        Raises:
            InputError: if another process holds it.
        """
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise InputError(
                f"The search '{self.name}' in '{self.storage}' is running in another process; "
                "wait until it ends, or stop it with Ctrl-C there."
            ) from None
        return lock

    def refuse_existing(self) -> None:
        """Refuse a name that cannot become a new experiment, before the work begins that leads to one.

        Raises:
            InputError: if the name cannot be used, or is in use, or the storage cannot be written to.
        """
        _check_name(self.name)
        check_path(self.root)
        if self.root.exists():
            raise InputError(
                f"The name '{self.name}' is in use in '{self.storage}'; choose another --name, or go on with "
                f"{cited(self.resume_command)}."
            )
        if error := unwritable(self.root):
            raise self._unwritable(error)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"'{self.name}' cannot be written to '{self.storage}' ({error.strerror}); give another --storage."
        )

    def create(self, spec: SearchSpec) -> None:
        """Make the directory, and keep the spec in it.

        Raises:
            InputError: if the name cannot be used, or is in use.
        """
        url = spec.plan.search.study
        owned = {self._study_id_file: uuid.uuid4().hex} if url else {}
        self._appear({self.spec_file: _as_yaml(spec), **owned}, secret=url is not None and masked(url) != url)

    def create_given(self, given: Mapping[str, Any]) -> None:
        """Make the directory, and keep the configurations in it.

        Raises:
            InputError: if the name cannot be used, or is in use.
        """
        self._appear({self.given_file: yaml.safe_dump(dict(given), sort_keys=False)})

    def given(self) -> dict[str, Any]:
        """The configurations that are trained.

        Raises:
            InputError: if there are none, or the file was damaged.
        """
        _check_name(self.name)
        if not self.given_file.is_file():
            names = ", ".join(sorted(path.parent.name for path in self.storage.glob(f"*/{self.given_file.name}")))
            raise InputError(
                f"There is no comparison or training '{self.name}' in '{self.storage}'; "
                f"{f'there are {names}' if names else 'start one without --resume'}."
            )
        values: dict[str, Any] = read_yaml(self.given_file, "file")
        return values

    def _appear(self, files: Mapping[Path, str], *, secret: bool = False) -> None:
        """Make the directory with the files that make it an experiment: all appear whole, or not at all.

        Nobody else may read the files where they are secret.
        """
        self.refuse_existing()
        try:
            with partial_directory(self.root) as beside:
                for file, text in files.items():
                    replace_file(beside / file.name, text, mode=0o600 if secret else 0o666)
                beside.rename(self.root)
        except OSError as error:
            raise disk_error(error, self.root) or self._unwritable(error) from None

    def spec(self) -> SearchSpec:
        """The spec as run.

        Raises:
            InputError: if there is no such search, or its spec was damaged.
        """
        _check_name(self.name)
        if not self.spec_file.is_file():
            raise InputError(f"There is no search '{self.name}' in '{self.storage}'; {_searches_in(self.storage)}.")
        return load_spec(self.spec_file)

    def extend(self, changes: Sequence[tuple[str, str]]) -> SearchSpec:
        """The spec as run, with another budget, which is kept.

        Args:
            changes: (dotted key, YAML text) pairs of `budget`, such as ('budget.trials', '24').

        Raises:
            InputError: if there is no such search, a key is not of its budget, or a value does not fit.
        """
        self.spec()
        for key, _ in changes:
            if not key.startswith("budget."):
                raise InputError(
                    f"The key '{key}' cannot be changed once '{self.name}' began; change its budget alone, with "
                    "--trials or --set budget.KEY=VALUE, or start a new search."
                )
        spec = load_spec(self.spec_file, changes)
        has, wanted = self._trials_so_far(), spec.plan.budget.trials
        if wanted < has and "budget.trials" in dict(changes):
            raise InputError(
                f"The value of 'budget.trials' is {wanted}, but '{self.name}' has {has} already, which count; give "
                "more."
            )
        replace_file(self.spec_file, _as_yaml(spec))
        return spec

    def _trials_so_far(self) -> int:
        """As its summary says; 0 if it has none yet."""
        return int(self.summary()["trials"]) if self.summary_file.is_file() else 0

    def remove(self) -> None:
        """Remove the directory and all that is in it."""
        shutil.rmtree(self.root, ignore_errors=True)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Put `summary` in place, whole."""
        replace_file(self.summary_file, json.dumps(dict(summary), indent=2) + "\n")

    def summary(self) -> dict[str, Any]:
        """What came out.

        Raises:
            InputError: if the search has not come that far, or its summary was damaged.
        """
        self.spec()
        if not self.summary_file.is_file():
            raise InputError(
                f"The search '{self.name}' has no summary yet; finish it with {cited(self.resume_command)}."
            )
        try:
            summary: dict[str, Any] = json.loads(self.summary_file.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(
                f"The summary '{self.summary_file}' is damaged; make it again with {cited(self.resume_command)}."
            ) from None
        if "name" in summary:
            summary["name"] = self.name  # the directory may have been renamed or copied
        return summary


def free_name(storage: Path, wanted: str) -> str:
    """`wanted`, or the first of `wanted`-2, `wanted`-3, … that is not in use."""
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, 10_000))]
    return next(name for name in names if not (storage / name).exists())


def _as_yaml(spec: SearchSpec) -> str:
    return yaml.safe_dump(spec.as_plain(), sort_keys=False)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"The name '{name}' is none of a search; give up to 100 letters, digits, '.', '_' and '-', "
            "starting with a letter or digit."
        )


def _searches_in(storage: Path) -> str:
    names = sorted(path.parent.name for path in storage.glob("*/spec.yaml"))
    return f"there are {', '.join(names)}" if names else "start one with 'twinhead search --name'"
