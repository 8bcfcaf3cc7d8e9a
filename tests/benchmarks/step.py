"""A training step as trials take it, and as a plain loop would: fp32, channels first, the optimizer's defaults.

python tests/benchmarks/step.py [--family NAME] [--parts] [--json FILE]
python tests/benchmarks/step.py --device cuda [--size 224] [--batch 32]

Both sides have the same network, losses, pictures and kind of optimizer, and take turns; a figure is the median of
steps. The networks have their published width, and the losses are all that the default space can combine. With --parts,
what trials do beyond the plain loop is also taken away one by one: a ratio above 1 is what the step gains by it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace

import torch
from results import Row, arguments, publish, write
from torch.nn.utils import clip_grad_norm_

from data.schema import Batch
from trainable.config import TrialConfig, build
from trainable.loop.precision import autocast
from trainable.loss.dual_loss import DualLoss
from trainable.models import build_model
from trainable.optim.optimizers import build_optimizer

WIDTHS = {
    "resunet": 32,
    "resunet-lite": 64,
    "pair": 32,
    "dmnet-cnn": 16,
    "dmnet-cnn-v1": 16,
    "dmnet-resnet": 16,
    "resnet-dual": 32,
    "sepunet": 32,
}
LOSS = {"mask": {"bce": 1.0, "dice": 1.0, "l1": 1.0}, "depth": {"l1": 1.0, "ssim": 1.0, "edge": 1.0}}
SECONDS = 20.0
"""For a family, at most; less where so many steps are taken earlier."""
STEPS = 15


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a step is taken."""

    precision: str
    channels_last: bool
    fused: bool


OURS = Kind(precision="bf16", channels_last=True, fused=True)
PLAIN = Kind(precision="fp32", channels_last=False, fused=False)
WITHOUT = {
    "bf16": replace(OURS, precision="fp32"),
    "channels_last": replace(OURS, channels_last=False),
    "fused": replace(OURS, fused=False),
}


def main() -> None:
    """Measure each family in one run, and print it."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    families = [options.family] if options.family else list(WIDTHS)
    rows = [measure(family, device, size=options.size, batch=options.batch, parts=options.parts) for family in families]
    write(_device_features(device))
    ratios = {str(row["family"]): float(row["ratio"]) for row in rows}  # type: ignore[arg-type]
    publish(rows, ratios | {"median": statistics.median(ratios.values())}, options.json)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--family", choices=list(WIDTHS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, help="side of the pictures; 64, on cuda 224")
    parser.add_argument("--batch", type=int, help="pictures of a step; 8, on cuda 32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", action="store_true", help="take away what trials do one by one")
    options = parser.parse_args()
    on_cuda = options.device == "cuda"
    options.size, options.batch = options.size or (224 if on_cuda else 64), options.batch or (32 if on_cuda else 8)
    return options


def measure(
    family: str,
    device: torch.device,
    *,
    size: int,
    batch: int,
    width: int | None = None,
    parts: bool = False,
    steps: int = STEPS,
) -> Row:
    """Seconds of a step of each kind, by the median of steps that take turns; which of fp32 and bf16 trials take, too.

    A trial takes the precision that is faster, as `trainable/loop/precision.py` does: 'ours' is the better of both.

    Args:
        family: a key of `WIDTHS`.
        device: device of the steps.
        size: side of the images in pixels.
        batch: images of a step.
        width: of the network; default: its published width.
        parts: whether to also take away one by one what trials do beyond the plain loop.
        steps: maximum number of measured steps of each kind.
    """
    width = width or WIDTHS[family]
    kinds = {"plain": PLAIN, "bf16": OURS, "fp32": replace(OURS, precision="fp32")}
    if parts:
        kinds |= {f"without {name}": kind for name, kind in WITHOUT.items() if name != "bf16"}
    sides = {name: Side(family, kind, device, size=size, batch=batch, width=width) for name, kind in kinds.items()}
    for side in sides.values():
        side.step()
        side.step()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    ends = time.perf_counter() + SECONDS
    while len(seconds["plain"]) < steps and (len(seconds["plain"]) < 3 or time.perf_counter() < ends):
        for name, side in sides.items():
            seconds[name].append(side.step())
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    precision = min(("fp32", "bf16"), key=middle.__getitem__)
    ours = middle[precision]
    row: dict[str, str | float] = {"family": family, "width": width, "precision": precision}
    row |= {"plain ms": 1000 * middle["plain"], "ours ms": 1000 * ours, "samples/s": batch / ours}
    if parts:
        row |= {"bf16 gains": middle["fp32"] / middle["bf16"]}
        row |= {f"{name} gains": middle[f"without {name}"] / middle["bf16"] for name in WITHOUT if name != "bf16"}
    return row | {"ratio": middle["plain"] / ours}


class Side:
    """A network, its optimizer and a batch."""

    def __init__(self, family: str, kind: Kind, device: torch.device, *, size: int, batch: int, width: int) -> None:
        torch.manual_seed(0)
        model = {"family": family, "width": width, "precision": kind.precision}
        config = build(TrialConfig, {"model": model, "loss": LOSS}, source="the benchmark")
        self.config, self.device = config, device
        layout = torch.channels_last if kind.channels_last else torch.contiguous_format
        self.network = build_model(config.model).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.loss = DualLoss(config.loss).to(device)
        parameters = list(self.network.parameters())
        chosen = config.optimizer
        self.optimizer: torch.optim.Optimizer = build_optimizer([parameters], chosen)
        if not kind.fused:
            decay = chosen.weight_decay
            self.optimizer = torch.optim.AdamW(parameters, lr=chosen.lr, weight_decay=decay)
        photo = torch.randint(0, 256, (2, batch, 3, size, size), dtype=torch.uint8)
        plane = torch.randint(0, 256, (2, batch, 1, size, size), dtype=torch.uint8)
        bg, fg_bg = (stack.contiguous(memory_format=layout) for stack in photo)
        self.batch = Batch(bg=bg, fg_bg=fg_bg, mask=plane[0], depth=plane[1]).to(device)

    def step(self) -> float:
        """Seconds of a forward and backward pass and an optimizer step."""
        self._wait()
        started = time.perf_counter()
        with autocast(self.config.model, self.device):
            prediction = self.network(*self.batch.inputs())
        total, _ = self.loss(prediction, *self.batch.targets())
        self.optimizer.zero_grad()
        total.backward()
        clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _device_features(device: torch.device) -> str:
    """What decides how fast bf16 is."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    features = torch.cpu.get_capabilities()
    names = ("avx2", "avx512_f", "avx512_bf16", "amx_tile", "amx_bf16")
    present = [f"{name} {'yes' if features.get(name) else 'no'}" for name in names]
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads; {', '.join(present)}"


if __name__ == "__main__":
    main()
