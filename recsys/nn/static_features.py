"""A user's static features as one vector."""

# no `from __future__ import annotations`: TorchScript reads the types of the class attributes

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.data.schema import ID_COLUMNS, Feature


def used_columns(categorical: Sequence[Feature]) -> list[int]:
    """The columns of categorical features that are no ids."""
    return [c for c, feature in enumerate(categorical) if feature.name not in ID_COLUMNS]


class StaticFeatures(nn.Module):
    """Looks categorical features up, lays them beside the dense ones, and encodes both by an MLP.

    Ids (the user's own among them) are left out: the towers of NxtPost must speak about users and
    posts never seen. The features have few values, so all their tables are one small
    ``nn.Embedding``, which TorchScript stores and loads with torch alone.

    Args:
        categorical: the categorical features, in column order, ids among them.
        num_dense: number of dense features.
        width: D.
        table_width: width of a looked-up value.
    """

    columns: Tensor
    cardinalities: Tensor
    offsets: Tensor

    def __init__(
        self, categorical: Sequence[Feature], num_dense: int, width: int, table_width: int = 16
    ) -> None:
        super().__init__()
        used = used_columns(categorical)
        cardinalities = torch.tensor([categorical[c].cardinality for c in used], dtype=torch.int64)
        self.register_buffer("columns", torch.tensor(used, dtype=torch.int64), persistent=False)
        self.register_buffer("cardinalities", cardinalities, persistent=False)
        offsets = torch.cumsum(cardinalities, dim=0) - cardinalities
        self.register_buffer("offsets", offsets, persistent=False)
        self.table = nn.Embedding(int(cardinalities.sum()), table_width)
        self.mlp = nn.Sequential(
            nn.Linear(len(used) * table_width + num_dense, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
            nn.LayerNorm(width),  # the scale of the encoders' states, beside which it is fused
        )

    def forward(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """Encode.

        Args:
            categorical: [B, F] int64; an index the table does not have is read as unknown.
            dense: [B, num_dense] float32.

        Returns:
            [B, D].
        """
        indices = categorical.index_select(1, self.columns)
        indices = indices.masked_fill(indices >= self.cardinalities, 0) + self.offsets
        looked_up = self.table(indices).flatten(1)  # [B, F_used · table_width]
        encoded: Tensor = self.mlp(torch.cat([looked_up, dense], dim=1))
        return encoded
