"""A network of a search or training, ready to predict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from data.dataset.storage import AnyPath
from search.api.session import load_given, screen_of
from search.run.networks import Evaluated, evaluate_with_baselines
from trainable.config import TrialConfig
from trainable.evaluation.arrays import Image, Planes, predict_arrays
from trainable.loop.checkpoint import load_model
from trainable.loop.precision import as_recorded
from trainable.loop.state import default_device
from trainable.plugins.active import PluginSource, active_plugins
from trainable.plugins.load import use_plugins


class Network:
    """A trained network: predicts mask and depth of pairs of images.

    Args:
        directory: a checkpoint, such as `twinhead best` writes.
        plugins: Python files with the parts of it that are not built in.

    Raises:
        InputError: if a file is missing or damaged, or a plugin is missing.
    """

    def __init__(self, directory: str | Path, *, plugins: Iterable[str | Path] = ()) -> None:
        load_given(plugins)
        self._load(Path(directory))

    @classmethod
    def _of(cls, directory: Path, plugins: Iterable[PluginSource]) -> Network:
        """The network of a directory with plugins that were loaded before."""
        use_plugins(plugins)
        network = cls.__new__(cls)
        network._load(directory)
        return network

    def _load(self, directory: Path) -> None:
        model, origin = load_model(directory)
        self.directory = directory
        """Its checkpoint."""
        self.config: TrialConfig = as_recorded(origin.config)
        """The configuration that it was trained with."""
        self.epochs = origin.epoch
        """Number of epochs that it was trained for."""
        self.module: torch.nn.Module = model.on(default_device())
        """The module, in evaluation mode, on the GPU if there is one.

        `module(bg, fg_bg)` takes (B, 3, H, W) float32 in 0..1; see `trainable.models.network`.
        """
        self._plugins = tuple(plugin.source for plugin in active_plugins())

    def predict(self, bg: Image, fg_bg: Image) -> Planes:
        """Predict mask and depth of an image of a background and one of the same background with a foreground.

        Args:
            bg: the background: a PIL image, or an array (H, W, 3) of RGB or (H, W), uint8.
            fg_bg: the same with a foreground object, of the same size.

        Returns:
            `mask` and `depth`, (H, W) float32 in 0..1 each: the probability of foreground, and the depth of `fg_bg`,
            far is 1.

        Raises:
            InputError: if an image has another type or size, or transparent pixels.
        """
        return predict_arrays(self.module, self.config, bg, fg_bg)

    def evaluate(self, data: AnyPath, split: str = "test", *, progress: bool = True) -> Evaluated:
        """Measure the network and the baselines on a data set, as `twinhead evaluate`.

        Args:
            data: a directory or an address.
            split: 'train', 'val', 'test' or 'all', by the split of the training.
            progress: whether to print it.

        Returns:
            `metrics` and `baselines`, by name.

        Raises:
            InputError: if the data set cannot be used, or the part has no samples.
        """
        use_plugins(self._plugins)
        return evaluate_with_baselines(self.directory, str(data), split, screen_of(progress))

    def __repr__(self) -> str:
        model = self.config.model
        return f"Network({str(self.directory)!r}, family={model.family!r}, width={model.width}, epochs={self.epochs})"
