"""The transforms of albumentations that can be used, by name, and their construction from plain arguments.

albumentations is imported on first use: it takes a second or more, and most configurations need none of it.
"""

from __future__ import annotations

import inspect
import os
import threading
import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

Arguments: TypeAlias = Mapping[str, Any]
"""Arguments of a transform as JSON has them."""

DEFAULT_P = 0.5
"""Probability of a transform that is listed without `p`."""

_SIZE = "changes the size of the images, which data.image_size gives"
_TYPE = "changes the type of the images, which must stay uint8 in three channels"
_IMAGES = "needs other images, texts or functions, which a configuration does not hold"
_LABELS = "needs labelled objects, which samples do not have"
_SPECTROGRAM = "is for spectrograms"
_GROUP = "combines transforms, which are listed here one by one, each with its own p"
_VOLUME = "is for volumes"
_BORDERS = "is not an option here: borders are filled by reflection, since 0 would be a depth"
_FILL = "is not an option here: mask and depth are never filled, since 0 would be a depth"

REFUSED: Mapping[str, str] = {
    "AtLeastOneBBoxRandomCrop": _SIZE,
    "BBoxSafeRandomCrop": _SIZE,
    "CenterCrop": _SIZE,
    "Crop": _SIZE,
    "CropNonEmptyMaskIfExists": _SIZE,
    "LongestMaxSize": _SIZE,
    "Pad": _SIZE,
    "PadIfNeeded": _SIZE,
    "RandomCrop": _SIZE,
    "RandomCropFromBorders": _SIZE,
    "RandomCropNearBBox": _SIZE,
    "RandomResizedCrop": _SIZE,
    "RandomScale": _SIZE,
    "RandomSizedBBoxSafeCrop": _SIZE,
    "RandomSizedCrop": _SIZE,
    "Resize": _SIZE,
    "SmallestMaxSize": _SIZE,
    "FromFloat": _TYPE,
    "Normalize": _TYPE,
    "ToFloat": _TYPE,
    "ToRGB": _TYPE,
    "ToTensor3D": _TYPE,
    "ToTensorV2": _TYPE,
    "FDA": _IMAGES,
    "HistogramMatching": _IMAGES,
    "Lambda": _IMAGES,
    "Mosaic": _IMAGES,
    "OverlayElements": _IMAGES,
    "PixelDistributionAdaptation": _IMAGES,
    "TextImage": _IMAGES,
    "ConstrainedCoarseDropout": _LABELS,
    "MaskDropout": _LABELS,
    "FrequencyMasking": _SPECTROGRAM,
    "TimeMasking": _SPECTROGRAM,
    "TimeReverse": _SPECTROGRAM,
    "GridElasticDeform": "leaves black gaps, which would be a depth; use ElasticTransform",
    "Compose": _GROUP,
    "OneOf": _GROUP,
    "OneOrOther": _GROUP,
    "RandomOrder": _GROUP,
    "ReplayCompose": _GROUP,
    "SelectiveChannelTransform": _GROUP,
    "Sequential": _GROUP,
    "SomeOf": _GROUP,
}
"""Transforms that cannot be used, with the reason as the predicate of a sentence."""

SET_HERE: Mapping[str, str] = {
    "border_mode": _BORDERS,
    "fill_mask": _FILL,
    "mask_drop_value": _FILL,
    "mask_interpolation": "is not an option here: mask and depth are interpolated linearly",
    "strict": "is not an option here: unknown arguments are always errors",
}
"""Arguments that a configuration cannot give, with the reason as the predicate of a sentence."""

_QUIET = threading.Lock()
"""Python's warning filters belong to the process, not to a thread."""


def by_name(plain: object) -> dict[str, dict[str, Any]]:
    """The arguments of each transform by its name, in order, with `p` in all of them.

    Args:
        plain: a mapping from names to arguments, or a list of names and of mappings with one name.

    Raises:
        ValueError: if it is neither, or a name occurs twice. The message completes a sentence with 'must'.
    """
    transforms: dict[str, dict[str, Any]] = {}
    for name, arguments in _entries(plain):
        if not isinstance(arguments, Mapping):
            raise ValueError(f"have arguments such as {{p: 0.3}} for '{name}', not {arguments!r}")  # noqa: TRY004
        if name in transforms:
            raise ValueError(f"have each transform once, and '{name}' is there twice")
        transforms[name] = {**arguments, "p": arguments.get("p", DEFAULT_P)}
    return transforms


def usable() -> list[str]:
    """The names of all transforms that can be used."""
    library = _library()
    kinds = library.DualTransform, library.ImageOnlyTransform
    found = {name: kind for name, kind in vars(library).items() if isinstance(kind, type) and issubclass(kind, kinds)}
    return sorted(name for name, kind in found.items() if kind not in kinds and reason_against(name) is None)


def reason_against(name: str) -> str | None:
    """Why a transform cannot be used, as the predicate of a sentence; None if it can be, or if there is no such one."""
    if name in REFUSED:
        return REFUSED[name]
    kind = getattr(_library(), name, None)
    return _VOLUME if isinstance(kind, type) and issubclass(kind, _library().Transform3D) else None


def is_geometric(name: str) -> bool:
    """Whether a transform changes all images of a sample, and not only the photographs."""
    return issubclass(getattr(_library(), name), _library().DualTransform)


def arguments_of(name: str) -> dict[str, Any]:
    """The arguments of a transform that a configuration can give, with their defaults in albumentations."""
    parameters = inspect.signature(getattr(_library(), name)).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key not in SET_HERE}


def default_of(name: str, argument: str) -> Any:
    """The default of an argument as JSON has it; a range -X to X is X. None if there is no such argument."""
    default = arguments_of(name).get(argument) if name in usable() else None
    if isinstance(default, tuple):
        return default[1] if len(default) == 2 and default[0] == -default[1] else list(default)
    return default if isinstance(default, bool | int | float | str) else None


def version() -> str:
    """The version of albumentations."""
    return str(_library().__version__)


def build(name: str, arguments: Arguments, **settings: Any) -> Any:
    """Build a transform.

    Args:
        name: one of `usable()`.
        arguments: from a configuration.
        settings: further arguments, which are left out where the transform does not have them.

    Raises:
        Exception: from albumentations, if an argument is wrong; mostly a ValueError.
    """
    kind = getattr(_library(), name)
    known = inspect.signature(kind).parameters
    own = {key: value for key, value in settings.items() if key in known}
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that another transform is faster
        return kind(**arguments, **own, **({"strict": True} if _takes_strict(kind) else {}))


def _entries(plain: object) -> list[tuple[str, Any]]:
    """Pairs of a name and its arguments."""
    if plain is None:
        return []
    if isinstance(plain, Mapping):
        return [(str(name), {} if arguments is None else arguments) for name, arguments in plain.items()]
    if not isinstance(plain, list | tuple):
        raise ValueError("be transforms by name, such as {CLAHE: {p: 0.2}}")  # noqa: TRY004
    entries: list[tuple[str, Any]] = []
    for entry in plain:
        if isinstance(entry, str):
            entries.append((entry, {}))
        elif isinstance(entry, Mapping) and len(entry) == 1:
            entries += _entries(entry)
        else:
            raise ValueError(f"have entries such as CLAHE or {{CLAHE: {{p: 0.2}}}}, not {entry!r}")
    return entries


def _takes_strict(kind: type) -> bool:
    """Only an `__init__` that its class validates by a schema has the argument `strict`."""
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    return "InitSchema" in vars(owner)


def _library() -> Any:
    """Import albumentations, without its search for a newer version on the network."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations
