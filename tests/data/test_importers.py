"""Importers: files are paired by name, kept as published, and what does not fit is refused by its name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.errors import InputError
from data.images import decode_plane, decode_sample, encode_jpeg, encode_png, resize_to
from data.importers import Import, import_layout
from data.schema import Pixels
from data.shards import Dataset, write_dataset

SIDE = 32


def photo(seed: int, side: int = SIDE) -> Pixels:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)


def mask_at(x: int, side: int = SIDE) -> Pixels:
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side * 3 // 4, x : x + side // 4] = 255
    return mask


def depth_of(mask: Pixels, inside: int = 40) -> Pixels:
    """Brighter to the top, as a room's depth is, and `inside` at the foreground."""
    side = len(mask)
    depth = np.linspace(200, 100, side).round().astype(np.uint8)[:, None].repeat(side, axis=1)
    return np.where(mask > 127, np.uint8(inside), depth)


def store(path: Path, encoded: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded)


def birender(root: Path, samples: int = 4, inside: int = 40) -> Path:
    """Samples over two backgrounds, every second mirrored; targets are PNG beside photographs in JPEG."""
    for number in range(1, samples + 1):
        room = 1 + number % 2
        name = f"fg{number:03d}{'flip' if number % 2 else ''}_bg{room:03d}_{number:02d}"
        mask = mask_at(3 + number % 12)
        store(root / f"bg_images/img_{room:03d}.jpg", encode_jpeg(photo(room)))
        store(root / f"fg_bg_images/{name}.jpg", encode_jpeg(photo(100 + number)))
        store(root / f"fg_bg_mask_images/{name}.png", encode_png(mask))
        store(root / f"fg_bg_depth_images/{name}.png", encode_png(depth_of(mask, inside)))
    return root


def monimoyd(root: Path, batch: str = "batch1/", depth_side: int = SIDE // 2) -> Path:
    """One grey sample with its mirror image."""
    store(root / f"{batch}bg_jpg/bg_img_51.jpg", encode_jpeg(photo(1)[:, :, 0].copy()))
    for flip in (0, 1):
        key, mask = f"9_51_{flip}_2", mask_at(8 + flip)
        depth = resize_to(depth_of(mask), depth_side, depth_side)
        store(root / f"{batch}fg_bg_jpg/fg_bg_{key}.jpg", encode_jpeg(photo(2 + flip)[:, :, 0].copy()))
        store(root / f"{batch}mask_black_jpg/bg_mask_{key}.jpg", encode_jpeg(mask))
        store(root / f"{batch}depth_fg_bg_jpg/depth_fg_bg_{key}.jpg", encode_jpeg(depth))
    return root


def write(found: Import, path: Path) -> Dataset:
    write_dataset(found.samples(), path, source=found.source)
    return Dataset.open(path)


def real(*parts: str) -> Path:
    root = os.environ.get("TWINHEAD_REAL")
    if root is None:
        pytest.skip("TWINHEAD_REAL does not name a folder with published pictures")
    return Path(root).joinpath(*parts)


def test_birender_is_recognised_and_paired_by_name(tmp_path: Path) -> None:
    """Listing order paired backgrounds wrongly in published code; names cannot."""
    found = import_layout(birender(tmp_path))

    assert found.layout == "birender"
    assert [(sample.sample_id, sample.bg_id, sample.fg_id, sample.bg, sample.mask) for sample in found.quadruples] == [
        (f"{name}", f"img_00{room}", name[:5], f"bg_images/img_00{room}.jpg", f"fg_bg_mask_images/{name}.png")
        for room, name in (
            (1, "fg002_bg001_02"),
            (1, "fg004_bg001_04"),
            (2, "fg001flip_bg002_01"),
            (2, "fg003flip_bg002_03"),
        )
    ]


def test_birender_keeps_the_published_bytes(tmp_path: Path) -> None:
    """Encoding a second time would lose quality and cost time."""
    root = birender(tmp_path)
    found = import_layout(root)

    for quadruple, sample in zip(found.quadruples, found.samples(), strict=True):
        for role in ("bg", "fg_bg", "mask", "depth"):
            assert getattr(sample, role) == (root / getattr(quadruple, role)).read_bytes()


def test_colour_files_of_grey_are_stored_as_one_channel(tmp_path: Path) -> None:
    """Published masks and depths are often RGB with R=G=B."""
    root = birender(tmp_path)
    for path in root.glob("fg_bg_depth_images/*"):
        plane = decode_plane(path.read_bytes(), "")
        path.write_bytes(encode_png(np.stack([plane] * 3, axis=2)))

    for sample in import_layout(root).samples():
        stored = np.asarray(cv2.imdecode(np.frombuffer(sample.depth, np.uint8), cv2.IMREAD_UNCHANGED))
        assert stored.shape == (SIDE, SIDE)


def test_single_channel_masks_are_preferred(tmp_path: Path) -> None:
    """The publisher made them from the others, for the same samples."""
    root = birender(tmp_path)
    shutil.copytree(root / "fg_bg_mask_images", root / "fg_bg_mask_images_c1")

    assert all(sample.mask.startswith("fg_bg_mask_images_c1/") for sample in import_layout(root).quadruples)


@pytest.mark.parametrize("batch", ["batch1/", ""])
def test_monimoyd_is_recognised_with_or_without_its_batch_folder(tmp_path: Path, batch: str) -> None:
    """Each published archive holds one batch; a user may point at one, or at the folder of all."""
    found = import_layout(monimoyd(tmp_path, batch))

    prefix = "batch1_" if batch else ""
    assert found.layout == "monimoyd"
    assert [sample.sample_id for sample in found.quadruples] == [f"{prefix}9_51_0_2", f"{prefix}9_51_1_2"]
    assert {sample.bg_id for sample in found.quadruples} == {"bg_img_51"}
    assert {sample.fg_id for sample in found.quadruples} == {f"{prefix}fg9"}


def test_monimoyd_depth_of_half_size_is_enlarged_bilinearly(tmp_path: Path) -> None:
    """A sample has one size; that depth was enlarged is recorded, since half of its detail is made up."""
    root = monimoyd(tmp_path)
    found = import_layout(root)

    sample = decode_sample(next(found.samples()))

    stored = decode_plane((root / found.quadruples[0].depth).read_bytes(), "")
    expected = cv2.resize(stored, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(sample.depth, expected)
    assert "bilinear" in found.source["depth_enlarged"]


def test_monimoyd_depth_of_full_size_is_kept(tmp_path: Path) -> None:
    """Nothing is recorded that did not happen."""
    found = import_layout(monimoyd(tmp_path, depth_side=SIDE))

    assert found.source["depth_enlarged"] is None
    assert decode_sample(next(found.samples())).depth.shape == (SIDE, SIDE)


def test_imported_data_set_records_its_source(tmp_path: Path) -> None:
    """Whoever opens dataset.json sees the layout, and why depth is believed to be far-bright."""
    dataset = write(import_layout(birender(tmp_path / "source", 12)), tmp_path / "set")

    source = dataset.info.source
    assert source["layout"] == "birender"
    assert source["depth_inverted"] is False
    assert source["depth_polarity"]["measured"]["name"] == "far-bright"
    assert source["depth_polarity"]["measured"]["samples"] == 12


def test_near_bright_depth_is_inverted(tmp_path: Path) -> None:
    """Stored depth is far-bright whatever the source was, so that data sets can be mixed and compared."""
    root = birender(tmp_path / "source", inside=250)

    found = import_layout(root)
    dataset = write(found, tmp_path / "set")

    assert found.depth_polarity == "near-bright"
    assert dataset.info.source["depth_inverted"] is True
    for sample, quadruple in zip(dataset.read(), found.quadruples, strict=True):
        published = decode_plane((root / quadruple.depth).read_bytes(), "")
        np.testing.assert_array_equal(sample.depth, 255 - published)


@pytest.mark.parametrize("given", ["far-bright", "near-bright"])
def test_given_polarity_is_taken_where_it_is_not_clear(tmp_path: Path, given: str) -> None:
    """Depth that does not show the foreground cannot tell; then the user does."""
    root = birender(tmp_path, inside=150)

    assert import_layout(root, depth_polarity=given).depth_polarity == given


def test_unclear_polarity_is_refused(tmp_path: Path) -> None:
    """Guessing would turn a whole data set inside out, and no loss would show it."""
    with pytest.raises(InputError, match=r"not clear .*give --depth-polarity far-bright or near-bright"):
        import_layout(birender(tmp_path, inside=150))


def test_polarity_that_disagrees_is_refused(tmp_path: Path) -> None:
    """Where the pictures are clear, the flag is wrong."""
    with pytest.raises(InputError, match="'near-bright', but the depth was measured to be far-bright"):
        import_layout(birender(tmp_path, 12), depth_polarity="near-bright")


def test_unknown_polarity_is_refused(tmp_path: Path) -> None:
    """The two names are given."""
    with pytest.raises(InputError, match="'bright', but must be 'far-bright' or 'near-bright'"):
        import_layout(birender(tmp_path), depth_polarity="bright")


def test_missing_source_is_refused(tmp_path: Path) -> None:
    """The commonest error is a wrong path."""
    with pytest.raises(InputError, match="nowhere' does not exist"):
        import_layout(tmp_path / "nowhere")


def test_file_as_source_is_refused(tmp_path: Path) -> None:
    """An archive is not read as a folder."""
    (tmp_path / "data.zip").write_bytes(b"PK")

    with pytest.raises(InputError, match=r"data\.zip' is a file, but must be a folder"):
        import_layout(tmp_path / "data.zip")


def test_empty_source_is_refused(tmp_path: Path) -> None:
    """A folder whose download has not come is empty, which is not the same as unknown."""
    with pytest.raises(InputError, match="is empty"):
        import_layout(tmp_path)


def test_unknown_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    """The user sees which names would have been found, and that the right folder may be one up or down."""
    store(tmp_path / "pictures" / "one.jpg", encode_jpeg(photo(1)))

    with pytest.raises(InputError, match=r"not recognised.*birender: bg_images/img_\*.*monimoyd: bg_jpg"):
        import_layout(tmp_path)


def test_layout_name_that_is_not_known_is_refused(tmp_path: Path) -> None:
    """The names that exist are given."""
    with pytest.raises(InputError, match="'seed', but must be one of birender, monimoyd"):
        import_layout(birender(tmp_path), layout="seed")


def test_layout_without_samples_is_refused(tmp_path: Path) -> None:
    """A layout that is named by hand may be the wrong one."""
    with pytest.raises(InputError, match="has no samples of the layout 'monimoyd'"):
        import_layout(birender(tmp_path), layout="monimoyd")


@pytest.mark.parametrize(
    ("gone", "count"),
    [
        ("bg_images/img_001.jpg", 2),
        ("fg_bg_images/fg003flip_bg002_03.jpg", 1),
        ("fg_bg_mask_images/fg003flip_bg002_03.png", 1),
        ("fg_bg_depth_images/fg003flip_bg002_03.png", 1),
    ],
)
def test_missing_file_is_named_and_counted(tmp_path: Path, gone: str, count: int) -> None:
    """One missing file is an accident, half of them a wrong folder: the count tells which."""
    root = birender(tmp_path)
    (root / gone).unlink()

    with pytest.raises(InputError, match=rf"'{gone[:-4]}\.\*' is missing in .* \({count} of 4 samples lack"):
        import_layout(root)


def test_two_files_for_one_picture_are_refused(tmp_path: Path) -> None:
    """Which of them is meant is not ours to guess."""
    root = birender(tmp_path)
    store(root / "bg_images/img_001.png", encode_png(photo(1)))

    with pytest.raises(InputError, match=r"img_001\.jpg' and 'bg_images/img_001\.png' stand for the same"):
        import_layout(root)


@pytest.mark.parametrize("folder", ["bg_images", "fg_bg_images", "fg_bg_mask_images", "fg_bg_depth_images"])
def test_file_that_is_no_image_is_named(tmp_path: Path, folder: str) -> None:
    """Error pages saved as pictures are common in downloads."""
    root = birender(tmp_path)
    path = min((root / folder).iterdir())
    path.write_bytes(b"<html>not found</html>")

    with pytest.raises(InputError, match=f"{path.name}' is no image"):
        write(import_layout(root), tmp_path / "set")


@pytest.mark.parametrize("folder", ["bg_images", "fg_bg_images", "fg_bg_depth_images"])
def test_sizes_that_differ_are_refused(tmp_path: Path, folder: str) -> None:
    """In this layout all four are of one size; another size is a picture of something else."""
    root = birender(tmp_path)
    for path in (root / folder).iterdir():
        pixels = photo(7, SIDE // 2)
        path.write_bytes(encode_png(pixels[:, :, 0].copy() if "depth" in folder else pixels))

    with pytest.raises(InputError, match=rf"{folder}/.*' is 16x16, but must be 32x32"):
        list(import_layout(root, depth_polarity="far-bright").samples())


def test_monimoyd_depth_of_another_size_is_refused(tmp_path: Path) -> None:
    """Half is published; a third is a mistake."""
    with pytest.raises(InputError, match="is 10x10, but must be 32x32"):
        list(import_layout(monimoyd(tmp_path, depth_side=10)).samples())


@pytest.mark.parametrize("folder", ["fg_bg_mask_images", "fg_bg_depth_images"])
def test_target_with_colours_is_refused(tmp_path: Path, folder: str) -> None:
    """A photograph in a target's place would be averaged to grey without a word."""
    root = birender(tmp_path)
    for path in (root / folder).iterdir():
        path.write_bytes(encode_png(photo(7)))

    with pytest.raises(InputError, match=f"{folder}/.* has colours"):
        import_layout(root)


def test_background_that_differs_between_batches_is_refused(tmp_path: Path) -> None:
    """All batches share their backgrounds by number; one that differs would be shown with the wrong samples."""
    monimoyd(tmp_path, "batch1/")
    monimoyd(tmp_path, "batch2/")
    store(tmp_path / "batch2/bg_jpg/bg_img_51.jpg", encode_jpeg(photo(77)[:, :, 0].copy()))

    with pytest.raises(InputError, match="'bg_img_51' of sample 'batch2_9_51_0_2' stands for another picture"):
        write(import_layout(tmp_path), tmp_path / "set")


def test_real_composed_scenes_are_imported(tmp_path: Path) -> None:
    """All 600 samples are stored, with every background once, and depth is recognised as far-bright."""
    found = import_layout(real("nyu_composed"))
    dataset = write(found, tmp_path / "set")

    assert (found.layout, found.depth_polarity) == ("birender", "far-bright")
    assert found.measured.agreement > 0.9
    assert (dataset.info.counts.samples, dataset.info.counts.backgrounds) == (600, 150)
    assert sum(1 for _ in dataset.read()) == 600


def test_real_monimoyd_sample_needs_its_polarity(tmp_path: Path) -> None:
    """The published sample's depth does not show its foreground at all: told so, it is imported at 160 pixels."""
    source = real("eva4_quads", "monimoyd")

    with pytest.raises(InputError, match="not clear"):
        import_layout(source)
    (sample,) = write(import_layout(source, depth_polarity="far-bright"), tmp_path / "set").read()

    assert sample.sample_id == "batch1_9_51_1_2"
    assert sample.depth.shape == (160, 160)
