"""SASRec and HSTU for the commands: sequences of learned item ids, ranked over the catalogue."""

from __future__ import annotations

import torch

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.query_embedder import QueryEmbedder
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import ALL, ChooseValidation
from recsys.evaluation.retrieval_evaluation import evaluate_retrieval
from recsys.evaluation.tasks import Control
from recsys.runs.system import Assembly
from recsys.systems.kinds.retrieval import RetrievalSystem
from recsys.systems.sequence.config import SequenceRun, SequenceRunConfig
from recsys.systems.sequence.module import SequenceRecommender


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

    def evaluate(
        self, run: SequenceRun, config: EvaluateConfig, control: Control | None
    ) -> Metrics:
        """Hits@K, NDCG@K and MRR of the model and of popularity."""
        split = Split(config.split)
        protocol = self.protocol(run.config, run.dataset, split)
        data = SequenceDataModule(run.config.loader, run.dataset, protocol.engagements)
        with torch.no_grad():
            items = run.model.item_embeddings(protocol.num_items)
        scorer = DotProductScorer(
            QueryEmbedder(run.model, data.reader, run.config.loader.gap_hours).embed(
                protocol.queries
            ),
            items,
        )
        return evaluate_retrieval(run.identity, config, protocol, scorer, items=None)


def _model(config: SequenceRunConfig, manifest: DatasetManifest) -> SequenceRecommender:
    num_items = FitVocabulary.of(manifest).sizes["item"]
    return SequenceRecommender(config.model, num_items, config.optim)
