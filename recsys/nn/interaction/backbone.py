"""The backbone simulation network: a multi-task DLRM (DV365 §2.3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.mlp import MLP
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.bounds import NotNegative, Settings, Share, Width
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import (
    ID_COLUMNS,
    Column,
    Feature,
    FeatureKind,
    FeatureSide,
    TaskKind,
)
from recsys.nn.losses import LabelStatistics, task_positions
from recsys.nn.tables.collection import IdSpread, bag_collection, uniform_rows


@dataclass(frozen=True)
class FeatureVectorsConfig(Settings):
    """How features become vectors.

    Attributes:
        dense_hidden_sizes: hidden layers of the dense features' MLP; its output has width D.
        id_dropout: probability that a user, item, author or topic id is read as unknown in
            training, so that index 0 learns what to say about ids never seen.
        table_init: tables of features other than item, author and topic start uniform in
            ±table_init.
    """

    dense_hidden_sizes: list[Width] = field(default_factory=lambda: [32])
    id_dropout: Share = 0.05
    table_init: NotNegative = 0.05


@dataclass(frozen=True)
class BackboneConfig(FeatureVectorsConfig):
    """Sizes of the backbone.

    Attributes:
        user_vectors: M, vectors the user embedding is projected to for the dot interaction.
        over_sizes: layers of the network shared by the tasks.
        task_hidden_size: hidden layer of each task's own head.
    """

    user_vectors: Width = 8
    over_sizes: list[Width] = field(default_factory=lambda: [128, 64])
    task_hidden_size: Width = 16


#: Features whose tables start with the rows of the slices' tables.
_SLICE_IDS = {
    Column.ITEM.value: "item",
    Column.AUTHOR.value: "author",
    Column.TOPIC.value: "topic",
}


class FeatureVectors(nn.Module):
    """Features of one side as vectors of width D: one per categorical feature, and one for all
    dense features together.

    Args:
        categorical: categorical features, in column order.
        num_dense: number of dense features.
        dimension: D.
        config: sizes, table initialisation and id dropout.
        spread: of the rows of item, author and topic at the start.
    """

    droppable: Tensor
    cardinalities: Tensor

    def __init__(
        self,
        categorical: Sequence[Feature],
        num_dense: int,
        dimension: int,
        config: FeatureVectorsConfig,
        spread: IdSpread,
    ) -> None:
        super().__init__()
        self.dimension = dimension
        self.id_dropout = config.id_dropout
        self.names = [feature.name for feature in categorical]
        self.tables = bag_collection(
            [
                EmbeddingBagConfig(
                    name=feature.name,
                    embedding_dim=dimension,
                    num_embeddings=feature.cardinality,
                    feature_names=[feature.name],
                    init_fn=(
                        spread.fill(_SLICE_IDS[feature.name])
                        if feature.name in _SLICE_IDS
                        else uniform_rows(feature.name, config.table_init)
                    ),
                )
                for feature in categorical
            ]
        )
        is_id = torch.tensor([feature.name in ID_COLUMNS for feature in categorical])
        self.register_buffer("droppable", is_id, persistent=False)
        cardinalities = torch.tensor([feature.cardinality for feature in categorical])
        self.register_buffer("cardinalities", cardinalities, persistent=False)
        dense_sizes = [*config.dense_hidden_sizes, dimension]
        self.dense = MLP(num_dense, dense_sizes, activation=F.silu) if num_dense else None
        self.num_vectors = len(categorical) + (num_dense > 0)

    def forward(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """Look the features up.

        Args:
            categorical: [n, F] int64; an index the table does not have is read as unknown.
            dense: [n, num_dense] float32.

        Returns:
            [n, F (+ 1 where there are dense features), D].
        """
        return self.vectors(self.lookups(categorical), dense)

    def lookups(self, categorical: Tensor) -> KeyedJaggedTensor:
        """What is looked up for [n, F]; ids are dropped here."""
        if self.training and self.id_dropout > 0:
            dropped = torch.rand(categorical.shape, device=categorical.device) < self.id_dropout
            categorical = categorical.masked_fill(dropped & self.droppable, 0)
        categorical = categorical.masked_fill(categorical >= self.cardinalities, 0)
        ids = categorical.t().reshape(-1)
        offsets = torch.arange(len(ids) + 1, device=ids.device)
        return KeyedJaggedTensor(self.names, ids, offsets=offsets)

    def vectors(self, lookups: KeyedJaggedTensor, dense: Tensor) -> Tensor:
        """Look up what :meth:`lookups` says, and put the dense features beside it."""
        looked_up = self.tables(lookups).values()  # [n, F · D]
        vectors: Tensor = looked_up.reshape(len(looked_up), len(self.names), self.dimension)
        if self.dense is None:
            return vectors
        return torch.cat([vectors, self.dense(dense).unsqueeze(1)], dim=1)


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


class Backbone(nn.Module):
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
        config: sizes.
        spread: of the rows of item, author and topic at the start.
        statistics: of the fit labels: outputs start at the base rates, and a regression head
            works on the standardised label.
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        manifest: DatasetManifest,
        dimension: int,
        num_user_embeddings: int,
        config: BackboneConfig,
        spread: IdSpread,
        statistics: LabelStatistics,
    ) -> None:
        super().__init__()
        context = FeatureSide.CONTEXT
        self.user_features = FeatureVectors(
            manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL),
            len(manifest.select(FeatureSide.USER, FeatureKind.DENSE)),
            dimension,
            config,
            spread,
        )
        self.item_features = FeatureVectors(
            manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
            + manifest.select(context, FeatureKind.CATEGORICAL),
            len(manifest.select(FeatureSide.ITEM, FeatureKind.DENSE))
            + len(manifest.select(context, FeatureKind.DENSE)),
            dimension,
            config,
            spread,
        )
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
        binary = task_positions(manifest.tasks, TaskKind.BINARY)
        regression = task_positions(manifest.tasks, TaskKind.REGRESSION)
        offset = torch.zeros(len(manifest.tasks))
        scale = torch.ones(len(manifest.tasks))
        offset[binary] = torch.logit(statistics.mean[binary], eps=1e-4)
        offset[regression] = statistics.mean[regression]
        scale[regression] = statistics.variance[regression].sqrt()
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)

    def forward(
        self,
        user_embedding: Tensor | None,
        user_categorical: Tensor,
        user_dense: Tensor,
        item_categorical: Tensor,
        item_dense: Tensor,
        request_index: Tensor,
    ) -> Tensor:
        """Score the rows of a batch.

        Args:
            user_embedding: [B, N_out, D], ``None`` for a model without timelines.
            user_categorical: [B, F_u] int64.
            user_dense: [B, D_u].
            item_categorical: [R, F_i] int64, item then context features.
            item_dense: [R, D_i], item then context features.
            request_index: [R] int64, the request each row belongs to.

        Returns:
            [R, K]: logits of binary tasks, seconds of regression tasks.
        """
        return self.score(
            user_embedding,
            self.user_features.lookups(user_categorical),
            user_dense,
            self.item_features.lookups(item_categorical),
            item_dense,
            request_index,
        )

    def score(
        self,
        user_embedding: Tensor | None,
        user_lookups: KeyedJaggedTensor,
        user_dense: Tensor,
        item_lookups: KeyedJaggedTensor,
        item_dense: Tensor,
        request_index: Tensor,
    ) -> Tensor:
        """:meth:`forward` from what is looked up for users and items (``FeatureVectors``)."""
        user = self.user_features.vectors(user_lookups, user_dense)  # [B, V_u, D]
        user_inputs = [user.flatten(1)]
        if self.user_projection is not None and user_embedding is not None:
            user_inputs.append(user_embedding.flatten(1))
            projected = torch.matmul(self.user_projection.weight, user_embedding)  # [B, M, D]
            user = torch.cat([user, projected], dim=1)
        user_inputs.append(pairwise_products(user))
        from_user = self.over_user(torch.cat(user_inputs, dim=1))  # [B, H]

        item = self.item_features.vectors(item_lookups, item_dense)  # [R, V_i, D]
        crossed = torch.bmm(item, user.index_select(0, request_index).transpose(1, 2))
        row_inputs = [item.flatten(1), pairwise_products(item), crossed.flatten(1)]
        from_row = self.over_row(torch.cat(row_inputs, dim=1))  # [R, H]

        hidden = F.silu(from_user.index_select(0, request_index) + from_row)
        outputs: Tensor = self.offset + self.scale * self.heads(self.over(hidden))
        return outputs
