"""The code that a submitted search runs: this installation's packages in an archive, without data, results or history.

The plugins of the search are in it too: a job runs the files of the user who submits it, not those in the storage. The
archive has the same bytes for the same code, so that Ray uploads it once.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import search
from trainable.plugins.active import PluginSource

PACKAGES = ("data", "trainable", "search")
MODULES = ("twinhead.py",)
"""Modules beside the packages."""
PLUGINS = "plugins"
"""Directory of the plugins in the archive."""
SKIPPED = ("__pycache__",)
MAX_BYTES = 50 * 2**20
"""Of the archive. The code takes one; more means that something else lies in its directories."""
LARGEST = 3
"""Files that are named when an archive is shown."""
ENTRY = "twinhead"
"""Name of the script that starts a command on the cluster."""
_SCRIPT = """\
#!/bin/sh
# Run a twinhead command with the Python of the Ray cluster, which need not be on the PATH of a job: it is the one whose
# environment the parent process, Ray's supervisor of the job, has loaded Ray from.
prefix=$(sed -n 's|^[^/]*\\(/.*\\)/lib/python3[^/]*/site-packages/ray/_raylet.so$|\\1|p' /proc/$PPID/maps | head -n 1)
# Not in this directory: another Ray node on the same machine may unpack the code anew.
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
cd / && exec "${prefix:+$prefix/bin/}python" -P -m search.cli.main "$@"
"""
_FIXED_TIME = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive of the code."""

    path: Path
    bytes: int
    files: int
    largest: tuple[tuple[str, int], ...]
    """Names and bytes of the largest files within."""


def version() -> str:
    """Version of this installation."""
    return metadata.version("twinhead")


def write_archive(directory: Path, plugins: Iterable[PluginSource] = ()) -> Archive:
    """Write the archive of the code into a directory.

    It has the three packages, `MODULES`, the plugins, the script `ENTRY`, and the metadata of the distribution, by
    which Python finds the version.
    """
    root = Path(search.__file__).parent.parent
    contents = {str(path.relative_to(root)): path.read_bytes() for path in _files(root)}
    about = f"Metadata-Version: 2.1\nName: twinhead\nVersion: {version()}\n"
    contents |= {ENTRY: _SCRIPT.encode(), f"twinhead-{version()}.dist-info/METADATA": about.encode()}
    contents |= {f"{PLUGINS}/{plugin.file}": plugin.text.encode() for plugin in plugins}
    path = directory / "twinhead.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name, _FIXED_TIME), contents[name], zipfile.ZIP_DEFLATED)
    by_size = sorted(((name, len(content)) for name, content in contents.items()), key=lambda each: -each[1])
    return Archive(path=path, bytes=path.stat().st_size, files=len(contents), largest=tuple(by_size[:LARGEST]))


def _files(root: Path) -> Iterator[Path]:
    """The files of the packages, without caches and hidden files, and the modules beside them."""
    yield from (root / module for module in MODULES)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            parts = path.relative_to(root).parts
            if path.is_file() and not any(part.startswith(".") or part in SKIPPED for part in parts):
                yield path
