"""Reading published user embeddings with numpy alone: what a downstream model needs.

This file imports nothing of ``recsys`` and may be copied into the service that reads the store.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def read_rows(rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Turn 4-bit rows (see ``recsys/embeddings/rows.py``) into vectors.

    Args:
        rows: [..., n] int64: a user's embedding is [58, 17] at the paper's size.

    Returns:
        [..., 16 * (n - 1)] float32: [58, 256] at the paper's size.
    """
    octets = np.ascontiguousarray(rows, dtype="<i8").view(np.uint8)  # [..., D / 2 + 8]
    packed = octets[..., :-8]  # [..., D / 2]
    scale_bias = np.ascontiguousarray(octets[..., -8:]).view("<f4")  # [..., 2]
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1)  # even column first
    nibbles = nibbles.reshape(*packed.shape[:-1], 2 * packed.shape[-1])
    return nibbles.astype(np.float32) * scale_bias[..., :1] + scale_bias[..., 1:]
