"""The mirror of a remote experiment: a directory on this machine, in which all its files have the paths of local ones.

It lies in the cache, under storage/. Its checkpoints are fetched when they are needed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from data.dataset.storage import Location

MIRRORS = "storage"
"""Directory of all mirrors in the cache."""


def mirror_of(location: Location) -> Path:
    """The path on this machine under which a remote file or directory is kept."""
    from data.cache.cache import cache_root  # imports numpy

    kind = hashlib.sha256(f"{location.scheme} {location.query}".encode()).hexdigest()[:8]
    return cache_root() / MIRRORS / f"{location.scheme}-{kind}" / location.path
