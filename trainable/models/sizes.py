"""Checks of the image sizes that a family supports.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def require_sides(image: Tensor, *, family: str, multiple: int = 1, smallest: int = 1) -> None:
    """Refuse (B, C, H, W) images of a size that a family does not support.

    Raises:
        InputError: if H or W is not a multiple of `multiple`, or below `smallest`.
    """
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        wanted = f"multiples of {multiple}"
    elif height < smallest or width < smallest:
        wanted = f"at least {smallest}"
    else:
        return
    raise InputError(
        f"The value of 'image_size' is {height} x {width} (height x width), but must be {wanted} "
        f"for the model family '{family}'; set data.image_size in the spec."
    )
