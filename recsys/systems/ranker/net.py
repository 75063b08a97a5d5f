"""The network of the ranker: features, recent events and counts of a candidate, to every task.

Legend: B requests, R rows, T recent events, F features, V vectors of a row, D width, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.modules.crossnet import LowRankCrossNet
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.mlp import MLP
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.core.bounds import Count, Number, OneOf, Settings, Share, Width
from recsys.core.errors import ConfigError
from recsys.data.batches.requests import RankingBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Column, Feature, FeatureKind, FeatureSide
from recsys.nn.interaction.adopted import AdoptedEmbedding, AdoptionConfig
from recsys.nn.interaction.backbone import FeatureVectors, FeatureVectorsConfig
from recsys.nn.interaction.dlrm import pairwise_products
from recsys.nn.interaction.experts import ExpertsConfig, TaskTowers, build_experts
from recsys.nn.interaction.standard import measure_standard
from recsys.nn.losses import LabelStatistics, output_units
from recsys.nn.sequence.targets import RowBlocks, TargetHSTU
from recsys.nn.tables.collection import IdSpread, bag_collection

#: Ids that a candidate and an event have, in the order of ``RankingBatch.recent_ids``.
ENTITIES = (Column.ITEM.value, Column.AUTHOR.value, Column.TOPIC.value)
#: Widths that the registers of every processor divide. Of others the last bits of a narrow product
#: depend on a row's place in the batch.
EVEN_WIDTH = 16

_Few = Annotated[int, Number(at_least=1, at_most=64)]


@dataclass(frozen=True)
class RecentConfig(Settings):
    """How recent events are encoded.

    Attributes:
        blocks: of HSTU.
        heads: of a block; they divide the width.
        dropout: inside the blocks.
    """

    blocks: _Few = 2
    heads: _Few = 2
    dropout: Share = 0.1


@dataclass(frozen=True)
class InteractionConfig(Settings):
    """How the vectors of a row meet.

    Attributes:
        kind: ``dlrm``: dot products of all pairs; ``dcn``: cross layers (DCNv2).
        cross_layers: of ``dcn``.
        cross_rank: rank of a cross layer.
    """

    kind: Annotated[str, OneOf(("dlrm", "dcn"))] = "dlrm"
    cross_layers: _Few = 2
    cross_rank: Count = 64


@dataclass(frozen=True)
class RankerNetConfig(Settings):
    """Sizes of the ranker.

    Attributes:
        dimension: D, width of every vector.
        recent: how recent events are encoded.
        interaction: how the vectors of a row meet.
        experts: what the tasks share.
        features: tables and dense networks of the features.
        adoption: how published user embeddings come in, where the model reads any.
        counted_sizes: layers of the network of the numbers that are counted.
        id_spread: of the rows of item, author and topic at the start.
    """

    dimension: Annotated[int, Number(at_least=4, at_most=4_096, multiple_of=4)] = 32
    recent: RecentConfig = field(default_factory=RecentConfig)
    interaction: InteractionConfig = field(default_factory=InteractionConfig)
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    features: FeatureVectorsConfig = field(default_factory=FeatureVectorsConfig)
    adoption: AdoptionConfig = field(default_factory=AdoptionConfig)
    counted_sizes: list[Width] = field(default_factory=lambda: [128, 64])
    id_spread: IdSpread = field(default_factory=IdSpread)


class EntityVectors(nn.Module):
    """Vectors of items, authors and topics, from the same tables for candidates and events.

    Args:
        features: the categorical features called ``item_id``, ``author_id`` and ``topic_id``.
        dimension: D.
        spread: of the rows at the start.
        id_dropout: share of ids read as unknown in training.
    """

    cardinalities: Tensor

    def __init__(
        self, features: Sequence[Feature], dimension: int, spread: IdSpread, id_dropout: float
    ) -> None:
        super().__init__()
        self.names = [feature.name for feature in features]
        self.dimension = dimension
        self.id_dropout = id_dropout
        self.tables = bag_collection(
            [
                EmbeddingBagConfig(
                    name=feature.name,
                    embedding_dim=dimension,
                    num_embeddings=feature.cardinality,
                    feature_names=[feature.name],
                    init_fn=spread.fill(feature.name.removesuffix("_id")),
                )
                for feature in features
            ]
        )
        cardinalities = torch.tensor([feature.cardinality for feature in features])
        self.register_buffer("cardinalities", cardinalities, persistent=False)

    def lookups(self, rows: Tensor, events: Tensor) -> KeyedJaggedTensor:
        """What is looked up for rows [R, 3] and events [E, 3]; ids of rows are dropped here."""
        if self.training and self.id_dropout > 0:
            dropped = torch.rand(rows.shape, device=rows.device) < self.id_dropout
            rows = rows.masked_fill(dropped, 0)
        ids = torch.cat([rows, events])
        ids = ids.masked_fill(ids >= self.cardinalities, 0).t().reshape(-1)
        offsets = torch.arange(len(ids) + 1, device=ids.device)
        return KeyedJaggedTensor(self.names, ids, offsets=offsets)

    def vectors(self, lookups: KeyedJaggedTensor) -> Tensor:
        """[R + E, 3, D], rows first."""
        looked_up = self.tables(lookups).values()
        return looked_up.unflatten(1, (len(self.names), self.dimension))


class RankerNet(nn.Module):
    """The ranker without its loss.

    The recent events of a request are encoded once by HSTU; each candidate is a target behind
    them. A row's vectors are its item, author, topic, other categories, its dense features, what
    is counted of it, what HSTU says of it, and those of its user; they meet as ``interaction``
    says, and every task reads its own mixture of experts.

    Args:
        manifest: features and tasks.
        config: sizes.
        max_length: T, the most recent events.
        num_counted: numbers that are counted of a row.
        embedding_shape: N and W of published user embeddings; None for a model that reads none.
        statistics: of the fit labels: outputs start at the base rates, and a regression's are
            standardised.

    Raises:
        ConfigError: the heads do not divide the width.
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
        config: RankerNetConfig,
        max_length: int,
        num_counted: int,
        embedding_shape: tuple[int, int] | None,
        statistics: LabelStatistics,
    ) -> None:
        super().__init__()
        width, recent = config.dimension, config.recent
        if width % recent.heads:
            raise ConfigError(
                f"model.recent.heads={recent.heads} does not divide model.dimension={width}; "
                "choose one that does."
            )
        of_items = manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
        entities = [next(one for one in of_items if one.name == name) for name in ENTITIES]
        others = [one for one in of_items if one.name not in ENTITIES]
        context = manifest.select(FeatureSide.CONTEXT, FeatureKind.CATEGORICAL)
        columns = [one.name for one in (*of_items, *context)]
        for name, wanted in (("entity_columns", entities), ("other_columns", [*others, *context])):
            places = torch.tensor([columns.index(one.name) for one in wanted], dtype=torch.int64)
            self.register_buffer(name, places, persistent=False)
        sizes, spread = config.features, config.id_spread
        self.entities = EntityVectors(entities, width, spread, sizes.id_dropout)
        self.user_features = FeatureVectors(
            manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL),
            len(manifest.select(FeatureSide.USER, FeatureKind.DENSE)),
            width,
            sizes,
            spread,
        )
        num_dense = sum(
            len(manifest.select(side, FeatureKind.DENSE))
            for side in (FeatureSide.ITEM, FeatureSide.CONTEXT)
        )
        self.item_features = FeatureVectors([*others, *context], num_dense, width, sizes, spread)
        self.actions = nn.Embedding(len(manifest.actions.names) + 1, width)
        self.dwell = nn.Linear(1, width, bias=False)
        nn.init.normal_(self.actions.weight, std=0.02)
        self.adoption = config.adoption.kind
        self.adopted = None
        if embedding_shape is not None:
            self.adopted = AdoptedEmbedding(config.adoption, embedding_shape, width)
        is_prepended = self.adopted is not None and self.adoption == "prepended"
        prepended = config.adoption.vectors if is_prepended else 0
        self.recent = TargetHSTU(
            width, recent.blocks, recent.heads, recent.dropout, max_length + prepended
        )
        self.counted = MLP(num_counted, [*config.counted_sizes, width], activation=F.silu)
        self.register_buffer("counted_mean", torch.zeros(num_counted))
        self.register_buffer("counted_scale", torch.ones(num_counted))
        own = self.user_features.num_vectors
        if self.adopted is not None and self.adoption in ("projected", "gated"):
            own += config.adoption.vectors
        before = len(ENTITIES) + self.item_features.num_vectors
        #: The places of the user's vectors: the first, and that after the last.
        self.user_vectors = (before, before + own)
        #: V.
        self.vectors = vectors = before + own + 2
        flat = vectors * width
        self.cross = None
        inputs = flat + vectors * (vectors - 1) // 2
        if config.interaction.kind == "dcn":
            inputs = flat
            self.cross = LowRankCrossNet(
                flat, config.interaction.cross_layers, config.interaction.cross_rank
            )
        # what is counted also goes straight to the experts: its pairs are its own
        inputs += num_counted
        if embedding_shape is not None and self.adoption == "unprojected":
            inputs += embedding_shape[0] * embedding_shape[1]
        #: What experts see of a row, without what fills it up.
        self.inputs = inputs
        self.padding = -inputs % EVEN_WIDTH
        inputs += self.padding
        tasks = len(manifest.tasks)
        self.experts = build_experts(config.experts, inputs, tasks)
        self.towers = TaskTowers(config.experts.sizes[-1], config.experts.task_hidden_size, tasks)
        offset, scale = output_units(manifest.tasks, statistics)
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)

    def measure_counted(self, counted: Tensor) -> None:
        """Standardise what is counted by the mean and deviation of some rows [R, C]."""
        measure_standard(counted, self.counted_mean, self.counted_scale)

    def lookups(self, batch: RankingBatch) -> dict[str, KeyedJaggedTensor]:
        """What the tables are asked, by their place in this module."""
        rows = batch.item_categorical.index_select(1, self.entity_columns)
        events = batch.recent_ids.flatten(0, 1)
        return {
            "entities.tables": self.entities.lookups(rows, events),
            "user_features.tables": self.user_features.lookups(batch.user_categorical),
            "item_features.tables": self.item_features.lookups(
                batch.item_categorical.index_select(1, self.other_columns)
            ),
        }

    def forward(self, batch: RankingBatch, lookups: dict[str, KeyedJaggedTensor]) -> Tensor:
        """[R, K]: logits of binary tasks, seconds of regression tasks."""
        num_rows = len(batch.row_id)
        of_ids = self.entities.vectors(lookups["entities.tables"])  # [R + B · T, 3, D]
        of_rows = of_ids[:num_rows]
        adopted = None
        if self.adopted is not None and self.adoption != "unprojected":
            adopted = self.adopted(batch.user_embedding, batch.has_embedding)  # [B, M, D]
        attended = self._attended(batch, of_rows, of_ids[num_rows:], adopted)
        user = self.user_features.vectors(lookups["user_features.tables"], batch.user_dense)
        if adopted is not None and self.adoption != "prepended":
            user = torch.cat([user, adopted], dim=1)
        counted = (batch.counted - self.counted_mean) * self.counted_scale
        vectors = torch.cat(
            [
                of_rows,
                self.item_features.vectors(lookups["item_features.tables"], batch.item_dense),
                user.index_select(0, batch.request_index),
                attended.unsqueeze(1),
                self.counted(counted).unsqueeze(1),
            ],
            dim=1,
        )  # [R, V, D]
        flat = vectors.flatten(1)
        if self.cross is None:
            inputs = [flat, pairwise_products(vectors), counted]
        else:
            inputs = [self.cross(flat), counted]
        if self.adopted is not None and self.adoption == "unprojected":
            filled = self.adopted.filled(batch.user_embedding, batch.has_embedding).flatten(1)
            inputs.append(filled.index_select(0, batch.request_index))
        joined = F.pad(torch.cat(inputs, dim=1), [0, self.padding])
        outputs: Tensor = self.towers(self.experts(joined))
        return self.offset + self.scale * outputs

    def _attended(
        self, batch: RankingBatch, of_rows: Tensor, of_events: Tensor, adopted: Tensor | None
    ) -> Tensor:
        """[R, D] each candidate behind the recent events of its request."""
        requests, steps = batch.recent_time.shape
        events = of_events.sum(dim=1).unflatten(0, (requests, steps))
        events = (
            events + self.actions(batch.recent_action) + self.dwell(batch.recent_dwell.unsqueeze(2))
        )
        events = events * (batch.recent_action > 0).unsqueeze(2)
        lengths, times = batch.recent_lengths, batch.recent_time
        if adopted is not None and self.adoption == "prepended":
            events, lengths, times = prepended(adopted, events, lengths, times)
        attended: Tensor = self.recent(
            events,
            lengths,
            times,
            of_rows.sum(dim=1) + self.actions.weight[0],
            batch.request_time,
            RowBlocks(batch.rows_per_request, len(of_rows)),
        )
        return attended


def prepended(
    vectors: Tensor, events: Tensor, lengths: Tensor, times: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors [B, M, D] as events right before the recent ones of each request, at their time."""
    requests, steps = times.shape
    number = vectors.shape[1]
    events = torch.cat([torch.zeros_like(vectors), events], dim=1)  # [B, M + T, D]
    times = torch.cat([times.new_zeros(requests, number), times], dim=1)
    first = steps - lengths  # [B] the place of the first of the vectors
    place = first.unsqueeze(1) + torch.arange(number, device=times.device)  # [B, M]
    oldest = times.gather(1, (first + number).clamp(max=steps + number - 1).unsqueeze(1))
    index = place.unsqueeze(2).expand(-1, -1, events.shape[2])
    return (
        events.scatter(1, index, vectors),
        lengths + number,
        times.scatter(1, place, oldest.expand(-1, number)),
    )
