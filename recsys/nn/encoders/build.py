"""From a configuration to a user encoder."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from recsys.core.errors import ConfigError
from recsys.nn.encoders.base import EncoderConfig, UserEncoder
from recsys.nn.encoders.compression import LinearCompression, PassThrough
from recsys.nn.encoders.funnel import FunnelSummarization
from recsys.nn.encoders.mlp import DimWiseMLP, TokenWiseMLP
from recsys.nn.encoders.transformer import DimWiseTransformer, TokenWiseTransformer

#: The encoder that stands for a model without timelines.
NO_TIMELINES = "none"

_TRANSFORMER = ("num_outputs", "compression_outputs", "layers", "heads", "feed_forward_factor")

#: The sizes each encoder needs; any other size in its configuration is refused.
_SIZES: dict[str, tuple[str, ...]] = {
    "funnel": ("compression_outputs", "blocks", "layers", "stride", "heads", "feed_forward_factor"),
    "pass_through": (),
    "linear_compression": ("num_outputs",),
    "dim_wise_mlp": ("num_outputs", "hidden_sizes"),
    "token_wise_mlp": ("num_outputs", "hidden_sizes"),
    "dim_wise_transformer": _TRANSFORMER,
    "token_wise_transformer": _TRANSFORMER,
    NO_TIMELINES: (),
}

#: Sizes that an encoder chooses itself where they are null.
_OPTIONAL = (("funnel", "heads"),)


def build_encoder(config: EncoderConfig, num_inputs: int, dimension: int) -> UserEncoder:
    """The encoder that ``config`` names, for ``num_inputs`` slices of width ``dimension``.

    Raises:
        ConfigError: an unknown name, a size that is missing, unfitting or of another encoder, or
            the encoder ``none``, which has no outputs to build.
    """
    sizes = _checked_sizes(config, num_inputs)
    match config.name:
        case "funnel":
            return FunnelSummarization(num_inputs, dropout=config.dropout, **sizes)
        case "pass_through":
            return PassThrough(num_inputs)
        case "linear_compression":
            return LinearCompression(num_inputs, **sizes)
        case "dim_wise_mlp":
            return DimWiseMLP(num_inputs, dimension=dimension, **sizes)
        case "token_wise_mlp":
            return TokenWiseMLP(num_inputs, **sizes)
        case "dim_wise_transformer":
            return DimWiseTransformer(num_inputs, dimension, dropout=config.dropout, **sizes)
        case "token_wise_transformer":
            return TokenWiseTransformer(num_inputs, num_inputs, dropout=config.dropout, **sizes)
    raise ConfigError("encoder.name=none is a model without timelines: it has no user tower.")


def _checked_sizes(config: EncoderConfig, num_inputs: int) -> dict[str, Any]:
    """The sizes of the configured encoder by name, after checking that they make sense."""
    if config.name not in _SIZES:
        raise ConfigError(f"encoder.name={config.name} is unknown; choose one of {list(_SIZES)}.")
    needed = _SIZES[config.name]
    optional = {"name", "dropout"}
    for option in (f.name for f in fields(config) if f.name not in optional):
        value = getattr(config, option)
        if option not in needed and value not in (None, []):
            raise ConfigError(f"encoder.{option} is no option of the {config.name} encoder.")
        if value is None and (config.name, option) in _OPTIONAL:
            continue
        if option in needed and (value is None or (isinstance(value, int) and value < 1)):
            raise ConfigError(
                f"encoder.{option} must be a positive number for the {config.name} encoder, "
                f"it is {value}."
            )
    if config.name == "token_wise_mlp" and not config.hidden_sizes:
        raise ConfigError(
            "encoder.hidden_sizes of the token_wise_mlp encoder is empty, which would make it a "
            "linear compression; give at least one hidden layer."
        )
    if needed is _TRANSFORMER:
        kept = (config.num_outputs or 0) - (config.compression_outputs or 0)
        if not 1 <= kept <= num_inputs:
            raise ConfigError(
                f"encoder.num_outputs={config.num_outputs} less encoder.compression_outputs="
                f"{config.compression_outputs} leaves {kept} outputs to the transformer; with "
                f"{num_inputs} slices it can give 1 to {num_inputs}."
            )
    return {name: getattr(config, name) for name in needed}
