"""SASRec and HSTU for the commands: sequences of learned item ids, ranked over the catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.loaders.nothing_to_learn import refuse_lone_sequences
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import ALL, ChooseValidation
from recsys.runs.system import Assembly
from recsys.systems.base import ExportConfig
from recsys.systems.kinds.embedding import EmbeddingSystem
from recsys.systems.sequence.config import SequenceRun, SequenceRunConfig
from recsys.systems.sequence.module import SequenceRecommender
from recsys.systems.sizing import Extent, Given, Sized, sequences

#: Every step of a user's sequence is an example of the softmax: small batches are enough.
_EXTENT = Extent(16, 128, steps_an_epoch=64, total_steps=6_000, most_epochs=60)


class SequenceSystem(EmbeddingSystem[SequenceRunConfig]):
    """The next item from the order of a user's items alone."""

    name = "sequence"
    config = SequenceRunConfig
    monitor = Monitor(f"val/ndcg@10/{ALL}", highest=True)

    def assemble(
        self, config: SequenceRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the choose split is ranked over the whole catalogue."""
        protocol = self.protocol(config, dataset, Split.CHOOSE)
        refuse_lone_sequences(protocol.engagements, dataset)
        model = _model(config, manifest)
        model.validate = ChooseValidation(
            protocol,
            lambda users: DotProductScorer(users, model.item_embeddings(protocol.num_items)),
            [ALL],
        )
        most = config.evaluation.max_queries
        data = SequenceDataModule(config.loader, dataset, protocol.engagements, most)
        return Assembly(model, data)

    def restore(
        self, config: SequenceRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> SequenceRecommender:
        """The model; its catalogue is that of the time of training."""
        return _model(config, manifest)

    def sized(
        self, config: SequenceRunConfig, dataset: PreparedDataset, given: Given
    ) -> list[Sized]:
        """As many steps as SASRec takes on MovieLens-1M, in batches of users."""
        store = self.engagements(config, dataset)
        return sequences(_EXTENT, config.loader, dataset, store, config.num_processes, given)

    def learned(self, run: SequenceRun) -> NDArray[np.bool_]:
        """[V] the items of the fit period."""
        known = self.known(run.config, run.dataset)
        return known & (np.arange(len(known)) < run.model.num_items)

    def item_embeddings(self, run: SequenceRun) -> Tensor:
        """The learned ones; items first seen after the fit period share that of the unknown."""
        with torch.inference_mode():
            return run.model.item_embeddings(run.dataset.manifest.vocabulary_sizes["item"])

    def export(self, run: SequenceRun, config: ExportConfig) -> Path:
        """The user tower in TorchScript, in float and int8, and the items' embeddings."""
        # what compiles and quantises takes seconds to import
        from recsys.systems.sequence.export import export_run

        protocol = self.protocol(run.config, run.dataset, Split.CHOOSE)
        return export_run(run, config, protocol, self.learned(run))

    def described(self, config: SequenceRunConfig) -> dict[str, str]:
        """The encoder."""
        model = config.model
        return {
            "model": {"sasrec": "SASRec", "hstu": "HSTU"}[model.encoder],
            "encoder": f"{model.blocks} blocks of width {model.width}, {model.heads} heads",
            "longest sequence": str(model.max_length),
            "batch": f"{config.loader.batch_size} users",
        }


def _model(config: SequenceRunConfig, manifest: DatasetManifest) -> SequenceRecommender:
    num_items = FitVocabulary.of(manifest).sizes["item"]
    return SequenceRecommender(config.model, num_items, config.optim)
