"""The network around the body of a family: normalisation, activations, and layers in training mode."""

import pytest
import torch

from data.errors import InputError
from trainable.config import ModelConfig, Normalisation
from trainable.models import MODELS, build_model, multiply_adds, parameter_count


def _images(seed=0):
    return torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def _network(**settings):
    torch.manual_seed(1)
    return build_model(ModelConfig(**{"family": "debug", "width": 3, **settings})).eval()


def test_each_input_has_its_own_normalisation():
    """The weights of a network are only valid for its input normalisation."""
    bg, fg_bg = _images()
    given = Normalisation(bg_mean=[0.1, 0.2, 0.3], bg_std=[2.0, 3.0, 4.0], fg_bg_mean=[0.5, 0.6, 0.7])
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1)
    expected = _network()((bg - mean) / std, fg_bg - torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1))
    torch.testing.assert_close(_network(normalise=given)(bg, fg_bg).mask_logits, expected.mask_logits)


def test_normalisation_is_not_a_parameter():
    """The configuration has them; a second copy could differ."""
    given = Normalisation(bg_mean=[0.1, 0.2, 0.3])
    assert _network(normalise=given).state_dict().keys() == _network().state_dict().keys()


def test_activations_follow_the_configuration():
    """Losses need the output of a head, metrics its activation."""
    raw = _network(mask_activation="linear")(*_images())
    assert torch.equal(raw.mask, raw.mask_logits)
    assert torch.equal(raw.depth, raw.depth_logits)
    squashed = _network(depth_activation="sigmoid")(*_images())
    torch.testing.assert_close(squashed.mask, torch.sigmoid(raw.mask_logits))
    torch.testing.assert_close(squashed.depth, torch.sigmoid(raw.depth_logits))


def test_minmax_stretches_each_image_by_itself():
    """A depth that is right up to scale becomes comparable; images are scaled separately."""
    depth = _network(depth_activation="minmax")(*_images()).depth
    torch.testing.assert_close(depth.amin(dim=(1, 2, 3)), torch.zeros(2))
    torch.testing.assert_close(depth.amax(dim=(1, 2, 3)), torch.ones(2))


def test_minmax_leaves_the_border_of_padded_images_out():
    """The flat border had the smallest or the largest value of an image, which nothing else compares."""
    network, images = _network(depth_activation="minmax"), _images()
    logits = network(*images).depth_logits
    inside = torch.zeros_like(logits, dtype=torch.bool)
    inside[0, :, 9:20], inside[1, :, :, 3:30] = True, True
    depth = network(*images, inside).depth
    for index, rows in enumerate((slice(9, 20), slice(None))):
        columns = (slice(None), slice(3, 30))[index]
        own = logits[index, 0, rows, columns]
        expected = (own - own.min()) / (own.max() - own.min())
        torch.testing.assert_close(depth[index, 0, rows, columns], expected)
    assert depth.min() == 0
    assert depth.max() == 1
    assert torch.equal(network(*images, torch.ones_like(inside)).depth, network(*images).depth)


def test_a_constant_image_is_stretched_to_zero():
    """A published program divided by 0 here."""
    network = _network(depth_activation="minmax")
    torch.nn.init.zeros_(network.body.depth_head.weight)
    depth = network(*_images()).depth
    assert torch.equal(depth, torch.zeros_like(depth))
    depth.sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters())


def test_dropout_can_stay_in_evaluation_as_was_published():
    """It reproduces the published metrics: every evaluation differs."""
    network = _network(family="resnet-dual", dropout=0.5, eval_mode="dropout")
    assert not torch.equal(network(*_images()).depth, network(*_images()).depth)
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(layer.training for layer in norms)


def test_all_layers_can_stay_in_training_as_was_published():
    """One published program never left training mode: a prediction depends on its batch."""
    network = _network(family="pair", eval_mode="train")
    bg, fg_bg = _images()
    assert not torch.allclose(network(bg[:1], fg_bg[:1]).depth, network(bg, fg_bg).depth[:1])


def test_a_shared_decoder_has_the_published_parameters_and_costs_as_much():
    """The published program ran one decoder twice, and its summary counted it twice."""
    network = _network(family="sepunet", width=32, shared_decoder=True)
    assert parameter_count(network) == 513_206
    assert multiply_adds(network, 160) == 820_582_400


def test_other_families_have_no_decoder_to_share():
    """Silently ignored, it would train another network."""
    with pytest.raises(InputError, match=r"'model.shared_decoder' is true, but must be false .* 'resunet'"):
        _network(family="resunet", shared_decoder=True)


@pytest.mark.parametrize(("family", "parts"), [("pair", 2), ("resunet", 1)])
def test_parameters_are_split_into_parts(family, parts):
    """Two networks that share no layers may have separate learning-rate policies."""
    network = _network(family=family, width=2)
    found = network.parts()
    assert len(found) == parts
    assert sorted(map(id, network.parameters())) == sorted(id(parameter) for part in found for parameter in part)


@pytest.mark.slow
def test_features_keep_the_memory_format_of_batches():
    """Otherwise every layer would convert the memory format."""
    device = torch.device("cpu")
    network = _network(family="resunet", width=4).on(device)
    expected = _network(family="resunet", width=4)(*_images())
    seen = []

    def look(module, given, features):
        seen.append(features.is_contiguous(memory_format=torch.channels_last))

    network.body.enc2.register_forward_hook(look)
    found = network(*(stack.to(memory_format=torch.channels_last) for stack in _images()))
    assert seen == [True]
    torch.testing.assert_close(found.depth, expected.depth)


@pytest.mark.parametrize("family", sorted(MODELS))
def test_bf16_is_close_to_fp32(family):
    """Some layers run in float32 for speed: their outputs and gradients must be bf16 again."""
    network = _network(family=family, width=4).train()
    exact = network(*_images())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(*_images())
    rounded.depth.sum().backward()
    for near, truth in zip(rounded, exact, strict=True):
        assert near.dtype == torch.float32
        assert (near - truth).abs().mean() < 0.05 * truth.abs().max()
    assert any(parameter.grad is not None for parameter in network.parameters())
