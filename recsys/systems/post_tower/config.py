"""The configuration of a run of the post tower."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.data.batches.item_corpus import PostCorpusConfig
from recsys.data.loaders.item_pairs import PostPairConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.systems.post_tower.module import PostSimilarity, PostSimilarityConfig


@dataclass(frozen=True)
class PostTowerRunConfig(RetrievalRunConfig):
    """Everything a run of the post tower depends on; conf/train_post_tower.yaml composes it.

    Attributes:
        corpus: texts and images of posts.
        model: the tower and its loss.
        optim: optimiser and schedule.
        loader: pairs and batches.
    """

    system: str = "post_tower"
    corpus: PostCorpusConfig = field(default_factory=PostCorpusConfig)
    model: PostSimilarityConfig = field(default_factory=PostSimilarityConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: PostPairConfig = field(default_factory=PostPairConfig)


#: A trained post tower with its run.
PostTowerRun = LoadedRun[PostTowerRunConfig, PostSimilarity]
