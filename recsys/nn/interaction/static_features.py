"""A user's static features as one vector."""

# no `from __future__ import annotations`: TorchScript reads the types of the class attributes

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.data.contract.schema import ID_COLUMNS, Feature


def used_columns(categorical: Sequence[Feature]) -> list[int]:
    """The columns of categorical features that are no ids."""
    return [c for c, feature in enumerate(categorical) if feature.name not in ID_COLUMNS]


class CategoricalValues(nn.Module):
    """The values of a user's categorical features as rows of one table.

    Ids (the user's own among them) are left out: a model must speak about users never seen.

    Args:
        categorical: the categorical features, in column order, ids among them.

    Attributes:
        num_features: F_used, features that are used.
        num_values: rows of the table.
    """

    columns: Tensor
    cardinalities: Tensor
    offsets: Tensor

    def __init__(self, categorical: Sequence[Feature]) -> None:
        super().__init__()
        used = used_columns(categorical)
        cardinalities = torch.tensor([categorical[c].cardinality for c in used], dtype=torch.int64)
        self.num_features = len(used)
        self.num_values = int(cardinalities.sum())
        self.register_buffer("columns", torch.tensor(used, dtype=torch.int64), persistent=False)
        self.register_buffer("cardinalities", cardinalities, persistent=False)
        offsets = torch.cumsum(cardinalities, dim=0) - cardinalities
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, categorical: Tensor) -> Tensor:
        """[B, F] → [B, F_used] int64; an index a feature does not have is read as unknown."""
        values = categorical.index_select(1, self.columns)
        return values.masked_fill(values >= self.cardinalities, 0) + self.offsets


class StaticFeatures(nn.Module):
    """Looks categorical features up, lays them beside the dense ones, and encodes both by an MLP.

    The features have few values, so all their tables are one small ``nn.Embedding``, which
    TorchScript stores and loads with torch alone.

    Args:
        categorical: the categorical features, in column order; ids are left out.
        num_dense: number of dense features.
        width: D.
        table_width: width of a looked-up value.
    """

    def __init__(
        self, categorical: Sequence[Feature], num_dense: int, width: int, table_width: int = 16
    ) -> None:
        super().__init__()
        self.values = CategoricalValues(categorical)
        self.table = nn.Embedding(self.values.num_values, table_width)
        self.mlp = nn.Sequential(
            nn.Linear(self.values.num_features * table_width + num_dense, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
            nn.LayerNorm(width),  # the scale of the encoders' states, beside which it is fused
        )

    def forward(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """Encode.

        Args:
            categorical: [B, F] int64; an index a feature does not have is read as unknown.
            dense: [B, num_dense] float32.

        Returns:
            [B, D].
        """
        looked_up = self.table(self.values(categorical)).flatten(1)  # [B, F_used · table_width]
        encoded: Tensor = self.mlp(torch.cat([looked_up, dense], dim=1))
        return encoded
