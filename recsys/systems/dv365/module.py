"""DV365: the user tower trained inside the backbone simulation network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from recsys.core.bounds import NotNegative, Number, Settings, Share
from recsys.core.errors import ConfigError
from recsys.data.batches.requests import RequestBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.slices.slice_set import SliceSet
from recsys.distributed.schedules import scheduled_optimizer
from recsys.nn.encoders import NO_TIMELINES, EncoderConfig, build_encoder
from recsys.nn.interaction.backbone import Backbone, BackboneConfig
from recsys.nn.interaction.dlrm import DLRM
from recsys.nn.interaction.siamese import Siamese
from recsys.nn.losses import LabelStatistics
from recsys.nn.pooling.cell_pooling import CellPooling
from recsys.nn.pooling.slice_pooling import SlicePooling
from recsys.nn.sequence.recent_events import RecentEvents, RecentEventsConfig
from recsys.nn.tables.collection import IdSpread
from recsys.nn.tables.inputs import TableInputs
from recsys.optim.dense import DenseOptimConfig, DenseOptimizerConfig, ScheduleConfig
from recsys.optim.fused import FusedOptimizerConfig
from recsys.systems.dv365.net import UserTower
from recsys.systems.kinds.task_module import TaskModule

# Paths of the table collections in the model.
_BACKBONE = "backbone."
_PLAIN_SLICES = "tower.pooling.plain_tables"
_WEIGHTED_SLICES = "tower.pooling.weighted_tables"
_RECENT = "tower.recent.tables"
_SLICE_WEIGHTS = "slice_weights"  # how much each slice holds, [B, S]


@dataclass(frozen=True)
class DV365Config(Settings):
    """The model beside its encoder.

    Attributes:
        dimension: D, width of every embedding.
        pooling: ``cells`` (one lookup per event and table) or ``slices`` (one per slice, the
            reference).
        recent: what is made of the most recent events beside the slices.
        slice_counts: whether the user tower is told how much each slice holds, ``SliceMeans``.
        id_spread: of the rows of item, author and topic at the start, in all tables.
        tasks: names of those that are trained, measured and predicted; none for all of the data
            set.
        task_balance: how far rare tasks are weighed up in the loss, see ``MultiTaskLoss``.
        regression_weight: weight of watch time in the loss, see ``MultiTaskLoss``.
        backbone: sizes of the backbone.
    """

    dimension: Annotated[int, Number(at_least=4, at_most=4_096, multiple_of=4)] = 32
    pooling: str = "cells"
    recent: RecentEventsConfig = field(default_factory=RecentEventsConfig)
    slice_counts: bool = True
    id_spread: IdSpread = field(default_factory=IdSpread)
    tasks: list[str] = field(default_factory=list)
    task_balance: Share = 0.5
    regression_weight: NotNegative = 1.0
    backbone: BackboneConfig = field(default_factory=BackboneConfig)


@dataclass(frozen=True)
class OptimConfig(Settings):
    """Optimisers of dense weights and tables, and the schedule all follow.

    Attributes:
        dense: of everything that is no table.
        slice_tables: of the user tower's tables; their rows start with a meaning (``IdSpread``)
            and get a gradient from every request whose history holds them.
        feature_tables: of the backbone's tables; a user's own row is met in a few batches only,
            and needs larger steps.
        schedule: of all learning rates.
    """

    dense: DenseOptimizerConfig = field(default_factory=DenseOptimizerConfig)
    slice_tables: FusedOptimizerConfig = field(
        default_factory=lambda: FusedOptimizerConfig(learning_rate=0.02)
    )
    feature_tables: FusedOptimizerConfig = field(
        default_factory=lambda: FusedOptimizerConfig(learning_rate=0.3)
    )
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


def build_user_tower(
    config: DV365Config, encoder: EncoderConfig, manifest: DatasetManifest, slice_set: SliceSet
) -> UserTower | None:
    """The user tower, or ``None`` for the encoder ``none``, the baseline without timelines.

    Raises:
        ConfigError: an unknown pooling, an encoder that does not fit the slices, or recent events
            that do not fit the model.
    """
    reads_recent = config.recent.kind != "none"
    if encoder.name == NO_TIMELINES:
        if reads_recent:
            raise ConfigError(
                f"model.recent.kind={config.recent.kind} reads timelines, and encoder=none is a "
                "model without any; leave one of the two out."
            )
        return None
    poolings: dict[str, type[CellPooling | SlicePooling]] = {
        "cells": CellPooling,
        "slices": SlicePooling,
    }
    if config.pooling not in poolings:
        raise ConfigError(
            f"model.pooling={config.pooling} is unknown; choose one of {list(poolings)}."
        )
    table_rows = {name: manifest.vocabulary_sizes[name] for name in ("item", "author", "topic")}
    pooling = poolings[config.pooling](
        slice_set, table_rows, config.dimension, config.slice_counts, config.id_spread
    )
    built = build_encoder(encoder, len(slice_set.slices), config.dimension)
    recent = None
    if reads_recent:
        recent = RecentEvents(
            config.recent, table_rows, config.dimension, config.id_spread, manifest.action_types
        )
    return UserTower(pooling, built, recent)


class DV365(TaskModule):
    """User tower + backbone + loss + metrics (DV365 §2.3).

    The tower runs once per request; its gradients come through the backbone alone.

    Args:
        config: sizes and pooling.
        manifest: features, tasks and vocabulary sizes of the data set.
        slice_set: the slices that are pooled.
        encoder: the user encoder.
        optim: optimisers and schedule.
        statistics: of the fit labels; not needed where the state comes from a checkpoint.
    """

    def __init__(
        self,
        config: DV365Config,
        manifest: DatasetManifest,
        slice_set: SliceSet,
        encoder: EncoderConfig,
        optim: OptimConfig,
        statistics: LabelStatistics | None = None,
    ) -> None:
        statistics = statistics or LabelStatistics.neutral(len(manifest.tasks))
        super().__init__(manifest.tasks, config.regression_weight, config.task_balance, statistics)
        self.optim = optim
        self.slice_set = slice_set
        self.tower = build_user_tower(config, encoder, manifest, slice_set)
        backbones: dict[str, type[DLRM | Siamese]] = {"dlrm": DLRM, "siamese": Siamese}
        self.backbone: Backbone = backbones[config.backbone.kind](
            manifest,
            config.dimension,
            self.tower.num_outputs if self.tower is not None else 0,
            config.backbone,
            config.id_spread,
            statistics,
        )

    def table_optimizers(self) -> dict[str, FusedOptimizerConfig]:
        """Those of the backbone's and of the user tower's tables."""
        optimizers = {"backbone": self.optim.feature_tables}
        if self.tower is not None:
            optimizers["tower"] = self.optim.slice_tables
        return optimizers

    def table_schedule(self) -> ScheduleConfig:
        """That of all learning rates."""
        return self.optim.schedule

    @torch.no_grad()
    def measure_slices(self, batches: Iterable[RequestBatch]) -> None:
        """Let the user tower know how much its slices hold in these requests (``SliceMeans``)."""
        if self.tower is None:
            return
        pooling = self.tower.pooling
        if pooling.means.count_vectors is None:
            return
        weights = [pooling.slice_weights(b.explicit, b.implicit, b.request_time) for b in batches]
        if weights:
            pooling.means.measure(torch.cat(weights))

    def table_inputs(self, batch: RequestBatch) -> TableInputs:
        """What the slices look up, and the features of users and items."""
        asked = self.backbone.lookups(batch.user_categorical, batch.item_categorical)
        features = {f"{_BACKBONE}{path}": lookups for path, lookups in asked.items()}
        if self.tower is None:
            return TableInputs(features)
        plain, weighted, slice_weights = self.tower.pooling.lookups(
            batch.explicit, batch.implicit, batch.request_time
        )
        slices = {_PLAIN_SLICES: plain, _WEIGHTED_SLICES: weighted}
        features |= {path: lookups for path, lookups in slices.items() if lookups is not None}
        others = {_SLICE_WEIGHTS: slice_weights}
        if self.tower.recent is not None:
            features[_RECENT], events = self.tower.recent.lookups(batch.explicit, batch.implicit)
            others |= events
        return TableInputs(features, others)

    def forward(self, batch: RequestBatch) -> Tensor:
        """[R, K]: logits of binary tasks, seconds of regression tasks."""
        inputs = self.inputs_of(batch)
        user_embedding = None
        if self.tower is not None:
            pooled = self.tower.pooling.pool(
                inputs.features.get(_PLAIN_SLICES),
                inputs.features.get(_WEIGHTED_SLICES),
                inputs.others[_SLICE_WEIGHTS],
            )
            user_embedding = self.tower.encoder(pooled)
            if self.tower.recent is not None:
                recent = self.tower.recent.vectors(inputs.features[_RECENT], inputs.others)
                user_embedding = torch.cat([user_embedding, recent], dim=1)
        return self.backbone.score(
            user_embedding,
            {path.removeprefix(_BACKBONE): asked for path, asked in inputs.features.items()},
            batch.user_dense,
            batch.item_dense,
            batch.request_index,
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser of the dense weights; that of the tables runs inside the backward."""
        config = DenseOptimConfig(self.optim.dense, self.optim.schedule)
        return scheduled_optimizer(self, config)
