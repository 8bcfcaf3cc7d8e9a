"""The model families: their parts, their wiring, and what they cost."""

import pytest
import torch
import torch.nn.functional as F

from data.errors import InputError
from trainable.config import ModelConfig
from trainable.models import MODELS, build_model, multiply_adds, parameter_count
from trainable.models.blocks import enlarge

PARTS_AT_WIDTH_32 = {
    "enc1": 11_392,
    "enc2": 57_856,
    "enc3": 230_400,
    "enc4": 919_552,
    "bottleneck": 3_542_016,
    "mask_decoder.up4": 2_360_832,
    "mask_decoder.up3": 590_592,
    "mask_decoder.up2": 147_840,
    "mask_decoder.up1": 37_056,
    "depth_decoder.up4": 2_360_832,
    "depth_decoder.up3": 590_592,
    "depth_decoder.up2": 147_840,
    "depth_decoder.up1": 37_056,
    "mask_head": 33,
    "depth_head": 33,
}


def _model(family="resunet", width=2):
    torch.manual_seed(0)
    return build_model(ModelConfig(family=family, width=width))


def _images(height=32, width=48, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, batch, 3, height, width, generator=generator).unbind()


def test_resunet_has_the_published_number_of_parameters():
    """The published network has 11,033,922; a different number is a different network."""
    assert parameter_count(_model(width=32)) == 11_033_922


def test_resunet_parts_have_the_published_numbers_of_parameters():
    """A total can be right by errors that cancel; the parts cannot."""
    model = _model(width=32).body
    parts = {name: parameter_count(model.get_submodule(name)) for name in PARTS_AT_WIDTH_32}
    assert parts == PARTS_AT_WIDTH_32
    assert sum(parts.values()) == parameter_count(model)


def test_resunet_has_the_published_multiply_adds():
    """They tell strides and places of pooling, which parameters do not show."""
    assert multiply_adds(_model(width=32), 224) == 18_211_078_144


def test_counting_does_not_change_the_model():
    """The cost is computed before training, on the model that is then trained."""
    model = _model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    multiply_adds(model, 32)
    after = model.state_dict()
    assert model.training
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_resunet_is_wired_as_described():
    """Layer by layer in plain functions: input order, shortcuts, pooling, resizing, order of joining."""
    model = _model(width=4).eval().body
    generator = torch.Generator().manual_seed(2)
    weights = {}
    for name, tensor in model.state_dict().items():  # batch norms that do nothing would hide their absence
        random = torch.rand(tensor.shape, generator=generator)
        # Batch norms with a bias above 0 keep the units alive: a dead one would hide what is before it.
        spread = random + 0.5 if "running_var" in name else random if name.endswith("bias") else random - 0.5
        weights[name] = spread if tensor.is_floating_point() else tensor
    model.load_state_dict(weights)
    used = set()

    def take(name):
        used.add(name)
        return weights[name]

    def norm(x, at):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(take(f"{at}.{name}") for name in names))

    def double_conv(x, at):
        for conv, bn in ((0, 1), (3, 4)):
            x = F.conv2d(x, take(f"{at}.{conv}.weight"), take(f"{at}.{conv}.bias"), padding=1)
            x = F.relu(norm(x, f"{at}.{bn}"))
        return x

    def res_block(x, at):
        shortcut = norm(F.conv2d(x, take(f"{at}.shortcut.0.weight")), f"{at}.shortcut.1")
        return F.relu(double_conv(x, f"{at}.main") + shortcut)

    def decode(x, skips, at):
        for level, skip in zip((4, 3, 2, 1), reversed(skips), strict=True):
            size = skip.shape[-2:]
            larger = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
            x = double_conv(torch.cat([larger, skip], 1), f"{at}_decoder.up{level}.conv")
        return F.conv2d(x, take(f"{at}_head.weight"), take(f"{at}_head.bias"))

    bg, fg_bg = _images()
    x, skips = torch.cat([bg, fg_bg], 1), []
    for level in (1, 2, 3, 4):
        skips.append(res_block(x, f"enc{level}"))
        x = F.max_pool2d(skips[-1], 2)
    deepest = double_conv(x, "bottleneck")
    heads = model(bg, fg_bg)
    torch.testing.assert_close(heads.mask, decode(deepest, skips, "mask"))
    torch.testing.assert_close(heads.depth, decode(deepest, skips, "depth"))
    assert {name for name in weights if "num_batches" not in name} == used


@pytest.mark.parametrize("family", sorted(MODELS))
@pytest.mark.parametrize("width", [1, 3])
def test_every_family_predicts_at_the_size_of_its_inputs(family, width):
    """The loop, the losses and the metrics use families by this interface only."""
    prediction = _model(family, width)(*_images())
    assert prediction.mask_logits.shape == prediction.depth.shape == (2, 1, 32, 48)


@pytest.mark.parametrize("family", sorted(MODELS))
def test_every_parameter_of_every_family_gets_a_gradient(family):
    """A part without a gradient wastes memory, and stalls training on several workers."""
    model = _model(family)
    prediction = model(*_images())
    (prediction.mask_logits.square().mean() + prediction.depth.square().mean()).backward()
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [name for name, parameter in learning if parameter.grad is None] == []


@pytest.mark.parametrize("family", sorted(MODELS))
def test_families_predict_the_same_in_channels_last_and_nearly_so_in_bf16(family):
    """Trials use both for speed; neither may change what is computed."""
    model, images = _model(family, width=4).eval(), _images()
    expected = model(*images)
    model = model.to(memory_format=torch.channels_last)
    last = [image.contiguous(memory_format=torch.channels_last) for image in images]
    torch.testing.assert_close(model(*last), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = model(*last)
    torch.testing.assert_close(short.depth.float(), expected.depth, atol=0.02, rtol=0.02)
    torch.testing.assert_close(short.mask_logits.float(), expected.mask_logits, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(("height", "width"), [(24, 32), (32, 40)])
def test_resunet_refuses_sizes_that_it_cannot_halve(height, width):
    """Torch's own error about sizes would not help a user."""
    with pytest.raises(InputError, match=rf"'image_size' is {height} x {width} .* multiples of 16"):
        _model()(*_images(height, width))


def test_error_for_an_unknown_family_lists_the_known_ones():
    """A typo in a spec should be clear from the error."""
    with pytest.raises(InputError, match=r"'model.family' is 'resnet', but must be one of debug, .*resunet"):
        build_model(ModelConfig(family="resnet"))


def test_initial_weights_follow_the_seed():
    """The same trial on the same machine gives the same curve."""
    first, second = _model().state_dict(), _model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_upsampling_agrees_with_torch(layout):
    """Only the memory layout of the gradient differs, which decides the time of the backward pass."""
    x = _images()[0].to(memory_format=layout)
    ours, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    larger = enlarge(ours)
    expected = F.interpolate(reference, scale_factor=2, mode="bilinear", align_corners=True)
    weights = torch.rand(2, 6, *larger.shape[-2:]).to(memory_format=layout)
    for enlarged in (larger, expected):
        (torch.cat([enlarged, enlarged.detach()], dim=1) * weights).sum().backward()
    assert torch.equal(larger, expected)
    torch.testing.assert_close(ours.grad, reference.grad)


def test_upsampling_gets_contiguous_gradients():
    """The gradient of a concatenation is not contiguous, and the backward pass is then many times slower."""
    x = torch.rand(2, 4, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    larger = enlarge(x)
    seen = []
    larger.register_hook(lambda gradient: seen.append(gradient.is_contiguous(memory_format=torch.channels_last)))
    torch.cat([larger, larger.detach()], dim=1).square().sum().backward()
    assert seen == [True]
