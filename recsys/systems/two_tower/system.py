"""The two-tower model for the commands."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.item_corpus import read_item_corpus
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.shown import ShownItems
from recsys.data.batches.sequences.towers import TowerReader
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.loaders.nothing_to_learn import refuse_lone_sequences
from recsys.data.loaders.towers import CandidateDataModule, TowerDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import INDEX
from recsys.embeddings.point_in_time import PointInTimeEmbeddings
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.division import in_parts, once
from recsys.evaluation.flops import FLOPS_PER_QUERY, PAIRS_SCORED, count_flops
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.ranking import DotProductScorer, Scorer
from recsys.evaluation.retrieval import ALL, ChooseValidation
from recsys.evaluation.retrieval_evaluation import evaluate_retrieval
from recsys.evaluation.tasks import Control
from recsys.index.catalogue import Catalogue
from recsys.runs.system import Assembly, MeasuredRows
from recsys.serving.pipeline import StepUsers
from recsys.serving.recommend import Recommender
from recsys.serving.stages.embed import HistoryLengths
from recsys.serving.stages.search import BestScores
from recsys.systems.base import ExportConfig
from recsys.systems.kinds.embedding import EmbeddingSystem
from recsys.systems.kinds.known_items import known_items
from recsys.systems.kinds.retrieval import ScoreOfOne
from recsys.systems.sizing import NEGATIVES_IN_BATCH, Extent, Given, Sized, schedule, sequences
from recsys.systems.two_tower.config import TwoTowerRun, TwoTowerRunConfig
from recsys.systems.two_tower.module import SELECT, TwoTower
from recsys.systems.two_tower.selection import SCORED, Selection, print_selection, recall_name
from recsys.systems.two_tower.similarity import MixtureScorer, OneUserScores, mixed_scores
from recsys.systems.two_tower.tasks import (
    TaskProtocol,
    log_shares,
    refuse_empty_tasks,
    tasks_of_pairs,
)

#: Queries whose cost is counted.
_COUNTED_QUERIES = 64
#: Requests whose users are embedded at a time.
_REQUESTS_PER_BATCH = 1024
#: Requests with a hundred candidates or more each.
_REQUESTS = Extent(8, 64, steps_an_epoch=40, total_steps=1_500, most_epochs=30)


class TwoTowerSystem(EmbeddingSystem[TwoTowerRunConfig]):
    """Users and items by their features, for several tasks."""

    name = "two_tower"
    config = TwoTowerRunConfig
    monitor = Monitor(f"val/hits@10/{ALL}", highest=True)

    def monitor_of(self, config: TwoTowerRunConfig) -> Monitor:
        """Hits, or of a first stage the recall of what later stages select."""
        if config.model.objective != SELECT:
            return self.monitor
        return Monitor(f"val/{recall_name(config.kept[0])}", highest=True)

    def protocol(
        self, config: TwoTowerRunConfig, dataset: PreparedDataset, split: Split
    ) -> TaskProtocol:
        """That of every retrieval system, with the queries of each task."""
        engagements, known = self.engagements(config, dataset), self.known(config, dataset)
        return TaskProtocol(config, dataset, engagements, known, split)

    def assemble(
        self, config: TwoTowerRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; the choose split is ranked among all items, or its requests' candidates
        by whether they are selected.
        """
        if config.model.objective == SELECT:
            return self._assemble_select(config, dataset, manifest)
        protocol = self.protocol(config, dataset, Split.CHOOSE)
        store, loader = protocol.engagements, config.loader
        refuse_lone_sequences(store, dataset)
        model = self.restore(config, dataset, manifest)
        shown = ShownItems.of(dataset, store) if loader.hard_negatives else None
        begin, end = dataset.manifest.split_bounds[Split.FIT]
        if not loader.only_fit_labels:
            begin = store.timestamp.min(initial=begin)
        if config.model.log_q:
            per_label = loader.hard_negatives / loader.labels
            labels = (int(begin), end)
            model.log_share = log_shares(store, labels, protocol.num_items, shown, per_label)
        model.validate = ChooseValidation(
            protocol, lambda users: _scorer(model, users, model.embed_all()), [ALL]
        )

        @cache
        def tasks_of(split: str) -> NDArray[np.bool_]:
            return tasks_of_pairs(config, dataset, split, store.user, store.item)

        is_label = (store.timestamp >= begin) & (store.timestamp < end)
        refuse_empty_tasks(config.model.tasks, tasks_of(Split.FIT)[is_label], dataset)
        data = TowerDataModule(
            loader,
            dataset,
            store,
            model.corpus,
            tasks_of,
            shown,
            config.evaluation.max_queries,
            _user_embeddings(config, dataset),
        )
        return Assembly(model, data)

    def _assemble_select(
        self, config: TwoTowerRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data, of what a funnel's later stages selected; it starts at their share."""
        model = self.restore(config, dataset, manifest)
        assert model.bias is not None
        fit = Selection(dataset.requests(Split.FIT), config.kept)
        model.bias.data += torch.tensor(fit.selected).mean().logit(eps=1e-3)
        choose = Selection(dataset.requests(Split.CHOOSE), config.kept)
        model.validate = lambda users: choose.values(choose.logits(model, users, model.embed_all()))
        reader = self._reader_of(config, dataset)
        return Assembly(model, CandidateDataModule(config.loader, dataset, reader, model.corpus))

    def measured(
        self, config: TwoTowerRunConfig, dataset: PreparedDataset, split: Split
    ) -> MeasuredRows:
        """One query per engagement of the split, or every scored candidate of its requests."""
        if config.model.objective != SELECT:
            return super().measured(config, dataset, split)
        requests = dataset.requests(split)
        return MeasuredRows(requests.num_rows, len(np.unique(requests.user)), SCORED)

    def restore(
        self, config: TwoTowerRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> TwoTower:
        """The model with the items as they are now."""
        tower = config.model.items
        corpus = read_item_corpus(dataset, config.corpus, tower.hashed_text, tower.pretrained_text)
        embeddings = _user_embeddings(config, dataset)
        shape = None if embeddings is None else embeddings.shape
        return TwoTower(config.model, manifest, corpus, shape, config.optim)

    def reader(self, run: TwoTowerRun) -> TowerReader:
        """Reads histories and published embeddings as the run was trained on them."""
        return self._reader_of(run.config, run.dataset)

    def _reader_of(self, config: TwoTowerRunConfig, dataset: PreparedDataset) -> TowerReader:
        return TowerReader(
            dataset,
            self.engagements(config, dataset),
            config.loader.max_length,
            _user_embeddings(config, dataset),
        )

    def item_embeddings(self, run: TwoTowerRun) -> Tensor:
        """What the item tower says of every item, new ones too; zeros where nothing is known."""
        return run.model.embed_all()

    def learned(self, run: TwoTowerRun) -> NDArray[np.bool_]:
        """[V] the items of which anything is known: their id, from the fit period, or a feature."""
        known = self.known(run.config, run.dataset)
        return known & (self.item_embeddings(run) != 0).any(dim=1).numpy()

    def sized(
        self, config: TwoTowerRunConfig, dataset: PreparedDataset, given: Given
    ) -> list[Sized]:
        """Batches of users, whose next items are each other's negatives; or of requests."""
        if config.model.objective == SELECT:
            requests = len(dataset.requests(Split.FIT))
            key = "loader.batch_size"
            return schedule(_REQUESTS, requests, "requests", key, 100, config.num_processes, given)
        store = self.engagements(config, dataset)
        return sequences(
            NEGATIVES_IN_BATCH, config.loader, dataset, store, config.num_processes, given
        )

    def described(self, config: TwoTowerRunConfig) -> dict[str, str]:
        """The towers and the loss."""
        model, users = config.model, config.model.users
        return {
            "model": "Two-tower",
            "similarity": model.similarity,
            "user tower": (
                f"{users.layers} layers of width {users.width}, up to {users.max_length} events"
            ),
            "published embeddings": (
                model.adoption.kind if config.loader.user_embeddings.stores else "none"
            ),
            **_learned_from(config),
        }

    def evaluate(
        self, run: TwoTowerRun, config: EvaluateConfig, control: Control | None
    ) -> Metrics:
        """Hits@K, NDCG@K and MRR of the model and of popularity, also by task; cost of a query.

        With ``objective=select`` also how well it finds what later stages select.
        """
        protocol = self.protocol(run.config, run.dataset, Split(config.split))
        embed, items = self.embedder(run).embed, self.item_embeddings(run)
        scorer = _scorer(run.model, embed(protocol.queries), items)
        metrics = evaluate_retrieval(run.identity, config, protocol, scorer, items=None)
        some = protocol.queries.only(np.arange(min(len(protocol.queries), _COUNTED_QUERIES)))
        every = slice(0, len(some))
        flops = once(
            lambda: count_flops(lambda: _scorer(run.model, embed(some), items).score(every))
        )
        how = f"the user tower and every item, counted for {len(some)} queries"
        if run.config.model.objective == SELECT:
            metrics |= self._selection(run, config, items)
        return metrics | {
            f"{config.prefix}/{FLOPS_PER_QUERY}": {"value": flops / len(some), "protocol": how},
            f"{config.prefix}/{PAIRS_SCORED}": {"value": float(len(items)), "protocol": how},
        }

    def _selection(self, run: TwoTowerRun, config: EvaluateConfig, items: Tensor) -> Metrics:
        """Of a split's requests what the model finds of the selected candidates."""
        selection = Selection(run.dataset.requests(config.split), run.config.kept)
        users = self._users_of(run, selection)

        def measured() -> Metrics:
            logits = selection.logits(run.model, users, items)
            return selection.measured(logits, run.identity, config)

        return once(measured)

    def selection_logits(self, run: TwoTowerRun, selection: Selection) -> Tensor:
        """[R] of each candidate of some requests.

        Histories are those of the run's data set, until the moment of each request.
        """
        users = self._users_of(run, selection)
        return selection.logits(run.model, users, self.item_embeddings(run))

    def _users_of(self, run: TwoTowerRun, selection: Selection) -> Tensor:
        """[B, D] of each request; every process embeds a part."""
        requests = selection.requests

        def embed(first: int) -> NDArray[np.float32]:
            some = slice(first, first + _REQUESTS_PER_BATCH)
            user = requests.user[some].astype(np.int64)
            return self.user_embeddings(run, user, requests.request_time[some])

        firsts = range(0, len(requests), _REQUESTS_PER_BATCH)
        return torch.from_numpy(np.concatenate(in_parts(firsts, embed, "Embedding requests")))

    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """One row per scorer; of a first stage also what it finds of the selected."""
        super().show(metrics, config)
        print_selection(metrics, config)

    def score_of_one(self, run: TwoTowerRun) -> ScoreOfOne:
        """The cosine, or the mixture of logits."""
        if run.model.mixture is None:
            return super().score_of_one(run)
        items, scores = self.item_embeddings(run), OneUserScores(run.model.mixture)

        def score(batch: SequenceBatch, item: NDArray[np.int64]) -> NDArray[np.float64]:
            found: NDArray[np.float64] = scores(run.model(batch)[0], items[item]).double().numpy()
            return found

        return score

    def recommender(self, run: TwoTowerRun, moment: int, task: str | None = None) -> Recommender:
        """By exact search; a mixture of logits scores every item."""
        mixture = run.model.mixture
        if mixture is None:
            return super().recommender(run, moment, task)
        items, learned = self.item_embeddings(run), self.learned(run)
        known = known_items(run, learned, moment)
        catalogue = Catalogue.of(known.drop(INDEX))
        candidates = items[torch.from_numpy(known[INDEX].cast(pl.Int64).to_numpy().copy())]
        histories = self.histories(run)

        def score(users: StepUsers, slots: NDArray[np.int64]) -> NDArray[np.float32]:
            scores = np.empty((len(users), len(slots)), np.float32)
            for places, batch in histories.parts(users):
                with torch.inference_mode():
                    embedded = run.model(batch)
                    scores[places] = mixed_scores(mixture, embedded, candidates[slots]).numpy()
            return scores

        return Recommender(
            catalogue,
            run.dataset,
            HistoryLengths(histories),
            lambda k: BestScores(catalogue, k, score),
            histories,
            items.numpy(),
        )

    def export(self, run: TwoTowerRun, config: ExportConfig) -> Path:
        """The user tower in TorchScript, in float and int8, and the items' embeddings.

        A mixture of logits comes with what scores items for a user.
        """
        # what compiles and quantises takes seconds to import
        from recsys.systems.two_tower.export import export_run

        return export_run(
            run,
            config,
            self.protocol(run.config, run.dataset, Split.CHOOSE),
            self.reader(run),
            self.learned(run),
            lambda users, items: _scorer(run.model, users, items),
        )


def _scorer(model: TwoTower, users: Tensor, items: Tensor) -> Scorer:
    """What compares user embeddings [Q, W] with items [V, W]."""
    if model.mixture is None:
        return DotProductScorer(users, items)
    return MixtureScorer(model.mixture, users, items)


def _user_embeddings(
    config: TwoTowerRunConfig, dataset: PreparedDataset
) -> PointInTimeEmbeddings | None:
    asked = config.loader.user_embeddings
    if not asked.stores:
        return None
    return PointInTimeEmbeddings(dataset, asked.stores, asked.delay_hours)


def _learned_from(config: TwoTowerRunConfig) -> dict[str, str]:
    """What a run's loss is of."""
    if config.model.objective == SELECT:
        return {
            "trained on": "candidates that later stages of a funnel selected or not",
            "weight of the value's rank": f"{config.model.rank_weight:g}",
            "batch": f"{config.loader.batch_size} requests",
        }
    tasks = [f"{task.weight:g} {task.action}" for task in config.model.tasks]
    return {
        "tasks": ", ".join(tasks) or "every engagement",
        "hard negatives": f"{config.loader.hard_negatives} a query",
        "batch": f"{config.loader.batch_size} users",
    }
