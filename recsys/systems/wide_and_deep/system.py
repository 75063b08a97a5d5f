"""The wide-and-deep baseline for the commands, in the protocol of NxtPost."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.context import Context
from recsys.data.batches.sequences.reader import SequenceDataset
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Split
from recsys.data.loaders.nothing_to_learn import refuse_lone_sequences
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.ranking import MOST_QUERIES
from recsys.evaluation.retrieval_evaluation import evaluate_retrieval
from recsys.evaluation.tasks import Control
from recsys.runs.system import Assembly
from recsys.systems.kinds.retrieval import RetrievalSystem
from recsys.systems.sizing import NEGATIVES_IN_BATCH, Sized, sequences
from recsys.systems.wide_and_deep.config import WideAndDeepRun, WideAndDeepRunConfig
from recsys.systems.wide_and_deep.module import WideAndDeepRecommender


class WideAndDeepScorer:
    """Scores of all items for the queries of a split, histories read as they are needed.

    Args:
        model: trained, in evaluation mode.
        queries: of the split.
        num_items: V.
    """

    def __init__(
        self, model: WideAndDeepRecommender, queries: SequenceDataset, num_items: int
    ) -> None:
        self.model = model
        self.queries = queries
        self.label = queries.queries.first_label(0)
        self.items = torch.arange(num_items)

    @torch.no_grad()
    def score(self, queries: slice) -> Tensor:
        """Scores of all item indices, [q, V]."""
        positions = np.arange(queries.start, queries.stop)
        pairs = np.stack([positions, self.label[positions]], axis=1)
        scores = [
            self.model(self.queries[pairs[first : first + MOST_QUERIES]], self.items)
            for first in range(0, len(pairs), MOST_QUERIES)
        ]
        return torch.cat(scores).float()


class WideAndDeepSystem(RetrievalSystem[WideAndDeepRunConfig]):
    """Learned item ids, user features and their crosses."""

    name = "wide_and_deep"
    config = WideAndDeepRunConfig
    monitor = Monitor("val/loss")

    def assemble(
        self, config: WideAndDeepRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data."""
        engagements = EngagementStore.open(dataset, config.sequences)
        refuse_lone_sequences(engagements, dataset)
        model = self.restore(config, dataset, manifest)
        most = config.evaluation.max_queries
        return Assembly(model, SequenceDataModule(config.loader, dataset, engagements, most))

    def restore(
        self, config: WideAndDeepRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> WideAndDeepRecommender:
        """The model; it knows the items of the fit period."""
        num_items = FitVocabulary.of(manifest).sizes["item"]
        return WideAndDeepRecommender(config.model, num_items, manifest, config.optim)

    def sized(self, config: WideAndDeepRunConfig, dataset: PreparedDataset) -> list[Sized]:
        """Batches of users, whose next items are each other's negatives."""
        store = EngagementStore.open(dataset, config.sequences)
        return sequences(NEGATIVES_IN_BATCH, config.loader, dataset, store, config.num_processes)

    def described(self, config: WideAndDeepRunConfig) -> dict[str, str]:
        """Its sizes."""
        return {
            "model": "Wide-and-deep",
            "width": str(config.model.width),
            "hidden layers": ", ".join(map(str, config.model.hidden_sizes)),
            "weights of the wide part": f"{config.model.cross_buckets:,}",
            "batch": f"{config.loader.batch_size} users",
        }

    def evaluate(
        self, run: WideAndDeepRun, config: EvaluateConfig, control: Control | None
    ) -> Metrics:
        """Hits@K, NDCG@K and MRR of the model and of popularity."""
        split = Split(config.split)
        protocol = self.protocol(run.config, run.dataset, split)
        data = SequenceDataModule(
            run.config.loader, run.dataset, protocol.engagements, run.config.evaluation.max_queries
        )
        queries = SequenceDataset(data.reader, data.queries(split), run.config.loader)
        scorer = WideAndDeepScorer(run.model, queries, protocol.num_items)
        return evaluate_retrieval(run.identity, config, protocol, scorer, items=None)

    def score(
        self,
        run: WideAndDeepRun,
        user: int,
        item: NDArray[np.int64],
        moment: int,
        context: Context = None,
    ) -> dict[str, NDArray[np.float64]]:
        """``score``: of the wide and the deep part together."""
        self.refuse_context(context)
        reader = self.reader(run)
        gap = round(run.config.loader.gap_hours * MILLISECONDS_PER_HOUR)
        with torch.inference_mode():
            batch = reader.before(np.array([user]), moment, gap)
            found = run.model(batch, torch.from_numpy(item.copy()))[0]
        return {"score": np.where(self.learned(run)[item], found.double().numpy(), np.nan)}

    def learned(self, run: WideAndDeepRun) -> NDArray[np.bool_]:
        """[V] the items of the fit period."""
        known = self.known(run.config, run.dataset)
        return known & (np.arange(len(known)) < run.model.net.num_items)
