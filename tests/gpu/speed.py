"""Steps: those of trials beside those of a plain loop, and compiled ones beside those of trials."""

from __future__ import annotations

import statistics
import time

import torch
from step import OURS, WIDTHS, Side, measure

from tests.gpu.compare import relative_error
from tests.gpu.findings import Measure
from tests.gpu.session import Session
from trainable.loop.precision import autocast

GOALS = {"resunet": 3.0}
"""By family: times as fast as the plain loop, at 224 px."""
COMPILED = ("resunet", "sepunet", "dmnet-cnn")
COMPILE_SECONDS = 60.0
"""About what one takes; on one thread of an AMD EPYC it was 79 to 97 s."""


def measure_steps(session: Session) -> None:
    """A step of each family beside that of a plain loop: fp32, channels first, the optimizer's defaults."""
    sizes, ratios = session.sizes, list[float]()
    for family in session.each(WIDTHS, seconds=5):
        row = measure(
            family,
            session.device,
            size=sizes.step_side,
            batch=sizes.step_batch,
            width=_width(session, family),
            steps=sizes.steps,
        )
        ratios.append(float(row["ratio"]))
        goal = session.goal(GOALS[family]) if family in GOALS else None
        session.add(
            f"{family}, width {row['width']}",
            Measure(name="times as fast", value=ratios[-1], at_least=goal),
            Measure(name="plain", value=float(row["plain ms"]), unit=" ms"),
            Measure(name="ours", value=float(row["ours ms"]), unit=" ms"),
            Measure(name="samples/s", value=float(row["samples/s"])),
            note=str(row["precision"]),
        )
    if ratios:
        session.add("median of the families", Measure(name="times as fast", value=statistics.median(ratios)))


def measure_compiled(session: Session) -> None:
    """A step with torch.compile beside one without it, both as in trials, and the time until it can be used."""
    families = COMPILED if session.on_gpu else COMPILED[:1]
    for family in session.each(families, seconds=COMPILE_SECONDS if session.on_gpu else 0):
        eager, compiled = _side(session, family), _side(session, family)
        # Without a GPU only the graph is traced: generating C++ takes over a minute for each network.
        compiled.network.compile(backend="inductor" if session.on_gpu else "aot_eager")
        started = time.perf_counter()
        outputs = _outputs(compiled)
        compiled.step()
        compiling = time.perf_counter() - started
        error = relative_error(outputs, _outputs(eager))
        eager.step()
        seconds: dict[str, list[float]] = {"eager": [], "compiled": []}
        for _ in range(1 + session.sizes.steps):
            seconds["eager"].append(eager.step())
            seconds["compiled"].append(compiled.step())
        middle = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
        session.add(
            f"{family}, width {_width(session, family)}",
            Measure(name="times as fast compiled", value=middle["eager"] / middle["compiled"]),
            Measure(name="eager", value=1000 * middle["eager"], unit=" ms"),
            Measure(name="compiled", value=1000 * middle["compiled"], unit=" ms"),
            Measure(name="time to compile", value=compiling, unit=" s"),
            Measure(name="difference of the outputs in bf16", value=error),
            note="" if session.on_gpu else "traced, no code generated",
        )
        torch._dynamo.reset()  # else the compiled code keeps its network


def _side(session: Session, family: str) -> Side:
    sizes = session.sizes
    width = _width(session, family)
    return Side(family, OURS, session.device, size=sizes.step_side, batch=sizes.step_batch, width=width)


def _outputs(side: Side) -> torch.Tensor:
    """(2B, 1, H, W): mask logits, then depth, with the graph of a training step."""
    with autocast(side.config.model, side.device):
        prediction = side.network(*side.batch.inputs())
    return torch.cat([prediction.mask_logits, prediction.depth]).detach()


def _width(session: Session, family: str) -> int:
    return max(1, WIDTHS[family] // session.sizes.width_divisor)
