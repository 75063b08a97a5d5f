"""The configuration of a run of the post tower."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.data.batches.item_corpus import ItemCorpusConfig
from recsys.data.loaders.item_pairs import ItemPairConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.systems.post_tower.module import ItemSimilarity, ItemSimilarityConfig


@dataclass(frozen=True)
class PostTowerRunConfig(RetrievalRunConfig):
    """Everything a run of the post tower depends on; conf/system/post_tower.yaml composes it.

    Attributes:
        corpus: texts and images of items.
        model: the tower and its loss.
        optim: optimiser and schedule.
        loader: pairs and batches.
    """

    system: str = "post_tower"
    corpus: ItemCorpusConfig = field(default_factory=ItemCorpusConfig)
    model: ItemSimilarityConfig = field(default_factory=ItemSimilarityConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: ItemPairConfig = field(default_factory=ItemPairConfig)


#: A trained post tower with its run.
PostTowerRun = LoadedRun[PostTowerRunConfig, ItemSimilarity]
