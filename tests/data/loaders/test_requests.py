"""The DataModule under Lightning: splits, resume in the middle of an epoch, sharding."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from recsys.core.errors import ConfigError
from recsys.data.batches.requests import RequestBatch
from recsys.data.loaders.requests import LoaderConfig, RequestDataModule
from recsys.data.loaders.split import BatchLoader
from recsys.data.stores.dataset import PreparedDataset


class Recorder(lightning.LightningModule):
    """A model of one weight that notes which rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []
        self.validated: list[int] = []

    def training_step(self, batch: RequestBatch, batch_index: int) -> torch.Tensor:
        self.seen.append(batch.row_id.tolist())
        return (self.weight - batch.labels.nanmean()).square()

    def validation_step(self, batch: RequestBatch, batch_index: int) -> None:
        self.validated.extend(batch.row_id.tolist())

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


class SaveAtEpochEnd(Callback):
    """Saves a checkpoint at the end of the first epoch and stops there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        trainer.save_checkpoint(self.path)
        trainer.should_stop = True


class Ahead(RequestDataModule):
    """Its training batches are read while the one before is in use."""

    def train_dataloader(self) -> BatchLoader:
        loader = super().train_dataloader()
        loader.read_ahead(lambda batch: batch)
        return loader


def datamodule(
    prepared: PreparedDataset, num_workers: int = 0, ahead: bool = False, **options
) -> RequestDataModule:
    return (Ahead if ahead else RequestDataModule)(
        LoaderConfig(batch_requests=16, shuffle_window=64, num_workers=num_workers, **options),
        prepared,
    )


def fit(data: RequestDataModule, *callbacks: Callback, resume_from: Path | None = None) -> Recorder:
    model = Recorder()
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume_from, weights_only=False)
    return model


@pytest.fixture(scope="module")
def uninterrupted(prepared: PreparedDataset) -> Recorder:
    return fit(datamodule(prepared))


def test_every_epoch_sees_every_row_in_another_order(prepared, uninterrupted: Recorder):
    steps = len(datamodule(prepared).train_dataloader())
    assert steps > 4
    epochs = [uninterrupted.seen[i : i + steps] for i in range(0, 3 * steps, steps)]
    for epoch in epochs:
        assert sorted(chain.from_iterable(epoch)) == list(range(prepared.requests("fit").num_rows))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert len(uninterrupted.validated) == 3 * prepared.requests("choose").num_rows


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("epoch", [0, 1])
def test_resume_in_the_middle_of_an_epoch_is_exact(
    prepared, uninterrupted: Recorder, tmp_path: Path, num_workers: int, ahead: bool, epoch: int
):
    step = epoch * len(datamodule(prepared).train_dataloader()) + 3
    path = tmp_path / "middle.ckpt"
    before = fit(datamodule(prepared, num_workers, ahead), SaveAt(step, path))
    after = fit(datamodule(prepared, num_workers, ahead), resume_from=path)
    assert before.seen == uninterrupted.seen[:step]
    assert after.seen == uninterrupted.seen[step:]
    assert after.weight.item() == uninterrupted.weight.item()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("ahead", [False, True])
def test_resume_at_the_end_of_an_epoch_is_exact(
    prepared, uninterrupted: Recorder, tmp_path: Path, num_workers: int, ahead: bool
):
    path = tmp_path / "end.ckpt"
    before = fit(datamodule(prepared, num_workers, ahead), SaveAtEpochEnd(path))
    after = fit(datamodule(prepared, num_workers, ahead), resume_from=path)
    assert before.seen + after.seen == uninterrupted.seen


def test_the_batch_after_the_one_in_use_is_at_hand(prepared: PreparedDataset):
    loader = datamodule(prepared, ahead=True).train_dataloader()
    following = None
    for count, batch in enumerate(loader):
        assert following is (batch if count else None)
        following = loader.following
    assert count + 1 == len(loader) and following is None


def test_resume_with_another_number_of_workers_is_one_sentence(prepared, tmp_path: Path):
    path = tmp_path / "middle.ckpt"
    fit(datamodule(prepared), SaveAt(2, path))
    with pytest.raises(ConfigError, match="resume with num_workers=0"):
        fit(datamodule(prepared, 1), resume_from=path)


def test_splits_and_their_order(prepared: PreparedDataset):
    data = datamodule(prepared)
    for loader, split in (
        (data.val_dataloader(), "choose"),
        (data.test_dataloader(), "report"),
    ):
        rows = [batch.row_id.tolist() for batch in loader]
        assert sorted(chain.from_iterable(rows)) == list(range(prepared.requests(split).num_rows))
        assert [batch.row_id.tolist() for batch in loader] == rows


@pytest.mark.parametrize("count", [1, 7, 10**6])
def test_a_sample_is_spread_over_the_split_and_the_same_on_all_ranks(
    prepared: PreparedDataset, count: int, monkeypatch
):
    requests = prepared.requests("fit")
    count_held = min(count, len(requests))
    times = []
    for rank in range(2):
        data = datamodule(prepared)
        monkeypatch.setattr(data, "_place", lambda rank=rank: (rank, 2))
        batches = list(data.sample("fit", count))
        times.append(torch.cat([batch.request_time for batch in batches]))
    expected = requests.request_time[np.arange(count_held) * len(requests) // count_held]
    np.testing.assert_array_equal(times[0], expected)
    assert torch.equal(*times)


def test_ranks_share_the_rows_evenly(prepared: PreparedDataset, monkeypatch):
    seen, steps = [], set()
    for rank in range(2):
        data = datamodule(prepared)
        monkeypatch.setattr(data, "_place", lambda rank=rank: (rank, 2))
        batches = [batch.row_id.tolist() for batch in data.train_dataloader()]
        steps.add(len(batches))
        seen.extend(chain.from_iterable(batches))
    assert len(steps) == 1
    assert sorted(seen) == list(range(prepared.requests("fit").num_rows))


@pytest.mark.parametrize("wrong", [{"batch_requests": 0}, {"gap_hours": -1.0}, {"num_workers": -1}])
def test_values_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LoaderConfig(**wrong)


@pytest.mark.parametrize("adds_sampler", [False, True])
def test_trainer_of_two_processes_must_not_shard_again(prepared, adds_sampler):
    data = datamodule(prepared)
    data.trainer = lightning.Trainer(
        devices=2,
        accelerator="cpu",
        strategy="ddp_spawn",
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=adds_sampler,
    )
    if adds_sampler:
        with pytest.raises(ConfigError, match="use_distributed_sampler=False"):
            data.val_dataloader()
    else:
        whole = len(datamodule(prepared).val_dataloader())
        assert len(data.val_dataloader()) == -(-whole // 2)
