"""The configuration of a run of the two-tower model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from recsys.core.bounds import Count
from recsys.core.errors import ConfigError
from recsys.data.batches.item_corpus import ItemCorpusConfig
from recsys.data.contract.ledger import SELECTED, VALUE_RANK
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.loaders.towers import TowerLoaderConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.systems.two_tower.module import SELECT, TwoTower, TwoTowerConfig


@dataclass(frozen=True)
class TwoTowerRunConfig(RetrievalRunConfig):
    """Everything a run of the two-tower model depends on; conf/system/two_tower.yaml composes it.

    Attributes:
        corpus: texts and images of items.
        model: both towers, what compares them, and the loss.
        optim: optimiser and schedule.
        loader: cuts, labels, hard negatives, published user embeddings.
        kept: with ``model.objective=select``, among how many best candidates of a request the
            selected are looked for; by the first number checkpoints are chosen.
    """

    system: str = "two_tower"
    corpus: ItemCorpusConfig = field(default_factory=ItemCorpusConfig)
    model: TwoTowerConfig = field(default_factory=TwoTowerConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: TowerLoaderConfig = field(default_factory=TowerLoaderConfig)
    kept: list[Count] = field(default_factory=lambda: [25, 50])

    def on(self, manifest: DatasetManifest) -> Self:
        """Tasks are engagements; without times nothing looks at gaps between events.

        Raises:
            ConfigError: a task is none of the actions that count as engagements, or there are no
                selected candidates to learn from.
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
        if self.model.objective == SELECT and not self.kept:
            raise ConfigError("kept is empty; name how many candidates a first stage keeps: [25].")
        labels = {task.name for task in manifest.tasks}
        if self.model.objective == SELECT and not {SELECTED.name, VALUE_RANK.name} <= labels:
            raise ConfigError(
                f"model.objective=select learns which candidates of requests were selected, and "
                f"{manifest.name} does not say; prepare the ledger of a funnel, data=ledger "
                "data.options.rows=scored."
            )
        if settled.sequences.has_times:
            return settled
        users = replace(self.model.users, relative_time=False)
        return replace(settled, model=replace(self.model, users=users))


#: A trained two-tower model with its run.
TwoTowerRun = LoadedRun[TwoTowerRunConfig, TwoTower]
