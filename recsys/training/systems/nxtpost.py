"""NxtPost in run assembly: sequences of engagements, post embeddings, retrieval metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.schema import Split
from recsys.data.sequences import (
    EngagementStore,
    SequenceConfig,
    SequenceDataModule,
    SequenceLoaderConfig,
)
from recsys.evaluation.ranking import DotProductScorer
from recsys.models.nxtpost import NxtPost, NxtPostConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.training.config import RunConfig
from recsys.training.evaluate import EvaluateConfig
from recsys.training.load import LoadedRun
from recsys.training.metrics_file import Metrics
from recsys.training.other_histories import (
    QueryEmbedder,
    cold_start_metrics,
    stale_metrics,
)
from recsys.training.posts import PostsConfig, load_posts
from recsys.training.retrieval import (
    BATCH,
    ChooseValidation,
    RetrievalEvaluationConfig,
    RetrievalProtocol,
    log_shares,
)
from recsys.training.retrieval_evaluation import embed_queries, evaluate_retrieval, with_popularity
from recsys.training.retrieval_tables import print_retrieval
from recsys.training.systems.base import Assembly, Measured, Monitor, System


@dataclass(frozen=True)
class NxtPostRunConfig(RunConfig):
    """Everything a run of NxtPost depends on; conf/train_nxtpost.yaml composes it.

    Attributes:
        posts: where the embeddings of posts come from.
        sequences: which events are engagements.
        model: the tower and its losses.
        optim: optimiser and schedule.
        loader: cuts, labels and batches.
        evaluation: how retrieval is measured.
    """

    system: str = "nxtpost"
    posts: PostsConfig = field(default_factory=PostsConfig)
    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    model: NxtPostConfig = field(default_factory=NxtPostConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: SequenceLoaderConfig = field(default_factory=SequenceLoaderConfig)
    evaluation: RetrievalEvaluationConfig = field(default_factory=RetrievalEvaluationConfig)


#: A trained NxtPost with its run.
NxtPostRun = LoadedRun[NxtPostRunConfig, NxtPost]


class NxtPostSystem(System[NxtPostRunConfig]):
    """The two-tower causal transformer over content embeddings."""

    name = "nxtpost"
    primary = "train_nxtpost"
    config = NxtPostRunConfig
    monitor = Monitor(f"val/hits@10/{BATCH}", highest=True)

    def assemble(
        self, config: NxtPostRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the choose split is ranked among the targets of a batch."""
        posts = load_posts(config.posts, dataset)
        engagements = EngagementStore.open(dataset, config.sequences, posts.known)
        matrix = torch.from_numpy(posts.matrix)
        model = NxtPost(config.model, manifest, matrix, config.optim)
        if config.model.log_q:
            model.log_share = log_shares(
                engagements, manifest.split_bounds[Split.FIT][1], len(matrix)
            )
        protocol = RetrievalProtocol(
            config.evaluation, dataset, engagements, posts.known, Split.CHOOSE
        )
        model.validate = ChooseValidation(protocol, matrix, [BATCH])
        return Assembly(model, SequenceDataModule(config.loader, dataset, engagements))

    def restore(
        self, config: NxtPostRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> NxtPost:
        """The model with the posts' embeddings as they are now."""
        matrix = torch.from_numpy(load_posts(config.posts, dataset).matrix)
        return NxtPost(config.model, manifest, matrix, config.optim)

    def measured(
        self, config: NxtPostRunConfig, dataset: PreparedDataset, split: Split
    ) -> Measured:
        """One query per engagement of the split."""
        protocol = nxtpost_protocol(config, dataset, split)
        candidates = protocol.candidates([BATCH])[BATCH]
        users = len(np.unique(protocol.queries.user))
        return Measured(len(protocol.queries), users, candidates.description)

    def evaluate(self, run: NxtPostRun, config: EvaluateConfig) -> Metrics:
        """Batch Hits@K and KNN Hits@K of the model, the baselines, and model with popularity."""
        split = Split(config.split)
        protocol = nxtpost_protocol(run.config, run.dataset, split)
        data = SequenceDataModule(run.config.loader, run.dataset, protocol.engagements)
        posts: Tensor = run.model.posts
        scorer = DotProductScorer(embed_queries(run, data, split), posts)
        metrics = evaluate_retrieval(run, config, protocol, scorer, posts)
        embedder = QueryEmbedder(run, data.reader)
        if protocol.config.cold_start:
            metrics |= cold_start_metrics(embedder, config, protocol)
        metrics |= stale_metrics(embedder, config, protocol)
        if split is Split.REPORT and run.config.sequences.has_times:
            choose = nxtpost_protocol(run.config, run.dataset, Split.CHOOSE)
            chosen_on = DotProductScorer(embed_queries(run, data, Split.CHOOSE), posts)
            metrics |= with_popularity(run, config, (choose, chosen_on), (protocol, scorer))
        return metrics

    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """One row per scorer."""
        print_retrieval(metrics, config)


def nxtpost_protocol(
    config: NxtPostRunConfig, dataset: PreparedDataset, split: Split
) -> RetrievalProtocol:
    """Queries of a split among the posts that have embeddings."""
    known = load_posts(config.posts, dataset).known
    engagements = EngagementStore.open(dataset, config.sequences, known)
    return RetrievalProtocol(config.evaluation, dataset, engagements, known, split)
