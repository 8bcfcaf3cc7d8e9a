"""The recipes are exactly the published networks, and their files have clear errors."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter
from data.augment.erase import Erase
from data.errors import InputError
from data.schema import Batch
from trainable.config import TrialConfig, build
from trainable.models import build_model, multiply_adds, parameter_count
from trainable.optim.schedules import build_policy
from trainable.recipes import RECIPES, load_recipe

PUBLISHED: dict[str, tuple[str, int, int, int]] = {  # family, parameters, multiply-adds, at which side
    "raguram-resunet": ("resunet", 11_033_922, 18_211_078_144, 224),
    "raguram-resunet-lite": ("resunet-lite", 2_634_882, 37_295_620_096, 224),
    "divyansh-pair": ("pair", 114_624 + 7_763_041, 465_174_528 + 754_450_432, 64),
    "birender-cnn": ("dmnet-cnn", 242_976, 8_912_240_640, 192),
    "birender-cnn-v1": ("dmnet-cnn-v1", 427_168, 15_707_013_120, 192),
    "birender-resnet": ("dmnet-resnet", 385_376, 14_126_284_800, 192),
    "ramana-dnn": ("resnet-dual", 3_165_170, 23_871_733_760, 224),
    "monimoyd-unet": ("sepunet", 747_926, 820_582_400, 160),
}

LOSSES: dict[str, tuple[dict[str, float], dict[str, float], str]] = {
    "raguram-resunet": ({"l1": 1}, {"l1": 1}, "sum"),
    "raguram-resunet-lite": ({"bce": 1}, {"l1": 1}, "sum"),
    "divyansh-pair": ({"bce": 1}, {"l1": 1}, "sum"),
    "birender-cnn": ({"smooth_l1": 1}, {"smooth_l1": 1}, "sqrt"),
    "birender-cnn-v1": ({"bce": 1}, {"bce": 1}, "sqrt"),
    "birender-resnet": ({"bce": 1}, {"bce": 1}, "sqrt"),
    "ramana-dnn": ({"ssim": 1, "l1": 1, "edge": 1}, {"ssim": 1, "l1": 1, "edge": 1}, "sum"),
    "monimoyd-unet": ({"bce": 2}, {"ssim": 1}, "sum"),
}


def weights(head: Any) -> dict[str, float]:
    return {name: weight for name, weight in head.model_dump().items() if weight}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_published_network(name: str) -> None:
    """A different number of parameters or multiply-adds is a different network."""
    family, parameters, macs, side = PUBLISHED[name]
    config = load_recipe(name).config
    with torch.device("meta"):
        network = build_model(config.model)

    assert (config.model.family, config.data.image_size) == (family, side)
    assert parameter_count(network) == parameters
    assert multiply_adds(network, side) == macs


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_losses(name: str) -> None:
    """An omitted value is a default, which may be a loss that was not published."""
    loss = load_recipe(name).config.loss
    assert (weights(loss.mask), weights(loss.depth), loss.combine) == LOSSES[name]


def test_optimizers_are_the_published_ones() -> None:
    """By name, peak rate, momentum, Nesterov, decay; none was clipped."""
    found = {name: load_recipe(name).config.optimizer for name in RECIPES}
    chosen = {
        name: (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay)
        for name, optimizer in found.items()
    }
    assert chosen == {
        "raguram-resunet": ("sgd", 0.5, 0.9, False, 0.0),
        "raguram-resunet-lite": ("sgd", 0.01, 0.9, False, 0.0),
        "divyansh-pair": ("sgd", 0.01, 0.9, False, 1e-5),
        "birender-cnn": ("sgd", 0.01, 0.9, True, 1e-4),
        "birender-cnn-v1": ("sgd", 0.01, 0.9, True, 1e-4),
        "birender-resnet": ("sgd", 0.01, 0.9, True, 1e-4),
        "ramana-dnn": ("adam", 1e-3, 0.9, False, 1e-4),
        "monimoyd-unet": ("sgd", 0.01, 0.9, False, 1e-5),
    }
    assert all(optimizer.clip_norm == 0 for optimizer in found.values())


def test_policies_have_the_published_counts() -> None:
    """Shares of a horizon stand for whole numbers of epochs and batches."""

    def counts(name: str) -> tuple[str, float]:
        policy = load_recipe(name).config.policy
        horizon = policy.horizon_epochs or policy.horizon_batches or 0
        share = {"step": policy.step.every, "cyclic": policy.cyclic.period / 2, "plateau": policy.plateau.patience}
        return policy.name, share.get(policy.name, 1.0) * horizon

    def patience(name: str, *, epochs: float) -> float:
        plateau = load_recipe(name, faithful=True).config.policy.cyclic.plateau
        assert plateau is not None
        return plateau.patience * epochs

    assert counts("birender-cnn") == ("cyclic", pytest.approx(8))
    assert counts("birender-cnn-v1") == counts("birender-resnet") == ("cyclic", pytest.approx(2_000))
    assert patience("birender-cnn", epochs=40) == 5
    assert patience("birender-cnn-v1", epochs=160_000 / 8_750) == pytest.approx(5)
    assert patience("birender-resnet", epochs=160_000 / 8_750) == pytest.approx(5)
    assert counts("monimoyd-unet") == ("step", pytest.approx(2))
    assert counts("divyansh-pair") == ("plateau", pytest.approx(5))
    pair = load_recipe("divyansh-pair").config
    assert pair.depth_policy is not None
    assert pair.policy.hold * 400 == pytest.approx(300)
    assert pair.depth_policy.hold * 300 == pytest.approx(150)
    assert pair.depth_policy.step.every * 300 == pytest.approx(50)


def test_images_grow_as_published() -> None:
    """From 64 to 128 to 224 pixels, three epochs each."""
    data = load_recipe("ramana-dnn").config.data
    assert [16 * round(stage.scale * 224 / 16) for stage in data.progression] == [64, 128]
    assert [round(9 * stage.share) for stage in data.progression] == [3, 3]


@pytest.mark.parametrize("side", [64, 128, 224])
def test_erased_area_agrees_with_published(side: int) -> None:
    """A third of the height and a quarter of the width, each rounded down, at every size that images have."""
    options = load_recipe("ramana-dnn").config.data.augment.erase.model_dump(exclude={"p", "count", "fill"})
    holes = Erase(**options, p=1.0).holes(5, side, side, np.random.default_rng(0))
    top, bottom, left, right = np.moveaxis(holes, 3, 0)
    assert (bottom - top == side // 3).all()
    assert (right - left == side // 4).all()


def test_faithful_recipe_uses_the_metric_of_its_project() -> None:
    """All took the raw outputs; two of them gave every batch the same weight, the last and smaller one too."""
    faithful = [load_recipe(name, faithful=True) for name in RECIPES]
    judged = {recipe.name: (recipe.metric, recipe.evaluation.average) for recipe in faithful if recipe.metric != "none"}
    assert judged == {
        "birender-cnn": ("ssim-accuracy", "pictures"),
        "birender-cnn-v1": ("ssim-accuracy", "pictures"),
        "birender-resnet": ("ssim-accuracy", "pictures"),
        "ramana-dnn": ("delta-rms", "batches"),
        "monimoyd-unet": ("iou-75", "batches"),
    }
    for recipe in faithful:
        if recipe.metric != "none":
            assert "linear" in recipe.config.model.mask_activation or recipe.evaluation.on == "logits"


@pytest.mark.parametrize("name", RECIPES)
def test_faithful_recipe_differs_only_by_its_listed_corrections(name: str) -> None:
    """Every published error is a setting, listed line by line."""
    corrected, faithful = load_recipe(name), load_recipe(name, faithful=True)
    listed = {key: value for line in corrected.corrected for key, value in (line.published or {}).items()}

    def at(recipe: Any, key: str) -> Any:
        node = recipe if key.startswith("evaluation.") else recipe.config
        for part in key.split("."):
            node = getattr(node, part)
        return node.model_dump() if hasattr(node, "model_dump") else node

    assert listed
    for key, value in listed.items():
        assert at(faithful, key) == value
        assert at(corrected, key) != value
    assert all((line.published is None) != (line.because is None) for line in corrected.corrected)
    build_model(faithful.config.model)


@pytest.mark.slow
def test_a_shared_decoder_is_the_only_correction_of_an_architecture() -> None:
    """The published number of parameters is that of two decoders, which the program did not have."""
    sizes = {
        name: [
            parameter_count(build_model(load_recipe(name, faithful=faithful).config.model))
            for faithful in (False, True)
        ]
        for name in RECIPES
    }
    assert sizes.pop("monimoyd-unet") == [747_926, 513_206]
    assert all(corrected == published for corrected, published in sizes.values())


def test_corrected_recipes_keep_rooms_on_one_side() -> None:
    """A room in several parts is the error that all five have in common."""
    assert {load_recipe(name).config.data.split_by for name in RECIPES} == {"background"}
    assert "background" not in {load_recipe(name, faithful=True).config.data.split_by for name in RECIPES}


def test_scaled_recipe_completes_its_policy() -> None:
    """Its shares then refer to the new number of epochs."""
    scaled = load_recipe("divyansh-pair").scaled(9)
    assert scaled.epochs == 9
    assert scaled.depth_policy is not None
    for policy in (scaled.policy, scaled.depth_policy):
        assert (policy.horizon_epochs, policy.horizon_batches) == (None, None)
    assert scaled.policy.hold == 0.75


@pytest.mark.parametrize("name", RECIPES)
def test_copied_recipe_is_equal(name: str, tmp_path: Path) -> None:
    """The printed file can be loaded again."""
    copy = tmp_path / "copy.yaml"
    copy.write_text(load_recipe(name).text)
    assert replace(load_recipe(str(copy)), file="") == replace(load_recipe(name), file="")


def test_copied_recipe_can_be_changed(tmp_path: Path) -> None:
    """A file with `faithful: true` is faithful, unless the command says otherwise."""
    file = tmp_path / "mine.yml"
    text = load_recipe("monimoyd-unet").text
    file.write_text(text.replace("lr: 0.01", "lr: 0.25").replace("faithful: false", "faithful: true"))

    assert load_recipe(str(file)).config.optimizer.lr == 0.25
    assert load_recipe(str(file)).config.model.shared_decoder
    assert not load_recipe(str(file), faithful=False).config.model.shared_decoder


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: x\nsource: y\nmodel: {width: 0}\n", r"'model.width' is 0, but must .*; correct it in '.*mine.yaml'"),
        ("name: x\nsource: y\nwidht: 3\n", r"The key 'widht' is not known; remove it from '.*mine.yaml'"),
        ("source: y\n", r"The key 'name' is missing; add it to '.*mine.yaml'"),
        (
            "name: ../x\nsource: y\n",
            r"'name' is '../x', but must be up to 100 letters, .*; correct it in '.*mine.yaml'",
        ),
        ("name: x\nsource: y\n1: 2\n", r"The key '1' is not known; remove it from '.*mine.yaml'"),
        (
            "name: x\nsource: y\ncorrected: [{what: z}]\n",
            r"'corrected.0' is .* must have either 'published' or 'because'",
        ),
        ("- 1\n", r"There is no recipe in '.*mine.yaml'"),
        ("name: x\nname: y\n", r"line 2, column 1 of '.*mine.yaml': the key 'name' occurs twice"),
        ("name: [\n", r"no valid YAML at line 2, column 1 of '.*mine.yaml'"),
        (
            "name: x\nsource: y\ncorrected: [{what: z, published: {model.wdth: 3}}]\n",
            r"The key 'model.wdth' under 'corrected' is not known; correct it in '.*mine.yaml'",
        ),
        (
            "name: x\nsource: y\ncorrected: [{what: z, published: {model.width: 0}}]\n",
            r"'model.width' is 0, .* in what '.*mine.yaml' lists as published",
        ),
    ],
)
def test_error_in_a_recipe_file_is_named(text: str, sentence: str, tmp_path: Path) -> None:
    """Users edit these files by hand."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_recipe(str(file))


@pytest.mark.parametrize("name", ["birender", "no/such.yaml"])
def test_file_that_is_not_a_recipe_is_refused(name: str) -> None:
    """The error lists the known names, or names the missing file."""
    with pytest.raises(InputError, match=rf"{name}.*(give one of raguram-resunet, |cannot be read)"):
        load_recipe(name)


def test_every_recipe_states_its_departures_from_defaults() -> None:
    """A default may change; a recipe must not change with it."""
    texts = {name: load_recipe(name).text for name in RECIPES}
    for name, text in texts.items():
        config = load_recipe(name).config
        for key in (
            "image_size",
            "batch_size",
            "epochs",
            "family",
            "width",
            "lr",
            "weight_decay",
            "clip_norm",
            "hflip",
        ):
            assert f"{key}: " in text, (name, key)
        assert config != TrialConfig()


def test_recipes_are_read_without_torch() -> None:
    """Commands that do not train load names and configurations."""
    code = "import sys; from trainable.recipes import *; load_recipe('ramana-dnn'); print('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


@pytest.mark.parametrize("kind", [Augmenter, DeviceAugmenter])
def test_noise_has_the_published_strength_where_the_network_sees_it(kind: Any) -> None:
    """A network on grey images got 0.0335 of independent noise in red, green and blue, in place of 0.05."""
    config = load_recipe("monimoyd-unet").config
    augment = config.data.augment
    noise = {name: getattr(augment, name) for name in ("noise", "noise_low", "noise_per_channel")}
    photo = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    plane = torch.zeros(4, 1, 64, 64, dtype=torch.uint8)
    batch = Batch(bg=photo, fg_bg=photo.clone(), mask=plane, depth=plane.clone())
    if kind is DeviceAugmenter:
        batch = kind(**noise, noise_p=1.0)(batch, 1)
    else:
        stacks = [each.permute(0, 2, 3, 1).numpy().copy() for each in (batch.bg, batch.fg_bg)]
        kind(**noise, noise_p=1.0).change((*stacks, plane[:, 0].numpy(), plane[:, 0].numpy().copy()), 1)
        bg, fg_bg = (torch.from_numpy(stack).permute(0, 3, 1, 2) for stack in stacks)
        batch = Batch(bg=bg, fg_bg=fg_bg, mask=plane, depth=plane)
    seen: list[torch.Tensor] = []
    model: Any = build_model(config.model).eval()
    model.body.inc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(*batch.inputs())

    (grey,) = seen
    assert grey.shape == (4, 2, 64, 64)
    assert grey.std(dim=(0, 2, 3)).tolist() == pytest.approx([0.05, 0.05], rel=0.03)


@pytest.mark.parametrize("kind", [Augmenter, DeviceAugmenter])
def test_grey_that_a_network_sees_does_not_depend_on_colours(kind: Any) -> None:
    """The images of the project are grey before they are jittered: turning the hue of colours changes their grey."""
    augment = load_recipe("monimoyd-unet").config.data.augment
    augmenter = kind(jitter=augment.jitter, hue=augment.hue)
    colours = torch.tensor([[130, 130, 130], [200, 100, 100], [40, 180, 110]], dtype=torch.uint8)  # of one grey
    photo = colours.repeat_interleave(8, 0).T[None, :, None].expand(16, 3, 16, 24).contiguous()
    plane = torch.zeros(16, 1, 16, 24, dtype=torch.uint8)
    if kind is DeviceAugmenter:
        jittered = augmenter(Batch(bg=photo, fg_bg=photo.clone(), mask=plane, depth=plane.clone()), 1).fg_bg.float()
    else:
        stacks = [photo.permute(0, 2, 3, 1).numpy().copy() for _ in range(2)]
        augmenter.change((*stacks, plane[:, 0].numpy(), plane[:, 0].numpy().copy()), 1)
        jittered = torch.from_numpy(stacks[1]).permute(0, 3, 1, 2).float()
    grey = torch.einsum("nchw,c->nhw", jittered, torch.tensor([0.299, 0.587, 0.114]))
    assert (grey.amax(dim=(1, 2)) - grey.amin(dim=(1, 2))).max() < 3
    assert grey.mean(dim=(1, 2)).std() > 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("divyansh-pair", "trained for 300 epochs"),
        ("divyansh-pair", "Pillow's default filter"),
        ("birender-cnn", "first 15,232 samples"),
        ("birender-cnn", "bilinear filter"),
        ("birender-cnn-v1", "bilinear filter"),
        ("birender-resnet", "bilinear filter"),
        ("ramana-dnn", "variance of the noise"),
        ("ramana-dnn", "saturation tinted grey"),
        ("monimoyd-unet", "which left 0..1"),
    ],
)
def test_what_a_recipe_does_not_reproduce_is_listed(name: str, words: str) -> None:
    """Who compares results with published ones finds every difference in the list, as the documents promise."""
    (listed,) = [each for each in load_recipe(name).corrected if words in each.what]
    assert listed.because


def test_depth_network_of_divyansh_hardly_changes_after_its_published_end() -> None:
    """It had 300 epochs, and shares a run of 400 with the mask network."""
    config = load_recipe("divyansh-pair").config
    assert config.depth_policy is not None
    policy = build_policy(config.depth_policy, steps_of_epochs=[1] * config.epochs)
    rates = [config.optimizer.lr * policy.factor(epoch) for epoch in (0, 149, 200, 299, 300, 399)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])


def test_the_transforms_that_a_project_rejected_can_be_tried() -> None:
    """The recipe names them with their published strengths; by default it has none, as the final runs had."""
    recipe = load_recipe("divyansh-pair")
    (tried,) = [each for each in recipe.corrected if "GridDistortion" in each.what]
    (listed,) = re.findall(r"data\.augment\.transforms (\{.+\})", tried.because or "")
    values = recipe.config.model_dump()
    values["data"]["augment"]["transforms"] = yaml.safe_load(listed)
    transforms = build(TrialConfig, values, source="the test").data.augment.transforms

    assert recipe.config.data.augment.transforms == {}
    assert list(transforms) == ["CLAHE", "GridDistortion", "OpticalDistortion"]
    assert transforms["CLAHE"]["clip_limit"] == 4.0
    assert transforms["OpticalDistortion"]["distort_limit"] == 2.0
