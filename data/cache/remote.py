"""Paths in the node's cache for copies of remote files, below storage/."""

from __future__ import annotations

import hashlib
from pathlib import Path

from data.cache.cache import cache_root
from data.dataset.storage import Location

COPIES = "storage"
"""Directory of all copies in the cache."""


def mirror_of(location: Location) -> Path:
    """The path on this machine under which a copy of a remote file or directory is kept."""
    named = location.explicit()
    server = hashlib.sha256(f"{named.scheme} {named.query}".encode()).hexdigest()[:8]
    return cache_root() / COPIES / f"{named.scheme}-{server}" / named.path
