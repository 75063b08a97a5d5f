"""The inputs of the tables travel while the batch before theirs is computed.

The order is that of TorchRec's ``TrainPipelineSparseDist``: while batch i is computed, batch i + 1
is copied to the device, its table inputs are computed, how much goes where is exchanged beside the
forward of batch i, and the inputs themselves beside its backward. TorchRec traces the model to find
what its tables are asked; ours says so (``table_inputs``), and stays an ordinary LightningModule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.dist_data import KJTAllToAll
from torchrec.distributed.embedding_sharding import FusedKJTListSplitsAwaitable, KJTListAwaitable
from torchrec.distributed.train_pipeline.runtime_forwards import KJTAllToAllForward
from torchrec.distributed.types import Awaitable

from recsys.data.batches.tensor_batch import TensorBatch
from recsys.distributed.randomness import seed_of_step
from recsys.distributed.sharded_collection import SentFeatures, ShardedCollection
from recsys.nn.tables.inputs import TableInputs


@runtime_checkable
class HasTableInputs(Protocol):
    """A model that can say what its tables are asked before they are asked."""

    ready_inputs: TableInputs | None

    def table_inputs(self, batch: Any) -> TableInputs:
        """What the tables are asked for a batch."""

    def named_modules(self) -> Iterable[tuple[str, nn.Module]]:
        """Every ``nn.Module`` has them."""


@dataclass
class _OnTheWay:
    """The inputs of a batch.

    Attributes:
        contexts: what TorchRec notes of the features on their way, per collection.
        splits: exchange of how many of them go where, one for all collections.
        features: exchange of the features themselves, per collection, once it has begun.
    """

    batch: TensorBatch
    inputs: TableInputs
    contexts: dict[str, Any]
    splits: Awaitable[list[KJTListAwaitable]]
    features: dict[str, KJTListAwaitable]


class InputOverlap:
    """Has the table inputs of the next batch sent beside the work on the current one.

    All ranks must take the same steps.

    Args:
        model: with its tables sharded.
        device: where this process computes.
        seed: of what is drawn for the inputs, with a step's number and the rank.
    """

    def __init__(self, model: HasTableInputs, device: torch.device, seed: int) -> None:
        self._model = model
        self._collections = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, ShardedCollection)
        }
        self._device = device
        self._seed = seed
        on_gpu = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if on_gpu else None
        self._exchanges = torch.cuda.Stream(device) if on_gpu else None
        self._next: _OnTheWay | None = None

    def copy(self, batch: TensorBatch) -> TensorBatch:
        """The batch on the device, once the stream of copies is done."""
        with _on(self._copies):
            return batch.to(self._device, non_blocking=True)

    @contextmanager
    def around_step(
        self, batch: TensorBatch, following: TensorBatch | None, number: int
    ) -> Iterator[None]:
        """Make the inputs of ``batch`` ready, and send those of ``following`` meanwhile.

        Args:
            batch: of this step, from :meth:`copy`.
            following: of the next step, likewise; ``None`` where there is none.
            number: of this step in the run.
        """
        current, self._next = self._next, None
        if current is None or current.batch is not batch:
            current = self._begin(batch, number)
            self._send(current)
        self._model.ready_inputs = self._arrived(current)
        if following is not None:
            self._next = self._begin(following, number + 1)
        yield
        if self._next is not None:
            self._send(self._next)

    def _begin(self, batch: TensorBatch, number: int) -> _OnTheWay:
        """Compute the inputs, and start to exchange how much of them goes where."""
        with _on(self._exchanges):
            if self._exchanges is not None and self._copies is not None:
                self._exchanges.wait_stream(self._copies)
                batch.record_stream(self._exchanges)
            with torch.no_grad(), self._randomness_of(number):
                inputs = self._model.table_inputs(batch)
            collections = {path: self._collections[path] for path in inputs.features}
            contexts = {path: one.create_context() for path, one in collections.items()}
            with _splits_left_to_us(collections.values()):
                requests = [
                    collection.input_dist(contexts[path], inputs.features[path])
                    for path, collection in collections.items()
                ]
            splits = FusedKJTListSplitsAwaitable(
                requests, list(contexts.values()), dist.group.WORLD
            )
        return _OnTheWay(batch, inputs, contexts, splits, {})

    def _send(self, batch: _OnTheWay) -> None:
        """Send the features, as soon as it is known how many go where."""
        with _on(self._exchanges):
            sent = batch.splits.wait()
        batch.features = dict(zip(batch.contexts, sent, strict=True))

    def _arrived(self, batch: _OnTheWay) -> TableInputs:
        """The inputs, sent; the current stream may use them."""
        with _on(self._exchanges):
            sent: dict[str, Any] = {
                path: SentFeatures(batch.contexts[path], features.wait())
                for path, features in batch.features.items()
            }
        if self._exchanges is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_stream(self._exchanges)
            batch.batch.record_stream(stream)
            for one in sent.values():
                one.context.record_stream(stream)
                one.here.record_stream(stream)
            for other in batch.inputs.others.values():
                other.record_stream(stream)
        return TableInputs(sent, batch.inputs.others)

    @contextmanager
    def _randomness_of(self, number: int) -> Iterator[None]:
        """What is drawn depends on the step's number; the generators are left as they were.

        A resumed run computes the inputs of its first batch in that batch's own step, and the run
        before it a step earlier.
        """
        place = -1 - dist.get_rank()  # those of the step itself count from 0
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(seed_of_step(self._seed, number, place))
            yield


@contextmanager
def _splits_left_to_us(collections: Iterable[ShardedCollection]) -> Iterator[None]:
    """Input distributions say what they would exchange first, so that all do it at once.

    A collection has none before its first input: then it exchanges by itself.
    """
    exchanges = [
        distribution._dist
        for collection in collections
        for distribution in collection._input_dists
        if isinstance(getattr(distribution, "_dist", None), KJTAllToAll)
    ]
    for exchange in exchanges:
        exchange.forward = KJTAllToAllForward(exchange._pg, exchange._splits, exchange._stagger)
    try:
        yield
    finally:
        for exchange in exchanges:
            del exchange.forward


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)
