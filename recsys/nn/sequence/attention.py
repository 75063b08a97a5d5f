"""Scaled dot-product attention in the form that a GPU's fused kernels take."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

#: The memory-efficient kernel takes heads of such multiples alone: 8 numbers of 16 bits, 4 of 32.
_ALIGNMENT = 8


def scaled_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """``softmax(QKᵀ / √W) V``, three times [B, heads, T, W] → the same.

    PyTorch takes a kernel that keeps nothing of a score for the backward where it can, and quietly
    another where it cannot: on a GPU for a width of, say, 25 or 50. Zeros after the width change
    neither scores nor what is kept of the values.

    Args:
        queries: [B, heads, T, W].
        keys: [B, heads, T, W].
        values: [B, heads, T, W].
        mask: of the keys, [B, 1, 1, T] bool, true where one is looked at.
        is_causal: whether a step sees only itself and the steps before it.
        dropout: of the attention weights.
    """
    width = queries.shape[3]
    surplus = 0 if queries.device.type == "cpu" else -width % _ALIGNMENT
    if surplus > 0:
        queries, keys, values = widened(queries, surplus), widened(keys, surplus), widened(values, surplus)
    attended = F.scaled_dot_product_attention(
        queries, keys, values, mask, dropout, is_causal, scale=width**-0.5
    )
    return attended[..., :width] if surplus > 0 else attended
