"""Layouts: recognised and paired by file names; where these are ambiguous, the user must choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.importers.layouts import LAYOUTS, ROLES
from data.importers.pairing import Quadruple, find_layout, find_quadruples
from data.importers.problems import ImportProblems


@dataclass
class Names:
    """A source of which nothing but the names is looked at."""

    names: tuple[str, ...]
    root: Path = Path("source")
    archives: tuple[str, ...] = ()
    gaps: dict[str, str] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        raise AssertionError(name)

    def where(self, name: str) -> str:
        return name


@dataclass(frozen=True)
class Shot:
    """What a published name says: which background and foreground, mirrored or not, and a number."""

    bg: int
    fg: int
    flip: bool
    take: int


def raguram(shot: Shot) -> Quadruple:
    key = f"{shot.bg}_{shot.fg + 104 * shot.flip}_{shot.take}"
    folders = ("fg_bg", "fg_bg_mask", "fg_bg_depth")
    return quadruple(
        key,
        f"Image_{shot.bg}",
        f"fg{shot.fg}",
        f"bg_images/Image_{shot.bg}.JPEG",
        *(f"{folder}/Image_{key}.JPEG" for folder in folders),
    )


def divyansh(shot: Shot) -> Quadruple:
    part = "validate" if shot.take % 3 == 0 else "train"
    key = f"img{shot.bg}_{'flip_' if shot.flip else ''}img{shot.fg:03d}_{shot.take}"
    names = (f"{part}/{role}{key}.jpg" for role in ("fg/", "mask/mask_", "depth/depth_"))
    return quadruple(f"{part}_{key}", f"img{shot.bg}", f"img{shot.fg:03d}", f"{part}/bg/img{shot.bg}.jpg", *names)


def birender(shot: Shot) -> Quadruple:
    key = f"fg{shot.fg:03d}{'flip' if shot.flip else ''}_bg{shot.bg:03d}_{shot.take:02d}"
    folders = ("fg_bg_images", "fg_bg_mask_images_c1", "fg_bg_depth_images")
    return quadruple(
        key,
        f"img_{shot.bg:03d}",
        f"fg{shot.fg:03d}",
        f"bg_images/img_{shot.bg:03d}.jpg",
        *(f"{folder}/{key}.jpg" for folder in folders),
    )


def ramana(shot: Shot) -> Quadruple:
    bg = f"bg_{shot.bg:02d}"
    key = f"{bg}_fg_{shot.fg:02d}_{'T' if shot.flip else 'F'}_{shot.take:06d}"
    folders = ("fg_bg", "fg_bg_masks", "fg_bg_depth")
    return quadruple(key, bg, f"fg{shot.fg:02d}", f"bg/{bg}.jpg", *(f"{folder}/{bg}/{key}.jpg" for folder in folders))


def monimoyd(shot: Shot) -> Quadruple:
    batch = f"batch{1 + shot.fg // 10}"
    key = f"{shot.fg}_{shot.bg}_{int(shot.flip)}_{shot.take}"
    prefixes = ("fg_bg_jpg/fg_bg", "mask_black_jpg/bg_mask", "depth_fg_bg_jpg/depth_fg_bg")
    return quadruple(
        f"{batch}_{key}", f"bg_img_{shot.bg}", f"fg{shot.fg}", f"{batch}/bg_jpg/bg_img_{shot.bg}.jpg",
        *(f"{batch}/{prefix}_{key}.jpg" for prefix in prefixes),
    )  # fmt: skip


PUBLISHED: dict[str, Callable[[Shot], Quadruple]] = {
    "raguram": raguram,
    "divyansh": divyansh,
    "birender": birender,
    "ramana": ramana,
    "monimoyd": monimoyd,
}
SHOTS = [Shot(bg, fg, flip, take) for bg in (1, 12) for fg in (3, 40) for flip in (False, True) for take in (2, 10)]
shots = st.builds(Shot, st.integers(0, 99), st.integers(0, 99), st.booleans(), st.integers(0, 400_000))


def quadruple(sample_id: str, bg_id: str, fg_id: str, bg: str, fg_bg: str, mask: str, depth: str) -> Quadruple:
    return Quadruple(sample_id=sample_id, bg_id=bg_id, fg_id=fg_id, bg=bg, fg_bg=fg_bg, mask=mask, depth=depth)


def names_of(quadruples: list[Quadruple]) -> tuple[str, ...]:
    return tuple(sorted({getattr(each, role) for each in quadruples for role in ROLES}))


def published(layout: str, root: str = "", samples: list[Shot] = SHOTS) -> tuple[str, ...]:
    return tuple(root + name for name in names_of([PUBLISHED[layout](shot) for shot in samples]))


def pair(*names: str, layout: str | None = None) -> list[Quadruple]:
    files, problems = Names(names), ImportProblems("source")
    found = find_quadruples(files, find_layout(files, layout), problems)
    if problems:
        raise problems.error(len(found))
    return found


def test_every_layout_is_tested_with_its_published_names() -> None:
    """A layout that is added is tested by what was published, not by its own expressions."""
    assert PUBLISHED.keys() == LAYOUTS.keys()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(PUBLISHED)), st.sets(shots, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_published_names_are_paired_in_any_order(layout: str, samples: set[Shot], random: object) -> None:
    """Position in a listing paired backgrounds wrongly in published code; names, with their ids, cannot."""
    expected = {each.sample_id: each for each in map(PUBLISHED[layout], samples)}
    names = [*names_of(list(expected.values())), "labels.txt", "fg_images/Image_1.png", "fg_jpg/fg_1.jpg"]
    random.shuffle(names)  # type: ignore[attr-defined]

    assert find_layout(Names(tuple(names))).layout == layout
    assert {each.sample_id: each for each in pair(*names)} == expected


@pytest.mark.parametrize("layout", PUBLISHED)
def test_a_mirrored_foreground_has_the_id_of_its_original(layout: str) -> None:
    """Else a split by foreground would train on a person and test on the mirror image."""
    found = pair(*published(layout))

    assert len(found) == len(SHOTS)
    assert len({each.fg_id for each in found}) == 2
    assert len({each.bg_id for each in found}) == 2


@pytest.mark.parametrize("layout", PUBLISHED)
def test_samples_come_by_background_and_number(layout: str) -> None:
    """Neighbours share their background, which is then decoded once; 2 comes before 10."""
    found = pair(*published(layout, samples=[Shot(12, 3, False, 1), *(Shot(2, 3, False, take) for take in (10, 2))]))

    assert [each.sample_id for each in found] == [
        PUBLISHED[layout](shot).sample_id
        for shot in (Shot(2, 3, False, 2), Shot(2, 3, False, 10), Shot(12, 3, False, 1))
    ]


@pytest.mark.parametrize("layout", PUBLISHED)
def test_data_set_in_a_subfolder_is_found(layout: str) -> None:
    """Zipping a folder puts everything into one; ids do not change by it."""
    names = published(layout, "data/")

    assert [each.sample_id for each in pair(*names)] == [each.sample_id for each in pair(*published(layout))]
    assert find_layout(Names(names)).root == "data/"


def test_reason_counts_the_matching_images() -> None:
    """One can see at a glance whether the right layout was taken, and what was left out."""
    found = find_layout(Names((*published("ramana", "set/"), "set/sheet.png", "labels.txt")))

    assert found.reason == (
        "50 of 51 images are named as in 'ramana' (bg/bg_*, fg_bg/bg_*/*, fg_bg_masks/bg_*/*, fg_bg_depth/bg_*/*) "
        "in 'set/'; not imported: 1"
    )


@pytest.mark.parametrize(
    ("bg", "depth"),
    [
        ("bg_jpg/bg_100.jpg", "depth_fg_bg_jpg/depth_1_100_1_15.jpg"),
        ("bg_jpg/bg_img_100.jpg", "mask_black_jpg/depth_1_100_1_15.jpg"),
        ("bg_jpg/bg_100.jpg", "mask_black_jpg/depth_fg_bg_1_100_1_15.jpg"),
    ],
)
def test_monimoyd_names_of_the_description_and_the_code_are_accepted(bg: str, depth: str) -> None:
    """The description and the program named some files differently; ids are the same for both."""
    (found,) = pair(
        f"batch7/{bg}",
        "batch7/fg_bg_jpg/fg_bg_1_100_1_15.jpg",
        "batch7/mask_black_jpg/bg_mask_1_100_1_15.jpg",
        f"batch7/{depth}",
    )

    assert (found.sample_id, found.bg_id, found.fg_id) == ("batch7_1_100_1_15", "bg_img_100", "fg1")
    assert (found.bg, found.depth) == (f"batch7/{bg}", f"batch7/{depth}")


@pytest.mark.parametrize(("folder", "prefix"), [("batch10/", "batch10_"), ("batch10_images/", "batch10_"), ("", "")])
def test_monimoyd_batches_may_have_the_names_of_their_archives(folder: str, prefix: str) -> None:
    """batch10_images.zip extracts to either; a user may also point at a single batch."""
    names = published("monimoyd", samples=[Shot(5, 93, True, 20)])
    (found,) = pair(*(name.replace("batch10/", folder) for name in names))

    assert found.sample_id == f"{prefix}93_5_1_20"


def test_single_channel_masks_of_birender_are_preferred() -> None:
    """The publisher made them from the others, for the same samples."""
    others = (name.replace("_c1", "") for name in published("birender") if "_c1" in name)

    assert all("_c1/" in each.mask for each in pair(*published("birender"), *others))


def test_divyansh_allows_a_name_in_both_folders() -> None:
    """Two samples, then, of one background and one foreground."""
    train = published("divyansh", samples=[Shot(4, 7, False, 1)])
    found = pair(*train, *(name.replace("train/", "validate/") for name in train))

    assert [each.sample_id for each in found] == ["train_img4_img007_1", "validate_img4_img007_1"]
    assert len({(each.bg_id, each.fg_id) for each in found}) == 1


def test_divyansh_background_may_be_in_one_folder_only() -> None:
    """The published division moved samples, not backgrounds."""
    names = published("divyansh", samples=[Shot(4, 7, False, 1), Shot(4, 7, False, 3)])
    found = pair(*(name for name in names if name != "validate/bg/img4.jpg"))

    assert {each.bg for each in found} == {"train/bg/img4.jpg"}


def test_divyansh_names_may_be_numbers_alone() -> None:
    """Names are what the pictures' files were called; both forms were described."""
    (found,) = pair("bg/15.jpg", "fg/15_7_3.jpg", "mask/mask_15_7_3.jpg", "depth/depth_15_7_3.jpg")

    assert (found.sample_id, found.bg_id, found.fg_id) == ("15_7_3", "15", "fg7")


def test_raguram_numbers_beyond_the_mirror_images_are_foregrounds() -> None:
    """There are 104 of each; a larger set in these names has no mirror images that its numbers tell."""
    names = [PUBLISHED["raguram"](Shot(1, fg, False, fg)) for fg in (0, 103, 104, 207, 208)]

    assert [each.fg_id for each in pair(*names_of(names))] == ["fg0", "fg103", "fg0", "fg103", "fg208"]


def test_leading_zeros_do_not_tell_a_mirror_image_from_its_original() -> None:
    """A leak: numbers filled to the same width would put the two into different parts of a split by foreground."""
    keys = ("001_003_001", "001_107_001", "001_3_002", "001_208_001")
    folders = ("fg_bg", "fg_bg_mask", "fg_bg_depth")
    names = [f"{folder}/Image_{key}.JPEG" for folder in folders for key in keys]

    found = pair("bg_images/Image_001.JPEG", *names)

    assert {each.sample_id: each.fg_id for each in found} == dict(
        zip(keys, ("fg3", "fg3", "fg3", "fg208"), strict=True)
    )


@pytest.mark.parametrize("layout", PUBLISHED)
@pytest.mark.parametrize("role", ROLES)
def test_a_missing_file_is_named_and_counted(layout: str, role: str) -> None:
    """One missing file is an accident, half of them a wrong folder: the count distinguishes the two."""
    kept = PUBLISHED[layout](Shot(1, 3, False, 2))
    broken = PUBLISHED[layout](Shot(2, 3, False, 2))
    gone = getattr(broken, role)
    names = [f"old/{name}" for name in names_of([kept, broken]) if name != gone]

    expected = f"The file 'old/{gone.rsplit('.', 1)[0]}.*' is missing in 'source' (1 of 2 samples lack"
    with pytest.raises(InputError) as caught:
        pair(*names)
    assert str(caught.value).startswith(expected)


def test_file_in_a_wrong_background_folder_is_reported_missing() -> None:
    """Its name and its place contradict each other."""
    names = [name.replace("fg_bg_masks/bg_01/bg_01_fg_03_T", "fg_bg_masks/bg_12/bg_01_fg_03_T") for name in
             published("ramana")]  # fmt: skip

    with pytest.raises(InputError, match=r"'fg_bg_masks/bg_01/bg_01_fg_03_T_000002\.\*' is missing .*\(2 of 16"):
        pair(*names)


@pytest.mark.parametrize(
    ("layout", "one", "other"),
    [
        ("birender", "bg_images/img_001.jpg", "bg_images/img_001.png"),
        ("raguram", "bg_images/Image_01.JPEG", "bg_images/Image_1.JPEG"),
        ("monimoyd", "batch1/bg_jpg/bg_img_1.jpg", "batch1_images/bg_jpg/bg_img_1.jpg"),
    ],
)
def test_two_files_for_one_image_are_refused(layout: str, one: str, other: str) -> None:
    """Which of them is meant is not ours to guess."""
    with pytest.raises(InputError, match=f"The files '{one}' and '{other}' are the same image"):
        pair(*sorted({*published(layout), one, other}))


def test_ambiguous_layouts_must_be_chosen_by_the_user() -> None:
    """Two data sets in one folder: the first in a listing would be a guess."""
    names = (*published("ramana"), *published("birender"))

    with pytest.raises(InputError, match=r"ambiguous \(.*'birender'.*; .*'ramana'.*\); choose one with --layout"):
        pair(*names)
    assert pair(*names, layout="ramana") == pair(*published("ramana"))


def test_complete_layout_is_preferred() -> None:
    """Backgrounds and photographs of another project, left in the folder, do not matter."""
    others = [name for name in published("raguram") if name.startswith(("bg_images/", "fg_bg/"))]

    assert find_layout(Names((*others, *published("ramana")))).layout == "ramana"


def test_data_set_nearest_to_the_top_is_preferred() -> None:
    """A folder of samples or an older copy, deeper down, is not what was pointed at."""
    assert find_layout(Names((*published("ramana", "a/older/"), *published("birender", "a/")))).layout == "birender"


def test_two_data_sets_of_one_layout_are_refused() -> None:
    """A folder of downloads may hold both the full and the tiny one, with the same names."""
    with pytest.raises(InputError, match=r"contains 2 data sets of the layout 'raguram' \('data/', 'tiny_data/'\)"):
        pair(*published("raguram", "data/"), *published("raguram", "tiny_data/"))


def test_explicit_layout_skips_recognition() -> None:
    """Named by hand it may be the wrong one."""
    with pytest.raises(InputError, match="has no samples of the layout 'monimoyd'"):
        pair(*published("birender"), layout="monimoyd")


def test_an_empty_source_is_refused() -> None:
    """A folder whose download has not come is empty, which is not the same as unknown."""
    with pytest.raises(InputError, match="'source' is empty"):
        pair()


@pytest.mark.parametrize("role", ROLES)
def test_role_without_files_is_named_with_its_expected_names(role: str) -> None:
    """A folder of another name is the commonest reason: not every sample is to be named for it."""
    sample = PUBLISHED["birender"](Shot(1, 3, False, 2))
    gone = getattr(sample, role)
    names = [f"other/{Path(name).name}" if name == gone else name for name in names_of([sample])]

    with pytest.raises(InputError) as caught:
        pair(*names)

    sentence, *lines = str(caught.value).splitlines()
    assert sentence.startswith(
        f"The source 'source' has the layout 'birender', but no {role} files; add them, or rename them"
    )
    (line,) = [line for line in lines if "a file with such a name" in line]
    assert f" {role} " in f" {line} "
    assert f"'{Path(gone).name}', is in 'other', not in '{Path(gone).parent}'" in line


def test_unknown_layout_error_lists_what_was_searched_for() -> None:
    """The user sees which names would have been found, and that the right folder may be another."""
    said = (
        r"(?s)not recognised.*\n +found +pictures/: one\.jpg\n +raguram +bg_images/Image_B, .*\n +monimoyd .*bg_jpg/bg_"
    )
    with pytest.raises(InputError, match=said):
        pair("pictures/one.jpg")
