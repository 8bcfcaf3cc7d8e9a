"""The names of the model families, and what each supports, without torch: checking a spec needs no more."""

from __future__ import annotations

from collections.abc import Mapping

from data.errors import did_you_mean
from trainable.config import ModelConfig
from trainable.config.section import ConfigError
from trainable.plugins.active import own_families

FAMILIES = frozenset(
    {
        "resunet",
        "resunet-lite",
        "pair",
        "dmnet-cnn",
        "dmnet-cnn-v1",
        "dmnet-resnet",
        "resnet-dual",
        "sepunet",
        "debug",
    }
)
"""The keys of `trainable.models.MODELS`."""

WITH_DROPOUT = frozenset({"pair", "dmnet-cnn", "dmnet-cnn-v1", "dmnet-resnet", "resnet-dual"})
"""Families that were published with dropout, and support `model.dropout`."""


def check_model(config: ModelConfig, source: str = "the spec", own: Mapping[str, bool] | None = None) -> None:
    """Check that the network can be built, without building it.

    Args:
        config: of the network.
        source: origin of the configuration, for error messages.
        own: families of plugins, and whether each supports dropout; default: those of this process.

    Raises:
        ConfigError: if the family is neither in `FAMILIES` nor in `own`, or does not support its dropout or shared
            decoder.
    """
    if own is None:
        own = {name: family.has_dropout for name, family in own_families().items()}
    known = sorted({*FAMILIES, *own})
    if config.family not in known:
        raise ConfigError.about(
            "model.family",
            f"The value of 'model.family' is '{config.family}', but must be one of {', '.join(known)}; give the plugin "
            f"of another family with --plugins, or correct it in {source}{did_you_mean(config.family, known)}.",
            value=config.family,
        )
    if config.dropout and config.family not in WITH_DROPOUT and not own.get(config.family):
        raise ConfigError.about(
            "model.dropout",
            f"The value of 'model.dropout' is {config.dropout:g}, but must be 0 for the model family "
            f"'{config.family}', which has none; correct it in {source}.",
            value=config.dropout,
        )
    if config.shared_decoder and config.family != "sepunet":
        raise ConfigError.about(
            "model.shared_decoder",
            f"The value of 'model.shared_decoder' is true, but must be false for the model family '{config.family}', "
            f"because only 'sepunet' was published with one; correct it in {source}.",
            value=True,
        )
