"""The other model families against plain functions: parameters and costs do not show how layers are wired.

Input order, order of joining, place of norms and activations, shortcuts, resizing: each changes only what is computed.
"""

import pytest
import torch
import torch.nn.functional as F

from trainable.config import ModelConfig
from trainable.models import build_model


class Weights:
    """A network's weights by name, and the layers that use them; it remembers which were used."""

    def __init__(self, tensors):
        self.tensors, self.used = tensors, set()

    def take(self, name):
        self.used.add(name)
        return self.tensors[name]

    def conv(self, x, at, stride=1, groups=1):
        weight = self.take(f"{at}.weight")
        bias = self.take(f"{at}.bias") if f"{at}.bias" in self.tensors else None
        return F.conv2d(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2, groups=groups)

    def norm(self, x, at):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.take(f"{at}.{name}") for name in names))

    def unit(self, x, at, conv=0, norm=1, stride=1):
        """Convolution, norm, ReLU."""
        return F.relu(self.norm(self.conv(x, f"{at}.{conv}", stride), f"{at}.{norm}"))

    def double(self, x, at):
        return self.unit(self.unit(x, at), at, conv=3, norm=4)

    def shortcut(self, x, at, stride=1):
        if f"{at}.0.weight" not in self.tensors:
            return x
        return self.norm(self.conv(x, f"{at}.0", stride), f"{at}.1")

    def enlarge(self, x, at):
        return F.conv_transpose2d(x, self.take(f"{at}.weight"), self.take(f"{at}.bias"), stride=2)


def resunet_lite(w, bg, fg_bg):
    def block(x, at):
        return F.relu(w.double(x, f"{at}.main") + w.shortcut(x, f"{at}.shortcut"))

    def decode(x, skips, head):
        for level, skip in ((2, skips[1]), (1, skips[0])):
            larger = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=True)
            x = w.double(torch.cat([larger, skip], 1), f"{head}_decoder.up{level}.conv")
        return w.conv(x, f"{head}_head")

    one = block(torch.cat([bg, fg_bg], 1), "enc1")
    two = block(F.max_pool2d(one, 2), "enc2")
    deepest = w.double(F.max_pool2d(two, 2), "bottleneck")
    return decode(deepest, (one, two), "mask"), decode(deepest, (one, two), "depth")


def pair(w, _bg, fg_bg):
    def unit(x, name):  # ReLU before the norm
        return w.norm(F.relu(w.conv(x, f"mask_net.{name}.0")), f"mask_net.{name}.2")

    x = unit(fg_bg, "first")
    x = x + unit(x, "residual2")
    x = x + unit(x, "residual3")
    x = unit(x, "wide3x3") + unit(x, "wide1x1")
    x = x + unit(x, "residual6")
    mask = w.conv(x, "mask_net.head")

    mean = torch.tensor([0.49737222, 0.49328762, 0.46562814]).view(3, 1, 1)
    std = torch.tensor([0.21714624, 0.21749634, 0.23051126]).view(3, 1, 1)
    x, skips = (fg_bg - mean) / std, []
    for level in (1, 2, 3, 4):
        skips.append(w.double(x, f"depth_net.enc{level}"))
        x = F.max_pool2d(skips[-1], 2)
    x = w.double(x, "depth_net.bottleneck")
    for level in (4, 3, 2, 1):
        larger = w.enlarge(x, f"depth_net.up{level}.enlarge")
        x = w.double(torch.cat([larger, skips[level - 1]], 1), f"depth_net.up{level}.conv")
    return mask, w.conv(x, "depth_net.head")


def dmnet_cnn(w, bg, fg_bg):
    x = torch.cat([bg, fg_bg], 1)
    for step in range(4):
        x = w.unit(x, f"trunk.{step}")
    narrow = w.conv(x, "combine")

    def branch(x, head):
        for step in range(3):
            x = w.unit(x, f"{head}_branch.{step}")
        last = f"{head}_branch.3"
        return w.conv(w.conv(x, last) if f"{last}.weight" in w.tensors else x, f"{head}_head")

    return branch(narrow, "mask"), branch(narrow, "depth")


def dmnet_resnet(w, bg, fg_bg):
    def block(x, at):  # ReLU before the sum, none after it
        return w.unit(w.unit(x, f"{at}.main.0"), f"{at}.main.1") + w.shortcut(x, f"{at}.shortcut")

    x = w.unit(torch.cat([bg, fg_bg], 1), "trunk.0")
    for step in (1, 2, 3):
        x = block(x, f"trunk.{step}")
    narrow = w.conv(x, "combine")
    return tuple(
        w.conv(block(block(narrow, f"{head}_branch.0"), f"{head}_branch.1"), f"{head}_head")
        for head in ("mask", "depth")
    )


def resnet_dual(w, bg, fg_bg):
    def block(x, at, stride):
        main = w.unit(x, f"{at}.main", stride=stride)
        return F.relu(w.norm(w.conv(main, f"{at}.main.4"), f"{at}.main.5") + w.shortcut(x, f"{at}.shortcut", stride))

    def layer(x, at, stride):
        return block(block(x, f"{at}.0", stride), f"{at}.1", 1)

    def decode(x, skips, at):
        x = w.conv(x, f"{at}.narrow")
        for up, skip in zip(("up1", "up2"), skips, strict=True):
            x = torch.cat([w.enlarge(x, f"{at}.{up}.enlarge"), skip], 1)
            x = F.leaky_relu(w.conv(x, f"{at}.{up}.conv.0"), 0.2)
            x = F.leaky_relu(w.conv(x, f"{at}.{up}.conv.2"), 0.2)
        return w.conv(x, f"{at}.head")

    stems = [layer(w.unit(image, f"{name}_stem"), f"{name}_layer", 1) for name, image in _named(bg, fg_bg)]
    full = torch.cat(stems, 1)
    half = layer(full, "layer3", 2)
    deepest = layer(half, "layer4", 2)
    return tuple(decode(deepest, (half, full), f"{head}_decoder") for head in ("mask", "depth"))


def _named(bg, fg_bg):
    return ("bg", bg), ("fg_bg", fg_bg)


def sepunet(w, bg, fg_bg):
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=bg.dtype)

    def separable(x, at, stride=1):
        return w.conv(w.conv(x, f"{at}.0", stride, groups=x.shape[1]), f"{at}.1")

    def double(x, at):
        for conv, norm in ((0, 1), (3, 4)):
            x = F.relu(w.norm(separable(x, f"{at}.{conv}"), f"{at}.{norm}"))
        return x

    def decode(skips, at):
        x = skips[-1]
        for up, skip in zip(("up1", "up2", "up3", "up4"), reversed(skips[:-1]), strict=True):
            larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            framed = torch.zeros(*larger.shape[:2], *skip.shape[-2:], dtype=bg.dtype)
            framed[..., : larger.shape[-2], : larger.shape[-1]] = (
                larger  # half of one missing row, rounded down, is none
            )
            x = double(torch.cat([skip, framed], 1), f"{at}_decoder.{up}")
        return x

    grey = torch.einsum("nbchw,c->bnhw", torch.stack([fg_bg, bg]), luma)
    skips = [double(grey, "inc")]
    for down in ("down1", "down2", "down3", "down4"):
        skips.append(double(F.max_pool2d(skips[-1], 2), down))
    depth = separable(decode(skips, "depth"), "depth_head", stride=2)
    return separable(decode(skips, "mask"), "mask_head"), F.interpolate(depth, size=bg.shape[-2:], mode="bilinear")


@pytest.mark.parametrize(
    ("family", "reference", "size"),
    [
        ("resunet-lite", resunet_lite, (32, 48)),
        ("pair", pair, (32, 48)),
        ("dmnet-cnn", dmnet_cnn, (16, 24)),
        ("dmnet-cnn-v1", dmnet_cnn, (16, 24)),
        ("dmnet-resnet", dmnet_resnet, (16, 24)),
        ("resnet-dual", resnet_dual, (16, 24)),
        ("sepunet", sepunet, (32, 48)),
        ("sepunet", sepunet, (47, 33)),
    ],
)
def test_a_family_is_wired_as_described(family, reference, size):
    """A wrong order or place trains nearly as well, and is another network under a published name."""
    model = build_model(ModelConfig(family=family, width=4)).eval().double().body
    generator = torch.Generator().manual_seed(2)
    weights = {}
    for name, tensor in model.state_dict().items():  # batch norms that do nothing would hide their absence
        random = torch.rand(tensor.shape, generator=generator)
        # Norms with gains near 1 and a bias above 0 keep units alive and signals large: small ones would hide errors.
        centred = random.ndim == 4
        weights[name] = (2 * random - 1 if centred else random if "bias" in name else random + 0.5).to(tensor.dtype)
    model.load_state_dict(weights)
    images = torch.rand(2, 2, 3, *size, generator=generator, dtype=torch.float64)

    used = Weights(weights)
    with torch.no_grad():
        mask, depth = reference(used, *images)
        heads = model(*images)
    assert mask.std() > 1e-3
    assert depth.std() > 1e-3
    torch.testing.assert_close(heads.mask, mask)
    torch.testing.assert_close(heads.depth, depth)
    dead = {name for name in weights if "unused7" in name}
    assert {name for name in weights if "num_batches" not in name} - dead == used.used


def test_pair_ignores_the_background_image():
    """Its published networks never see the background."""
    model = build_model(ModelConfig(family="pair", width=2)).eval()
    bg, other, fg_bg = torch.rand(3, 1, 3, 32, 32, generator=torch.Generator().manual_seed(3)).unbind()
    expected = model(bg, fg_bg)
    assert torch.equal(model(other, fg_bg).mask_logits, expected.mask_logits)
    assert not torch.equal(model(bg, other).depth, expected.depth)
