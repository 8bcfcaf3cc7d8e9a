"""Rendered scenes as encoded samples, drawn room by room on every core."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

from data.images import encode_sample
from data.parallel import open_pool
from data.scenes.scenes import SceneSet
from data.schema import EncodedSample


def render(scenes: SceneSet, *, processes: int | None = None) -> Iterator[EncodedSample]:
    """Every sample of `scenes` in order, whatever the number of processes.

    Args:
        scenes: what to draw.
        processes: how many rooms to draw at a time; the machine's cores when left out.
    """
    processes = min(processes or os.cpu_count() or 1, scenes.backgrounds)
    if processes == 1:
        for room in range(scenes.backgrounds):
            yield from _room(scenes, room)
        return
    ahead: deque[Future[list[EncodedSample]]] = deque()
    with open_pool(processes) as pool:
        try:
            for room in range(scenes.backgrounds):
                ahead.append(pool.submit(_room, scenes, room))
                if len(ahead) > 2 * processes:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _room(scenes: SceneSet, room: int) -> list[EncodedSample]:
    first = room * scenes.per_background
    return [encode_sample(scenes[index]) for index in range(first, first + scenes.per_background)]
