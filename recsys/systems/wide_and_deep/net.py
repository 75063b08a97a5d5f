"""The wide-and-deep model of ids that NxtPost is compared with (NxtPost §4, its reference [3]).

Legend: B users, E events over all histories (jagged), P items, F_u features, K crosses of a user,
D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.bounds import Buckets, Settings, ShareBelowOne, Width
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Feature, FeatureKind, FeatureSide
from recsys.nn.interaction.static_features import CategoricalValues, StaticFeatures, used_columns

#: Items whose crosses are hashed at a time: [distinct crosses, items] indices lie in memory.
_ITEMS_AT_A_TIME = 4096


@dataclass(frozen=True)
class WideAndDeepConfig(Settings):
    """Sizes of the model.

    Attributes:
        width: D of the items' embeddings.
        hidden_sizes: hidden layers of the user's network.
        cross_buckets: weights of the wide part; crosses are hashed to them.
        id_dropout: probability that an item is read as unknown in training, so that index 0 learns
            what to say about new items.
    """

    width: Width = 64
    hidden_sizes: list[Width] = field(default_factory=lambda: [128])
    cross_buckets: Buckets = 2**20
    id_dropout: ShareBelowOne = 0.05


class CrossedFeatures(nn.Module):
    """The wide part: one weight for each (property of the user, item), hashed.

    The properties are the values of the static features and the item engaged last: "users of this
    country like this item", "who engaged with that item engages with this one". All weights start
    at 0.

    Args:
        categorical: categorical features of users, in column order, ids among them.
        buckets: number of weights.
    """

    def __init__(self, categorical: Sequence[Feature], buckets: int) -> None:
        super().__init__()
        self.values = CategoricalValues(categorical)
        self.crosses = nn.Parameter(torch.zeros(buckets))

    def properties(self, last_post: Tensor, categorical: Tensor) -> Tensor:
        """What each user has, as distinct numbers: [B] and [B, F_u] → [B, K] int64.

        The last items come first, then the values of each feature, as negative numbers: they are
        the same whatever items come to the log.
        """
        return torch.cat([last_post.unsqueeze(1), -1 - self.values(categorical)], dim=1)

    def forward(self, properties: Tensor, items: Tensor) -> Tensor:
        """Sum of the weights of each user's crosses with each item.

        Args:
            properties: [B, K] of :meth:`properties`.
            items: [P] int64.

        Returns:
            [B, P].
        """
        distinct, place = torch.unique(properties, return_inverse=True)  # [U], [B, K]
        scores = []
        for some in items.split(_ITEMS_AT_A_TIME):
            weights = self.crosses[self._bucket(distinct.unsqueeze(1), some)]  # [U, P']
            scores.append(F.embedding_bag(place, weights, mode="sum"))  # [B, P']
        return torch.cat(scores, dim=1)

    def of_one(self, properties: Tensor, items: Tensor) -> Tensor:
        """Sums of one user, [K] and [P] → [P] float64."""
        weights = self.crosses[self._bucket(properties, items.unsqueeze(1))]  # [P, K]
        return weights.double().sum(dim=1)

    def _bucket(self, prop: Tensor, item: Tensor) -> Tensor:
        """Hash pairs by multiplication and shift, modulo 2^64."""
        mixed = prop * 0x1E3779B97F4A7C15 + item * 0x3F58476D1CE4E5B9
        mixed = (mixed ^ (mixed >> 31)) * 0x14D049BB133111EB
        return torch.remainder(mixed ^ (mixed >> 29), self.crosses.shape[0])


class WideAndDeep(nn.Module):
    """``score = user embedding · item embedding + item bias + wide part``.

    The user embedding is an MLP of the mean of the history's item embeddings and of the static
    features. Items are ids: one that the fit period has not seen is index 0.

    Args:
        config: sizes.
        num_items: items with an embedding of their own, the unknown one included: the size of the
            fit vocabulary.
        manifest: of the data set: its users' features.
    """

    #: Parameters with a row per item, beside the embedding.
    rows_of_ids = ("bias",)

    def __init__(
        self, config: WideAndDeepConfig, num_items: int, manifest: DatasetManifest
    ) -> None:
        super().__init__()
        self.num_items = num_items
        self.id_dropout = config.id_dropout
        # Dense: a softmax over a pool has a gradient for each of its items.
        self.posts = nn.Embedding(num_items, config.width)
        self.bias = nn.Parameter(torch.zeros(num_items))
        nn.init.normal_(self.posts.weight, std=config.width**-0.5)
        categorical = manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)
        num_dense = len(manifest.select(FeatureSide.USER, FeatureKind.DENSE))
        self.static = (
            StaticFeatures(categorical, num_dense, config.width)
            if used_columns(categorical) or num_dense
            else None
        )
        inputs = config.width * (1 if self.static is None else 2)
        sizes = [inputs, *config.hidden_sizes, config.width]
        layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.deep = nn.Sequential(*layers[:-1])
        self.wide = CrossedFeatures(categorical, config.cross_buckets)

    def forward(
        self,
        item: Tensor,
        lengths: Tensor,
        user_categorical: Tensor,
        user_dense: Tensor,
        items: Tensor,
    ) -> Tensor:
        """Score items for users: those of a pool in training, all of them in evaluation.

        Args:
            item: [E] int64, the histories' items, oldest first.
            lengths: [B] int64; 0 is allowed.
            user_categorical: [B, F_u] int64.
            user_dense: [B, D_u] float32.
            items: [P] int64, the items to be scored, the same for all users.

        Returns:
            [B, P].
        """
        item, items = self._known(item), self._known(items)
        user = self.user_embedding(item, lengths, user_categorical, user_dense)
        properties = self.wide.properties(_last(item, lengths), user_categorical)
        deep = user @ self.posts(items).T + self.bias[items]
        return deep + self.wide(properties, items)

    def score_of_one(
        self,
        item: Tensor,
        lengths: Tensor,
        user_categorical: Tensor,
        user_dense: Tensor,
        items: Tensor,
    ) -> Tensor:
        """Score items for one user, each by itself: with the same bits whatever the others are.

        Args:
            item: [E] int64.
            lengths: [1] int64.
            user_categorical: [1, F_u] int64.
            user_dense: [1, D_u] float32.
            items: [P] int64.

        Returns:
            [P] float64.
        """
        item, items = self._known(item), self._known(items)
        user = self.user_embedding(item, lengths, user_categorical, user_dense)
        properties = self.wide.properties(_last(item, lengths), user_categorical)
        deep = (user.double() * self.posts(items).double()).sum(dim=1)
        return deep + self.bias[items].double() + self.wide.of_one(properties[0], items)

    def user_embedding(
        self, item: Tensor, lengths: Tensor, user_categorical: Tensor, user_dense: Tensor
    ) -> Tensor:
        """The deep part's side of the users, [B, D]; arguments of :meth:`forward`."""
        starts = torch.cumsum(lengths, dim=0) - lengths
        user = F.embedding_bag(item, self.posts.weight, starts, mode="mean")  # [B, D]
        if self.static is not None:
            user = torch.cat([user, self.static(user_categorical, user_dense)], dim=1)
        embedding: Tensor = self.deep(user)
        return embedding

    def _known(self, items: Tensor) -> Tensor:
        """Items without a row of their own, and in training a few others, as unknown."""
        unknown = items >= self.num_items
        if self.training and self.id_dropout > 0:
            unknown = unknown | (torch.rand(items.shape, device=items.device) < self.id_dropout)
        return items.masked_fill(unknown, 0)


def _last(item: Tensor, lengths: Tensor) -> Tensor:
    """The newest item of each user, [E] and [B] → [B]; 0 without history or where it is unknown."""
    last = torch.cumsum(lengths, dim=0) - 1
    # one more item, for users without history
    return F.pad(item, (0, 1))[last.masked_fill(lengths == 0, len(item))]
