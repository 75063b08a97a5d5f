"""The backbone that ranks: a multi-task DLRM (DV365 §2.3.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.modules.mlp import MLP

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureSide
from recsys.nn.interaction.backbone import Backbone, BackboneConfig
from recsys.nn.losses import LabelStatistics
from recsys.nn.tables.collection import IdSpread


def pairwise_products(vectors: Tensor) -> Tensor:
    """Dot products of each unordered pair of vectors, [n, V, D] → [n, V·(V−1)/2]."""
    count = vectors.shape[1]
    first, second = torch.triu_indices(count, count, offset=1, device=vectors.device)
    products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)  # [n, V·V]
    return products.index_select(1, first * count + second)


class TaskHeads(nn.Module):
    """One small network per task on the shared representation, all computed together.

    Args:
        inputs: width of the shared representation.
        hidden: hidden units per task.
        num_tasks: K.
    """

    def __init__(self, inputs: int, hidden: int, num_tasks: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, num_tasks * hidden)
        self.weight = nn.Parameter(torch.empty(num_tasks, hidden))
        self.bias = nn.Parameter(torch.zeros(num_tasks))
        nn.init.uniform_(self.weight, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def forward(self, shared: Tensor) -> Tensor:
        """[R, inputs] → [R, K]."""
        hidden = F.silu(self.hidden(shared)).unflatten(1, self.weight.shape)  # [R, K, hidden]
        return (hidden * self.weight).sum(dim=2) + self.bias


class DLRM(Backbone):
    """DLRM over user, item and context features and the user embedding.

    As in DLRM, categorical features become vectors of width D, dense features one more vector,
    and the dot products of all pairs of vectors go into the over-arch. The user embedding takes
    part twice: projected along its tokens to M vectors of unchanged coordinates (the linear
    projection of DV365 §2.4) it meets the item's vectors in the dot products, and flattened it
    goes straight into the over-arch (§2.3.2), beside the vectors of the features.

    Whatever depends on the user alone is computed once per request: TorchRec's
    ``InteractionArch`` would repeat the products among user vectors for every row. The first
    layer of the over-arch is one linear map of [user inputs, row inputs], computed as the sum of
    its two halves for the same reason.

    Activations are SiLU where DLRM has ReLU: a task's head has few units, and a head of ReLUs
    that the large first errors of a regression pushed below zero never learns again.

    Args:
        manifest: features and tasks.
        dimension: D of tables and user embedding.
        num_user_embeddings: N_out, 0 for a model without timelines.
        config: sizes, and which features are read.
        spread: of the rows of item, author and topic at the start.
        statistics: of the fit labels.
    """

    def __init__(
        self,
        manifest: DatasetManifest,
        dimension: int,
        num_user_embeddings: int,
        config: BackboneConfig,
        spread: IdSpread,
        statistics: LabelStatistics,
    ) -> None:
        row_sides = [FeatureSide.ITEM, FeatureSide.CONTEXT]
        super().__init__(manifest, row_sides, dimension, config, spread, statistics)
        self.user_projection = (
            nn.Linear(num_user_embeddings, config.user_vectors, bias=False)
            if num_user_embeddings
            else None
        )
        user_vectors = self.user_features.num_vectors + (
            config.user_vectors if num_user_embeddings else 0
        )
        item_vectors = self.item_features.num_vectors
        user_width = (
            self.user_features.num_vectors + num_user_embeddings
        ) * dimension + user_vectors * (user_vectors - 1) // 2
        row_width = (
            item_vectors * dimension
            + item_vectors * (item_vectors - 1) // 2
            + item_vectors * user_vectors
        )
        self.over_user = nn.Linear(user_width, config.over_sizes[0], bias=False)
        self.over_row = nn.Linear(row_width, config.over_sizes[0])
        self.over = (
            MLP(config.over_sizes[0], config.over_sizes[1:], activation=F.silu)
            if len(config.over_sizes) > 1
            else nn.Identity()
        )
        self.heads = TaskHeads(config.over_sizes[-1], config.task_hidden_size, len(manifest.tasks))

    def interact(
        self, user_embedding: Tensor | None, user: Tensor, item: Tensor, request_index: Tensor
    ) -> Tensor:
        """[R, K] of the task heads, see ``Backbone``."""
        user_inputs = [user.flatten(1)]
        if self.user_projection is not None and user_embedding is not None:
            user_inputs.append(user_embedding.flatten(1))
            projected = torch.matmul(self.user_projection.weight, user_embedding)  # [B, M, D]
            user = torch.cat([user, projected], dim=1)
        user_inputs.append(pairwise_products(user))
        from_user = self.over_user(torch.cat(user_inputs, dim=1))  # [B, H]

        crossed = torch.bmm(item, user.index_select(0, request_index).transpose(1, 2))
        row_inputs = [item.flatten(1), pairwise_products(item), crossed.flatten(1)]
        from_row = self.over_row(torch.cat(row_inputs, dim=1))  # [R, H]

        hidden = F.silu(from_user.index_select(0, request_index) + from_row)
        outputs: Tensor = self.heads(self.over(hidden))
        return outputs
