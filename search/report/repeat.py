"""What repeats a search: its configuration, spec, commands, versions and seeds, and the failures of its trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from data.errors import InputError
from search.commands import shell_command
from search.report.findings import Findings
from search.study.trials import TrialRecord
from trainable.config import TrialConfig, build
from trainable.config.describe import describe

MAX_PREFIX = 94
"""Characters of the name of a search, of which a name with '-again' has at most 100."""
FAILED = ("diverged", "constraint", "failed", "unfinished")
"""Outcomes that the table of failures lists."""


def described(trial: TrialRecord | None) -> str:
    """The best trial, where it came from, and its main choices."""
    if trial is None:
        return "No checkpoint of a trial loads."
    try:
        choices = describe(build(TrialConfig, trial.config, source="the study"))
    except InputError:  # of another version
        return f"Trial {trial.number}, {trial.origin}."
    return f"Trial {trial.number}, {trial.origin}: {choices}."


def failures(findings: Findings) -> list[tuple[str, str, str]]:
    """Trials without a result, those of one reason together, the most frequent first."""
    found: dict[tuple[str, str], list[int]] = {}
    for trial in findings.trials:
        outcome = findings.outcome(trial)
        if outcome in FAILED:
            reason = trial.reason or ("it has not ended" if outcome == "unfinished" else "no reason was recorded")
            found.setdefault((outcome, reason), []).append(trial.number)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [(", ".join(map(str, numbers)), outcome, reason) for (outcome, reason), numbers in ordered]


def commands(findings: Findings) -> str:
    """The commands that repeat the search and use its result."""
    experiment, name = findings.experiment, f"{findings.name[:MAX_PREFIX]}-again"
    found = [
        shell_command("twinhead", "search", "spec.yaml", "--name", name, "--storage", experiment.storage),
        experiment.command("best", "--out", "best"),
        shell_command("twinhead", "evaluate", "best", findings.spec.data_path, "--split", "test"),
        experiment.command("report", "--out", "report.html"),
    ]
    return "\n".join(found)


def provenance(findings: Findings) -> list[tuple[str, str]]:
    """Data, seeds, versions and machines, by name; what is not known is left out."""
    summary, seed = findings.summary, findings.spec.plan.search.seed
    machines = {trial.machine for trial in findings.trials if trial.machine}
    hosts = {trial.host for trial in findings.trials if trial.host}
    versions = summary.versions if summary else {}
    rows = {
        "data set": findings.spec.data_path,
        "fingerprint": summary.data_fingerprint if summary else "",
        "seeds": f"search {seed}, trials {seed}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "machines": "; ".join(sorted(machines)),
        "hosts": ", ".join(sorted(hosts)),
        "ended by": f"budget.{summary.ended_by}" if summary and summary.ended_by else "",
    }
    return [(name, value) for name, value in rows.items() if value]


def as_yaml(values: Mapping[str, Any]) -> str:
    """Nested values as YAML, in order."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
