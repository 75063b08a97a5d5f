"""One rank of test_retrieval_models.py: trains the sequence models and the post tower."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F

from recsys.data.batches.item_features import ItemFeatures
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.towers import TowerBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Feature, FeatureKind, FeatureSide
from recsys.data.loaders.item_pairs import ItemPairBatch
from recsys.distributed.strategy import TorchRecStrategy
from recsys.nn.interaction.mixture_of_logits import MixtureOfLogitsConfig
from recsys.optim.dense import DenseOptimConfig, ScheduleConfig
from recsys.systems.nxtpost.module import NxtPost, NxtPostConfig
from recsys.systems.nxtpost.net import ChannelConfig, SequenceTowerConfig
from recsys.systems.post_tower.module import ItemSimilarity, ItemSimilarityConfig
from recsys.systems.post_tower.net import PostTowerConfig
from recsys.systems.sequence.module import SequenceRecommender, SequenceRecommenderConfig
from recsys.systems.two_tower.module import TaskConfig, TwoTower, TwoTowerConfig
from recsys.systems.wide_and_deep.module import WideAndDeepRecommender
from recsys.systems.wide_and_deep.net import WideAndDeepConfig

sys.path.insert(0, str(Path(__file__).parent))
from ranks import train_by_sgd

STEPS, ITEMS = 5, 15
#: Users (or pairs of items) of each rank in every step.
USERS = (5, 3)
#: Of SGD: gradients of norm 1 at most.
LEARNING_RATE = 0.3
OPTIM = DenseOptimConfig(schedule=ScheduleConfig(2, 1.0))
COUNTRY = Feature("country", FeatureSide.USER, FeatureKind.CATEGORICAL, 4)
AUTHOR = Feature("author_id", FeatureSide.ITEM, FeatureKind.CATEGORICAL, 6)
MANIFEST = DatasetManifest(
    name="toy",
    source="toy",
    tasks=(),
    features=(COUNTRY,),
    vocabulary_sizes={"user": 99, "item": ITEMS, "author": 6, "topic": 1},
    surfaces=("unknown", "feed"),
    media_types=("unknown",),
    split_bounds={"fit": (0, 10), "choose": (10, 20), "report": (20, 30)},
    counts={},
    rejected={},
    fingerprint="",
)


def sequences(step: int, ranks: list[int]) -> SequenceBatch:
    """The users of some ranks; the items of the ranks overlap, and histories may be empty.

    In the second step all of the second rank's are, so that it has nothing for an encoder.
    """
    users: list[dict[str, Any]] = []
    for rank in ranks:
        generator = torch.Generator().manual_seed(2 * step + rank)
        for user in range(USERS[rank]):
            items = 1 + torch.randperm(ITEMS - 1, generator=generator)
            events, labels = torch.randint(0, 5, (2,), generator=generator).tolist()
            if (step, rank) == (1, 1):
                events = 0
            users.append(
                {
                    "query": sum(USERS) * step + USERS[0] * rank + user,
                    "history": items[:events],
                    "labels": items[events : events + 1 + labels],
                    "country": torch.randint(0, 4, (1,), generator=generator),
                }
            )
    query = torch.tensor([user["query"] for user in users])
    item = torch.cat([user["history"] for user in users])
    return SequenceBatch(
        user=query,
        request_time=torch.full_like(query, 10**6),
        lengths=torch.tensor([len(user["history"]) for user in users]),
        item=item,
        action_type=torch.ones_like(item),
        surface=torch.ones_like(item),
        timestamp=item * 1000,
        label_lengths=torch.tensor([len(user["labels"]) for user in users]),
        label_item=torch.cat([user["labels"] for user in users]),
        user_categorical=torch.stack([user["country"] for user in users]),
        user_dense=torch.empty(len(users), 0),
        query_id=query,
    )


def towers(step: int, ranks: list[int]) -> TowerBatch:
    """``sequences`` with tasks, hard negatives and published embeddings, which some have."""
    read = sequences(step, ranks)
    given = torch.Generator().manual_seed(step)
    tasks, published = (
        torch.rand(99, ITEMS, 2, generator=given),
        torch.randn(99, 3, 4, generator=given),
    )
    owner = torch.repeat_interleave(read.user, read.label_lengths)
    has = read.user % 3 > 0
    return TowerBatch(
        **vars(read),
        label_tasks=(tasks[owner, read.label_item] < 0.5).float(),
        negative_item=1 + (read.user * 5 + step) % (ITEMS - 1),
        user_embedding=published[read.user] * has[:, None, None],
        has_embedding=has,
    )


def pairs(step: int, ranks: list[int]) -> ItemPairBatch:
    """The pairs of items of some ranks."""
    parts = []
    for rank in ranks:
        generator = torch.Generator().manual_seed(2 * step + rank)
        parts.append(torch.randint(1, ITEMS, (2, USERS[rank]), generator=generator))
    earlier, later = torch.cat(parts, dim=1)
    return ItemPairBatch(earlier=earlier, later=later)


def _nxtpost(config: NxtPostConfig | None = None, **tower: Any) -> NxtPost:
    items = F.normalize(torch.randn(ITEMS, 6), dim=1)
    sizes = SequenceTowerConfig(width=8, heads=2, dropout=0.0, max_length=10, **tower)
    model = NxtPost(replace(config or NxtPostConfig(), tower=sizes), MANIFEST, items, OPTIM)
    model.validate = lambda users: {"mean": float(users.mean()), "first": float(users[0, 0])}
    return model


def _nxtpost_of_steps() -> NxtPost:
    """The user embedding, with weights of its own, is in no loss."""
    return _nxtpost(NxtPostConfig(long_term=0.0), pooling="attention")


def _nxtpost_of_channels() -> NxtPost:
    """A user has no state without an event, and one channel has none of any user."""
    channels = [ChannelConfig(actions=["click"]), ChannelConfig(actions=["hide"])]
    return _nxtpost(NxtPostConfig(short_term=0.0), cls=False, channels=channels)


def _sequence(encoder: str) -> SequenceRecommender:
    config = SequenceRecommenderConfig(
        encoder, width=8, dropout=0.0, max_length=6, has_times=encoder == "hstu"
    )
    # items from 12 on came after the fit period
    return SequenceRecommender(config, 12, OPTIM)


def _wide_and_deep() -> WideAndDeepRecommender:
    config = WideAndDeepConfig(width=8, hidden_sizes=[7], cross_buckets=100, id_dropout=0.0)
    return WideAndDeepRecommender(config, ITEMS, MANIFEST, OPTIM)


def _corpus() -> ItemFeatures:
    return ItemFeatures(
        text=torch.empty(0, dtype=torch.int64),
        text_lengths=torch.zeros(ITEMS, dtype=torch.int64),
        images=torch.empty(0, 0),
        image_lengths=torch.zeros(ITEMS, dtype=torch.int64),
        categorical=torch.randint(0, 6, (ITEMS, 1)),
        dense=torch.randn(ITEMS, 2),
        has_dense=torch.ones(ITEMS, dtype=torch.bool),
        given=torch.empty(ITEMS, 0),
        has_given=torch.zeros(ITEMS, dtype=torch.bool),
    )


def _post_tower() -> ItemSimilarity:
    tower = PostTowerConfig(width=8, output_width=8, id_dropout=0.0, dropout=0.0)
    config = ItemSimilarityConfig(tower=tower)
    return ItemSimilarity(config, _corpus(), (AUTHOR,), OPTIM)


def _two_tower(similarity: str) -> TwoTower:
    items = PostTowerConfig(width=8, output_width=8, id_dropout=0.0, dropout=0.0)
    config = TwoTowerConfig(
        items=items,
        users=SequenceTowerConfig(width=8, heads=2, dropout=0.0, max_length=10),
        similarity=similarity,
        mixture=MixtureOfLogitsConfig(width=4, gate_hidden_size=8),
        tasks=[TaskConfig("click"), TaskConfig("liked", 2.0)],
    )
    model = TwoTower(config, MANIFEST, _corpus(), (3, 4), OPTIM)
    model.log_share = torch.linspace(-4, -1, ITEMS)
    return model


MODELS: dict[str, tuple[Callable[[], lightning.LightningModule], Callable[..., Any]]] = {
    "nxtpost": (_nxtpost, sequences),
    "nxtpost_of_steps": (_nxtpost_of_steps, sequences),
    "nxtpost_of_channels": (_nxtpost_of_channels, sequences),
    "sasrec": (partial(_sequence, "sasrec"), sequences),
    "hstu": (partial(_sequence, "hstu"), sequences),
    "wide_and_deep": (_wide_and_deep, sequences),
    "post_tower": (_post_tower, pairs),
    "two_tower": (lambda: _two_tower("dot"), towers),
    "two_tower_mixture": (lambda: _two_tower("mixture"), towers),
}


class Logged(lightning.Callback):
    """The losses that would be logged."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def train(name: str, ranks: list[int], folder: Path, **settings: Any) -> dict[str, Any]:
    """Losses, validation metrics and weights of a model trained on the parts of some ranks."""
    lightning.seed_everything(0, verbose=False)
    build, batch = MODELS[name]
    model = build()
    train_by_sgd(model, LEARNING_RATE)
    batches = [batch(step, ranks) for step in range(STEPS)]
    logged = Logged()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        default_root_dir=folder,
        callbacks=[logged],
        **settings,
    )
    loaders = [torch.utils.data.DataLoader(batches, batch_size=None) for _ in range(2)]
    trainer.fit(model, *loaders)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return {"losses": logged.losses, "metrics": metrics, "state": model.state_dict()}


def main(folder: Path) -> None:
    """Train every model on this rank's part."""
    rank = int(os.environ["RANK"])
    results = {
        name: train(name, [rank], folder, devices=2, strategy=TorchRecStrategy()) for name in MODELS
    }
    torch.save(results, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
