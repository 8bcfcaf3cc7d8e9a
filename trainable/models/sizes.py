"""The sizes of picture that a family can take, and the sentence for those that it cannot.

Shapes: B pictures, H and W height and width in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def require_multiple(picture: Tensor, multiple: int, *, family: str) -> None:
    """Refuse (B, C, H, W) pictures that a family cannot halve as often as it does.

    Raises:
        InputError: if H or W is not a multiple of `multiple`.
    """
    height, width = picture.shape[-2:]
    if height % multiple or width % multiple:
        raise _refusal(height, width, f"multiples of {multiple}", family)


def require_at_least(picture: Tensor, smallest: int, *, family: str) -> None:
    """Refuse (B, C, H, W) pictures that halving would leave with nothing.

    Raises:
        InputError: if H or W is below `smallest`.
    """
    height, width = picture.shape[-2:]
    if height < smallest or width < smallest:
        raise _refusal(height, width, f"at least {smallest}", family)


def _refusal(height: int, width: int, wanted: str, family: str) -> InputError:
    return InputError(
        f"The value of 'image_size' is {height} x {width} (height x width), but must be {wanted} "
        f"for the model family '{family}'; set data.image_size in the spec."
    )
