"""The network of HSNN: features of users, items and pairs as vectors, and a MoNN for every level.

Legend: B requests, R rows, T recent events, n pairs, V vectors of width E, W width of an item
embedding, L levels of nodes, K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.modules.mlp import MLP
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.data.batches.requests import RankingBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureKind, FeatureSide
from recsys.nn.hierarchy.nodes import build_nodes
from recsys.nn.interaction.backbone import FeatureVectors
from recsys.nn.interaction.standard import measure_standard
from recsys.nn.losses import LabelStatistics, output_units
from recsys.systems.hsnn.monn import ItemMonn, LevelEnsemble, NodeMonn
from recsys.systems.hsnn.sizes import HsnnNetConfig
from recsys.systems.ranker.net import ENTITIES, EntityVectors


@dataclass(frozen=True, eq=False)
class Rows:
    """What the rows of a batch are made of.

    Attributes:
        users: of every level, the items' last, [R, n_u, D].
        items: [R, W] embeddings.
        pairs: [R, V, E].
    """

    users: list[Tensor]
    items: Tensor
    pairs: Tensor


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the levels say of rows.

    Attributes:
        levels: [R, K] of every level with those above it, the items' last: logits of binary tasks,
            numbers of regression tasks.
        imitation: by level, mean squared difference [R] between its interactions and the items'.
        losses: of the nodes.
    """

    levels: list[Tensor]
    imitation: list[Tensor] = field(default_factory=list)
    losses: dict[str, Tensor] = field(default_factory=dict)


class RecentSummaries(nn.Module):
    """Sums of a user's recent events, by softmaxes of what an event is, of its action and its age.

    Summaries start with different actions, so that what a user liked is told from what he was shown
    before anything is learned.

    Args:
        width: E.
        actions: number of actions.
        summaries: how many.
    """

    def __init__(self, width: int, actions: int, summaries: int) -> None:
        super().__init__()
        self.score = nn.Linear(width + 1, summaries)
        self.of_action = nn.Embedding(actions + 1, summaries)
        nn.init.normal_(self.of_action.weight, std=2.0)

    def forward(self, events: Tensor, action: Tensor, age: Tensor) -> Tensor:
        """Summarise.

        Args:
            events: [B, T, E].
            action: [B, T] int64, 1 + which action; 0 for no event.
            age: [B, T] log(1 + hours) before the request.

        Returns:
            [B, summaries, E]; zeros of a user without events.
        """
        scores = self.score(torch.cat([events, age.unsqueeze(2)], dim=2)) + self.of_action(action)
        absent = (action == 0).unsqueeze(2)
        # a softmax over nothing is not a number
        shares = scores.masked_fill(absent, -1e9).softmax(dim=1).masked_fill(absent, 0.0)
        return torch.matmul(shares.transpose(1, 2), events)


class HsnnNet(nn.Module):
    """HSNN without its losses.

    Tables are shared by all levels, user towers are each level's own. An item's tower gives its
    embedding of length 1, by which nodes are learned. Pairs are what ``counted`` and the context
    say.

    Args:
        manifest: features and tasks.
        config: sizes.
        max_length: T.
        num_counted: numbers that are counted of a row.
        statistics: of the fit labels: outputs start at the base rates, and a regression's are
            standardised.
    """

    entity_columns: Tensor
    other_columns: Tensor
    offset: Tensor
    scale: Tensor
    counted_mean: Tensor
    counted_scale: Tensor

    def __init__(
        self,
        manifest: DatasetManifest,
        config: HsnnNetConfig,
        max_length: int,
        num_counted: int,
        statistics: LabelStatistics,
    ) -> None:
        super().__init__()
        width, sizes, spread = config.dimension, config.features, config.id_spread
        self.config = config
        self.max_length = max_length
        of_items = manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
        entities = [next(one for one in of_items if one.name == name) for name in ENTITIES]
        others = [one for one in of_items if one.name not in ENTITIES]
        context = manifest.select(FeatureSide.CONTEXT, FeatureKind.CATEGORICAL)
        columns = [one.name for one in (*of_items, *context)]
        for name, wanted in (("entity_columns", entities), ("other_columns", [*others, *context])):
            places = torch.tensor([columns.index(one.name) for one in wanted], dtype=torch.int64)
            self.register_buffer(name, places, persistent=False)
        self.num_others = len(others)
        self.num_columns = len(columns)
        self.num_item_categorical = len(of_items)
        self.num_item_dense = len(manifest.select(FeatureSide.ITEM, FeatureKind.DENSE))
        num_context_dense = len(manifest.select(FeatureSide.CONTEXT, FeatureKind.DENSE))
        self.entities = EntityVectors(entities, width, spread, sizes.id_dropout)
        self.user_features = FeatureVectors(
            manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL),
            len(manifest.select(FeatureSide.USER, FeatureKind.DENSE)),
            width,
            sizes,
            spread,
        )
        self.item_features = FeatureVectors([*others, *context], 0, width, sizes, spread)
        hidden = [*sizes.dense_hidden_sizes, width]
        self.item_dense = _dense(self.num_item_dense, hidden)
        self.context_dense = _dense(num_context_dense, hidden)
        self.actions = nn.Embedding(len(manifest.actions.names) + 1, width)
        nn.init.normal_(self.actions.weight, std=0.02)
        self.dwell = nn.Linear(1, width, bias=False)
        self.recent = RecentSummaries(width, len(manifest.actions.names), config.recent_vectors)
        self.counted = MLP(num_counted, [config.counted_vectors * width], activation=F.silu)
        self.register_buffer("counted_mean", torch.zeros(num_counted))
        self.register_buffer("counted_scale", torch.ones(num_counted))
        user_vectors = self.user_features.num_vectors + config.recent_vectors
        tasks = len(manifest.tasks)
        of_item = config.sizes[config.size]
        self.items = ItemMonn(
            of_item,
            user_vectors,
            len(ENTITIES) + len(others) + (self.num_item_dense > 0),
            config.counted_vectors + len(context) + (num_context_dense > 0),
            width,
            tasks,
        )
        self.levels = nn.ModuleList(
            NodeMonn(config.sizes[level.size], user_vectors, width, of_item, tasks)
            for level in config.levels
        )
        codes = [level.codes for level in config.levels]
        self.nodes = build_nodes(config.index, codes, of_item.item_width)
        self.ensemble = LevelEnsemble(len(codes) + 1, tasks)
        offset, scale = output_units(manifest.tasks, statistics)
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)

    def measure_counted(self, counted: Tensor) -> None:
        """Standardise what is counted by the mean and deviation of some rows [R, C]."""
        measure_standard(counted, self.counted_mean, self.counted_scale)

    def lookups(self, batch: RankingBatch) -> dict[str, KeyedJaggedTensor]:
        """What the tables are asked, by their place in this module."""
        rows = batch.item_categorical.index_select(1, self.entity_columns)
        others = self._without_context(batch.item_categorical).index_select(1, self.other_columns)
        return {
            "entities.tables": self.entities.lookups(rows, batch.recent_ids.flatten(0, 1)),
            "user_features.tables": self.user_features.lookups(batch.user_categorical),
            "item_features.tables": self.item_features.lookups(others),
        }

    def _without_context(self, categorical: Tensor) -> Tensor:
        """[R, F], the context of some rows unknown in training, as it is where nobody says it."""
        if not self.training or self.config.features.id_dropout == 0:
            return categorical
        dropped = torch.rand([len(categorical), 1], device=categorical.device)
        unknown = (dropped < self.config.features.id_dropout).expand_as(categorical).clone()
        unknown[:, : self.num_item_categorical] = False
        return categorical.masked_fill(unknown, 0)

    def rows(self, batch: RankingBatch, lookups: dict[str, KeyedJaggedTensor]) -> Rows:
        """What the rows of a batch are made of."""
        number = len(batch.row_id)
        of_ids = self.entities.vectors(lookups["entities.tables"])  # [R + B · T, 3, E]
        others = self.item_features.vectors(lookups["item_features.tables"], batch.item_dense)
        user = torch.cat(
            [
                self.user_features.vectors(lookups["user_features.tables"], batch.user_dense),
                self._recent(batch, of_ids[number:]),
            ],
            dim=1,
        )
        item = [of_ids[:number], others[:, : self.num_others]]
        if self.item_dense is not None:
            item.append(self.item_dense(batch.item_dense[:, : self.num_item_dense]).unsqueeze(1))
        request = batch.request_index
        return Rows(
            [one.users(user).index_select(0, request) for one in (*self.levels, self.items)],
            self.items.embed(torch.cat(item, dim=1)),
            self.pairs(
                batch.counted,
                others[:, self.num_others :],
                batch.item_dense[:, self.num_item_dense :],
            ),
        )

    def embed(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """[n, W] embeddings of items by their features, [n, F] and [n, D]."""
        none = categorical.new_zeros([0, len(self.entities.names)])
        of_ids = self.entities.lookups(categorical.index_select(1, self.entity_columns), none)
        context = self.num_columns - self.num_item_categorical
        others = self._others(F.pad(categorical, [0, context]))
        vectors = [self.entities.vectors(of_ids), others[:, : self.num_others]]
        if self.item_dense is not None:
            vectors.append(self.item_dense(dense).unsqueeze(1))
        embedding: Tensor = self.items.embed(torch.cat(vectors, dim=1))
        return embedding

    def context(self, categorical: Tensor) -> Tensor:
        """[n, F_c, E] of context features [n, F_c]."""
        return self._others(F.pad(categorical, [self.num_item_categorical, 0]))[
            :, self.num_others :
        ]

    def _others(self, categorical: Tensor) -> Tensor:
        """[n, V, E] of what is no item, author or topic, of items and then of the context."""
        no_numbers = self.offset.new_zeros([len(categorical), 0])
        vectors: Tensor = self.item_features(
            categorical.index_select(1, self.other_columns), no_numbers
        )
        return vectors

    def users(self, batch: RankingBatch) -> list[Tensor]:
        """Of every level, the items' last, [B, n_u, D] of the requests of a batch."""
        no_rows = batch.item_categorical[:0].index_select(1, self.entity_columns)
        of_ids = self.entities.lookups(no_rows, batch.recent_ids.flatten(0, 1))
        vectors = self.user_features(batch.user_categorical, batch.user_dense)
        recent = self._recent(batch, self.entities.vectors(of_ids))
        user = torch.cat([vectors, recent], dim=1)
        return [one.users(user) for one in (*self.levels, self.items)]

    def combined(self, scores: list[Tensor]) -> Tensor:
        """[n, K] of the last of some levels, by what they and those above say, each [n, K]."""
        return self.offset + self.scale * self.ensemble(scores)

    def pairs(self, counted: Tensor, context: Tensor, context_dense: Tensor) -> Tensor:
        """[R, V, E] of what is counted [R, C] and the context, [R, F_c, E] and [R, D_c]; of two
        towers alone, which look at nothing of a pair, no vectors.
        """
        if self.items.interactions is None:
            return counted.new_zeros([len(counted), 0, self.config.dimension])
        standard = (counted - self.counted_mean) * self.counted_scale
        found = [self.counted(standard).unflatten(1, [-1, self.config.dimension]), context]
        if self.context_dense is not None:
            found.append(self.context_dense(context_dense).unsqueeze(1))
        return torch.cat(found, dim=1)

    def _recent(self, batch: RankingBatch, of_events: Tensor) -> Tensor:
        """[B, summaries, E]."""
        requests, steps = batch.recent_time.shape
        events = of_events.sum(dim=1).unflatten(0, (requests, steps))
        events = (
            events + self.actions(batch.recent_action) + self.dwell(batch.recent_dwell.unsqueeze(2))
        )
        hours = (batch.request_time.unsqueeze(1) - batch.recent_time).float() / 3_600_000
        summaries: Tensor = self.recent(events, batch.recent_action, hours.clamp(min=0).log1p())
        return summaries

    def score(self, rows: Rows, nodes: list[Tensor]) -> Outputs:
        """What the levels say of rows whose items are in some nodes.

        Args:
            rows: R rows.
            nodes: of every level the embeddings [R, W] of the items' nodes.
        """
        scores, imitations = [], []
        for level, user, node in zip(self.levels, rows.users, nodes, strict=False):
            score, imitation = level(user, node)
            scores.append(score)
            imitations.append(imitation)
        own, interactions = self.items(rows.users[-1], rows.items, rows.pairs)
        scores.append(own)
        target = interactions.detach()
        return Outputs(
            [self.combined(scores[: number + 1]) for number in range(len(scores))],
            [(one - target).square().mean(dim=1) for one in imitations if one.shape[1]],
        )

    def forward(self, batch: RankingBatch, lookups: dict[str, KeyedJaggedTensor]) -> list[Tensor]:
        """[R, K] of every level, the items' last: items are in the nodes that they belong to."""
        rows = self.rows(batch, lookups)
        nodes = self.nodes.embeddings(self.nodes.assign(rows.items))
        return self.score(rows, nodes).levels


def _dense(numbers: int, sizes: list[int]) -> nn.Module | None:
    return MLP(numbers, sizes, activation=F.silu) if numbers else None
