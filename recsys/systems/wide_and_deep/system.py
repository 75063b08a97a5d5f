"""The wide-and-deep baseline for the commands, in the protocol of NxtPost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.reader import SequenceDataset
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.loaders.nothing_to_learn import refuse_lone_sequences
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.data.stores.vocabulary import INDEX
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.ranking import MOST_QUERIES
from recsys.evaluation.retrieval_evaluation import evaluate_retrieval
from recsys.evaluation.tasks import Control
from recsys.index.catalogue import Catalogue
from recsys.runs.system import Assembly
from recsys.serving.pipeline import StepUsers
from recsys.serving.recommend import Recommender
from recsys.serving.stages.embed import HistoryLengths
from recsys.serving.stages.search import BestScores
from recsys.systems.base import ExportConfig
from recsys.systems.kinds.known_items import known_items
from recsys.systems.kinds.retrieval import RetrievalSystem, ScoreOfOne
from recsys.systems.sizing import NEGATIVES_IN_BATCH, Given, Sized, sequences
from recsys.systems.wide_and_deep.config import WideAndDeepRun, WideAndDeepRunConfig
from recsys.systems.wide_and_deep.module import POOL, WideAndDeepRecommender


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
        engagements = self.engagements(config, dataset)
        refuse_lone_sequences(engagements, dataset)
        model = self.restore(config, dataset, manifest)
        most = config.evaluation.max_queries
        data = SequenceDataModule(config.loader, dataset, engagements, most, pools=[POOL])
        return Assembly(model, data)

    def restore(
        self, config: WideAndDeepRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> WideAndDeepRecommender:
        """The model; it knows the items of the fit period."""
        num_items = FitVocabulary.of(manifest).sizes["item"]
        return WideAndDeepRecommender(config.model, num_items, manifest, config.optim)

    def sized(
        self, config: WideAndDeepRunConfig, dataset: PreparedDataset, given: Given
    ) -> list[Sized]:
        """Batches of users, whose next items are each other's negatives."""
        store = self.engagements(config, dataset)
        return sequences(
            NEGATIVES_IN_BATCH, config.loader, dataset, store, config.num_processes, given
        )

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

    def score_of_one(self, run: WideAndDeepRun) -> ScoreOfOne:
        """Of the wide and the deep part together."""

        def score(batch: SequenceBatch, item: NDArray[np.int64]) -> NDArray[np.float64]:
            found: NDArray[np.float64] = run.model.net.score_of_one(
                batch.item,
                batch.lengths,
                batch.user_categorical,
                batch.user_dense,
                torch.from_numpy(item.copy()),
            ).numpy()
            return found

        return score

    def recommender(self, run: WideAndDeepRun, moment: int, task: str | None = None) -> Recommender:
        """By the score of every item: the wide part is no product of embeddings."""
        known = known_items(run, self.learned(run), moment)
        catalogue = Catalogue.of(known.drop(INDEX))
        indices = torch.from_numpy(known[INDEX].cast(pl.Int64).to_numpy().copy())
        histories = self.histories(run)

        def score(users: StepUsers, slots: NDArray[np.int64]) -> NDArray[np.float32]:
            scores = np.empty((len(users), len(slots)), np.float32)
            for places, batch in histories.parts(users):
                with torch.inference_mode():
                    scores[places] = run.model(batch, indices[slots]).numpy()
            return scores

        learned = run.model.net.posts.weight.detach().numpy()
        content = np.zeros((run.dataset.manifest.vocabulary_sizes["item"], learned.shape[1]))
        content[1 : len(learned)] = learned[1:]
        return Recommender(
            catalogue,
            run.dataset,
            HistoryLengths(histories),
            lambda k: BestScores(catalogue, k, score),
            histories,
            content.astype(np.float32),
        )

    def export(self, run: WideAndDeepRun, config: ExportConfig) -> Path:
        """Nothing: there is no user tower whose product with an item would be the score."""
        raise ConfigError(
            f"{run.folder} is a run of {self.name}, whose score is no product of a user's and an "
            "item's embedding (each pair of a user's property and an item has a weight), so there "
            f"is no user tower to export; use the run itself: `recsys recommend "
            f"run_dir={run.folder} user=…` or `recsys score run_dir={run.folder} pairs=…`."
        )

    def learned(self, run: WideAndDeepRun) -> NDArray[np.bool_]:
        """[V] the items of the fit period."""
        known = self.known(run.config, run.dataset)
        return known & (np.arange(len(known)) < run.model.net.num_items)
