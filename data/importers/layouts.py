"""The published layouts: how the four files of a sample are named, and what ids the names hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

ROLES = ("bg", "fg_bg", "mask", "depth")
EXTENSION = r"\.(?:png|jpe?g|tiff?)"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the files of a layout are named, without their extensions (PNG, JPEG or TIFF).

    A name has places: `{key}` tells a sample from another, `{bg}` is the background that the key holds too,
    `{folder}` a folder that may be left out. Of several names for a role, the first that exists counts.
    """

    bg: tuple[str, ...]
    fg_bg: tuple[str, ...]
    mask: tuple[str, ...]
    depth: tuple[str, ...]
    key: str
    """Regular expression with the groups `fg`, `bg` and `take`, and optionally `flip`."""
    shown_key: str
    """How people write the key: B background, F foreground, N take; in brackets what may be left out."""
    shown_bg: str = "B"
    background: str = r"\d+"
    """Regular expression of what stands for `{bg}`."""
    folder: str = ""
    """Regular expression of what stands for `{folder}`; '_images' may follow it, as in archives' names."""
    mirrors_from: int | None = None
    """Foreground N plus this is foreground N mirrored, where the flip is not written out."""
    depth_size: Literal["same", "half", "own"] = "same"
    """Whether depth has the mask's size, may have half of it, or any size of the same proportions."""

    def patterns(self, template: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """What the directory of a file that follows the template must be, below any root, and the file's name."""
        places = {
            "folder": rf"(?:(?P<folder>{self.folder})(?:_images)?/)?",
            "bg": f"(?P<bg>{self.background})",
            "key": f"(?P<key>{self.key})",
        }
        directory, _, file = re.escape(template).replace(r"\{", "{").replace(r"\}", "}").rpartition("/")
        for place, expression in places.items():
            directory, file = (part.replace(f"{{{place}}}", expression) for part in (directory, file))
        return (
            re.compile(rf"(?P<root>(?:[^/]+/)*?){directory}", re.IGNORECASE),
            re.compile(file + EXTENSION, re.IGNORECASE),
        )

    def readable(self, template: str) -> str:
        """A template as people write it."""
        folder = f"[{self.folder.replace(chr(92) + 'd+', 'K').replace('|', ' or ')}/]" if self.folder else ""
        return template.format(folder=folder, bg=self.shown_bg, key=self.shown_key)

    def bg_id(self, name: str) -> str:
        """Id of the background in file `name`: as the first template names it, however this file is named."""
        own = re.search(f"(?:{self.background})$", PurePosixPath(name).stem, re.IGNORECASE)
        return PurePosixPath(self.bg[0]).name.replace("{bg}", own[0] if own else "")

    def fg_id(self, fg: str) -> str:
        """Id of the foreground that a key calls `fg`: the same for its mirror image."""
        if not fg.isdigit():
            return fg
        if self.mirrors_from is not None and self.mirrors_from <= int(fg) < 2 * self.mirrors_from:
            fg = str(int(fg) - self.mirrors_from)
        return f"fg{fg}"


LAYOUTS: dict[str, Layout] = {
    "raguram": Layout(
        bg=("bg_images/Image_{bg}",),
        fg_bg=("fg_bg/Image_{key}",),
        mask=("fg_bg_mask/Image_{key}",),
        depth=("fg_bg_depth/Image_{key}",),
        key=r"(?P<bg>\d+)_(?P<fg>\d+)_(?P<take>\d+)",
        shown_key="B_F_N",
        mirrors_from=104,
        depth_size="own",
    ),
    "divyansh": Layout(
        bg=("{folder}bg/{bg}",),
        fg_bg=("{folder}fg/{key}",),
        mask=("{folder}mask/mask_{key}",),
        depth=("{folder}depth/depth_{key}",),
        key=r"(?P<bg>[a-z]*\d+)_(?P<flip>flip_)?(?P<fg>[a-z]*\d+)_(?P<take>\d+)",
        shown_key="B_[flip_]F_N",
        background=r"[a-z]*\d+",
        folder=r"train|validate",
        depth_size="own",
    ),
    "birender": Layout(
        bg=("bg_images/img_{bg}",),
        fg_bg=("fg_bg_images/{key}",),
        mask=("fg_bg_mask_images_c1/{key}", "fg_bg_mask_images/{key}"),
        depth=("fg_bg_depth_images/{key}",),
        key=r"fg(?P<fg>\d+)(?P<flip>flip)?_bg(?P<bg>\d+)_(?P<take>\d+)",
        shown_key="fgFFF[flip]_bgBBB_NN",
        shown_bg="BBB",
        depth_size="own",
    ),
    "ramana": Layout(
        bg=("bg/bg_{bg}",),
        fg_bg=("fg_bg/bg_{bg}/{key}",),
        mask=("fg_bg_masks/bg_{bg}/{key}",),
        depth=("fg_bg_depth/bg_{bg}/{key}",),
        key=r"bg_(?P<bg>\d+)_fg_(?P<fg>\d+)_(?P<flip>[TF])_(?P<take>\d+)",
        shown_key="bg_BB_fg_FF_[T or F]_NNNNNN",
        shown_bg="BB",
    ),
    "monimoyd": Layout(
        # The first of each is what the published program reads; its description, at times, named the others.
        bg=("{folder}bg_jpg/bg_img_{bg}", "{folder}bg_jpg/bg_{bg}"),
        fg_bg=("{folder}fg_bg_jpg/fg_bg_{key}",),
        mask=("{folder}mask_black_jpg/bg_mask_{key}",),
        depth=(
            "{folder}depth_fg_bg_jpg/depth_fg_bg_{key}",
            "{folder}depth_fg_bg_jpg/depth_{key}",
            "{folder}mask_black_jpg/depth_fg_bg_{key}",
            "{folder}mask_black_jpg/depth_{key}",
        ),
        key=r"(?P<fg>\d+)_(?P<bg>\d+)_(?P<flip>[01])_(?P<take>\d+)",
        shown_key="F_B_[0 or 1]_N",
        folder=r"batch\d+",
        depth_size="half",
    ),
}
"""A foreground mirrored left to right has the id of the one it comes from: a split keeps them together.

Backgrounds and foregrounds are numbered across folders, so that their ids do not name the folder.
"""


def describe(templates: Iterable[str]) -> str:
    """List names' templates with '*' for what differs."""
    return ", ".join(re.sub(r"\{(?:key|bg)\}", "*", template.replace("{folder}", "")) for template in templates)
