"""The backbone that retrieves: two towers that meet in dot products (DV365 §3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.modules.mlp import MLP

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureSide
from recsys.nn.interaction.backbone import Backbone, BackboneConfig
from recsys.nn.losses import LabelStatistics
from recsys.nn.tables.collection import IdSpread


class Siamese(Backbone):
    """One tower of user embedding and user features, one of item features: what ranks without
    seeing the two together.

    ``y_k = b_k + P_k u · Q_k v`` of task k, with u and v the towers' outputs and P_k, Q_k maps to
    a common width of the task. Features of the context are not read: the item's side can then be
    computed ahead, as retrieval does. The paper names the siamese network and no more.

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
        super().__init__(manifest, [FeatureSide.ITEM], dimension, config, spread, statistics)
        user_vectors = self.user_features.num_vectors + num_user_embeddings
        sizes, tasks = config.over_sizes, len(manifest.tasks)
        self.user_tower = MLP(user_vectors * dimension, sizes, activation=F.silu)
        self.item_tower = MLP(self.item_features.num_vectors * dimension, sizes, activation=F.silu)
        meeting = tasks * config.task_hidden_size
        self.user_of_task = nn.Linear(sizes[-1], meeting, bias=False)
        self.item_of_task = nn.Linear(sizes[-1], meeting, bias=False)
        self.bias = nn.Parameter(torch.zeros(tasks))

    def interact(
        self, user_embedding: Tensor | None, user: Tensor, item: Tensor, request_index: Tensor
    ) -> Tensor:
        """[R, K] of the dot products, see ``Backbone``."""
        if user_embedding is not None:
            user = torch.cat([user, user_embedding], dim=1)
        shape = (len(self.bias), -1)
        of_user = self.user_of_task(self.user_tower(user.flatten(1))).unflatten(1, shape)
        of_item = self.item_of_task(self.item_tower(item.flatten(1))).unflatten(1, shape)
        similarity = (of_user.index_select(0, request_index) * of_item).sum(dim=2)  # [R, K]
        return similarity + self.bias
