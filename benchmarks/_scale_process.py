"""One process of `recsys bench scale`, pinned to a core: a training, or a checkpoint."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import psutil
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from benchmarks._training import build_model
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.contract.schema import Split
from recsys.data.loaders.requests import RequestDataModule
from recsys.data.loaders.sampling import BatchBounds, RequestBatchSampler
from recsys.data.loaders.split import BatchLoader
from recsys.data.stores.dataset import PreparedDataset
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.save import items_of, write_folder
from recsys.distributed.checkpoint.tensors import WEIGHTS, HeldTensor
from recsys.distributed.config import TORCHREC, StrategyConfig
from recsys.distributed.placement import Sharded
from recsys.distributed.processes import process_group, start_group_of_one
from recsys.distributed.strategy import TorchRecStrategy
from recsys.optim.dense import DenseOptimConfig
from recsys.systems.dv365.module import DV365
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.nxtpost.module import NxtPost, NxtPostConfig

#: Steps that are not measured.
WARM_UP = 3
#: Items of NxtPost's corpus, their width, events of a history, and labels.
_ITEMS, _WIDTH, _EVENTS, _LABELS = 20_000, 64, 50, 4
#: Batches that are made before the training, and trained on in turn.
_BATCHES = 4
_TABLE_WIDTH = 64
_MINUTES = 10.0


@dataclass(frozen=True)
class Way:
    """How a system is trained.

    Attributes:
        processes: number of ranks.
        plain: a loop over the same modules without Lightning; its processes know nothing of each
            other.
        overlap: whether the inputs of the tables travel while the batch before is computed.
    """

    processes: int
    plain: bool = False
    overlap: bool = True


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        system: ``dv365`` or ``nxtpost``.
        way: how it is trained.
        requests: requests or users per process and step.
        steps: measured ones.
        run: configuration of DV365 and of its data; NxtPost takes features and surfaces from it.
    """

    system: str
    way: Way
    requests: int
    steps: int
    run: DV365RunConfig


def train(task: Task) -> dict[str, float]:
    """Median seconds of a step, and bytes that a step sends over the loopback interface."""
    _pin()
    with _alone() if task.way.plain else process_group(task.way.processes, "gloo", _MINUTES):
        dataset = PreparedDataset.open(task.run.data.out_folder)
        build = {"dv365": _dv365, "nxtpost": _nxtpost}[task.system]
        model, batches = build(task, dataset)
        meter = _Meter()
        if task.way.plain:
            _plain_loop(model, batches, task.steps, meter)
        else:
            _under_strategy(model, batches, task, meter)
        return meter.figures()


def checkpoint(folder: str, mebibytes: int, processes: int) -> dict[str, float]:
    """Seconds to write and to read a table of this size, of which every process has a share."""
    _pin()
    with process_group(processes, "gloo", _MINUTES):
        rank = dist.get_rank()
        rows = mebibytes * 2**20 // 4 // _TABLE_WIDTH // processes
        shard = ((rank * rows, 0), torch.rand(rows, _TABLE_WIDTH))
        name = "tables.embedding_bags.item.weight"
        held = HeldTensor((rows * processes, _TABLE_WIDTH), (shard,))
        items = items_of({WEIGHTS: {name: held}, "global_step": 1}, rank, copies=None)
        group = dist.new_group(backend="gloo")
        path = Path(folder) / f"{processes}.ckpt"

        def read() -> None:
            stored = open_checkpoint(path)
            stored.check(rank, processes)
            stored.tensors()[WEIGHTS, name].copy_to([shard])

        return {
            "write": _seconds(lambda: write_folder(items, path, 1, group)),
            "read": _seconds(read),
        }


def _pin() -> None:
    """To a core of its own, with one thread."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["RANK"]) % len(cores)]})
    torch.set_num_threads(1)


@contextmanager
def _alone() -> Iterator[None]:
    """In a group of this process, until the block ends."""
    start_group_of_one("gloo")
    yield
    dist.destroy_process_group()


def _seconds(work: Callable[[], None]) -> float:
    """Until all processes are done."""
    dist.barrier()
    start = time.perf_counter()
    work()
    dist.barrier()
    return time.perf_counter() - start


class _Meter(lightning.Callback):
    """Notes time and traffic at the end of every step."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.sent: list[int] = []

    def tick(self) -> None:
        """A step is done."""
        self.moments.append(time.perf_counter())
        self.sent.append(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)

    def on_train_batch_end(self, *_: Any) -> None:
        self.tick()

    def figures(self) -> dict[str, float]:
        """Of the steps after the first few."""
        moments, sent = self.moments[WARM_UP:], self.sent[WARM_UP:]
        durations = [after - before for before, after in itertools.pairwise(moments)]
        return {
            "seconds": statistics.median(durations),
            "bytes": (sent[-1] - sent[0]) / len(durations),
        }


def _dv365(task: Task, dataset: PreparedDataset) -> tuple[DV365, list[Any]]:
    """The model of `recsys train`, and batches of the fit split.

    Those that two ranks would have: in a step both have histories of about the same length.
    """
    data = RequestDataModule(task.run.loader, dataset)
    sample = data._requests(Split.FIT)
    sampler = RequestBatchSampler(
        sample.num_events(),
        BatchBounds(task.requests, task.run.loader.batch_events),
        shuffle=True,
        window=task.run.loader.shuffle_window,
        seed=0,
        rank=dist.get_rank(),
        num_ranks=2,
    )
    batches = [sample[positions] for positions in itertools.islice(sampler, _BATCHES)]
    return build_model(task.run, dataset), batches


def _nxtpost(task: Task, dataset: PreparedDataset) -> tuple[NxtPost, list[Any]]:
    """The default tower over random item embeddings and random histories."""
    torch.manual_seed(0)
    items = F.normalize(torch.randn(_ITEMS, _WIDTH), dim=1)
    model = NxtPost(NxtPostConfig(), dataset.manifest, items, DenseOptimConfig())
    torch.manual_seed(dist.get_rank())
    return model, [_histories(task.requests, dataset) for _ in range(_BATCHES)]


def _histories(users: int, dataset: PreparedDataset) -> SequenceBatch:
    features = dataset.user_features

    def ids(count: int, high: int) -> Tensor:
        return torch.randint(1, high, (count,))

    events = users * _EVENTS
    return SequenceBatch(
        user=torch.arange(users),
        request_time=torch.full((users,), 10**9),
        lengths=torch.full((users,), _EVENTS),
        item=ids(events, _ITEMS),
        action_type=ids(events, 2),
        surface=torch.zeros(events, dtype=torch.int64),
        timestamp=torch.arange(events) * 1000,
        label_lengths=torch.full((users,), _LABELS),
        label_item=ids(users * _LABELS, _ITEMS),
        user_categorical=torch.from_numpy(features.categorical[:users].astype("int64")),
        user_dense=torch.from_numpy(features.dense[:users].copy()),
        query_id=torch.arange(users),
    )


def _under_strategy(model: Any, batches: list[Any], task: Task, meter: _Meter) -> None:
    total = WARM_UP + task.steps + 1
    config = StrategyConfig(name=TORCHREC, overlap_inputs=task.way.overlap)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        strategy=TorchRecStrategy(config),
        max_steps=total,
        use_distributed_sampler=False,
        inference_mode=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[meter],
    )
    repeated = [batches[step % len(batches)] for step in range(total)]
    trainer.fit(model, BatchLoader(repeated, batch_size=None))


def _plain_loop(model: Any, batches: list[Any], steps: int, meter: _Meter) -> None:
    """Forward, backward and updates, as short as PyTorch allows."""
    if isinstance(model, DV365):
        model.placement = Sharded(StrategyConfig(name=TORCHREC), torch.device("cpu"), 1)
        model.configure_model()
    optimizer = model.configure_optimizers()["optimizer"]
    for step in range(WARM_UP + steps + 1):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        if isinstance(model, DV365):
            loss = model.loss(model(batch), batch.labels)
        else:
            loss = model._total(model.losses(batch))
        loss.backward()
        if isinstance(model, DV365):
            model.on_after_backward()
        optimizer.step()
        meter.tick()
