"""The other model families: sizes and costs as published, and what each promises beyond the common interface."""

import pytest
import torch

from data.errors import InputError
from trainable.config import ModelConfig
from trainable.families import FAMILIES, WITH_DROPOUT
from trainable.models import MODELS, build_model, multiply_adds, parameter_count

NETWORKS = sorted(set(MODELS) - {"resunet", "debug"})
PUBLISHED = {  # family: width, parameters, side in pixels, multiply-adds of the convolutions at that side
    "resunet-lite": (64, 2_634_882, 224, 37_295_620_096),
    "pair": (32, 114_624 + 7_763_041, 64, 465_174_528 + 754_450_432),
    "dmnet-cnn": (16, 242_976, 192, 8_912_240_640),
    "dmnet-cnn-v1": (16, 427_168, 192, 15_707_013_120),
    "dmnet-resnet": (16, 385_376, 192, 14_126_284_800),
    "resnet-dual": (32, 3_165_170, 224, 23_871_733_760),
    "sepunet": (32, 747_926, 160, 820_582_400),
}
PARTS = {
    "pair": {
        "mask_net.first": 960,
        "mask_net.residual2": 9_312,
        "mask_net.residual3": 9_312,
        "mask_net.wide1x1": 2_240,
        "mask_net.wide3x3": 18_624,
        "mask_net.residual6": 37_056,
        "mask_net.unused7": 37_056,
        "mask_net.head": 64,
        "depth_net.enc1": 10_208,
        "depth_net.enc2": 55_552,
        "depth_net.enc3": 221_696,
        "depth_net.enc4": 885_760,
        "depth_net.bottleneck": 3_540_992,
        "depth_net.up4.enlarge": 524_544,
        "depth_net.up4.conv": 1_770_496,
        "depth_net.up3.enlarge": 131_200,
        "depth_net.up3.conv": 442_880,
        "depth_net.up2.enlarge": 32_832,
        "depth_net.up2.conv": 110_848,
        "depth_net.up1.enlarge": 8_224,
        "depth_net.up1.conv": 27_776,
        "depth_net.head": 33,
    },
    "dmnet-cnn": {
        "trunk": 47_264,
        "combine": 1_024,
        "mask_branch": 97_216,
        "depth_branch": 97_216,
        "mask_head": 128,
        "depth_head": 128,
    },
    "dmnet-cnn-v1": {
        "trunk": 47_264,
        "combine": 1_024,
        "mask_branch": 189_312,
        "depth_branch": 189_312,
        "mask_head": 128,
        "depth_head": 128,
    },
    "dmnet-resnet": {
        "trunk.0": 864 + 32,
        "trunk.1": 14_528,
        "trunk.2": 36_384,
        "trunk.3": 67_968,
        "combine": 2_048,
        "mask_branch.0": 57_728,
        "mask_branch.1": 73_984,
        "depth_branch.0": 57_728,
        "depth_branch.1": 73_984,
        "mask_head": 64,
        "depth_head": 64,
    },
    "resnet-dual": {
        "bg_stem": 864 + 64,
        "fg_bg_stem": 864 + 64,
        "bg_layer": 37_120,
        "fg_bg_layer": 37_120,
        "layer3": 525_568,
        "layer4": 2_099_712,
        "mask_decoder.narrow": 16_448,
        "mask_decoder.up1": 81_024,
        "mask_decoder.up2": 20_288,
        "mask_decoder.head": 145,
        "depth_decoder.narrow": 32_896,
        "depth_decoder.up1": 250_112,
        "depth_decoder.up2": 62_592,
        "depth_decoder.head": 289,
    },
    "sepunet": {
        "inc": 1_620,
        "down1": 7_488,
        "down2": 27_264,
        "down3": 103_680,
        "down4": 137_728,
        "mask_decoder.up1": 172_672,
        "mask_decoder.up2": 45_376,
        "mask_decoder.up3": 12_448,
        "mask_decoder.up4": 4_224,
        "depth_decoder.up1": 172_672,
        "depth_decoder.up2": 45_376,
        "depth_decoder.up3": 12_448,
        "depth_decoder.up4": 4_224,
        "mask_head": 353,
        "depth_head": 353,
    },
}


def _model(family, width=2, dropout=0.0):
    torch.manual_seed(0)
    return build_model(ModelConfig(family=family, width=width, dropout=dropout))


def _published(family):
    with torch.device("meta"):
        return build_model(ModelConfig(family=family, width=PUBLISHED[family][0]))


def _parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _images(height=32, width=48, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, batch, 3, height, width, generator=generator).unbind()


def _same(one, other):
    return all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def test_every_family_is_tested_with_its_published_numbers():
    """A new family without published values would be tested by its interface only."""
    assert set(PUBLISHED) == set(NETWORKS)


@pytest.mark.parametrize("family", NETWORKS)
def test_families_have_the_published_numbers_of_parameters(family):
    """A different number is a different network."""
    assert _parameters(_published(family)) == PUBLISHED[family][1]


@pytest.mark.parametrize("family", sorted(PARTS))
def test_parts_have_the_published_numbers_of_parameters(family):
    """A total can be right by errors that cancel; the parts cannot."""
    model = _published(family)
    assert {name: _parameters(model.body.get_submodule(name)) for name in PARTS[family]} == PARTS[family]
    assert sum(PARTS[family].values()) == _parameters(model)


@pytest.mark.parametrize("family", NETWORKS)
def test_families_have_the_published_multiply_adds(family):
    """They tell strides and places of pooling, which parameters do not show."""
    _, _, side, expected = PUBLISHED[family]
    assert multiply_adds(_published(family), side) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [("mask_net", 114_624), ("depth_net", 7_763_041)],
)
def test_published_size_of_pair_includes_its_unused_block(part, expected):
    """The published mask network counts a block that never learns; ours has to be comparable."""
    assert parameter_count(_published("pair").body.get_submodule(part)) == expected


@pytest.mark.parametrize("family", NETWORKS)
@pytest.mark.parametrize("size", [(16, 16), (32, 80)])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_families_predict_at_the_size_of_their_inputs(family, size, width):
    """A search samples the width: none may fail, at any image size."""
    prediction = _model(family, width).eval()(*_images(*size))
    assert prediction.mask_logits.shape == prediction.depth.shape == (2, 1, *size)


@pytest.mark.parametrize("family", NETWORKS)
def test_a_single_image_is_predicted_as_in_a_batch(family):
    """The prediction of an image does not depend on the others of its batch."""
    model, (bg, fg_bg) = _model(family).eval(), _images()
    alone, together = model(bg[:1], fg_bg[:1]), model(bg, fg_bg)
    torch.testing.assert_close(alone.mask_logits, together.mask_logits[:1])
    torch.testing.assert_close(alone.depth, together.depth[:1])


@pytest.mark.parametrize("family", NETWORKS)
def test_gradients_reach_every_trained_parameter(family):
    """A parameter without a gradient wastes memory, and stalls training on several workers."""
    model = _model(family, width=4, dropout=0.1 if family in WITH_DROPOUT else 0.0)
    prediction = model(*_images())
    (prediction.mask_logits.square().mean() + prediction.depth.square().mean()).backward()
    waiting = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    dead = {name for name, _ in model.named_parameters() if name.startswith("body.mask_net.unused7.")}
    assert waiting == reached == {name for name, _ in model.named_parameters()} - dead
    assert bool(dead) == (family == "pair")


def test_each_head_has_its_own_decoder_in_sepunet():
    """The published program ran one decoder for both, so that the second head had nothing of its own."""
    model = _model("sepunet")
    model(*_images()).depth.square().mean().backward()
    assert all(parameter.grad is None for parameter in model.body.mask_decoder.parameters())
    assert all(parameter.grad is not None for parameter in model.body.depth_decoder.parameters())


@pytest.mark.parametrize("family", sorted(WITH_DROPOUT))
def test_dropout_is_random_in_training_and_off_in_evaluation(family):
    """One published network had dropout in evaluation too, and its predictions varied."""
    model, images = _model(family, dropout=0.5), _images()
    assert not _same(model.train()(*images), model.train()(*images))
    assert _same(model.eval()(*images), model.eval()(*images))


@pytest.mark.parametrize("family", sorted(WITH_DROPOUT))
def test_weights_do_not_depend_on_dropout(family):
    """Trials with and without it start alike, and either loads the other's weights."""
    without, with_dropout = _model(family).state_dict(), _model(family, dropout=0.5).state_dict()
    assert list(without) == list(with_dropout)
    assert _same(without.values(), with_dropout.values())


@pytest.mark.parametrize(
    ("family", "expected"),
    [("pair", 7), ("dmnet-cnn", 10), ("dmnet-cnn-v1", 10), ("dmnet-resnet", 15), ("resnet-dual", 2 + 8 * 2)],
)
def test_dropout_is_in_as_many_places_as_published(family, expected):
    """It regularises more with more dropout layers."""
    modules = list(_model(family, dropout=0.25).modules())
    assert sum(isinstance(module, torch.nn.Dropout) and module.p == 0.25 for module in modules) == expected


@pytest.mark.parametrize("family", sorted(set(MODELS) - WITH_DROPOUT))
def test_families_without_dropout_refuse_it(family):
    """A search over it would compare equal trials."""
    with pytest.raises(InputError, match=rf"'model.dropout' is 0.1, but must be 0 .* '{family}'.* correct it"):
        _model(family, dropout=0.1)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_dropout_is_a_probability_below_one(value):
    """At 1 no values are left."""
    with pytest.raises(ValueError, match="dropout"):
        ModelConfig(dropout=value)


@pytest.mark.parametrize(
    ("family", "height", "width", "wanted"),
    [
        ("resunet-lite", 30, 32, "multiples of 4"),
        ("resnet-dual", 32, 34, "multiples of 4"),
        ("pair", 32, 40, "multiples of 16"),
        ("sepunet", 15, 32, "at least 16"),
    ],
)
def test_unsupported_sizes_are_refused(family, height, width, wanted):
    """Torch's own error about sizes would not help a user."""
    with pytest.raises(InputError, match=rf"'image_size' is {height} x {width} .* {wanted} .*'{family}'"):
        _model(family)(*_images(height, width))


@pytest.mark.parametrize("family", ["dmnet-cnn", "dmnet-cnn-v1", "dmnet-resnet", "sepunet"])
def test_some_families_accept_odd_sizes(family):
    """None of their layers halves the size."""
    prediction = _model(family).eval()(*_images(17, 39))
    assert prediction.mask_logits.shape == prediction.depth.shape == (2, 1, 17, 39)


@pytest.mark.parametrize("family", NETWORKS)
def test_families_train_in_channels_last_and_bf16(family):
    """Trials use both for speed; gradients must be finite."""
    model = _model(family, width=4).to(memory_format=torch.channels_last)
    images = [image.contiguous(memory_format=torch.channels_last) for image in _images()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model(*images)
    (prediction.mask_logits.float().square().mean() + prediction.depth.float().square().mean()).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients) > len(gradients) // 2


def test_every_name_of_a_family_has_a_network() -> None:
    """A spec is checked by the names, without importing the networks."""
    assert MODELS.keys() == FAMILIES
