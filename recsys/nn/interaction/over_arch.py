"""What is made of the vectors of a user, an item and their pair: DHEN's stack, or a dot product.

Legend: n rows, N and M vectors, D width, K tasks.
"""

# no `from __future__ import annotations`: TorchScript reads the types of buffers from the class

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.nn.interaction.attention_factorisation import EvenLinear
from recsys.nn.interaction.dlrm import TaskHeads


class OverArchLayer(nn.Module):
    """``LayerNorm(S X + L X + P(products of all pairs) + Q(½ ((Σ x)² − Σ x²)))``.

    A linear module, a dot-product module and a factorisation machine side by side, with the layer's
    input as a residual (Zhang et al., DHEN, 2022, equation 3). S is the identity where as many
    vectors go out as come in.

    Args:
        vectors: N that come in.
        out_vectors: M that go out.
        width: D.
    """

    places: Tensor

    def __init__(self, vectors: int, out_vectors: int, width: int) -> None:
        super().__init__()
        self.shape = [out_vectors, width]
        self.shortcut = EvenLinear(vectors, out_vectors) if vectors != out_vectors else None
        self.linear = EvenLinear(vectors, out_vectors)
        first, second = torch.triu_indices(vectors, vectors, offset=1)
        # of the unordered pairs among the products of all with all
        self.register_buffer("places", first * vectors + second, persistent=False)
        pairs = len(first)
        self.products = EvenLinear(pairs, out_vectors * width) if pairs else None
        self.machine = EvenLinear(width, out_vectors * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, N, D] → [n, M, D]."""
        along = vectors.transpose(1, 2)  # [n, D, N]
        shortcut = vectors
        if self.shortcut is not None:
            shortcut = self.shortcut(along).transpose(1, 2)
        found = shortcut + self.linear(along).transpose(1, 2)
        if self.products is not None:
            products = torch.bmm(vectors, along).flatten(1).index_select(1, self.places)
            found = found + self.products(products).unflatten(1, self.shape)
        total = vectors.sum(dim=1)
        of_pairs = 0.5 * (total.square() - vectors.square().sum(dim=1))
        found = found + self.machine(of_pairs / math.sqrt(vectors.shape[1])).unflatten(
            1, self.shape
        )
        normed: Tensor = self.norm(found)
        return normed


class OverArch(nn.Module):
    """Layers of DHEN, and a small network per task on what comes out of them.

    Args:
        vectors: N.
        width: D.
        layers: at least 1.
        out_vectors: M of each layer.
        hidden: units of each task's network.
        num_tasks: K.
    """

    def __init__(
        self, vectors: int, width: int, layers: int, out_vectors: int, hidden: int, num_tasks: int
    ) -> None:
        super().__init__()
        sizes = [vectors, *[out_vectors] * layers]
        self.layers = nn.Sequential(
            *(OverArchLayer(before, after, width) for before, after in pairwise(sizes))
        )
        self.heads = TaskHeads(out_vectors * width, hidden, num_tasks)

    def forward(self, user: Tensor, others: Tensor) -> Tensor:
        """[n, N_u, D] of users and [n, N − N_u, D] of items and pairs → [n, K]."""
        scores: Tensor = self.heads(self.layers(torch.cat([user, others], dim=1)).flatten(1))
        return scores


class DotProduct(nn.Module):
    """``s_k ⟨Σ_i u_i, Σ_j v_j⟩``: two towers, with a scale per task.

    Args:
        width: D.
        num_tasks: K.
    """

    def __init__(self, width: int, num_tasks: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full([num_tasks], 1 / width))

    def forward(self, user: Tensor, others: Tensor) -> Tensor:
        """[n, N_u, D] and [n, N_i, D] → [n, K]."""
        product = (user.sum(dim=1) * others.sum(dim=1)).sum(dim=1, keepdim=True)
        return product * self.scale
