"""What the backbone simulation networks have in common: features as vectors (DV365 §2.3.1, §3.3).

Legend: B requests, R rows, F features, N_out user embeddings, D width, K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.mlp import MLP
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.bounds import NotNegative, OneOf, Settings, Share, Width
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import (
    ID_COLUMNS,
    Column,
    Feature,
    FeatureKind,
    FeatureSide,
)
from recsys.nn.losses import LabelStatistics, output_units
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
    """Which backbone, and its sizes.

    Attributes:
        kind: ``dlrm``, a ranker; ``siamese``, two towers that meet in a dot product per task.
        features: what it reads beside the user embedding: ``all``, ``sparse`` (categories alone),
            ``dense`` (numbers alone) or ``none``. Item, author and topic of the candidate stay in
            all of them: without the ids that events have, no history says anything of it.
        user_vectors: M, vectors the user embedding is projected to for the dot interaction of
            ``dlrm``.
        over_sizes: layers of the network shared by the tasks; of ``siamese`` those of each tower.
        task_hidden_size: hidden layer of each task's own head; of ``siamese`` the width in which
            the two towers meet.
    """

    kind: Annotated[str, OneOf(("dlrm", "siamese"))] = "dlrm"
    features: Annotated[str, OneOf(("all", "sparse", "dense", "none"))] = "all"
    user_vectors: Width = 8
    over_sizes: list[Width] = field(default_factory=lambda: [128, 64])
    task_hidden_size: Width = 16


#: Features whose tables start with the rows of the slices' tables: what an event has too.
_SLICE_IDS = {
    Column.ITEM.value: "item",
    Column.AUTHOR.value: "author",
    Column.TOPIC.value: "topic",
}


#: Places of the table collections in a backbone.
USER_TABLES, ITEM_TABLES = "user_features.tables", "item_features.tables"


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
        tables = [
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
        self.tables = bag_collection(tables) if tables else None
        is_id = torch.tensor([one.name in ID_COLUMNS for one in categorical], dtype=torch.bool)
        self.register_buffer("droppable", is_id, persistent=False)
        cardinalities = torch.tensor([one.cardinality for one in categorical], dtype=torch.int64)
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

    def vectors(self, lookups: KeyedJaggedTensor | None, dense: Tensor) -> Tensor:
        """Look up what :meth:`lookups` says, and put the dense features beside it.

        Args:
            lookups: ``None`` where there are no categorical features.
            dense: [n, num_dense] float32.
        """
        vectors = dense.new_zeros([len(dense), 0, self.dimension])
        if self.tables is not None:
            vectors = self.tables(lookups).values().unflatten(1, (len(self.names), self.dimension))
        if self.dense is None:
            return vectors
        return torch.cat([vectors, self.dense(dense).unsqueeze(1)], dim=1)


class SideFeatures(FeatureVectors):
    """What a backbone reads of the features of some sides, as ``BackboneConfig.features`` says.

    Args:
        manifest: the features.
        sides: whose; their columns lie one after the other, dense ones likewise.
        dimension: D.
        config: sizes, and what is read.
        spread: of the rows of item, author and topic at the start.
    """

    columns: Tensor

    def __init__(
        self,
        manifest: DatasetManifest,
        sides: Sequence[FeatureSide],
        dimension: int,
        config: BackboneConfig,
        spread: IdSpread,
    ) -> None:
        given = [one for side in sides for one in manifest.select(side, FeatureKind.CATEGORICAL)]
        with_categories = config.features in ("all", "sparse")
        columns = [c for c, one in enumerate(given) if with_categories or one.name in _SLICE_IDS]
        num_dense = 0
        if config.features in ("all", "dense"):
            num_dense = sum(len(manifest.select(side, FeatureKind.DENSE)) for side in sides)
        super().__init__([given[c] for c in columns], num_dense, dimension, config, spread)
        self.num_dense = num_dense
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)

    def lookups(self, categorical: Tensor) -> KeyedJaggedTensor:
        """What is looked up for all categorical features of the sides, and maybe of others."""
        return super().lookups(categorical.index_select(1, self.columns))

    def vectors(self, lookups: KeyedJaggedTensor | None, dense: Tensor) -> Tensor:
        """[n, V, D], given all dense features of the sides, and maybe of others behind them."""
        return super().vectors(lookups, dense[:, : self.num_dense])


class Backbone(nn.Module):
    """A network around the user tower, from which alone its gradients come.

    Args:
        manifest: features and tasks.
        row_sides: whose features are read of each row.
        dimension: D of tables and user embedding.
        config: sizes, and which features are read.
        spread: of the rows of item, author and topic at the start.
        statistics: of the fit labels: outputs start at the base rates, and a regression head
            works on the standardised label.
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        manifest: DatasetManifest,
        row_sides: Sequence[FeatureSide],
        dimension: int,
        config: BackboneConfig,
        spread: IdSpread,
        statistics: LabelStatistics,
    ) -> None:
        super().__init__()
        user = [FeatureSide.USER]
        self.user_features = SideFeatures(manifest, user, dimension, config, spread)
        self.item_features = SideFeatures(manifest, row_sides, dimension, config, spread)
        offset, scale = output_units(manifest.tasks, statistics)
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
        lookups = self.lookups(user_categorical, item_categorical)
        return self.score(user_embedding, lookups, user_dense, item_dense, request_index)

    def lookups(
        self, user_categorical: Tensor, item_categorical: Tensor
    ) -> dict[str, KeyedJaggedTensor]:
        """What the tables are asked, by their place in this module; a side may have none."""
        asked = {
            USER_TABLES: self.user_features.lookups(user_categorical),
            ITEM_TABLES: self.item_features.lookups(item_categorical),
        }
        return {path: one for path, one in asked.items() if one.keys()}

    def score(
        self,
        user_embedding: Tensor | None,
        lookups: Mapping[str, KeyedJaggedTensor],
        user_dense: Tensor,
        item_dense: Tensor,
        request_index: Tensor,
    ) -> Tensor:
        """:meth:`forward` from what :meth:`lookups` gave."""
        user = self.user_features.vectors(lookups.get(USER_TABLES), user_dense)  # [B, V_u, D]
        item = self.item_features.vectors(lookups.get(ITEM_TABLES), item_dense)  # [R, V_i, D]
        outputs: Tensor = self.interact(user_embedding, user, item, request_index)
        return self.offset + self.scale * outputs

    def interact(
        self, user_embedding: Tensor | None, user: Tensor, item: Tensor, request_index: Tensor
    ) -> Tensor:
        """What is said of each row, before base rates and units.

        Args:
            user_embedding: [B, N_out, D] or ``None``.
            user: [B, V_u, D].
            item: [R, V_i, D].
            request_index: [R] int64.

        Returns:
            [R, K].
        """
        raise NotImplementedError
