"""The published user embedding: every vector as one 4-bit row (DV365 §2.4).

A row of width D is ``D / 2`` bytes of nibbles (even column in the low nibble), then scale and bias
as little-endian float32: ``value = nibble * scale + bias`` with ``bias = min`` and
``scale = (max - min) / 15``. Viewed as int64, 256 columns are 17 integers. FBGEMM's own 4-bit
row keeps scale and bias in float16; here they stay float32, as in the paper's 17 int64 per row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.core.errors import ArtifactError, ConfigError

#: Largest value of a nibble.
LARGEST_NIBBLE = 15
#: Bytes of scale and bias behind the nibbles.
SCALE_BIAS_BYTES = 8
#: Columns whose nibbles fill one int64.
COLUMNS_PER_INTEGER = 16


def row_integers(width: int) -> int:
    """Number of int64 in the row of a vector of ``width`` columns: 17 for 256.

    Raises:
        ConfigError: ``width`` is no positive multiple of 16.
    """
    if width <= 0 or width % COLUMNS_PER_INTEGER != 0:
        raise ConfigError(
            "A 4-bit row is read as 64-bit integers, so its width must be a positive multiple of "
            f"{COLUMNS_PER_INTEGER}, not {width}; choose such an embedding dimension."
        )
    return (width // 2 + SCALE_BIAS_BYTES) // 8


def quantize_rows(values: Tensor) -> Tensor:
    """Quantise vectors to 4-bit rows.

    Nibbles are rounded to nearest, ties to even. A constant row gets scale 0 and is exact.

    Args:
        values: [..., D] float32, D a multiple of 16.

    Returns:
        [..., D / 16 + 1] int64.

    Raises:
        ConfigError: D is no multiple of 16.
        ArtifactError: a row holds NaN or infinity (or values so far apart that their difference is
            no float32).
    """
    width = values.size(-1)
    row_integers(width)
    values = values.to(torch.float32)
    bias = values.amin(dim=-1, keepdim=True)  # [..., 1]
    span = values.amax(dim=-1, keepdim=True) - bias
    if not bool(torch.isfinite(span).all()):
        raise ArtifactError(
            "An embedding holds NaN or infinity and cannot be quantised to 4 bits; the model that "
            "made it has diverged: look at its training loss and export an earlier checkpoint."
        )
    scale = span / LARGEST_NIBBLE
    # A constant row divides by 1: its nibbles are all 0.
    steps = (values - bias) / torch.where(scale > 0, scale, torch.ones_like(scale))
    nibbles = steps.round().clamp(0, LARGEST_NIBBLE).to(torch.uint8)  # [..., D]
    packed = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)  # [..., D / 2]
    scale_bias = torch.cat([scale, bias], dim=-1).view(torch.uint8)  # [..., 8]
    return torch.cat([packed, scale_bias], dim=-1).view(torch.int64)


def dequantize_rows(rows: Tensor) -> Tensor:
    """Read 4-bit rows back.

    Args:
        rows: [..., n] int64 from :func:`quantize_rows`.

    Returns:
        [..., 16 * (n - 1)] float32, each within ``scale / 2`` of the value it stands for.
    """
    octets = rows.contiguous().view(torch.uint8)  # [..., D / 2 + 8]
    packed = octets[..., : octets.size(-1) - SCALE_BIAS_BYTES]  # [..., D / 2]
    # A copy: viewed as float32 the eight bytes must lie side by side.
    scale_bias = octets[..., octets.size(-1) - SCALE_BIAS_BYTES :].contiguous().view(torch.float32)
    nibbles = torch.stack([packed & LARGEST_NIBBLE, packed >> 4], dim=-1).flatten(-2)  # [..., D]
    return nibbles.to(torch.float32) * scale_bias[..., 0:1] + scale_bias[..., 1:2]
