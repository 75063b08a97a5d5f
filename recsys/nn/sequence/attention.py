"""Scaled dot-product attention in the form that a GPU's fused kernels take."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
    another where it cannot. On a GPU the memory-efficient one wants a multiple of 4 numbers of 32
    bits or 8 of 16, so a width of, say, 50 gets zeros behind it; they change no score.

    Args:
        queries: [B, heads, T, W].
        keys: [B, heads, T, W].
        values: [B, heads, T, W].
        mask: of the keys, [B, 1, 1, T] bool, true where one is looked at.
        is_causal: whether a step sees only itself and the steps before it.
        dropout: of the attention weights.
    """
    width = queries.shape[3]
    scale = float(width) ** -0.5
    if queries.device.type != "cpu":
        queries, keys, values = aligned(queries), aligned(keys), aligned(values)
    attended = F.scaled_dot_product_attention(
        queries, keys, values, mask, dropout, is_causal, scale=scale
    )
    return attended[:, :, :, :width]


def aligned(heads: Tensor) -> Tensor:
    """[B, heads, T, W], with zeros up to the next width that every kernel takes."""
    return F.pad(heads, [0, (8 - heads.shape[3] % 8) % 8])
