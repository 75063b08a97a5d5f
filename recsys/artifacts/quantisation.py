"""The user tower of a sequence model at 8 bits, and how near it stays to the float one.

Linear layers are quantised dynamically: int8 weights, one scale per output, and activations rounded
to 8 bits on the way in, by the range they have in the batch. So the last digits of a user's int8
embedding depend on who else is in the batch; the float tower's do not, but for rounding. Embedding
tables have 8-bit rows with a float32 scale and bias each. Both are torch's own: a process that
loads the result needs nothing else.
"""

from __future__ import annotations

import copy
import warnings

import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import (
    float_qparams_weight_only_qconfig,
    per_channel_dynamic_qconfig,
    quantize_dynamic,
)


def quantized_tower(tower: nn.Module) -> nn.Module:
    """A copy of ``tower`` whose linear layers and embedding tables hold 8-bit weights.

    Parameters of other modules, such as [CLS] and norms, stay float32.
    """
    layers = {
        name: per_channel_dynamic_qconfig
        if isinstance(module, nn.Linear)
        else float_qparams_weight_only_qconfig
        for name, module in tower.named_modules(remove_duplicate=False)
        # a table without rows has nothing to quantise
        if isinstance(module, (nn.Linear, nn.Embedding)) and module.weight.numel() > 0
    }
    with warnings.catch_warnings():
        # torch 2.13 points to torchao, whose int8 layers TorchScript cannot compile.
        warnings.simplefilter("ignore")
        quantized: nn.Module = quantize_dynamic(copy.deepcopy(tower).eval(), layers)
    return quantized


def weight_bytes(tower: nn.Module) -> int:
    """Bytes of a float tower's parameters, each counted once."""
    return sum(weight.numel() * weight.element_size() for weight in tower.parameters())


def agreement(embedding: Tensor, reference: Tensor) -> dict[str, float]:
    """How near user embeddings are to the reference's, both [B, W], by their directions.

    Returns:
        ``mean_cosine`` and ``lowest_cosine`` over the users.
    """
    cosine = F.cosine_similarity(embedding.double(), reference.double(), dim=1)  # [B]
    return {"mean_cosine": float(cosine.mean()), "lowest_cosine": float(cosine.min())}
