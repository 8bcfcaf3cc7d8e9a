"""Twinhead from Python: `import twinhead`.

Every name is imported when it is first used, so that the import itself loads neither torch nor Ray. The functions do
what the commands of the same names do, and raise `InputError` where a command ends with exit code 2.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.errors import InputError, UnfinishedError
    from search.api.network import Network
    from search.api.searches import Search, load, search
    from search.api.trainings import Training, train
    from search.results.trials_table import TrialRow as Trial
    from trainable.plugins.parts import Family, Loss, Metric
    from trainable.samples import Samples

__all__ = [
    "Family",
    "InputError",
    "Loss",
    "Metric",
    "Network",
    "Samples",
    "Search",
    "Training",
    "Trial",
    "UnfinishedError",
    "load",
    "search",
    "train",
]

_FOUND_IN = {
    "search": "search.api.searches:search",
    "load": "search.api.searches:load",
    "train": "search.api.trainings:train",
    "Search": "search.api.searches:Search",
    "Training": "search.api.trainings:Training",
    "Trial": "search.results.trials_table:TrialRow",
    "Network": "search.api.network:Network",
    "Samples": "trainable.samples:Samples",
    "Family": "trainable.plugins.parts:Family",
    "Loss": "trainable.plugins.parts:Loss",
    "Metric": "trainable.plugins.parts:Metric",
    "InputError": "data.errors:InputError",
    "UnfinishedError": "data.errors:UnfinishedError",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'twinhead' has no attribute '{name}'; it has {', '.join(__all__)}")
    module, _, attribute = _FOUND_IN[name].partition(":")
    if module.startswith("search.") and "ray" not in sys.modules:
        from search.run.cluster import prepare_environment

        prepare_environment()  # Ray reads it when it is imported
    found: object = getattr(importlib.import_module(module), attribute)
    globals()[name] = found  # so that this function is called once for each name
    return found


def __dir__() -> list[str]:
    """The public names, for completion in a notebook."""
    return sorted(__all__)
