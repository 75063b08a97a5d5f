"""SASRec and HSTU in run assembly: sequences of learned item ids, ranked over the catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from recsys.data.dataset import PreparedDataset
from recsys.data.fit_vocabulary import FitVocabulary
from recsys.data.manifest import DatasetManifest
from recsys.data.schema import Split
from recsys.data.sequences import (
    SequenceDataModule,
    SequenceLoaderConfig,
)
from recsys.evaluation.ranking import DotProductScorer
from recsys.models.sequence_recommender import SequenceRecommender, SequenceRecommenderConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.training.evaluate import EvaluateConfig
from recsys.training.load import LoadedRun
from recsys.training.metrics_file import Metrics
from recsys.training.query_embedder import QueryEmbedder
from recsys.training.retrieval import ALL, ChooseValidation
from recsys.training.retrieval_evaluation import evaluate_retrieval
from recsys.training.systems.base import Assembly, Monitor
from recsys.training.systems.retrieval import RetrievalRunConfig, RetrievalSystem


@dataclass(frozen=True)
class SequenceRunConfig(RetrievalRunConfig):
    """Everything a run of SASRec or HSTU depends on; conf/train_sequence.yaml composes it.

    Attributes:
        model: the encoder and its sizes.
        optim: optimiser and schedule.
        loader: cuts and batches.
    """

    system: str = "sequence"
    model: SequenceRecommenderConfig = field(default_factory=SequenceRecommenderConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: SequenceLoaderConfig = field(default_factory=SequenceLoaderConfig)


#: A trained SASRec or HSTU with its run.
SequenceRun = LoadedRun[SequenceRunConfig, SequenceRecommender]


class SequenceSystem(RetrievalSystem[SequenceRunConfig]):
    """The next item from the order of a user's items alone."""

    name = "sequence"
    primary = "train_sequence"
    config = SequenceRunConfig
    monitor = Monitor(f"val/ndcg@10/{ALL}", highest=True)

    def assemble(
        self, config: SequenceRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the choose split is ranked over the whole catalogue."""
        model = _model(config, manifest)
        protocol = self.protocol(config, dataset, Split.CHOOSE)
        model.validate = ChooseValidation(
            protocol,
            lambda users: DotProductScorer(users, model.item_embeddings(protocol.num_items)),
            [ALL],
        )
        return Assembly(model, SequenceDataModule(config.loader, dataset, protocol.engagements))

    def restore(
        self, config: SequenceRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> SequenceRecommender:
        """The model; its catalogue is that of the time of training."""
        return _model(config, manifest)

    def described(self, config: SequenceRunConfig) -> dict[str, str]:
        """The encoder."""
        model = config.model
        return {
            "model": {"sasrec": "SASRec", "hstu": "HSTU"}[model.encoder],
            "encoder": f"{model.blocks} blocks of width {model.width}, {model.heads} heads",
            "longest sequence": str(model.max_length),
            "batch": f"{config.loader.batch_size} users",
        }

    def evaluate(self, run: SequenceRun, config: EvaluateConfig) -> Metrics:
        """Hits@K, NDCG@K and MRR of the model and of popularity."""
        split = Split(config.split)
        protocol = self.protocol(run.config, run.dataset, split)
        data = SequenceDataModule(run.config.loader, run.dataset, protocol.engagements)
        with torch.no_grad():
            items = run.model.item_embeddings(protocol.num_items)
        scorer = DotProductScorer(QueryEmbedder(run, data.reader).embed(protocol.queries), items)
        return evaluate_retrieval(run, config, protocol, scorer, posts=None)


def _model(config: SequenceRunConfig, manifest: DatasetManifest) -> SequenceRecommender:
    items = manifest.vocabulary_sizes["item"]
    num_items = FitVocabulary.of(manifest).sizes.get("item", items)
    return SequenceRecommender(config.model, num_items, config.optim)
