"""Checks of the image sizes that a family supports.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def require_multiple(image: Tensor, multiple: int, *, family: str) -> None:
    """Refuse (B, C, H, W) images whose sides are not multiples of `multiple`.

    Raises:
        InputError: if H or W is not a multiple of `multiple`.
    """
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        raise _refusal(height, width, f"multiples of {multiple}", family)


def require_at_least(image: Tensor, smallest: int, *, family: str) -> None:
    """Refuse (B, C, H, W) images whose sides are below `smallest`.

    Raises:
        InputError: if H or W is below `smallest`.
    """
    height, width = image.shape[-2:]
    if height < smallest or width < smallest:
        raise _refusal(height, width, f"at least {smallest}", family)


def _refusal(height: int, width: int, wanted: str, family: str) -> InputError:
    return InputError(
        f"The value of 'image_size' is {height} x {width} (height x width), but must be {wanted} "
        f"for the model family '{family}'; set data.image_size in the spec."
    )
