"""Opening a data set for a command: every part is verified, and the progress is shown."""

from __future__ import annotations

from data.dataset.dataset import Dataset
from search.terminal import Screen


def open_data(path: str, screen: Screen) -> Dataset:
    """Open a data set and verify the checksum of every part.

    Args:
        path: a directory, or an address such as s3://bucket/prefix.
        screen: shows the progress.

    Raises:
        InputError: if it is missing, of a newer schema, truncated or altered.
    """
    size = sum(part.bytes for part in Dataset.open(path).info.parts)
    with screen.bar("checking the data", -(-size // 2**20), "MiB") as move:
        done = 0

        def show(checked: int) -> None:
            nonlocal done
            move(-(-checked // 2**20) - done, "")
            done = -(-checked // 2**20)

        return Dataset.open(path, verify=True, on_bytes=show)
