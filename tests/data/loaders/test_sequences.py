"""Sequences under Lightning: every user once an epoch, exact resume, shares of ranks, bucketing."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback

from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore


class Recorder(lightning.LightningModule):
    """A model of one weight that notes which queries, cuts and histories it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[list[int], ...]] = []

    def training_step(self, batch: SequenceBatch, batch_index: int) -> torch.Tensor:
        self.seen.append(
            tuple(t.tolist() for t in (batch.query_id, batch.label_item, batch.lengths))
        )
        return (self.weight - batch.label_item.float().mean()).square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    """Saves a checkpoint after some step and stops there, as a preempted job does."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def datamodule(prepared: PreparedDataset, num_workers: int = 0, **options) -> SequenceDataModule:
    options = {"batch_size": 5, "max_length": 20, "labels": 3} | options
    return SequenceDataModule(
        SequenceLoaderConfig(num_workers=num_workers, **options),
        prepared,
        EngagementStore.open(prepared, SequenceConfig(repeats=True)),
    )


def fit(
    data: SequenceDataModule, *callbacks: Callback, resume_from: Path | None = None
) -> Recorder:
    model = Recorder()
    lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        limit_val_batches=0,
    ).fit(model, datamodule=data, ckpt_path=resume_from, weights_only=False)
    return model


@pytest.fixture(scope="module")
def uninterrupted(prepared: PreparedDataset) -> Recorder:
    return fit(datamodule(prepared))


def test_every_epoch_has_every_user_once_with_another_cut(prepared, uninterrupted: Recorder):
    data = datamodule(prepared)
    steps = len(data.train_dataloader())
    assert steps == 6 and len(uninterrupted.seen) == 3 * steps
    users = data.queries("fit").user.tolist()
    assert len(users) == 27
    epochs = [uninterrupted.seen[i : i + steps] for i in range(0, 3 * steps, steps)]
    for epoch in epochs:
        assert sorted(chain.from_iterable(batch[0] for batch in epoch)) == users
        assert {len(batch[0]) for batch in epoch} == {4, 5}
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("step", [4, 9])
def test_resume_in_the_middle_of_an_epoch_is_exact(
    prepared, uninterrupted: Recorder, tmp_path: Path, num_workers: int, step: int
):
    path = tmp_path / "middle.ckpt"
    before = fit(datamodule(prepared, num_workers), SaveAt(step, path))
    after = fit(datamodule(prepared, num_workers), resume_from=path)
    assert before.seen == uninterrupted.seen[:step]
    assert after.seen == uninterrupted.seen[step:]


@pytest.mark.parametrize("split", ["fit", "choose", "report"])
def test_ranks_share_the_queries(prepared, monkeypatch, split):
    seen, steps = [], set()
    for rank in range(3):
        data = datamodule(prepared)
        monkeypatch.setattr(data, "_place", lambda rank=rank: (rank, 3))
        batches = [batch.query_id.tolist() for batch in data.loader(split, shuffle=True)]
        steps.add(len(batches))
        seen.extend(chain.from_iterable(batches))
    assert len(steps) == 1
    assert sorted(seen) == datamodule(prepared).queries(split).query_id.tolist()


def test_evaluation_keeps_its_order(prepared):
    data = datamodule(prepared, batch_size=64)
    ids = [batch.query_id.tolist() for batch in data.test_dataloader()]
    queries = data.queries("report")
    assert list(chain.from_iterable(ids)) == list(range(len(queries)))
    store = data.engagements
    first, last = prepared.manifest.split_bounds["report"]
    inside = (store.timestamp >= first) & (store.timestamp < last)
    assert len(queries) == inside.sum() > 100


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12), st.integers(0, 100), st.booleans())
def test_no_batch_looks_at_or_behind_its_label(prepared, batch_size, seed, repeats):
    """Reads every batch beside the timelines themselves."""
    store = EngagementStore.open(prepared, SequenceConfig(repeats=repeats))
    config = SequenceLoaderConfig(batch_size=batch_size, max_length=15, labels=4, seed=seed)
    data = SequenceDataModule(config, prepared, store)
    fit_end = prepared.manifest.split_bounds["fit"][1]
    for split, loader in (("fit", data.train_dataloader()), ("choose", data.val_dataloader())):
        for batch in loader:
            owner = torch.repeat_interleave(torch.arange(len(batch.user)), batch.lengths)
            assert (batch.timestamp < batch.request_time[owner]).all()
            assert (batch.lengths <= 15).all()
            assert (batch.label_lengths >= 1).all()
            limit = 4 if split == "fit" else 1
            assert (batch.label_lengths <= limit).all()
            if split == "fit":
                assert (batch.request_time < fit_end).all()
            if not repeats:
                labels = torch.repeat_interleave(torch.arange(len(batch.user)), batch.label_lengths)
                history = set(zip(owner.tolist(), batch.item.tolist(), strict=True))
                assert history.isdisjoint(
                    zip(labels.tolist(), batch.label_item.tolist(), strict=True)
                )


def test_bucketing_brings_similar_lengths_together(prepared):
    def spread(length_bucketing: bool) -> float:
        data = datamodule(prepared, max_length=500, length_bucketing=length_bucketing)
        loader = data.train_dataloader()
        spreads = []
        for epoch in range(5):
            loader.sampler.set_epoch(epoch)
            batches = list(loader)
            users = sorted(chain.from_iterable(batch.user.tolist() for batch in batches))
            assert users == data.queries("fit").user.tolist()
            spreads += [float(batch.lengths.float().std()) for batch in batches]
        return float(np.mean(spreads))

    assert spread(True) < 0.5 * spread(False)


def test_period_of_the_whole_log_is_the_store(prepared):
    store = EngagementStore.open(prepared, SequenceConfig(repeats=True))
    positions = store.events_between(0, 11 * DAY)
    assert sorted(positions.tolist()) == list(range(len(store)))
