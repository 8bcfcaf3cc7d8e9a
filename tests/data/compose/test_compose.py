"""Composed samples: photograph, mask and depth agree, wherever the foreground is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data.compose.composition import Composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
from data.dataset.dataset import Dataset
from data.errors import InputError
from data.images import decode_photo, decode_plane, encode_mask
from data.importers.polarity import measure_polarity
from data.schema import Pixels, Sample
from tests.data.compose.compose_kit import SIZE, floor_depth, kit, marker, photo, put

if TYPE_CHECKING:
    from numpy.typing import NDArray


def made(destination: Path, options: dict[str, Any], processes: int = 1) -> Dataset:
    composition = Composition(**options)
    materialise(composition, open_sources(composition), destination, processes=processes)
    return Dataset.open(destination)


def refusal(options: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        open_sources(Composition(**options))
    return str(caught.value)


def box(mask: Pixels) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Two rooms, two markers, both ways round, five places each."""
    root = tmp_path_factory.mktemp("composed")
    return list(made(root / "set", kit(root) | {"placements": 5, "flips": True}).read())


def test_every_combination_is_composed_once(samples: list[Sample]) -> None:
    """Background x foreground x direction x placement: the published sets' 100 x 100 x 2 x 20."""
    expected = [
        f"room{bg}_thing{fg}_{flip}_{placement:02d}"
        for bg in range(2)
        for fg in range(2)
        for flip in range(2)
        for placement in range(5)
    ]
    assert [sample.sample_id for sample in samples] == expected


def test_image_outside_the_mask_is_the_background(samples: list[Sample]) -> None:
    """Nothing but the foreground may tell the two photographs apart, up to JPEG's rounding."""
    for sample in samples:
        away = cv2.dilate(sample.mask, np.ones((17, 17), np.uint8)) == 0  # JPEG's blocks spread an edge so far
        apart = np.abs(sample.bg.astype(int) - sample.fg_bg)
        assert away.sum() > 500
        assert apart[away].max() <= 6


def test_the_foreground_is_where_its_mask_is(samples: list[Sample]) -> None:
    """Where the mask is full, the photograph shows the marker's colours, and at its edge a blend of both."""
    for sample in samples:
        full = cv2.erode(sample.mask, np.ones((5, 5), np.uint8)) == 255
        assert full.any()
        green = sample.fg_bg[:, :, 1]
        assert green[full].max() < 40
        assert ((sample.mask > 0) & (sample.mask < 255)).any()


def test_mask_is_the_resized_alpha(samples: list[Sample]) -> None:
    """Soft edges included: the alpha as another program shrinks it, to within 8-bit rounding and a pixel's place."""
    for sample in samples:
        drawn = sample.mask[box(sample.mask)]
        alpha = marker(30 + 6 * int(sample.fg_id[-1]))[:, :, 3]
        alpha = alpha[box(alpha)]
        expected = cv2.resize(alpha.astype(np.float32), drawn.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(drawn - expected).mean() < 8


def test_flips_are_mirrored(samples: list[Sample]) -> None:
    """A mirrored foreground has its right side on the left, and the id of the one it comes from."""
    for sample in samples:
        rows, columns = box(sample.mask)
        inside = sample.fg_bg[rows, columns].astype(int)
        red_less_blue = (inside[:, :, 0] - inside[:, :, 2])[inside.shape[0] // 2]
        left, right = red_less_blue[len(red_less_blue) // 4], red_less_blue[-len(red_less_blue) // 4]
        is_flipped = sample.sample_id.split("_")[2] == "1"
        assert (left < 0 < right) if is_flipped else (right < 0 < left)
        assert sample.fg_id in ("thing0", "thing1")


def room_levels() -> Pixels:
    return np.asarray(np.rint(floor_depth().astype(float) / 5000 * 255), np.uint8)


def test_foreground_depth_is_a_plane_in_front_of_what_it_covers(samples: list[Sample]) -> None:
    """It is exactly as far as the nearest thing that it hides; outside, depth is the room's."""
    room = room_levels()
    for sample in samples:
        inside = sample.mask > 127
        assert len(np.unique(sample.depth[inside])) == 1
        assert sample.depth[inside][0] == room[inside].min()
        np.testing.assert_array_equal(sample.depth[~inside], room[~inside])


def test_feet_stand_on_the_floor(samples: list[Sample]) -> None:
    """The plane has the depth of the ground in its lowest row, and that is in the room's lower half."""
    room = room_levels()
    for sample in samples:
        inside = sample.mask > 127
        feet = int(np.flatnonzero(inside.any(axis=1))[-1])
        assert feet >= SIZE // 2
        assert sample.depth[inside][0] == room[feet, 0]


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_composition_rules_hold_for_any_depth_and_foreground(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Wherever a foreground lands, however ragged it and the depth are: inside, a constant in front of all it hides."""
    root = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    options = kit(root, backgrounds=1, foregrounds=0)
    depth = rng.integers(0, 256, (48, 48), dtype=np.uint8)
    height, width = data.draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    cutout = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    cutout[rng.integers(height), rng.integers(width), 3] = 255
    put(root / "bg/room0.png", photo(1, 48, 48))
    put(root / "depth/room0.png", depth)
    put(root / "fg/any.png", cutout)
    low = data.draw(st.floats(0.05, 1))
    scale = (low, data.draw(st.floats(low, 1)))
    relative = {"depth_unit": "relative", "depth_polarity": "near-bright", "size": 48, "scale": scale, "flips": True}
    seed = data.draw(st.integers(0, 2**63 - 1))
    for sample in made(root / "set", options | relative | {"seed": seed}).read():
        inside = sample.mask > 127
        np.testing.assert_array_equal(sample.depth[~inside], 255 - depth[~inside])
        if inside.any():
            assert np.unique(sample.depth[inside]).tolist() == [(255 - depth)[inside].min()]
        drawn = sample.mask[box(sample.mask)].shape if sample.mask.any() else (0, 0)
        assert max(drawn) <= max(1, round(48 * scale[1]))


def test_foreground_avoids_objects_in_front_of_the_floor(tmp_path: Path) -> None:
    """Beside a pillar there is room: a plane pulled forward to the pillar would stand nowhere."""
    options = kit(tmp_path, backgrounds=1, foregrounds=1)
    depth = floor_depth()
    depth[:56, 40:] = 600
    put(tmp_path / "depth/room0.png", depth)
    dataset = made(tmp_path / "set", options | {"placements": 30, "scale": (0.2, 0.3)})
    nearest = [sample.depth[sample.mask > 127].min() for sample in dataset.read()]
    pillar = round(600 / 5000 * 255)
    assert sum(level == pillar for level in nearest) <= 3


def test_holes_get_the_nearest_measurement(tmp_path: Path) -> None:
    """0 is no measurement in mm, and must neither be the nearest of all things nor blend into its neighbours."""
    options = kit(tmp_path, backgrounds=1)
    full, holed = floor_depth(), floor_depth()
    holed[:, 10:13] = 0
    put(tmp_path / "depth/room0.png", holed)
    for sample in made(tmp_path / "set", options).read():
        away = sample.mask <= 127
        expected = np.rint(full.astype(float) / 5000 * 255)
        assert np.abs(sample.depth - expected)[away].max() <= 1


@pytest.mark.parametrize(("unit", "share"), [("mm", 1), ("cm", 10)])
def test_metric_depth_has_one_scale_for_the_whole_set(tmp_path: Path, unit: str, share: int) -> None:
    """The farthest of all backgrounds is 255, in a room that has nothing so far, too; `dataset.json` says how far."""
    options = kit(tmp_path, foregrounds=1) | {"depth_unit": unit, "scale": (0.1, 0.1)}
    put(tmp_path / "depth/room0.png", (floor_depth() // share).astype(np.uint16))
    put(tmp_path / "depth/room1.png", (floor_depth() // share // 2).astype(np.uint16))
    dataset = made(tmp_path / "set", options)
    farthest = {sample.bg_id: int(sample.depth.max()) for sample in dataset.read()}
    assert farthest == {"room0": 255, "room1": 128}
    depth = dataset.info.source["depth"]
    assert (depth["unit"], depth["far"]) == (unit, 5.0)
    assert depth["metres_per_level"] == pytest.approx(5 / 255)


def test_depth_is_clipped_at_the_limit(tmp_path: Path) -> None:
    """A window must not take all levels from the room."""
    options = kit(tmp_path, backgrounds=1, foregrounds=1) | {"depth_far": 2.5, "scale": (0.1, 0.1)}
    (sample, _) = made(tmp_path / "set", options).read()
    assert (sample.depth[0] == 255).all()
    assert sample.depth[-1].max() == round(floor_depth()[-1, 0] / 2500 * 255)


@pytest.mark.parametrize("factor", [31, 257])
def test_relative_depth_of_16_bits_gets_all_levels(tmp_path: Path, factor: int) -> None:
    """A sensor's numbers fill an eighth of 16 bits, an estimate all of them: both come in with their whole range."""
    options = kit(tmp_path, backgrounds=1, foregrounds=1) | {"depth_unit": "relative", "scale": (0.1, 0.1)}
    levels = np.rint(np.linspace(255, 0, SIZE)).astype(np.uint16)[:, None].repeat(SIZE, axis=1)
    put(tmp_path / "depth/room0.png", (levels + np.uint16(factor != 257)) * np.uint16(factor))
    for sample in made(tmp_path / "set", options | {"depth_polarity": "far-bright"}).read():
        away = sample.mask <= 127
        np.testing.assert_array_equal(sample.depth[away], levels[away])


def test_relative_depth_without_any_measurement_is_refused(tmp_path: Path) -> None:
    """It is refused before anything is composed."""
    options = kit(tmp_path) | {"depth_unit": "relative", "depth_polarity": "far-bright"}
    put(tmp_path / "depth/room0.png", np.zeros((SIZE, SIZE), np.uint16))
    assert "has no measurement in its middle square" in refusal(options)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_sources_are_rotated_upright(tmp_path: Path, orientation: int) -> None:
    """Photographs, depth and foregrounds of a phone give the same set as those that an editor turned."""
    options = kit(tmp_path / "upright") | {"size": 48}
    put(tmp_path / "upright/bg/room0.png", photo(0, 64, 80))
    put(tmp_path / "upright/depth/room0.png", floor_depth(64, 80))
    lying = kit(tmp_path / "lying") | {"size": 48}
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # of Image.Transpose: what undoes it
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in (tmp_path / "upright").glob("*/*.png"):
        image = Image.open(path).transpose(Image.Transpose(back))
        image.save(tmp_path / "lying" / path.parent.name / path.name, exif=exif)
        shown = ImageOps.exif_transpose(Image.open(tmp_path / "lying" / path.parent.name / path.name))
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(Image.open(path)))
    expected = list(made(tmp_path / "expected", options).read())
    found = list(made(tmp_path / "found", lying).read())
    assert [sample.sample_id for sample in found] == [sample.sample_id for sample in expected]
    for one, other in zip(found, expected, strict=True):
        for role in ("bg", "fg_bg", "mask", "depth"):
            np.testing.assert_array_equal(getattr(one, role), getattr(other, role))


def test_background_may_have_alpha_only_if_opaque(tmp_path: Path) -> None:
    """Editors save all layers with an alpha channel; a hole in a room has no colour."""
    options = kit(tmp_path, backgrounds=1)
    alpha = np.full((SIZE, SIZE), 255, np.uint8)
    put(tmp_path / "bg/room0.png", np.dstack([photo(0), alpha]))
    assert made(tmp_path / "set", options).info.counts.samples == 4
    alpha[5:7, 8:12] = 0
    put(tmp_path / "bg/room0.png", np.dstack([photo(0), alpha]))
    assert "transparent in 8 of 4,096 pixels (columns 8 to 11, rows 5 to 6;" in refusal(options)


def test_backgrounds_are_center_cropped_to_a_square(tmp_path: Path) -> None:
    """People must not get broader; photograph and depth are cut alike, though depth has half the pixels."""
    options = kit(tmp_path, backgrounds=1, foregrounds=1)
    wide = np.zeros((64, 96, 3), np.uint8)
    wide[:, 16:80] = photo(5)
    depth = np.full((32, 48), 9000, np.uint16)
    depth[:, 8:40] = 3000
    put(tmp_path / "bg/room0.png", wide)
    put(tmp_path / "depth/room0.png", depth)
    for sample in made(tmp_path / "set", options).read():
        assert np.abs(sample.bg.astype(int) - photo(5)).max() < 12
        assert len(np.unique(sample.depth)) == 1


@pytest.mark.parametrize(
    ("path", "pixels", "said"),
    [
        ("fg/flat.png", photo(0), "flat.png' has no alpha"),
        ("fg/glass.png", np.full((9, 9, 4), 90, np.uint8), "glass.png' is transparent everywhere"),
        ("fg/deep.png", np.full((9, 9, 4), 9000, np.uint16), "deep.png' is uint16"),
        ("bg/alone.png", photo(0), "no depth for the background 'alone'"),
        ("depth/room0.png", floor_depth(64, 32), "must have the proportions"),
        ("depth/room0.png", np.zeros((64, 64), np.uint16), "has no measurement"),
        ("depth/room0.png", np.full((64, 64, 3), 900, np.uint16), "single channel"),
        ("depth/room0.png", np.full((64, 64), 1.5, np.float32), "is not an image|float32"),
        ("bg/room1.jpg", photo(0), "differ in the extension only"),
    ],
)
def test_unusable_images_are_named(tmp_path: Path, path: str, pixels: NDArray[Any], said: str) -> None:
    """Before anything is composed, and in one sentence."""
    options = kit(tmp_path)
    put(tmp_path / path, pixels)
    if pixels.dtype == np.float32:
        (tmp_path / path).write_bytes(cv2.imencode(".tiff", pixels)[1].tobytes())
    sentence = refusal(options)
    assert re.search(said, sentence)
    assert "\n" not in sentence


def test_names_that_give_equal_sample_ids_are_refused(tmp_path: Path) -> None:
    """'a_b' with 'c' and 'a' with 'b_c' would be one sample id, found out only after hours."""
    options = kit(tmp_path, 0, 0)
    for name in ("a", "a_b"):
        put(tmp_path / "bg" / f"{name}.png", photo(0))
        put(tmp_path / "depth" / f"{name}.png", floor_depth())
    for name in ("c", "b_c"):
        put(tmp_path / "fg" / f"{name}.png", marker())
    assert "rename one of the files" in refusal(options)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"placements": 0}, "--placements"),
        ({"size": 16}, "--size"),
        ({"seed": -1}, "--seed"),
        ({"scale": (0.5, 0.4)}, "--scale"),
        ({"scale": (float("nan"), 0.4)}, "--scale"),
        ({"depth_unit": "feet"}, "--depth-unit"),
        ({"depth_polarity": "far-bright"}, "--depth-polarity"),
        ({"depth_far": 0.0}, "--depth-far"),
        ({"depth_unit": "relative"}, "--depth-polarity"),
        ({"depth_unit": "relative", "depth_polarity": "far-bright", "depth_far": 9.0}, "--depth-far"),
        ({"depths": Path("nowhere")}, "--depths"),
        ({"foregrounds": Path()}, "--foregrounds"),
    ],
)
def test_unusable_options_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], said: str
) -> None:
    """With the option that the user wrote."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert said in refusal(kit(tmp_path) | changed)


def test_colours_of_transparent_pixels_do_not_bleed(tmp_path: Path) -> None:
    """Editors leave white or black where nothing is seen; shrunk without weighing, it would line the edges."""
    options = kit(tmp_path, backgrounds=1, foregrounds=0) | {"scale": (0.3, 0.3), "placements": 4}
    cutout = np.full((200, 100, 4), 255, np.uint8)
    cutout[:, :, 3] = 0
    cv2.ellipse(cutout, (50, 100), (40, 80), 0, 0, 360, (0, 0, 0, 255), cv2.FILLED)
    put(tmp_path / "fg/dark.png", cutout)
    put(tmp_path / "bg/room0.png", np.full((SIZE, SIZE, 3), 60, np.uint8))
    for sample in made(tmp_path / "set", options).read():
        assert sample.fg_bg.max() <= 66


def test_half_transparent_pixels_are_blended_equally(tmp_path: Path) -> None:
    """Glass and hair let the background through, as much as their alpha says."""
    options = kit(tmp_path, backgrounds=1, foregrounds=0) | {"scale": (0.5, 0.5)}
    put(tmp_path / "fg/pane.png", np.full((40, 40, 4), (200, 180, 160, 153), np.uint8))
    put(tmp_path / "bg/room0.png", np.full((SIZE, SIZE, 3), 60, np.uint8))
    for sample in made(tmp_path / "set", options).read():
        rows, columns = box(sample.mask)
        middle = sample.fg_bg[rows, columns][8:-8, 8:-8].astype(int)
        assert np.abs(middle - np.array([144, 132, 120])).max() <= 3
        assert (sample.mask[rows, columns] == 153).all()


def test_real_images_are_composed(tmp_path: Path) -> None:
    """Kinect depth in mm and cut-out people: depth is measured as far-bright by the importers' own measure."""
    root = os.environ.get("TWINHEAD_REAL")
    if root is None:
        pytest.skip("TWINHEAD_REAL does not name a folder of real images")
    rooms, people = Path(root) / "nyu_rgbd", Path(root) / "sources_eva/garima-mahato/fg"
    for path in sorted((rooms / "rgb").iterdir())[::30]:
        put(tmp_path / "bg" / f"{path.stem}.png", decode_photo(path.read_bytes(), str(path)))
        depth = rooms / "depth_mm" / f"{path.stem}.png"
        (tmp_path / "depth").mkdir(exist_ok=True)
        (tmp_path / "depth" / depth.name).write_bytes(depth.read_bytes())
    (tmp_path / "fg").mkdir()
    for path in sorted(people.iterdir())[::12]:
        (tmp_path / "fg" / path.name).write_bytes(path.read_bytes())
    folders = {"backgrounds": tmp_path / "bg", "foregrounds": tmp_path / "fg", "depths": tmp_path / "depth"}
    dataset = made(tmp_path / "set", {**folders, "depth_unit": "mm", "size": 96, "placements": 1, "flips": True})

    encoded = list(dataset.read_encoded())
    assert len(encoded) == 10 * 9 * 2
    measured = measure_polarity((decode_plane(one.mask, ""), decode_plane(one.depth, "")) for one in encoded)
    assert measured.name == "far-bright"
    assert measured.agreement > 0.9
    assert 1 < dataset.info.source["depth"]["far"] <= 10
    assert json.loads((tmp_path / "set/dataset.json").read_text())["source"]["kind"] == "compose"
    assert encode_mask(decode_plane(encoded[0].mask, "")) == encoded[0].mask
