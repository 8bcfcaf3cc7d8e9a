"""The published layouts: file names of a sample, and the ids in these names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

ROLES = ("bg", "fg_bg", "mask", "depth")
DepthSize = Literal["same", "half", "own"]
"""Whether depth has the size of the mask, may have half of it, or any size of the same aspect ratio."""
EXTENSION = r"\.(?:png|jpe?g|tiff?)"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """File name templates of a layout, without extensions (PNG, JPEG or TIFF).

    Placeholders: `{key}` identifies the sample, `{bg}` is the background (also part of the key), `{folder}` is an
    optional folder. If a role has several templates, the first one with a file counts.
    """

    bg: tuple[str, ...]
    fg_bg: tuple[str, ...]
    mask: tuple[str, ...]
    depth: tuple[str, ...]
    key: str
    """Regular expression with the groups `fg`, `bg` and `take`, and optionally `flip`."""
    shown_key: str
    """The key in messages: B background, F foreground, N take; brackets for optional parts."""
    shown_bg: str = "B"
    background: str = r"\d+"
    """Regular expression of `{bg}`."""
    folder: str = ""
    """Regular expression of `{folder}`; '_images' may follow it, as in names of archives."""
    mirrors_from: int | None = None
    """Foreground N plus this is foreground N mirrored, if the key has no `flip`."""
    depth_size: DepthSize = "same"

    def patterns(self, template: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Patterns of the directory (below any root) and of the file name of a template."""
        placeholders = {
            "folder": rf"(?:(?P<folder>{self.folder})(?:_images)?/)?",
            "bg": f"(?P<bg>{self.background})",
            "key": f"(?P<key>{self.key})",
        }
        directory, _, file = re.escape(template).replace(r"\{", "{").replace(r"\}", "}").rpartition("/")
        for name, expression in placeholders.items():
            directory, file = (part.replace(f"{{{name}}}", expression) for part in (directory, file))
        return (
            re.compile(rf"(?P<root>(?:[^/]+/)*?){directory}", re.IGNORECASE),
            re.compile(file + EXTENSION, re.IGNORECASE),
        )

    def readable(self, template: str) -> str:
        """The template in readable form, for messages."""
        folder = f"[{self.folder.replace(chr(92) + 'd+', 'K').replace('|', ' or ')}/]" if self.folder else ""
        return template.format(folder=folder, bg=self.shown_bg, key=self.shown_key)

    def bg_id(self, name: str) -> str:
        """Id of the background in file `name`, in the form of the first template."""
        number = re.search(f"(?:{self.background})$", PurePosixPath(name).stem, re.IGNORECASE)
        return PurePosixPath(self.bg[0]).name.replace("{bg}", number[0] if number else "")

    def fg_id(self, fg: str) -> str:
        """Id of the foreground `fg` of a key; a mirrored foreground has the same id."""
        if not fg.isdigit():
            return fg
        if self.mirrors_from is None:
            return f"fg{fg}"
        number = int(fg)  # without leading zeros, which the number of the mirror image need not have
        is_mirrored = self.mirrors_from <= number < 2 * self.mirrors_from
        return f"fg{number - self.mirrors_from if is_mirrored else number}"


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
        # The published program reads the first of each; its description sometimes uses the others.
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
"""A mirrored foreground has the id of the original, so that a split keeps them together.

Backgrounds and foregrounds are numbered across folders, so their ids do not contain the folder.
"""


def describe(templates: Iterable[str]) -> str:
    """List templates with '*' for the variable parts."""
    return ", ".join(re.sub(r"\{(?:key|bg)\}", "*", template.replace("{folder}", "")) for template in templates)
