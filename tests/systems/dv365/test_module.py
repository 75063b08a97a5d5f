"""DV365 end to end on a small log whose labels follow the topic of a user's history."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightning
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.data.batches.requests import RequestBatch
from recsys.data.contract.schema import (
    ACTION_TYPES,
    Feature,
    FeatureKind,
    FeatureSide,
    Task,
    TaskKind,
)
from recsys.data.slices.families import ActionFamily, Range, SliceConfig, WatchTimeFamily
from recsys.data.slices.slice_set import SliceSet
from recsys.nn.encoders import EncoderConfig
from recsys.nn.interaction.backbone import BackboneConfig
from recsys.nn.losses import LabelStatistics
from recsys.nn.sequence.recent_events import RecentEventsConfig
from recsys.optim.dense import DenseOptimizerConfig, ScheduleConfig, dense_parameters
from recsys.optim.fused import FusedOptimizerConfig
from recsys.systems.dv365.module import DV365, DV365Config, OptimConfig
from tests.manifests import EMPTY

USERS, ITEMS, TOPICS = 40, 60, 5
DAY = 86_400_000
NOW = 100 * DAY
TASKS = (Task("liked"), Task("watch_time", TaskKind.REGRESSION))
MANIFEST = replace(
    EMPTY,
    tasks=TASKS,
    features=(
        Feature("user_id", FeatureSide.USER, FeatureKind.CATEGORICAL, USERS),
        Feature("item_id", FeatureSide.ITEM, FeatureKind.CATEGORICAL, ITEMS),
        Feature("topic_id", FeatureSide.ITEM, FeatureKind.CATEGORICAL, TOPICS),
        Feature("position", FeatureSide.CONTEXT, FeatureKind.DENSE),
    ),
    vocabulary_sizes={"user": USERS, "item": ITEMS, "author": ITEMS, "topic": TOPICS},
    surfaces=("feed",),
    media_types=("video",),
)
SLICES = SliceSet.from_config(
    SliceConfig(
        actions=[ActionFamily(actions=["liked", "click"], windows=["7d", "all"])],
        watch_time=[WatchTimeFamily(ranges=[Range(5.0, 100.0)], windows=["all"])],
    ),
    MANIFEST.surfaces,
    MANIFEST.media_types,
)
CONFIG = DV365Config(
    dimension=8, backbone=BackboneConfig(user_vectors=4, over_sizes=[16], task_hidden_size=4)
)
FUNNEL = EncoderConfig(
    "funnel",
    compression_outputs=3,
    blocks=1,
    layers=1,
    stride=2,
    heads=1,
    feed_forward_factor=1,
)
OPTIM = OptimConfig(
    dense=DenseOptimizerConfig(learning_rate=5e-3),
    slice_tables=FusedOptimizerConfig(learning_rate=0.05),
    feature_tables=FusedOptimizerConfig(learning_rate=0.05),
    schedule=ScheduleConfig(warmup_steps=5, final_fraction=0.1),
)


def timeline(
    topics: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Events of ``topics`` [B], each by the user's favourite topic, 1 to 10 days old."""
    topic = topics.repeat_interleave(lengths).int()
    events = len(topic)
    age = torch.randint(DAY, 10 * DAY, (events,), generator=generator)
    item = topic + TOPICS * torch.randint(0, ITEMS // TOPICS, (events,), generator=generator)
    return {
        "lengths": lengths,
        "timestamp": NOW - age,
        "item": item.int(),
        "author": item.int(),
        "topic": topic,
        "media_type": torch.zeros(events, dtype=torch.int8),
        "surface": torch.zeros(events, dtype=torch.int8),
    }


def make_batch(seed: int, requests: int = 32, rows: int = 4) -> RequestBatch:
    """A row is liked, and watched for a minute, where its topic is that of the history."""
    generator = torch.Generator().manual_seed(seed)
    favourite = torch.randint(1, TOPICS, (requests,), generator=generator)
    lengths = torch.randint(1, 6, (requests,), generator=generator)
    explicit = timeline(favourite, lengths, generator)
    liked = ACTION_TYPES.index("liked")
    explicit["action_type"] = torch.full((len(explicit["item"]),), liked, dtype=torch.int8)
    implicit = timeline(favourite, lengths, generator)
    implicit["dwell_time"] = torch.full((len(implicit["item"]),), 20.0)
    implicit["video_duration"] = torch.full((len(implicit["item"]),), 30.0)
    item = torch.randint(0, ITEMS, (requests * rows,), generator=generator)
    topic = item % TOPICS
    match = (topic == favourite.repeat_interleave(rows)).float()
    liked_rate = 0.05 + 0.9 * match
    labels = torch.stack(
        [torch.bernoulli(liked_rate, generator=generator), 5.0 + 55.0 * match], dim=1
    )
    labels[::7, 1] = torch.nan
    return RequestBatch(
        request_time=torch.full((requests,), NOW),
        explicit=explicit,
        implicit=implicit,
        user_categorical=torch.randint(0, USERS, (requests, 1), generator=generator),
        user_dense=torch.empty(requests, 0),
        rows_per_request=torch.full((requests,), rows),
        item_categorical=torch.stack([item, topic], dim=1),
        item_dense=torch.randn(requests * rows, 1, generator=generator),
        labels=labels,
        row_id=torch.arange(requests * rows) + 1000 * seed,
    )


FIT = [make_batch(seed) for seed in range(40)]
CHOOSE = [make_batch(seed) for seed in range(100, 105)]


def statistics() -> LabelStatistics:
    return LabelStatistics.from_labels(torch.cat([batch.labels for batch in FIT]))


def make_model(encoder: EncoderConfig = FUNNEL, config: DV365Config = CONFIG) -> DV365:
    lightning.seed_everything(0, verbose=False)
    return DV365(config, MANIFEST, SLICES, encoder, OPTIM, statistics())


class Losses(lightning.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.values.append(outputs["loss"].item())


def make_trainer(folder: Path, epochs: int, *callbacks: lightning.Callback) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,  # FBGEMM's fused lookup has no kernel for inference tensors on CPU
        default_root_dir=folder,
        callbacks=list(callbacks),
    )


def loader(batches: list[RequestBatch]) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(batches, batch_size=None)


def fit(folder: Path, model: DV365, epochs: int = 1) -> tuple[list[float], dict[str, float]]:
    losses = Losses()
    trainer = make_trainer(folder, epochs, losses)
    trainer.fit(model, loader(FIT), loader(CHOOSE))
    return losses.values, {name: float(v) for name, v in trainer.callback_metrics.items()}


def test_history_is_learnt_through_the_backbone(tmp_path: Path) -> None:
    losses, metrics = fit(tmp_path, make_model(), epochs=2)
    _, baseline = fit(tmp_path, make_model(EncoderConfig("none")), epochs=2)
    assert losses[-1] < 0.5 * losses[0]
    assert metrics["val/ne/liked"] < 0.5
    assert metrics["val/ne/liked"] == metrics["val/ne/mean"]
    assert metrics["val/auc/liked"] > 0.9
    assert 0.8 < metrics["val/calibration/liked"] < 1.2
    assert baseline["val/ne/liked"] > 0.95
    assert metrics["val/mse/watch_time"] < 0.2 * baseline["val/mse/watch_time"]


@pytest.mark.parametrize("features", ["all", "none"])
def test_a_siamese_network_learns_the_history_too(tmp_path: Path, features: str) -> None:
    backbone = replace(CONFIG.backbone, kind="siamese", features=features)
    config = replace(CONFIG, backbone=backbone)
    losses, metrics = fit(tmp_path, make_model(config=config), epochs=3)
    assert losses[-1] < 0.6 * losses[0]
    assert metrics["val/auc/liked"] > 0.85


@pytest.mark.parametrize("kind", ["position_weighted", "hstu"])
def test_recent_events_are_read_beside_the_slices(tmp_path: Path, kind: str) -> None:
    config = replace(CONFIG, recent=RecentEventsConfig(kind, events=4, dropout=0.0))
    model = make_model(config=config)
    losses, metrics = fit(tmp_path, model, epochs=2)
    assert losses[-1] < 0.5 * losses[0]
    assert metrics["val/ne/liked"] < 0.6
    model.eval()
    batch = CHOOSE[0]
    with torch.no_grad():
        embedding = model.tower(batch.explicit, batch.implicit, batch.request_time)
        outputs = model.backbone(
            embedding,
            batch.user_categorical,
            batch.user_dense,
            batch.item_categorical,
            batch.item_dense,
            batch.request_index,
        )
        torch.testing.assert_close(model(batch), outputs)  # by the two halves of the lookups
        of_recent = embedding[:, model.tower.encoder.num_outputs :]
    assert of_recent.shape[1] == model.tower.recent.num_outputs
    assert of_recent.abs().sum() > 0


def test_recent_events_need_timelines() -> None:
    config = replace(CONFIG, recent=RecentEventsConfig("hstu"))
    with pytest.raises(ConfigError, match=r"recent.kind=hstu reads timelines, and encoder=none is"):
        make_model(EncoderConfig("none"), config)


def test_same_seed_gives_the_same_losses_bit_for_bit(tmp_path: Path) -> None:
    assert fit(tmp_path, make_model())[0] == fit(tmp_path, make_model())[0]


def test_without_timelines_there_is_no_tower_and_the_backbone_is_the_same(
    tmp_path: Path,
) -> None:
    model = make_model(EncoderConfig("none"))
    assert model.tower is None
    batch = FIT[0]
    other = replace(batch, explicit=FIT[1].explicit, implicit=FIT[1].implicit)
    model.eval()
    assert torch.equal(model(batch), model(other))
    names = {name.split(".")[0] for name, _ in model.backbone.named_children()}
    assert names < {name.split(".")[0] for name, _ in make_model().backbone.named_children()} | {
        "user_projection"
    }


def test_grouping_rows_by_request_changes_nothing() -> None:
    model = make_model().eval()
    grouped = make_batch(7, requests=1, rows=3)

    def three_times(timeline: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: column.repeat(3) for name, column in timeline.items()}

    alone = replace(
        grouped,
        request_time=grouped.request_time.repeat(3),
        explicit=three_times(grouped.explicit),
        implicit=three_times(grouped.implicit),
        user_categorical=grouped.user_categorical.repeat(3, 1),
        user_dense=grouped.user_dense.repeat(3, 1),
        rows_per_request=torch.ones(3, dtype=torch.int64),
    )
    torch.testing.assert_close(model(grouped), model(alone))


def test_cell_pooling_and_slice_pooling_are_the_same_model() -> None:
    cells = make_model().eval()
    slices = make_model(config=replace(CONFIG, pooling="slices")).eval()
    loaded = slices.load_state_dict(cells.state_dict(), strict=False)
    assert not {name for name, _ in slices.named_parameters()} & set(loaded.missing_keys)
    torch.testing.assert_close(cells(FIT[0]), slices(FIT[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["cells", "slices"])
def test_what_slices_hold_is_standardised_over_the_measured_requests(pooling: str) -> None:
    model = make_model(config=replace(CONFIG, pooling=pooling)).eval()
    model.measure_slices(FIT[:2])
    means = model.tower.pooling.means
    weights = torch.cat(
        [model.tower.pooling.slice_weights(b.explicit, b.implicit, b.request_time) for b in FIT[:2]]
    )
    fill = (weights.log1p() - means.count_mean) / means.count_deviation
    torch.testing.assert_close(fill.mean(dim=0), torch.zeros(fill.shape[1]), atol=1e-5, rtol=0)
    assert (fill.std(dim=0) > 0.5).any()


def test_tables_are_left_to_the_fused_optimiser() -> None:
    model = make_model()
    model.configure_model()
    tables = {p.data_ptr() for placed in model.tables.values() for p in placed.parameters()}
    dense = dense_parameters(model)
    assert not tables & {p.data_ptr() for p in dense}
    expected = {name for name, _ in model.named_parameters() if "embedding_bags" not in name}
    named = {id(p): name for name, p in model.named_parameters()}
    assert {named[id(p)] for p in dense} == expected


def test_resuming_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Epoch 2 after a restart equals epoch 2 of one run: weights, AdamW, fused state, schedule."""

    class Seed(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
            torch.manual_seed(trainer.global_step)

    class Halt(lightning.Callback):
        def on_train_epoch_end(self, trainer, module) -> None:  # type: ignore[no-untyped-def]
            trainer.should_stop = True

    straight = Losses()
    make_trainer(tmp_path, 2, straight, Seed()).fit(make_model(), loader(FIT))

    trainer = make_trainer(tmp_path, 2, Seed(), Halt())
    trainer.fit(make_model(), loader(FIT))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = Losses()
    lightning.seed_everything(99, verbose=False)
    model = DV365(CONFIG, MANIFEST, SLICES, FUNNEL, OPTIM)
    make_trainer(tmp_path, 2, resumed, Seed()).fit(
        model, loader(FIT), ckpt_path=tmp_path / "half.ckpt", weights_only=False
    )
    assert resumed.values == straight.values[len(FIT) :]


def test_inputs_that_are_ready_are_used_once() -> None:
    model = make_model().eval()
    first, second = FIT[0], replace(FIT[1], item_dense=FIT[0].item_dense)
    expected = model(first), model(second)
    model.ready_inputs = model.table_inputs(first)
    torch.testing.assert_close(model(second), expected[0])
    torch.testing.assert_close(model(second), expected[1])


def test_predictions_are_probabilities_and_seconds(tmp_path: Path) -> None:
    model = make_model()
    predicted = make_trainer(tmp_path, 1).predict(model, loader(CHOOSE))
    assert torch.equal(predicted[1]["row_id"], CHOOSE[1].row_id)
    outputs = model.eval()(CHOOSE[1])
    values = predicted[1]["predictions"]
    torch.testing.assert_close(values[:, 0], outputs[:, 0].double().sigmoid())
    torch.testing.assert_close(values[:, 1], outputs[:, 1].double())


def test_unknown_pooling_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="pooling=bags is unknown"):
        make_model(config=replace(CONFIG, pooling="bags"))
