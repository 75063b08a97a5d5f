"""The post tower for the commands: pairs of items, and a file of item embeddings at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.item_corpus import read_item_corpus
from recsys.data.batches.item_features import ItemFeatures
from recsys.data.content.item_embeddings import ITEM_EMBEDDINGS_FILE, write_item_embeddings
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureKind, FeatureSide, Split
from recsys.data.loaders.item_pairs import ItemPairDataModule
from recsys.data.loaders.nothing_to_learn import refuse_lone_sequences
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import INDEX, RAW
from recsys.evaluation.baselines.similarity import last_item_embeddings
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics
from recsys.evaluation.monitor import Monitor
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import ALL, ChooseValidation, RetrievalProtocol, log_shares
from recsys.evaluation.retrieval_evaluation import evaluate_retrieval
from recsys.evaluation.tasks import Control
from recsys.runs.load import load_run
from recsys.runs.system import Assembly
from recsys.systems.kinds.retrieval import RetrievalSystem
from recsys.systems.post_tower.config import PostTowerRun, PostTowerRunConfig
from recsys.systems.post_tower.content import refuse_equal_items
from recsys.systems.post_tower.module import ItemSimilarity
from recsys.systems.sizing import Extent, Given, Sized, schedule

_EXTENT = Extent(64, 1_024, steps_an_epoch=100, total_steps=2_000, most_epochs=20)


class PostTowerSystem(RetrievalSystem[PostTowerRunConfig]):
    """Items that are engaged with one after the other are similar."""

    name = "post_tower"
    config = PostTowerRunConfig
    monitor = Monitor(f"val/hits@10/{ALL}", highest=True)

    def assemble(
        self, config: PostTowerRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> Assembly:
        """Model and data; checkpoints are chosen by the similarity of the next item."""
        protocol = self.protocol(config, dataset, Split.CHOOSE)
        refuse_lone_sequences(protocol.engagements, dataset)
        model = self.restore(config, dataset, manifest)
        fit_items = torch.from_numpy(np.flatnonzero(protocol.fit_items))
        refuse_equal_items(
            model.corpus.select(fit_items),
            manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL),
            config.model.tower.post_id,
            manifest.name,
        )
        model.validate = ChooseValidation(
            protocol, lambda items: _last_item(protocol, items), [ALL]
        )
        if config.model.log_q:
            shares = log_shares(protocol.engagements, protocol.fit_end, protocol.num_items)
            model.log_share = shares
        data = ItemPairDataModule(config.loader, dataset, protocol.engagements, model.corpus)
        return Assembly(model, data)

    def restore(
        self, config: PostTowerRunConfig, dataset: PreparedDataset, manifest: DatasetManifest
    ) -> ItemSimilarity:
        """The model with the items as they are now."""
        tower = config.model.tower
        corpus = read_item_corpus(dataset, config.corpus, tower.hashed_text, tower.pretrained_text)
        return _model(config, corpus, manifest)

    def finish(self, run_dir: Path) -> None:
        """Write the embedding of every item into the run folder: ``post_embeddings.parquet``."""
        write_run_embeddings(load_run(self, run_dir), run_dir / ITEM_EMBEDDINGS_FILE)

    def sized(
        self, config: PostTowerRunConfig, dataset: PreparedDataset, given: Given
    ) -> list[Sized]:
        """Batches of pairs."""
        store = self.engagements(config, dataset)
        fit = store.events_between(0, dataset.manifest.split_bounds[Split.FIT][1])
        pairs = len(fit) * config.loader.window
        return schedule(
            _EXTENT, pairs, "pairs of items", "loader.batch_size", 20, config.num_processes, given
        )

    def described(self, config: PostTowerRunConfig) -> dict[str, str]:
        """Its channels."""
        tower = config.model.tower
        return {
            "model": "Post tower",
            "width": f"{tower.width}, {tower.output_width} given out",
            "text": tower.pretrained_text or "hashed n-grams, where items have text",
            "images": config.corpus.images or "none",
            "batch": f"{config.loader.batch_size} pairs",
        }

    def evaluate(
        self, run: PostTowerRun, config: EvaluateConfig, control: Control | None
    ) -> Metrics:
        """Similarity to the last item as a retrieval model, beside the untrained baselines.

        The baselines of content, ``last_post`` and ``mean_of_history``, use the tower as it was
        before training: the model against ``last_post`` is what training gave.
        """
        protocol = self.protocol(run.config, run.dataset, Split(config.split))
        scorer = _last_item(protocol, run.model.embed_all())
        return evaluate_retrieval(
            run.identity, config, protocol, scorer, untrained(run).embed_all()
        )


def write_run_embeddings(run: PostTowerRun, path: Path) -> None:
    """Write the embeddings of all items that have any feature, by raw id."""
    embeddings = run.model.embed_all().numpy()
    table = run.dataset.vocabulary("item").table
    index = table[INDEX].to_numpy()
    known: NDArray[np.bool_] = np.linalg.norm(embeddings[index], axis=1) > 0
    write_item_embeddings(path, table[RAW].filter(known), embeddings[index][known])


def untrained(run: PostTowerRun) -> ItemSimilarity:
    """The model with the weights that its training began with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.config.seed)
        return _model(run.config, run.model.corpus, run.manifest).eval()


def _model(
    config: PostTowerRunConfig, corpus: ItemFeatures, manifest: DatasetManifest
) -> ItemSimilarity:
    categorical = manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
    return ItemSimilarity(config.model, corpus, categorical, config.optim)


def _last_item(protocol: RetrievalProtocol, items: Tensor) -> DotProductScorer:
    users = last_item_embeddings(protocol.engagements, protocol.queries, items)
    return DotProductScorer(users, items)
