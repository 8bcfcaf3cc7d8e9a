"""Blocks beside the same computation in double precision."""

from __future__ import annotations

import pytest
import torch

from trainable.models.blocks import shortcut_1x1


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 8, 16])
@pytest.mark.parametrize("side", [6, 7, 12, 24])
def test_gradients_of_a_strided_shortcut_are_right(channels: int, side: int) -> None:
    """Those of oneDNN are wrong for few channels on some processors, or never come."""
    generator = torch.Generator().manual_seed(channels)
    conv = shortcut_1x1(channels, 2 * channels, stride=2)[0]
    exact = shortcut_1x1(channels, 2 * channels, stride=2)[0].double()
    exact.load_state_dict(conv.state_dict())
    x = torch.randn(4, channels, side, side, generator=generator)
    given = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    wanted = x.detach().double().requires_grad_()

    found, expected = conv(given), exact(wanted)
    weights = torch.randn(found.shape, generator=generator)
    (found * weights).sum().backward()
    (expected * weights.double()).sum().backward()

    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(_grad(given), _grad(wanted), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(_grad(conv.weight), _grad(exact.weight), rtol=1e-4, atol=1e-4)


def _grad(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad.double()
