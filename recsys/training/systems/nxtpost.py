"""NxtPost in run assembly: sequences of engagements, post embeddings, retrieval metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.schema import Split
from recsys.data.sequences import (
    SequenceDataModule,
    SequenceLoaderConfig,
)
from recsys.evaluation.ranking import DotProductScorer
from recsys.models.nxtpost import NxtPost, NxtPostConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.training.evaluate import EvaluateConfig
from recsys.training.load import LoadedRun
from recsys.training.metrics_file import Metrics
from recsys.training.other_histories import cold_start_metrics, stale_metrics
from recsys.training.posts import PostsConfig, load_posts, say_what_is_left_out
from recsys.training.query_embedder import QueryEmbedder
from recsys.training.retrieval import (
    BATCH,
    ChooseValidation,
    log_shares,
)
from recsys.training.retrieval_evaluation import (
    RECENT_POPULARITY,
    evaluate_retrieval,
    with_popularity,
)
from recsys.training.systems.base import Assembly, Monitor
from recsys.training.systems.retrieval import RetrievalRunConfig, RetrievalSystem


@dataclass(frozen=True)
class NxtPostRunConfig(RetrievalRunConfig):
    """Everything a run of NxtPost depends on; conf/train_nxtpost.yaml composes it.

    Attributes:
        posts: where the embeddings of posts come from.
        model: the tower and its losses.
        optim: optimiser and schedule.
        loader: cuts, labels and batches.
    """

    system: str = "nxtpost"
    posts: PostsConfig = field(default_factory=PostsConfig)
    model: NxtPostConfig = field(default_factory=NxtPostConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: SequenceLoaderConfig = field(default_factory=SequenceLoaderConfig)


#: A trained NxtPost with its run.
NxtPostRun = LoadedRun[NxtPostRunConfig, NxtPost]


class NxtPostSystem(RetrievalSystem[NxtPostRunConfig]):
    """The two-tower causal transformer over content embeddings."""

    name = "nxtpost"
    primary = "train_nxtpost"
    config = NxtPostRunConfig
    monitor = Monitor(f"val/hits@10/{BATCH}", highest=True)
    validated_on = BATCH

    def known(self, config: NxtPostRunConfig, dataset: PreparedDataset) -> NDArray[np.bool_]:
        """[V] the posts that have an embedding."""
        return load_posts(config.posts, dataset).known

    def assemble(
        self, config: NxtPostRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the choose split is ranked among the targets of a batch."""
        say_what_is_left_out(load_posts(config.posts, dataset).report)
        model = self.restore(config, dataset, manifest)
        protocol = self.protocol(config, dataset, Split.CHOOSE)
        if config.model.log_q:
            model.log_share = log_shares(protocol.engagements, protocol.fit_end, protocol.num_items)
        model.validate = ChooseValidation(
            protocol, lambda users: DotProductScorer(users, model.posts), [BATCH]
        )
        data = SequenceDataModule(config.loader, dataset, protocol.engagements)
        return Assembly(model, data)

    def restore(
        self, config: NxtPostRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> NxtPost:
        """The model with the posts' embeddings as they are now."""
        matrix = torch.from_numpy(load_posts(config.posts, dataset).matrix)
        return NxtPost(config.model, manifest, matrix, config.optim)

    def described(self, config: NxtPostRunConfig) -> dict[str, str]:
        """The tower and its losses."""
        tower, model = config.model.tower, config.model
        return {
            "model": "NxtPost",
            "post embeddings": str(config.posts.path),
            "encoder": (
                f"{tower.layers} layers of width {tower.width}, "
                f"{'causal' if tower.causal else 'bidirectional'}, up to {tower.max_length} events"
            ),
            "channels": ", ".join(channel.name for channel in tower.channels),
            "losses": f"{model.long_term:g} long-term + {model.short_term:g} short-term",
            "batch": f"{config.loader.batch_size} users",
        }

    def evaluate(self, run: NxtPostRun, config: EvaluateConfig) -> Metrics:
        """Batch Hits@K and KNN Hits@K of the model, the baselines, and model with popularity."""
        split = Split(config.split)
        protocol = self.protocol(run.config, run.dataset, split)
        data = SequenceDataModule(run.config.loader, run.dataset, protocol.engagements)
        posts: Tensor = run.model.posts
        embedder = QueryEmbedder(run, data.reader)
        scorer = DotProductScorer(embedder.embed(protocol.queries), posts)
        metrics = evaluate_retrieval(run, config, protocol, scorer, posts)
        if protocol.config.cold_start:
            metrics |= cold_start_metrics(embedder, config, protocol)
        metrics |= stale_metrics(embedder, config, protocol)
        recency = run.config.sequences.has_times and RECENT_POPULARITY in protocol.config.baselines
        if split is Split.REPORT and recency:
            choose = self.protocol(run.config, run.dataset, Split.CHOOSE)
            chosen_on = DotProductScorer(embedder.embed(choose.queries), posts)
            metrics |= with_popularity(run, config, (choose, chosen_on), (protocol, scorer))
        return metrics
