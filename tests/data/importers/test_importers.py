"""Importers: images keep their published content, depth becomes far-bright, and unsuitable files are named."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data.dataset.dataset import Dataset, write_dataset
from data.depth.levels import scale_depth
from data.errors import InputError
from data.images import decode_photo, decode_plane, encode_jpeg, encode_png, resize_to
from data.importers.conversion import Import
from data.importers.importers import import_source
from data.schema import Pixels

SIDE = 32


@dataclass(frozen=True)
class Form:
    """How a project published its images; `samples` are folder, background, key, and the foreground's id."""

    bg: str
    fg_bg: str
    mask: str
    depth: str
    bg_id: str
    samples: tuple[tuple[str, str, str, str], ...]
    depth_side: int = SIDE
    inside: int = 40
    """Depth of the foreground; that beside it is 100 to 200."""


FORMS = {
    "raguram": Form(
        *("bg_images/Image_{bg}", "fg_bg/Image_{key}", "fg_bg_mask/Image_{key}", "fg_bg_depth/Image_{key}"),
        "Image_{bg}",
        (("", "7", "7_3_29121", "fg3"), ("", "7", "7_107_29140", "fg3"), ("", "80", "80_3_332801", "fg3")),
    ),
    "divyansh": Form(
        *("{folder}bg/{bg}", "{folder}fg/{key}", "{folder}mask/mask_{key}", "{folder}depth/depth_{key}"),
        "{bg}",
        (
            ("train/", "img2", "img2_flip_img075_19", "img075"),
            ("train/", "img15", "img15_img075_0", "img075"),
            ("validate/", "img15", "img15_img075_0", "img075"),
        ),
        depth_side=18,
        inside=250,
    ),
    "birender": Form(
        *("bg_images/img_{bg}", "fg_bg_images/{key}", "fg_bg_mask_images_c1/{key}", "fg_bg_depth_images/{key}"),
        "img_{bg}",
        (
            ("", "012", "fg021_bg012_08", "fg021"),
            ("", "028", "fg065flip_bg028_06", "fg065"),
            ("", "028", "fg100_bg028_13", "fg100"),
        ),
        depth_side=40,
        inside=250,
    ),
    "ramana": Form(
        *("bg/bg_{bg}", "fg_bg/bg_{bg}/{key}", "fg_bg_masks/bg_{bg}/{key}", "fg_bg_depth/bg_{bg}/{key}"),
        "bg_{bg}",
        (
            ("", "00", "bg_00_fg_07_F_000312", "fg07"),
            ("", "00", "bg_00_fg_07_T_000290", "fg07"),
            ("", "75", "bg_75_fg_99_T_000020", "fg99"),
        ),
    ),
    "monimoyd": Form(
        "{folder}bg_jpg/bg_img_{bg}",
        "{folder}fg_bg_jpg/fg_bg_{key}",
        "{folder}mask_black_jpg/bg_mask_{key}",
        "{folder}depth_fg_bg_jpg/depth_fg_bg_{key}",
        "bg_img_{bg}",
        (
            ("batch1/", "51", "9_51_0_2", "fg9"),
            ("batch1/", "51", "9_51_1_2", "fg9"),
            ("batch10/", "51", "100_51_1_20", "fg100"),
        ),
        depth_side=SIDE // 2,
    ),
}


def published(root: Path, layout: str) -> dict[str, tuple[str, str, dict[str, Path]]]:
    """Write the images, grey where they were; by sample id, the other two ids and the four files."""
    form, written = FORMS[layout], {}
    extension = ".JPEG" if layout == "raguram" else ".jpg"
    for number, (folder, bg, key, fg_id) in enumerate(form.samples):
        mask = mask_at(3 + 4 * number)
        depth = resize_to(depth_of(mask, form.inside), form.depth_side, form.depth_side)
        photos = [photo(int(bg.strip("img"))), photo(100 + number)]
        if layout == "monimoyd":
            photos = [pixels[:, :, 0].copy() for pixels in photos]
        files = {}
        for role, pixels in zip(("bg", "fg_bg", "mask", "depth"), (*photos, mask, depth), strict=True):
            files[role] = root / (getattr(form, role).format(folder=folder, bg=bg, key=key) + extension)
            store(files[role], encode_jpeg(pixels))
        written[folder.replace("/", "_") + key] = form.bg_id.format(bg=bg), fg_id, files
    return written


def archived(folder: Path, layout: str, destination: Path) -> Path:
    """Zip the images as they were published: all in one, by role or by batch."""
    if layout not in ("birender", "monimoyd"):
        return Path(shutil.make_archive(str(destination / "dataset"), "zip", folder))
    for part in folder.iterdir():
        name = f"{part.name}_images" if layout == "monimoyd" else part.name
        shutil.make_archive(str(destination / name), "zip", part)
    return destination


def linked(folder: Path, destination: Path) -> Path:
    """Links to all folders that hold images, at their places."""
    for directory in {path.parent for path in folder.rglob("*.*") if path.is_file()}:
        link = destination / directory.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(directory)
    return destination


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


def turned(pixels: NDArray[Any], orientation: int, form: str) -> bytes:
    """A file in which the pixels lie as a camera held otherwise stores them, with the tag that turns them back."""
    stored = Image.fromarray(pixels)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of Image.Transpose: the inverse of what a viewer does
    if orientation != 1:
        stored = stored.transpose(Image.Transpose(back[orientation]))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored.save(file, form, exif=exif, quality=95)
    return file.getvalue()


def write(found: Import, path: Path) -> Dataset:
    write_dataset(found.samples(), path, source=found.source)
    return Dataset.open(path)


@pytest.mark.parametrize("kept", ["folder", "links", "archives", "archive of the folder"])
@pytest.mark.parametrize("layout", FORMS)
def test_published_images_make_a_round_trip(tmp_path: Path, layout: str, kept: str) -> None:
    """Whichever project they are of and however they are kept, all ids and pixels are the published ones."""
    expected = published(tmp_path / "published", layout)
    source = tmp_path / "published"
    if kept == "links":
        source = linked(source, tmp_path / "links")
    elif kept == "archives":
        source = archived(source, layout, tmp_path / "archives")
    elif kept == "archive of the folder":
        source = Path(shutil.make_archive(str(tmp_path / "one"), "zip", tmp_path, "published"))

    found = import_source(source)
    dataset = write(found, tmp_path / "set")

    assert found.layout == layout
    assert set(dataset.ids.sample_id) == set(expected)
    for sample in dataset.read():
        bg_id, fg_id, files = expected[sample.sample_id]
        mask, depth = (decode_plane(files[role].read_bytes(), "") for role in ("mask", "depth"))
        method = cv2.INTER_AREA if len(depth) > len(mask) else cv2.INTER_LINEAR
        depth = np.asarray(cv2.resize(depth, (SIDE, SIDE), interpolation=method), np.uint8)
        assert (sample.bg_id, sample.fg_id) == (bg_id, fg_id)
        np.testing.assert_array_equal(sample.bg, decode_photo(files["bg"].read_bytes(), ""))
        np.testing.assert_array_equal(sample.fg_bg, decode_photo(files["fg_bg"].read_bytes(), ""))
        np.testing.assert_array_equal(sample.mask, mask)
        np.testing.assert_array_equal(sample.depth, 255 - depth if FORMS[layout].inside > 127 else depth)


def test_imported_data_set_records_its_source(tmp_path: Path) -> None:
    """Whoever opens dataset.json sees what was read, as which layout, and what was done to depth, and why."""
    published(tmp_path / "published", "birender")
    found = import_source(archived(tmp_path / "published", "birender", tmp_path / "archives"))

    source = write(found, tmp_path / "set").info.source

    roles = ("bg_images", "fg_bg_depth_images", "fg_bg_images", "fg_bg_mask_images_c1")
    assert source["path"] == str(tmp_path / "archives")
    assert source["archives"] == [f"{name}.zip" for name in roles]
    assert source["layout"] == "birender"
    assert source["reason"] == found.reason
    assert found.reason.startswith("11 of 11 images are named as in 'birender' (bg_images/img_*, ")
    assert source["depth_inverted"] is True
    assert source["depth_polarity"]["measured"]["name"] == "near-bright"
    assert source["depth_resized"] == {"from": "40x40", "to": "32x32", "by": "area"}


def test_explicit_layout_is_recorded_as_the_reason(tmp_path: Path) -> None:
    """It was not recognised, and the record says so."""
    published(tmp_path, "ramana")

    assert import_source(tmp_path, layout="ramana").reason.startswith("chosen with --layout; 11 of 11 images")


@pytest.mark.parametrize(
    ("layout", "side", "wanted"), [("ramana", 16, "32x32"), ("monimoyd", 10, "32x32"), ("birender", 20, "40x40")]
)
def test_depth_of_another_size_than_published_is_refused(tmp_path: Path, layout: str, side: int, wanted: str) -> None:
    """A layout's depth is the mask's size, or half, or any that most samples share; another is a mistake."""
    written = published(tmp_path, layout)
    found = import_source(tmp_path)
    changed = found.quadruples[:1] if layout == "birender" else found.quadruples
    for each in changed:
        path = written[each.sample_id][2]["depth"]
        path.write_bytes(encode_jpeg(resize_to(decode_plane(path.read_bytes(), ""), side, side)))

    with pytest.raises(InputError, match=f"is {side}x{side}, but must be {wanted} to match"):
        list(import_source(tmp_path).samples())


def test_depth_of_other_proportions_is_refused(tmp_path: Path) -> None:
    """Resizing it would squeeze what is in it."""
    root = birender(tmp_path)
    for path in (root / "fg_bg_depth_images").iterdir():
        path.write_bytes(encode_png(resize_to(decode_plane(path.read_bytes(), ""), 24, 32)))

    with pytest.raises(InputError, match="is 32x24, but must be 24x24 to match"):
        list(import_source(root).samples())


def test_images_keep_the_published_bytes(tmp_path: Path) -> None:
    """Encoding a second time would lose quality and cost time; where nothing was resized, nothing says so."""
    root = birender(tmp_path)
    found = import_source(root)

    assert found.source["depth_resized"] is None
    for quadruple, sample in zip(found.quadruples, found.samples(), strict=True):
        for role in ("bg", "fg_bg", "mask", "depth"):
            assert getattr(sample, role) == (root / getattr(quadruple, role)).read_bytes()


def test_colour_files_of_grey_are_stored_as_one_channel(tmp_path: Path) -> None:
    """Published masks and depths are often RGB with R=G=B."""
    root = birender(tmp_path)
    for path in root.glob("fg_bg_depth_images/*"):
        plane = decode_plane(path.read_bytes(), "")
        path.write_bytes(encode_png(np.stack([plane] * 3, axis=2)))

    for sample in import_source(root).samples():
        stored = np.asarray(cv2.imdecode(np.frombuffer(sample.depth, np.uint8), cv2.IMREAD_UNCHANGED))
        assert stored.shape == (SIDE, SIDE)


@pytest.mark.parametrize("given", ["far-bright", "near-bright"])
def test_explicit_polarity_is_used_when_unclear(tmp_path: Path, given: str) -> None:
    """Depth that does not show the foreground cannot tell; then the user does."""
    root = birender(tmp_path, inside=150)

    assert import_source(root, depth_polarity=given).depth_polarity == given


def test_unclear_polarity_is_refused(tmp_path: Path) -> None:
    """Guessing would turn a whole data set inside out, and no loss would show it."""
    with pytest.raises(InputError, match=r"not clear .*give --depth-polarity far-bright or near-bright"):
        import_source(birender(tmp_path, inside=150))


def test_contradicting_polarity_is_refused(tmp_path: Path) -> None:
    """Where the images are clear, the flag is wrong."""
    with pytest.raises(InputError, match="'near-bright', but the depth was measured to be far-bright"):
        import_source(birender(tmp_path, 12), depth_polarity="near-bright")


def test_unknown_polarity_is_refused(tmp_path: Path) -> None:
    """The two names are given."""
    with pytest.raises(InputError, match="'bright', but must be 'far-bright' or 'near-bright'"):
        import_source(birender(tmp_path), depth_polarity="bright")


def test_unknown_layout_name_is_refused(tmp_path: Path) -> None:
    """The names that exist are given."""
    with pytest.raises(InputError, match="'seed', but must be one of raguram, divyansh, birender, ramana, monimoyd"):
        import_source(birender(tmp_path), layout="seed")


@pytest.mark.parametrize("folder", ["bg_images", "fg_bg_images", "fg_bg_mask_images", "fg_bg_depth_images"])
def test_file_that_is_not_an_image_is_named(tmp_path: Path, folder: str) -> None:
    """Error pages saved as images are common in downloads."""
    root = birender(tmp_path)
    path = min((root / folder).iterdir())
    path.write_bytes(b"<html>not found</html>")

    with pytest.raises(InputError, match=f"{path.name}' is not an image"):
        write(import_source(root), tmp_path / "set")


@pytest.mark.parametrize("folder", ["bg_images", "fg_bg_images"])
def test_sizes_that_differ_are_refused(tmp_path: Path, folder: str) -> None:
    """A photograph of another size than its mask is an image of something else."""
    root = birender(tmp_path)
    for path in (root / folder).iterdir():
        path.write_bytes(encode_png(photo(7, SIDE // 2)))

    with pytest.raises(InputError, match=rf"{folder}/.*' is 16x16, but must be 32x32"):
        list(import_source(root, depth_polarity="far-bright").samples())


@pytest.mark.parametrize("folder", ["fg_bg_mask_images", "fg_bg_depth_images"])
def test_target_with_colours_is_refused(tmp_path: Path, folder: str) -> None:
    """A photograph in place of a target would silently be averaged to grey."""
    root = birender(tmp_path)
    for path in (root / folder).iterdir():
        path.write_bytes(encode_png(photo(7)))

    with pytest.raises(InputError, match=f"{folder}/.* has colours"):
        import_source(root)


def test_damaged_image_in_an_archive_is_named(tmp_path: Path) -> None:
    """The data set appears whole or not at all, and the archive to get anew is named."""
    published(tmp_path / "published", "raguram")
    path = archived(tmp_path / "published", "raguram", tmp_path)
    content = bytearray(path.read_bytes())
    place = content.index(b"fg_bg_mask/Image_80_3_332801.JPEG") + 60
    content[place : place + 8] = b"damaged!"
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"dataset\.zip/fg_bg_mask/Image_80_3_332801\.JPEG' is damaged in its archive"):
        import_source(path)


def test_background_that_differs_between_folders_is_refused(tmp_path: Path) -> None:
    """All batches share their backgrounds by number; one that differs would be shown with the wrong samples."""
    written = published(tmp_path, "monimoyd")
    store(written["batch10_100_51_1_20"][2]["bg"], encode_jpeg(photo(77)))

    said = "batch10/bg_jpg/bg_img_51.jpg' is another image than '.*batch1/bg_jpg/bg_img_51.jpg', but both have the id"
    with pytest.raises(InputError, match=said):
        write(import_source(tmp_path), tmp_path / "set")


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("layout", FORMS)
def test_every_file_is_imported_upright(tmp_path: Path, layout: str, orientation: int) -> None:
    """In all layouts, photographs, masks and depths are what Pillow shows, and fit each other, however they lie."""
    expected = published(tmp_path / "published", layout)
    for path in {path for _, _, files in expected.values() for path in files.values()}:
        path.write_bytes(turned(np.asarray(Image.open(path)), orientation, "JPEG"))

    for sample in write(import_source(tmp_path / "published"), tmp_path / "set").read():
        files = expected[sample.sample_id][2]
        shown = {role: ImageOps.exif_transpose(Image.open(path)) for role, path in files.items()}
        depth = resize_to(np.array(shown["depth"]), SIDE, SIDE)
        np.testing.assert_array_equal(sample.bg, np.asarray(shown["bg"].convert("RGB")))
        np.testing.assert_array_equal(sample.fg_bg, np.asarray(shown["fg_bg"].convert("RGB")))
        np.testing.assert_array_equal(sample.mask, np.asarray(shown["mask"]))
        np.testing.assert_array_equal(sample.depth, 255 - depth if FORMS[layout].inside > 127 else depth)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("layout", FORMS)
def test_depth_of_16_bits_is_imported_with_its_whole_range(tmp_path: Path, layout: str, extension: str) -> None:
    """In all layouts, as sensors and 16-bit estimates write it; each image gets all levels from near to far."""
    expected = published(tmp_path / "published", layout)
    stored = {}
    for sample_id, (_, _, files) in expected.items():
        depth = cv2.imread(str(files["depth"]), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 20 + 300
        depth[0, :2] = 200, 8000
        files["depth"].unlink()
        path = files["depth"].with_suffix(extension)
        path.write_bytes(cv2.imencode(extension, depth)[1].tobytes())
        stored[sample_id] = depth

    found = import_source(tmp_path / "published")
    dataset = write(found, tmp_path / "set")

    assert found.depth_bits == dataset.info.source["depth_bits"] == 16
    assert found.depth_polarity == ("near-bright" if FORMS[layout].inside > 127 else "far-bright")
    for sample in dataset.read():
        levels = resize_to(scale_depth(stored[sample.sample_id], found.depth_polarity, ""), SIDE, SIDE)
        np.testing.assert_array_equal(sample.depth, levels if found.depth_polarity == "far-bright" else 255 - levels)


@pytest.mark.parametrize("layout", FORMS)
def test_masks_of_0_and_1_are_multiplied(tmp_path: Path, layout: str) -> None:
    """Label maps store classes; the record says what was done."""
    expected = published(tmp_path / "published", layout)
    masks = {}
    for number, (sample_id, (_, _, files)) in enumerate(expected.items()):
        masks[sample_id] = mask_at(3 + 4 * number) // 255
        files["mask"].unlink()
        store(files["mask"].with_suffix(".png"), encode_png(masks[sample_id]))

    found = import_source(tmp_path / "published")
    dataset = write(found, tmp_path / "set")

    assert found.mask_factor == dataset.info.source["mask_factor"] == 255
    for sample in dataset.read():
        np.testing.assert_array_equal(sample.mask, 255 * masks[sample.sample_id])


def test_a_nearly_empty_mask_does_not_decide_for_the_set(tmp_path: Path) -> None:
    """One whose largest level is 1 by chance stays as it is beside masks of 0 to 255."""
    root = birender(tmp_path)
    path = min((root / "fg_bg_mask_images").iterdir())
    path.write_bytes(encode_png((mask_at(3) > 0).astype(np.uint8)))

    found = import_source(root)

    assert found.mask_factor == 1
    (sample,) = (sample for sample in found.samples() if sample.sample_id == path.stem)
    assert decode_plane(sample.mask, "").max() == 1


def test_opaque_alpha_and_palettes_are_imported(tmp_path: Path) -> None:
    """What editors and labelling programs write is what the published files hold."""
    root = birender(tmp_path)
    plain = {sample.sample_id: sample for sample in write(import_source(root), tmp_path / "plain").read()}
    for path in (root / "fg_bg_images").iterdir():
        store(path.with_suffix(".png"), pillow_png(Image.open(path).convert("RGBA")))
        path.unlink()
    for path in (root / "fg_bg_mask_images").iterdir():
        image = Image.fromarray((decode_plane(path.read_bytes(), "") > 127).astype(np.uint8))
        image.putpalette([0, 0, 0, 255, 0, 0])
        path.write_bytes(pillow_png(image))

    for sample in write(import_source(root), tmp_path / "set").read():
        np.testing.assert_array_equal(sample.fg_bg, plain[sample.sample_id].fg_bg)
        np.testing.assert_array_equal(sample.mask, 255 * (plain[sample.sample_id].mask > 127))


def pillow_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_transparent_pixel_of_a_photograph_is_located(tmp_path: Path) -> None:
    """A cut-out in the photograph's place; nothing is written."""
    root = birender(tmp_path)
    path = min((root / "fg_bg_images").iterdir())
    store(path.with_suffix(".png"), pillow_png(Image.fromarray(np.dstack([photo(1), mask_at(3)]))))
    path.unlink()

    with pytest.raises(
        InputError, match=rf"{path.stem}\.png' is transparent in \d+ of 1,024 pixels \(columns 0 to 31,"
    ):
        write(import_source(root), tmp_path / "set")
    assert not (tmp_path / "set").exists()
