"""The post tower in run assembly: pairs of posts, and a file of post embeddings at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.post_corpus import PostCorpusConfig, read_post_corpus
from recsys.data.post_embeddings import POST_EMBEDDINGS_FILE, write_post_embeddings
from recsys.data.post_features import PostFeatures
from recsys.data.post_pairs import PostPairConfig, PostPairDataModule
from recsys.data.schema import FeatureKind, FeatureSide, Split
from recsys.data.vocabulary import INDEX, RAW, Vocabulary
from recsys.evaluation.baselines.similarity import last_item_embeddings
from recsys.evaluation.ranking import DotProductScorer
from recsys.models.post_tower import PostSimilarity, PostSimilarityConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.training.evaluate import EvaluateConfig
from recsys.training.load import LoadedRun, load_run
from recsys.training.metrics_file import Metrics
from recsys.training.retrieval import (
    ALL,
    ChooseValidation,
    RetrievalProtocol,
    log_shares,
)
from recsys.training.retrieval_evaluation import evaluate_retrieval
from recsys.training.systems.base import Assembly, Monitor
from recsys.training.systems.retrieval import RetrievalRunConfig, RetrievalSystem


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


class PostTowerSystem(RetrievalSystem[PostTowerRunConfig]):
    """Posts that are engaged with one after the other are similar."""

    name = "post_tower"
    primary = "train_post_tower"
    config = PostTowerRunConfig
    monitor = Monitor(f"val/hits@10/{ALL}", highest=True)

    def assemble(
        self, config: PostTowerRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; checkpoints are chosen by the similarity of the next post."""
        model = self.restore(config, dataset, manifest)
        protocol = self.protocol(config, dataset, Split.CHOOSE)
        model.validate = ChooseValidation(
            protocol, lambda posts: _last_post(protocol, posts), [ALL]
        )
        if config.model.log_q:
            shares = log_shares(protocol.engagements, protocol.fit_end, protocol.num_items)
            model.log_share = shares
        return Assembly(model, PostPairDataModule(config.loader, dataset, protocol.engagements))

    def restore(
        self, config: PostTowerRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> PostSimilarity:
        """The model with the posts as they are now."""
        tower = config.model.tower
        corpus = read_post_corpus(dataset, config.corpus, tower.hashed_text, tower.pretrained_text)
        return _model(config, corpus, manifest)

    def finish(self, run_dir: Path) -> None:
        """Write the embedding of every post into the run folder: ``post_embeddings.parquet``."""
        write_run_embeddings(load_run(run_dir), run_dir / POST_EMBEDDINGS_FILE)

    def described(self, config: PostTowerRunConfig) -> dict[str, str]:
        """Its channels."""
        tower = config.model.tower
        return {
            "model": "Post tower",
            "width": f"{tower.width}, {tower.output_width} given out",
            "text": tower.pretrained_text or "hashed n-grams, where posts have text",
            "images": config.corpus.images or "none",
            "batch": f"{config.loader.batch_size} pairs",
        }

    def evaluate(self, run: PostTowerRun, config: EvaluateConfig) -> Metrics:
        """Similarity to the last post as a retrieval model, beside the untrained baselines.

        The baselines of content, ``last_post`` and ``mean_of_history``, use the tower as it was
        before training: the model against ``last_post`` is what training gave.
        """
        protocol = self.protocol(run.config, run.dataset, Split(config.split))
        scorer = _last_post(protocol, run.model.embed_all())
        return evaluate_retrieval(run, config, protocol, scorer, untrained(run).embed_all())


def write_run_embeddings(run: PostTowerRun, path: Path) -> None:
    """Write the embeddings of all posts that have any feature, by raw id."""
    embeddings = run.model.embed_all().numpy()
    table = Vocabulary.load(run.dataset.path / "vocabulary" / "item.parquet").table
    index = table[INDEX].to_numpy()
    known: NDArray[np.bool_] = np.linalg.norm(embeddings[index], axis=1) > 0
    temporary = path.with_suffix(".partial")
    write_post_embeddings(temporary, table[RAW].filter(known), embeddings[index][known])
    temporary.replace(path)


def untrained(run: PostTowerRun) -> PostSimilarity:
    """The model with the weights that its training began with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.config.seed)
        return _model(run.config, run.model.corpus, run.manifest).eval()


def _model(
    config: PostTowerRunConfig, corpus: PostFeatures, manifest: DatasetManifest
) -> PostSimilarity:
    categorical = manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
    return PostSimilarity(config.model, corpus, categorical, config.optim)


def _last_post(protocol: RetrievalProtocol, posts: Tensor) -> DotProductScorer:
    users = last_item_embeddings(protocol.engagements, protocol.queries, posts)
    return DotProductScorer(users, posts)
