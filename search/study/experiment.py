"""An experiment: a named search, comparison or training, and the files that are read and written as a whole."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
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
from data.quantities import counted
from search.commands import JOB_VARIABLE, cited, shell_command
from search.spec.spec import OBJECTIVE_KEYS, SearchSpec, load_spec
from search.spec.study_url import masked
from search.study.heartbeat import Heartbeat
from search.study.names import FIXED_NAME, check_name, names_with, search_names
from search.study.paths import ExperimentPaths
from search.study.summary import Summary, TrainingSummary
from trainable.config.text import read_yaml
from trainable.metrics.objective import SCORE, Objective
from trainable.plugins.active import PluginRecord, sources_of
from trainable.plugins.listed import records_in

READ_SECONDS = 3.0
"""Longest time for which a command that reads a mirror holds the lock of its driver."""


@dataclass(frozen=True, kw_only=True)
class Experiment(ExperimentPaths):
    """A search, comparison or training on disk, or in a remote storage."""

    @property
    def study_url(self) -> str | None:
        """The URL of the study's database, from the spec; None for a journal.

        Raises:
            InputError: if the spec is damaged.
        """
        return self.spec().plan.search.study if self.spec_file.is_file() else None

    @property
    def objective(self) -> Objective:
        """The objective that picks the best trial and epoch; the score for a comparison or training.

        Raises:
            InputError: if the spec is damaged.
        """
        return self.spec().plan.objective if self.spec_file.is_file() else SCORE

    @property
    def study_id(self) -> str:
        """The ID that marks a study in a database as this experiment's, since another may have the same name.

        Raises:
            InputError: if the experiment was started without a database.
        """
        if not self._study_id_file.is_file():
            raise InputError(
                f"The search '{self.name}' was started without a database for its study; remove search.study from "
                f"'{self.spec_file}', or start a new search under another --name."
            )
        return self._study_id_file.read_text(encoding="utf-8").strip()

    @property
    def resume_command(self) -> str:
        """The command that resumes the experiment; within a submitted job, the one that submits it again."""
        stored = self.fixed() if self.fixed_file.is_file() else self._stored_spec()
        command = stored.get("kind", "search")
        needed: list[str] = []
        with contextlib.suppress(InputError):  # of a damaged file, which is reported where it is read
            needed = [word for record in records_in(stored) for word in ("--plugins", record.file)]
        if os.environ.get(JOB_VARIABLE):
            return self.command("resume", *needed)
        return shell_command("twinhead", command, "--resume", self.name, *needed, "--storage", self.storage)

    @property
    def is_running(self) -> bool:
        """Whether a driver runs, on this machine or another."""
        beat = Heartbeat.read(self)
        return beat is not None and beat.is_alive()

    def command(self, word: str, *options: object, address: str | None = None) -> str:
        """A command on the experiment, to be copied, with the options that find it, and the cluster at `address`."""
        where = ("--address", address) if address else ()
        return shell_command("twinhead", word, self.name, *options, "--storage", self.storage, *where)

    def how_to_continue(self, *options: str) -> str:
        """What to do if there is too little yet: to wait while it runs, else to resume it, with these options."""
        if self.is_running:
            return f"wait for it, since it still runs: {cited(self.command('status', '--watch'))}"
        return f"continue it with {cited(' '.join([self.resume_command, *options]))}"

    def _stored_spec(self) -> dict[str, Any]:
        """The values of the spec as stored; empty if there is none that can be read."""
        with contextlib.suppress(InputError):
            return dict(read_yaml(self.spec_file, "spec")) if self.spec_file.is_file() else {}
        return {}

    def lock(self) -> FileLock:
        """Acquire the lock of the process that runs the search.

        Raises:
            InputError: if another process holds it.
        """
        lock = FileLock(self.lock_file)
        try:
            # A command that reads a mirror holds the lock for a moment.
            lock.acquire(timeout=READ_SECONDS if self.mirror else 0)
        except Timeout:
            raise InputError(
                f"The search '{self.name}' in '{self.storage}' is running in another process; "
                "wait until it ends, or stop it with Ctrl-C there."
            ) from None
        return lock

    def refuse_existing(self) -> None:
        """Refuse a name that cannot be used for a new experiment, before any work is done.

        Raises:
            InputError: if the name is invalid or in use, or the storage cannot be written to.
        """
        check_name(self.name)
        check_path(self.root)
        if self.root.exists():
            raise InputError(
                f"The name '{self.name}' is in use in '{self.storage}'; choose another --name, or continue with "
                f"{cited(self.resume_command)}."
            )
        if error := unwritable(self.root):
            raise self._unwritable(error)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"'{self.name}' cannot be written to '{self.storage}' ({error.strerror}); give another --storage."
        )

    def create(self, spec: SearchSpec) -> None:
        """Create the directory of a search with its spec.

        Raises:
            InputError: as `refuse_existing`.
            DiskError: for a fault of the disk.
        """
        url = spec.plan.search.study
        copies = self._copies(spec.plan.plugins)
        study_id = {self._study_id_file: uuid.uuid4().hex} if url else {}
        self._create(
            {self.spec_file: _as_yaml(spec), **study_id, **copies}, secret=url is not None and masked(url) != url
        )

    def create_fixed(self, configurations: Mapping[str, Any], plugins: Iterable[PluginRecord] = ()) -> None:
        """Create the directory of a comparison or training with its fixed configurations; raises as `create`."""
        copies = self._copies(plugins)
        self._create({self.fixed_file: yaml.safe_dump(dict(configurations), sort_keys=False), **copies})

    def _copies(self, plugins: Iterable[PluginRecord]) -> dict[Path, str]:
        """The copies of plugins that are kept for the reader. Nothing runs them, as others may write to a storage."""
        return {self.root / source.file: source.text for source in sources_of(plugins)}

    def fixed(self) -> dict[str, Any]:
        """The fixed configurations, as `create_fixed` wrote them.

        Raises:
            InputError: if there are none, or the file is damaged.
        """
        check_name(self.name)
        if not self.fixed_file.is_file():
            names = ", ".join(names_with(self.storage, FIXED_NAME))
            raise InputError(
                f"There is no comparison or training '{self.name}' in '{self.storage}'; "
                f"{f'there are {names}' if names else 'start one without --resume'}."
            )
        values: dict[str, Any] = read_yaml(self.fixed_file, "file")
        return values

    def _create(self, files: Mapping[Path, str], *, secret: bool = False) -> None:
        """Create the directory with all its files, or nothing; only the user may read secret files."""
        if self.mirror:
            self.mirror.refresh()  # the data set was verified since the name was checked
        self.refuse_existing()
        if secret and self.mirror:
            raise InputError(
                f"The URL of search.study contains a password, which would be written to '{self.storage}'; leave it "
                "out, and give it in $PGPASSWORD or ~/.pgpass on the machine of the driver."
            )
        try:
            with partial_directory(self.root) as beside:
                for file, text in files.items():
                    replace_file(beside / file.name, text, mode=0o600 if secret else None)
                beside.rename(self.root)
        except OSError as error:
            if self.root.exists():
                self.refuse_existing()  # it was created meanwhile
            raise disk_error(error, self.root) or self._unwritable(error) from None
        if self.mirror:
            try:
                self.mirror.publish()
            except BaseException:
                shutil.rmtree(self.root, ignore_errors=True)
                raise

    def spec(self) -> SearchSpec:
        """The spec as run.

        Raises:
            InputError: if there is no such search, or its spec is damaged.
        """
        check_name(self.name)
        if not self.spec_file.is_file():
            raise InputError(f"There is no search '{self.name}' in '{self.storage}'{self._others()}.")
        try:
            content = self.spec_file.read_bytes()
        except OSError:
            return load_spec(self.spec_file, is_stored=True)  # raises, with the reason
        return _load_spec(self.spec_file, content)

    def _others(self) -> str:
        """What is in the storage in place of this search, and what to do."""
        if names := search_names(self.storage):
            return f"; there are {', '.join(names)}"
        start = "start one with 'twinhead search --data DATA --name NAME'"
        local = self.location.parent.local
        if local is not None and not local.is_dir():
            return f", which does not exist; give --storage that of the searches, or {start}"
        return f"; {start}"

    def extend(self, changes: Sequence[tuple[str, str]]) -> SearchSpec:
        """Change the budget of the spec, and write the spec, to a remote storage too; see `extended`."""
        spec = self.extended(changes)
        replace_file(self.spec_file, _as_yaml(spec))
        if self.mirror:
            self.mirror.publish()  # a job of a cluster reads it there
        return spec

    def extended(self, changes: Sequence[tuple[str, str]]) -> SearchSpec:
        """The spec with another budget, which is not written.

        Args:
            changes: (dotted key, YAML text) pairs of `budget`, such as ('budget.trials', '24').

        Raises:
            InputError: if there is no such search, a key is not in `budget`, or a value is invalid.
        """
        self.spec()
        for key, _ in changes:
            if key.partition(".")[0] in OBJECTIVE_KEYS:
                raise InputError(
                    f"The objective of '{self.name}' is '{self.objective}', by which its trials were stopped, and it "
                    "cannot be changed; start a new search under another --name, from its best trials with "
                    f"--set 'search.start_from=[{self.name}]'."
                )
            if not key.startswith("budget."):
                raise InputError(
                    f"The key '{key}' cannot be changed after the start of '{self.name}'; change only its budget, with "
                    "--trials or --set budget.KEY=VALUE, or start a new search."
                )
        spec = load_spec(self.spec_file, changes, is_stored=True)
        earlier, wanted = self.earlier_summary(), spec.plan.budget.trials
        trials = earlier.trials if earlier else 0
        if wanted < trials and "budget.trials" in dict(changes):
            raise InputError(
                f"The value of 'budget.trials' is {wanted}, but '{self.name}' already has "
                f"{counted(trials, 'trial')}, which count; give at least {trials}."
            )
        return spec

    def remove(self) -> None:
        """Remove the directory with all its content.

        Raises:
            UnavailableError: if a remote storage cannot be used.
        """
        if self.mirror:
            self.mirror.remove()
        elif self.root.is_dir():
            # Renamed first: what a killed removal leaves must not be taken for a search.
            with contextlib.suppress(OSError), partial_directory(self.root) as beside:
                self.root.rename(beside)
            shutil.rmtree(self.root, ignore_errors=True)  # on a full disk, which has no room for another directory

    def write_summary(self, summary: Summary | TrainingSummary) -> None:
        """Write or replace the summary atomically."""
        replace_file(self.summary_file, json.dumps(summary.as_plain(), indent=2) + "\n")

    def summary(self) -> Summary:
        """The summary of the search.

        Raises:
            InputError: if there is no summary yet, or it is damaged.
        """
        self.spec()
        if not self.summary_file.is_file():
            raise InputError(f"The search '{self.name}' has no summary yet; {self.how_to_continue()}.")
        try:
            summary = Summary.model_validate(json.loads(self.summary_file.read_text(encoding="utf-8")))
        except ValueError:  # pydantic's ValidationError is one, too
            raise InputError(
                f"The summary '{self.summary_file}' is damaged; write it again with {cited(self.resume_command)}."
            ) from None
        return summary.model_copy(update={"name": self.name})  # the directory may have been renamed or copied

    def earlier_summary(self) -> Summary | None:
        """The summary of the runs so far; None if there is none that can be read, since a run writes it anew."""
        if not self.summary_file.is_file():
            return None
        try:
            return self.summary()
        except InputError:
            return None


@functools.lru_cache(maxsize=8)
def _load_spec(path: Path, _content: bytes) -> SearchSpec:
    """The spec at `path`. A command reads it several times, and it is checked again only if its content changed."""
    return load_spec(path, is_stored=True)


def _as_yaml(spec: SearchSpec) -> str:
    return yaml.safe_dump(spec.as_plain(), sort_keys=False)
