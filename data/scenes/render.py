"""Render the samples of a scene set on several processes."""

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
    """Render all samples of `scenes` in order; they do not depend on the number of processes.

    Args:
        scenes: the samples to render.
        processes: number of rooms that are rendered at the same time; default: the number of cores.
    """
    processes = min(processes or os.cpu_count() or 1, scenes.backgrounds)
    if processes == 1:
        for room in range(scenes.backgrounds):
            yield from _render_room(scenes, room)
        return
    pending: deque[Future[list[EncodedSample]]] = deque()
    with open_pool(processes) as pool:
        try:
            for room in range(scenes.backgrounds):
                pending.append(pool.submit(_render_room, scenes, room))
                if len(pending) > 2 * processes:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _render_room(scenes: SceneSet, room: int) -> list[EncodedSample]:
    first = room * scenes.per_background
    return [encode_sample(scenes[index]) for index in range(first, first + scenes.per_background)]
