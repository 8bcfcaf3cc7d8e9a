"""Forward and backward pass of each family: fp32 against float64 on the CPU, lower precisions against fp32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from step import LOSS, WIDTHS
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from data.schema import Batch
from tests.gpu.compare import exact_float32, joined_error, relative_error, worst_error
from tests.gpu.findings import Measure
from tests.gpu.session import Session
from trainable.config import ModelConfig, TrialConfig, build
from trainable.loop.precision import autocast, supported_precisions, with_precision
from trainable.loss.dual_loss import DualLoss
from trainable.models import Prediction, build_model
from trainable.optim.optimizers import build_optimizer

LOSS_SCALE = 256.0
"""Of fp16, whose smallest normal number is 6e-5: gradients below it would lose their bits."""


STEPS = 5
"""Optimizer steps after which the losses of two precisions are compared."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest relative errors, as `tests.gpu.compare` defines them; None for a measure without a limit."""

    outputs: float
    """Of the outputs of both heads."""
    gradients: float | None = None
    """Of the gradients of all parameters as one vector."""
    tensor: float | None = None
    """Of the gradient of the worst parameter."""


FP32 = Tolerance(outputs=5e-4, gradients=3e-2, tensor=0.15)
FP16, BF16 = Tolerance(outputs=1.5e-2, gradients=0.3), Tolerance(outputs=8e-2, gradients=0.6)
TOLERANCES = {"fp32": FP32, "tf32": FP16, "fp16": FP16, "bf16": BF16}
"""Two to seven times the errors on a CPU at 32 and 64 px, in the worst family but one: outputs 8e-5 in fp32, 7e-3 in
fp16, 4e-2 in bf16; gradients 6e-3, 0.15 and 0.36. TF32 has as many bits as fp16. Gradients differ this much because
rounding switches ReLUs near 0."""
SENSITIVE = {
    "sepunet": {
        "fp32": Tolerance(outputs=2e-3, gradients=0.1, tensor=0.6),
        "tf32": Tolerance(outputs=0.1),
        "fp16": Tolerance(outputs=0.1),
        "bf16": Tolerance(outputs=0.5),
    }
}
"""Depthwise convolutions add up few products, and batch normalisation enlarges what differs little. On a CPU: outputs
3e-4, 5e-2 and 0.23; gradients 1e-2 in fp32, but up to 0.45 and 0.97 in fp16 and bf16, where a limit says nothing."""
MAX_LOSS_ERROR = 0.05
"""Of the loss after `STEPS` steps, in any precision against fp32. On a CPU it was at most 0.014, while the steps lower
the loss by a fifth to two fifths."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The results of a forward and a backward pass, float64 on the CPU."""

    outputs: Tensor
    """(2B, 1, H, W): mask logits, then depth."""
    gradients: dict[str, Tensor]
    """By the name of the parameter, without those that have none."""


class Subject:
    """A network with the weights of seed 0 and the training loss of all benchmarks.

    Args:
        model: the network; its precision is ignored.
        device: where it runs.
        dtype: of its weights and inputs.
        precision: of its forward pass: 'fp32', 'tf32', 'fp16' or 'bf16'.
    """

    def __init__(
        self, model: ModelConfig, device: torch.device, *, dtype: torch.dtype = torch.float32, precision: str = "fp32"
    ) -> None:
        self._config = build(TrialConfig, {"model": model.model_dump(), "loss": LOSS}, source="this script")
        torch.manual_seed(0)
        self._network = build_model(model).on(device).to(dtype)
        self._loss = DualLoss(self._config.loss).to(device)
        self._device, self._dtype, self._precision = device, dtype, precision
        self._scale = LOSS_SCALE if precision == "fp16" else 1.0

    def run_pass(self, images: Batch) -> Pass:
        """Run a batch forward and backward."""
        prediction, _ = self._backward(images.to(self._device))
        return Pass(
            outputs=torch.cat([prediction.mask_logits, prediction.depth]).detach().double().cpu(),
            gradients={
                name: parameter.grad.double().cpu()
                for name, parameter in self._network.named_parameters()
                if parameter.grad is not None
            },
        )

    def train(self, images: Batch, steps: int) -> float:
        """The loss after `steps` optimizer steps on the same batch."""
        batch, chosen = images.to(self._device), self._config.optimizer
        optimizer = build_optimizer([list(self._network.parameters())], chosen)
        for _ in range(steps):
            self._backward(batch)
            clip_grad_norm_(self._network.parameters(), chosen.clip_norm)
            optimizer.step()
        _, loss = self._backward(batch)
        return loss

    def _backward(self, batch: Batch) -> tuple[Prediction, float]:
        """The prediction and the loss; the gradients are in the parameters."""
        self._network.zero_grad()
        with self._autocast():
            prediction: Prediction = self._network(*(inputs.to(self._dtype) for inputs in batch.inputs()))
        total, _ = self._loss(prediction, *batch.targets())
        (total * self._scale).backward()
        for parameter in self._network.parameters():
            if parameter.grad is not None:
                parameter.grad /= self._scale
        return prediction, total.item()

    def _autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass: that of trials, but for fp16, which they do not have."""
        if self._precision == "fp16":
            return torch.autocast(self._device.type, torch.float16)
        if self._precision == "tf32":
            return nullcontext()  # torch's default in convolutions, outside of `exact_float32`
        return autocast(with_precision(self._config, self._precision).model, self._device)


def check_families(session: Session) -> None:
    """Each family in fp32 on the device, channels last as in trials, against float64 on the CPU."""
    images = session.images(session.sizes.checked_side, session.sizes.checked_batch)
    for family in session.each(WIDTHS, seconds=5):
        model = _model(session, family)
        reference = Subject(model, torch.device("cpu"), dtype=torch.float64).run_pass(images)
        with exact_float32():
            found = Subject(model, session.device).run_pass(images)
        session.add(family, *errors(found, reference, tolerance(family, "fp32")))


def check_precisions(session: Session) -> None:
    """Each family in each lower precision against exact fp32 on the same device.

    bf16 is used by trials through `trainable.loop.precision`. On a GPU, their fp32 is TF32 in convolutions. fp16 is no
    setting of trials, but an exported network may run in it.
    """
    images = session.images(session.sizes.checked_side, session.sizes.checked_batch)
    for family in session.each(WIDTHS, seconds=3):
        model = _model(session, family)
        with exact_float32():
            reference = Subject(model, session.device).run_pass(images)
            expected = Subject(model, session.device).train(images, STEPS)
        for precision in _precisions(session):
            found = Subject(model, session.device, precision=precision).run_pass(images)
            loss = Subject(model, session.device, precision=precision).train(images, STEPS)
            session.add(
                f"{family}, {precision}",
                *errors(found, reference, tolerance(family, precision)),
                Measure(name="loss", value=abs(loss - expected) / abs(expected), at_most=MAX_LOSS_ERROR),
            )


def errors(found: Pass, reference: Pass, limits: Tolerance) -> list[Measure]:
    """The errors of a pass, with their limits."""
    measures = [
        Measure(name="outputs", value=relative_error(found.outputs, reference.outputs), at_most=limits.outputs),
        Measure(name="gradients", value=joined_error(found.gradients, reference.gradients), at_most=limits.gradients),
    ]
    if limits.tensor is not None:
        worst = worst_error(found.gradients, reference.gradients)
        measures.append(Measure(name="worst gradient", value=worst, at_most=limits.tensor))
    return measures


def tolerance(family: str, precision: str) -> Tolerance:
    """The largest errors of a family in a precision."""
    return (TOLERANCES | SENSITIVE.get(family, {}))[precision]


def _model(session: Session, family: str) -> ModelConfig:
    width = max(1, WIDTHS[family] // session.sizes.width_divisor)
    return ModelConfig(family=family, width=width, precision="fp32")


def _precisions(session: Session) -> list[str]:
    tf32 = ["tf32"] if session.on_gpu else []
    return [*tf32, "fp16", *(["bf16"] if "bf16" in supported_precisions(session.device) else [])]
