"""NxtPost for the commands: sequences of engagements, item embeddings, retrieval metrics."""

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
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.other_histories import MeasuredTower, cold_start_metrics, stale_metrics
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import BATCH, ChooseValidation, log_shares
from recsys.evaluation.retrieval_evaluation import (
    RECENT_POPULARITY,
    evaluate_retrieval,
    with_popularity,
)
from recsys.evaluation.tasks import Control
from recsys.runs.system import Assembly
from recsys.systems.base import ExportConfig
from recsys.systems.kinds.embedding import EmbeddingSystem
from recsys.systems.nxtpost.config import NxtPostRun, NxtPostRunConfig
from recsys.systems.nxtpost.items import load_items, say_what_is_left_out
from recsys.systems.nxtpost.module import NxtPost
from recsys.systems.sizing import NEGATIVES_IN_BATCH, Given, Sized, sequences


class NxtPostSystem(EmbeddingSystem[NxtPostRunConfig]):
    """The two-tower causal transformer over content embeddings."""

    name = "nxtpost"
    config = NxtPostRunConfig
    monitor = Monitor(f"val/hits@10/{BATCH}", highest=True)
    validated_on = BATCH

    def known(self, config: NxtPostRunConfig, dataset: PreparedDataset) -> NDArray[np.bool_]:
        """[V] the items that have an embedding."""
        return load_items(config.posts, dataset).known

    def assemble(
        self, config: NxtPostRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the choose split is ranked among the targets of a batch."""
        say_what_is_left_out(load_items(config.posts, dataset).report)
        protocol = self.protocol(config, dataset, Split.CHOOSE)
        refuse_lone_sequences(protocol.engagements, dataset)
        model = self.restore(config, dataset, manifest)
        if config.model.log_q:
            model.log_share = log_shares(protocol.engagements, protocol.fit_end, protocol.num_items)
        model.validate = ChooseValidation(
            protocol, lambda users: DotProductScorer(users, model.items), [BATCH]
        )
        data = SequenceDataModule(
            config.loader,
            dataset,
            protocol.engagements,
            config.evaluation.max_queries,
            model.pools,
        )
        return Assembly(model, data)

    def restore(
        self, config: NxtPostRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> NxtPost:
        """The model with the items' embeddings as they are now."""
        matrix = torch.from_numpy(load_items(config.posts, dataset).matrix)
        return NxtPost(config.model, manifest, matrix, config.optim)

    def item_embeddings(self, run: NxtPostRun) -> Tensor:
        """The given content embeddings, L2-normalised."""
        return run.model.items

    def sized(
        self, config: NxtPostRunConfig, dataset: PreparedDataset, given: Given
    ) -> list[Sized]:
        """Batches of users; a log too small for the paper's has a higher rate, which ends low."""
        store = self.engagements(config, dataset)
        sized = sequences(
            NEGATIVES_IN_BATCH, config.loader, dataset, store, config.num_processes, given
        )
        batch = next((one.value for one in sized if one.key == "loader.batch_size"), None)
        if batch is not None and int(batch) < NEGATIVES_IN_BATCH.largest_batch:
            why = "for small batches"
            sized += [
                Sized("optim.dense.learning_rate", 3e-3, why),
                Sized("optim.schedule.final_fraction", 0.05, why),
            ]
        return sized

    def described(self, config: NxtPostRunConfig) -> dict[str, str]:
        """The tower and its losses."""
        tower, model = config.model.tower, config.model
        return {
            "model": "NxtPost",
            "item embeddings": config.posts.path or "those of the data set",
            "encoder": (
                f"{tower.layers} layers of width {tower.width}, "
                f"{'causal' if tower.causal else 'bidirectional'}, up to {tower.max_length} events"
            ),
            "channels": ", ".join(channel.name for channel in tower.channels),
            "losses": f"{model.long_term:g} long-term + {model.short_term:g} short-term",
            "batch": f"{config.loader.batch_size} users",
        }

    def evaluate(self, run: NxtPostRun, config: EvaluateConfig, control: Control | None) -> Metrics:
        """Batch Hits@K and KNN Hits@K of the model, the baselines, and model with popularity."""
        split = Split(config.split)
        protocol = self.protocol(run.config, run.dataset, split)
        scorer = self.scorer(run, protocol)
        items = self.item_embeddings(run)
        metrics = evaluate_retrieval(run.identity, config, protocol, scorer, items)
        tower = MeasuredTower(run.identity, self.embedder(run), items, run.dataset)
        if protocol.config.cold_start:
            metrics |= cold_start_metrics(tower, config, protocol)
        metrics |= stale_metrics(tower, config, protocol)
        recency = run.config.sequences.has_times and RECENT_POPULARITY in protocol.config.baselines
        if split is Split.REPORT and recency:
            choose = self.protocol(run.config, run.dataset, Split.CHOOSE)
            chosen_on = choose, self.scorer(run, choose)
            metrics |= with_popularity(run.identity, config, chosen_on, (protocol, scorer))
        return metrics

    def export(self, run: NxtPostRun, config: ExportConfig) -> Path:
        """The user tower in TorchScript, in float and int8."""
        # what compiles and quantises takes seconds to import
        from recsys.systems.nxtpost.export import export_run

        return export_run(run, config, self.protocol(run.config, run.dataset, Split.CHOOSE))
