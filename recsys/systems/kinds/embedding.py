"""Retrieval systems whose score is the product of a user's and an item's embedding."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.contract.schema import Split
from recsys.data.stores.vocabulary import INDEX
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.query_embedder import QueryEmbedder
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import RetrievalProtocol
from recsys.evaluation.retrieval_evaluation import evaluate_retrieval
from recsys.evaluation.tasks import Control
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import IndexConfig, IndexKind
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.serving.recommend import Recommender
from recsys.serving.stages.embed import UserEmbedder
from recsys.serving.stages.search import LargestProducts, with_norm_column
from recsys.systems.kinds.known_items import known_items
from recsys.systems.kinds.retrieval import RetrievalSystem, ScoreOfOne, gap_of

Config = TypeVar("Config", bound=RetrievalRunConfig)


class EmbeddingSystem(RetrievalSystem[Config]):
    """A system whose model is a user tower: ``model(SequenceBatch)`` gives [B, W]."""

    @abstractmethod
    def item_embeddings(self, run: LoadedRun[Any, Any]) -> Tensor:
        """[V, W], a row per item index of the data set; zeros where an item has none."""

    def evaluate(
        self, run: LoadedRun[Any, Any], config: EvaluateConfig, control: Control | None
    ) -> Metrics:
        """Hits@K, NDCG@K and MRR of the model and of popularity."""
        split = Split(config.split)
        protocol = self.protocol(run.config, run.dataset, split)
        scorer = self.scorer(run, protocol)
        return evaluate_retrieval(run.identity, config, protocol, scorer, items=None)

    def scorer(self, run: LoadedRun[Any, Any], protocol: RetrievalProtocol) -> DotProductScorer:
        """The model's scores of all items for the queries of a split."""
        users = self.embedder(run).embed(protocol.queries)
        return DotProductScorer(users, self.item_embeddings(run))

    def embedder(self, run: LoadedRun[Any, Any]) -> QueryEmbedder:
        """The model over the queries of a split."""
        return QueryEmbedder(run.model, self.reader(run), run.config.loader.gap_hours)

    def user_embeddings(
        self, run: LoadedRun[Any, Any], user: NDArray[np.int64], moment: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """[B, W] of the engagements before the moments, less the gap of the training."""
        with torch.inference_mode():
            users = run.model(self.reader(run).before(user, moment, gap_of(run)))
        found: NDArray[np.float32] = users.float().numpy()
        return found

    def score_of_one(self, run: LoadedRun[Any, Any]) -> ScoreOfOne:
        """The product with the user embedding."""
        items = self.item_embeddings(run).numpy()

        def score(batch: SequenceBatch, item: NDArray[np.int64]) -> NDArray[np.float64]:
            embedding = run.model(batch)[0].float().numpy()
            # row by row: an item's score has the same bits whatever is scored beside it
            product: NDArray[np.float64] = (items[item] * embedding).sum(axis=1, dtype=np.float64)
            return product

        return score

    def recommender(
        self, run: LoadedRun[Any, Any], moment: int, task: str | None = None
    ) -> Recommender:
        """By exact search over the items with an embedding; scores are those of ``score``."""
        items = self.item_embeddings(run).float().numpy()
        known = known_items(run, self.learned(run), moment)
        rows, largest_norm = with_norm_column(items[known[INDEX].to_numpy()])
        index, _ = ItemIndex.build(
            known.drop(INDEX),
            rows,
            model=str(run.folder),
            config=IndexConfig(kind=IndexKind.FLAT.value),
        )
        histories = self.histories(run)
        embedder = UserEmbedder(lambda batch, _: run.model(batch).float(), histories, items)
        return Recommender(
            index,
            run.dataset,
            embedder,
            lambda k: LargestProducts(index, k, largest_norm),
            histories,
            np.where(self.learned(run)[:, None], items, np.float32(0)),
        )
