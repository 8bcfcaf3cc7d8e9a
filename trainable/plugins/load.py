"""Load plugins: read their files, run them, and check their parts.

A file runs only if the user of this process named it: in a spec of the user, with --plugins, or in a call. The content
of a storage is never run. Trials and jobs get the content from the process that the user started.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import torch

from data.errors import InputError
from trainable.config import ModelConfig
from trainable.loss.losses import LOSSES
from trainable.metrics.names import DEPTH_IMAGES, METRICS
from trainable.models import MODELS, build_on_meta
from trainable.plugins.active import FILE, PACKAGE, Plugin, PluginSource, active_plugins
from trainable.plugins.parts import Family, Loss, Metric, Part

VARIABLE = "PLUGINS"
"""Name in a plugin's file of the list of its parts."""
CHECKED_WIDTH, CHECKED_SIDE = 8, 64
"""Width and image size in pixels at which a family is checked."""


def read_source(path: Path) -> PluginSource:
    """Read the file of a plugin.

    Raises:
        InputError: if it cannot be read, or its name cannot be used.
    """
    if not re.fullmatch(FILE, path.name):
        raise InputError(
            f"The plugin '{path}' must have a name of letters, digits, '_' and '-' that ends with .py; rename it."
        )
    try:
        return PluginSource(path.name, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or error
        raise InputError(f"The plugin '{path}' cannot be read ({reason}); give a Python file.") from None


def use_plugins(sources: Iterable[PluginSource]) -> tuple[Plugin, ...]:
    """Make these the plugins of this process, in place of any others. A file that is in use already does not run again.

    Raises:
        InputError: if a file cannot be run or has no valid list `PLUGINS`, a part has a name that is in use, or two
            files have the same name. The plugins of the process stay as they were.
    """
    known = {plugin.source: plugin for plugin in active_plugins()}
    plugins = tuple(known.get(source) or _run(source) for source in dict.fromkeys(sources))
    _refuse_equal_names(plugins)
    package = sys.modules.setdefault(PACKAGE, ModuleType(PACKAGE, "The plugins of this process."))
    setattr(package, PACKAGE, plugins)
    return plugins


def check_plugins() -> None:
    """Call every part of the plugins of this process once, so that an error shows before any training.

    Raises:
        InputError: if a function raises, or returns what it must not.
    """
    before = torch.random.get_rng_state()
    try:
        for plugin in active_plugins():
            for part in plugin.parts:
                _check(part, plugin.source.file)
    finally:
        torch.random.set_rng_state(before)


def _run(source: PluginSource) -> Plugin:
    # Registered before it runs: dataclasses and pickle look a module up by its name.
    name = f"{PACKAGE}.{source.file.removesuffix('.py')}"
    module = ModuleType(name)
    module.__file__ = source.file
    earlier = sys.modules.get(name)
    sys.modules[name] = module
    try:
        exec(compile(source.text, source.file, "exec"), module.__dict__)  # noqa: S102  the user named the file
        return Plugin(source=source, parts=_parts(module, source.file))
    except BaseException as error:
        del sys.modules[name]
        if earlier is not None:
            sys.modules[name] = earlier
        if isinstance(error, InputError) or not isinstance(error, Exception | SystemExit):
            raise
        raise InputError(
            f"The plugin '{source.file}' cannot be run ({_reason(error, source.file)}); correct it."
        ) from None


def _parts(module: ModuleType, file: str) -> tuple[Part, ...]:
    listed = getattr(module, VARIABLE, None)
    if not isinstance(listed, list | tuple) or not listed:
        raise InputError(
            f"The plugin '{file}' has no list {VARIABLE}; end it with {VARIABLE} = [...], of twinhead.Family, "
            "twinhead.Loss and twinhead.Metric."
        )
    for part in listed:
        if not isinstance(part, Family | Loss | Metric):
            raise InputError(
                f"The list {VARIABLE} of the plugin '{file}' contains {part!r}, but must contain twinhead.Family, "
                "twinhead.Loss and twinhead.Metric; correct it."
            )
    return tuple(listed)


def _refuse_equal_names(plugins: Sequence[Plugin]) -> None:
    files: set[str] = set()
    for plugin in plugins:
        if plugin.source.file in files:
            raise InputError(f"There are two plugins '{plugin.source.file}'; rename one of the files.")
        files.add(plugin.source.file)
    for kind, built_in in ((Family, MODELS), (Loss, LOSSES), (Metric, (*METRICS, DEPTH_IMAGES))):
        seen = dict.fromkeys(built_in, "built in")
        for plugin in plugins:
            for part in plugin.parts:
                if not isinstance(part, kind):
                    continue
                if part.name in seen:
                    raise InputError(
                        f"The {kind.__name__.lower()} '{part.name}' of the plugin '{plugin.source.file}' exists "
                        f"already ({seen[part.name]}); rename it."
                    )
                seen[part.name] = f"in '{plugin.source.file}'"


def _check(part: Part, file: str) -> None:
    kind = type(part).__name__.lower()
    try:
        match part:
            case Family():
                problem = _problem_of_family(part)
            case Loss():
                problem = _problem_of_loss(part)
            case Metric():
                problem = _problem_of_metric(part)
    except Exception as error:  # noqa: BLE001  the user's code may raise anything
        problem = f"raises {_reason(error, file)}"
    if problem:
        raise InputError(f"The {kind} '{part.name}' of the plugin '{file}' {problem}; correct it.")


def _problem_of_family(family: Family) -> str:
    with torch.device("meta"):
        network = build_on_meta(ModelConfig(family=family.name, width=CHECKED_WIDTH))
        image = torch.empty(2, 3, CHECKED_SIDE, CHECKED_SIDE)
        prediction = network(image, image)
    wanted = (2, 1, CHECKED_SIDE, CHECKED_SIDE)
    shapes = tuple(prediction.mask_logits.shape), tuple(prediction.depth_logits.shape)
    if shapes == (wanted, wanted):
        return ""
    return f"returns mask and depth of shapes {shapes[0]} and {shapes[1]} for images of shape {tuple(image.shape)}"


def _problem_of_loss(loss: Loss) -> str:
    torch.manual_seed(0)
    prediction, target = torch.rand(2, 1, 16, 16, requires_grad=True), torch.rand(2, 1, 16, 16)
    value = loss.function(prediction, target)
    if not isinstance(value, torch.Tensor) or value.ndim or not value.is_floating_point():
        return f"returns {_shown(value)}, but must return a scalar tensor of floats"
    if not value.requires_grad:
        return "returns a value that does not depend on the prediction by torch's functions, so it has no gradient"
    (gradient,) = torch.autograd.grad(value, prediction)
    return "" if value.isfinite() and gradient.isfinite().all() else "returns a value or gradient that is not finite"


def _problem_of_metric(metric: Metric) -> str:
    torch.manual_seed(0)
    value = metric.function(*torch.rand(4, 3, 1, 16, 16))
    if not isinstance(value, torch.Tensor) or tuple(value.shape) != (3,):
        return f"returns {_shown(value)} for 3 images, but must return a tensor of shape (3,)"
    return ""


def _shown(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    return repr(value)


def _reason(error: BaseException, file: str) -> str:
    """An error of the user's code in a clause, with the last line of the file on the way to it."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {str(error).partition(chr(10))[0]}"
