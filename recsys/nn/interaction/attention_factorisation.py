"""A tower of features: an MLP beside an attention factorisation machine, as in EDCN.

Legend: n rows, V vectors of width D that come in, N vectors of width W that go out.
"""

# no `from __future__ import annotations`: TorchScript reads the types of buffers from the class

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Widths are filled up to a multiple of it: of one that vector registers do not divide, the last
#: bits of a product depend on a row's place in the batch.
EVEN_WIDTH = 16


class EvenLinear(nn.Module):
    """A linear layer of any number of inputs, filled up with zeros to an even width.

    It starts without biases: rows of tables start small, and beside usual biases what towers say of
    one user or item would hardly differ from what they say of another.

    Args:
        inputs: numbers of a row.
        outputs: likewise.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.padding = -inputs % EVEN_WIDTH
        self.linear = nn.Linear(inputs + self.padding, outputs)
        nn.init.zeros_(self.linear.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """[n, inputs] → [n, outputs]."""
        outputs: Tensor = self.linear(F.pad(rows, [0, self.padding]))
        return outputs


class AttentionFactorisation(nn.Module):
    """``Σ_{i<j} a_ij (x_i ⊙ x_j)``, a a softmax over the pairs of ``hᵀ ReLU(W (x_i ⊙ x_j) + b)``.

    (Xiao et al., IJCAI 2017, equations 4 to 6.)

    Args:
        vectors: V, at least 2.
        width: D.
        hidden: rows of W.
    """

    first: Tensor
    second: Tensor

    def __init__(self, vectors: int, width: int, hidden: int) -> None:
        super().__init__()
        first, second = torch.triu_indices(vectors, vectors, offset=1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        self.hidden = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, V, D] → [n, D]."""
        products = vectors.index_select(1, self.first) * vectors.index_select(1, self.second)
        share = self.score(F.relu(self.hidden(products))).softmax(dim=1)  # [n, pairs, 1]
        return (share * products).sum(dim=1)


class KeptCoordinates(nn.Module):
    """Linear combinations of vectors, coordinate by coordinate: cut off or filled up with zeros.

    Rows of one table, such as those of what a user liked and that of an item, stay comparable by
    their products before anything is learned; two networks would have to find each other first.

    Args:
        vectors: V.
        out_vectors: N.
        out_width: W.
    """

    def __init__(self, vectors: int, out_vectors: int, out_width: int) -> None:
        super().__init__()
        self.along = EvenLinear(vectors, out_vectors)
        self.out_width = out_width

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, V, D] → [n, N, W]."""
        combined = self.along(vectors.transpose(1, 2)).transpose(1, 2)
        return F.pad(combined, [0, self.out_width - vectors.shape[2]])


class FeatureTower(nn.Module):
    """N vectors of some features: what an MLP says of them, what their pairs say, and themselves.

    Each vector that goes out has mean 0 and variance 1, so that a tower's scale is no way for a
    loss to be small.

    Args:
        vectors: V.
        width: D.
        out_vectors: N.
        out_width: W.
        hidden: layers of the MLP.
    """

    def __init__(
        self, vectors: int, width: int, out_vectors: int, out_width: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        self.shape = [out_vectors, out_width]
        outputs = out_vectors * out_width
        sizes = [vectors * width, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [EvenLinear(before, after), nn.SiLU()]
        self.deep = nn.Sequential(*layers, EvenLinear(sizes[-1], outputs))
        self.pairs: nn.Module | None = None
        if vectors > 1:
            machine = AttentionFactorisation(vectors, width, width)
            self.pairs = nn.Sequential(machine, EvenLinear(width, outputs))
        self.kept = KeptCoordinates(vectors, out_vectors, out_width)
        self.norm = nn.LayerNorm(out_width, elementwise_affine=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, V, D] → [n, N, W]."""
        found = self.deep(vectors.flatten(1))
        if self.pairs is not None:
            found = found + self.pairs(vectors)
        normed: Tensor = self.norm(found.unflatten(1, self.shape) + self.kept(vectors))
        return normed
