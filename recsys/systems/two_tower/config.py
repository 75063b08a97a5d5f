"""The configuration of a run of the two-tower model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from recsys.core.errors import ConfigError
from recsys.data.batches.item_corpus import ItemCorpusConfig
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.loaders.towers import TowerLoaderConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.systems.two_tower.module import TwoTower, TwoTowerConfig


@dataclass(frozen=True)
class TwoTowerRunConfig(RetrievalRunConfig):
    """Everything a run of the two-tower model depends on; conf/system/two_tower.yaml composes it.

    Attributes:
        corpus: texts and images of items.
        model: both towers, what compares them, and the loss.
        optim: optimiser and schedule.
        loader: cuts, labels, hard negatives, published user embeddings.
    """

    system: str = "two_tower"
    corpus: ItemCorpusConfig = field(default_factory=ItemCorpusConfig)
    model: TwoTowerConfig = field(default_factory=TwoTowerConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: TowerLoaderConfig = field(default_factory=TowerLoaderConfig)

    def on(self, manifest: DatasetManifest) -> Self:
        """Tasks are engagements; without times nothing looks at gaps between events.

        Raises:
            ConfigError: a task is none of the actions that count as engagements.
        """
        settled = super().on(manifest)
        actions = settled.sequences.actions
        for task in self.model.tasks:
            if task.action not in actions:
                raise ConfigError(
                    f"model.tasks has {task.action}, which is no action that counts as an "
                    f"engagement; choose from {', '.join(actions)}, or name it in "
                    "sequences.actions too."
                )
        if settled.sequences.has_times:
            return settled
        users = replace(self.model.users, relative_time=False)
        return replace(settled, model=replace(self.model, users=users))


#: A trained two-tower model with its run.
TwoTowerRun = LoadedRun[TwoTowerRunConfig, TwoTower]
