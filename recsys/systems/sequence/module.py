"""SASRec and HSTU: the next item from learned item ids and the order in which they came."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from recsys.core.bounds import Few, Length, OneOf, Positive, Settings, ShareBelowOne, Width
from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.distributed.gather import relative_share
from recsys.distributed.schedules import scheduled_optimizer
from recsys.distributed.training_log import log_losses
from recsys.nn.dropout import FastDropout
from recsys.nn.sequence.base import SequenceEncoder, step_number, user_of_step
from recsys.nn.sequence.hstu import HSTUEncoder
from recsys.nn.sequence.sasrec import SASRecEncoder
from recsys.nn.softmax.pool_softmax import pool_softmax_loss
from recsys.optim.dense import DenseOptimConfig
from recsys.systems.kinds.retrieval_module import RetrievalModule

_ENCODERS = ("sasrec", "hstu")

#: Standard deviation of item and position embeddings at the start.
_INITIAL_SPREAD = 0.02


@dataclass(frozen=True)
class SequenceRecommenderConfig(Settings):
    """The model.

    Attributes:
        encoder: ``sasrec`` or ``hstu``.
        width: D.
        blocks: of the encoder.
        heads: attention heads of a block; they divide ``width``.
        dropout: of the tokens and inside the blocks.
        max_length: T, the longest sequence; the loader's ``max_length`` is at most that.
        scale: the logits are cosines of state and item times this; None for dot products.
        has_times: HSTU's attention looks at time differences; None: where the data set has times.
    """

    encoder: Annotated[str, OneOf(_ENCODERS)] = "sasrec"
    width: Width = 50
    blocks: Few = 2
    heads: Few = 1
    dropout: ShareBelowOne = 0.2
    max_length: Length = 200
    scale: Positive | None = None
    has_times: bool | None = False

    def __post_init__(self) -> None:
        """Refuse what SASRec does not have."""
        super().__post_init__()
        if self.has_times and self.encoder == "sasrec":
            raise ConfigError("model.has_times is no option of SASRec; leave it out.")


class SequenceRecommender(RetrievalModule):
    """Item ids → tokens → encoder → softmax over the whole catalogue, at every step.

    A token is the item's embedding times √D plus the embedding of its place, counted from the end
    of the sequence, as in the authors' code of SASRec. State t predicts the item of step t + 1,
    the last state the query's label; who has no history is represented by a learned state, which
    is trained to predict the first item of every sequence.

    The catalogue is the fit vocabulary. All other items are the unknown id 0, which is never a
    target: the softmax pushes it away from every state.

    Args:
        config: encoder and sizes.
        num_items: size of the fit vocabulary of items, the unknown id included.
        optim: optimiser and schedule.
    """

    def __init__(
        self, config: SequenceRecommenderConfig, num_items: int, optim: DenseOptimConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.optim = optim
        self.num_items = num_items
        # a dense table: the softmax has a gradient for every row in every step
        self.items = nn.Embedding(num_items, config.width)
        self.positions = nn.Embedding(config.max_length, config.width)
        self.no_history = nn.Parameter(torch.empty(config.width))
        for weight in (self.items.weight, self.positions.weight, self.no_history):
            nn.init.normal_(weight, std=_INITIAL_SPREAD)
        self.dropout = FastDropout(config.dropout)
        self.encoder = _encoder(config)

    def states(self, batch: SequenceBatch) -> Tensor:
        """[E, D]: state t has seen the items up to t."""
        num_steps = len(batch.item)
        from_end = torch.repeat_interleave(batch.lengths, batch.lengths, output_size=num_steps)
        from_end = from_end - 1 - step_number(batch.lengths, num_steps)  # [E]
        tokens = self.items(self._known(batch.item)) * math.sqrt(self.config.width)
        tokens = self.dropout(tokens + self.positions(from_end))
        states: Tensor = self.encoder(tokens, batch.lengths, batch.timestamp, batch.host_lengths)
        return states

    def forward(self, batch: SequenceBatch) -> Tensor:
        """[B, D]: the user embeddings, L2-normalised where the logits are cosines."""
        # one more row, for users without history
        rows = torch.cat([self.states(batch), self.no_history.unsqueeze(0)])
        last = torch.cumsum(batch.lengths, dim=0) - 1
        last = last.masked_fill(batch.lengths == 0, len(batch.item))
        return self._normalised(rows.index_select(0, last))

    def item_embeddings(self, vocabulary_size: int) -> Tensor:
        """[V, D]: a row per item index, L2-normalised where the logits are cosines."""
        items = torch.arange(vocabulary_size, device=self.items.weight.device)
        return self._normalised(self.items(self._known(items)))

    def training_step(self, batch: SequenceBatch, _: int) -> Tensor:
        """Mean cross-entropy of the next item over all steps of a batch."""
        users = len(batch.lengths)
        queries = torch.cat([self.states(batch), self.no_history.expand(users, -1)])  # [E + B, D]
        targets = self._known(torch.cat(next_items(batch)))
        loss = self._loss(self._normalised(queries), targets)
        log_losses(self, {"loss": loss}, users)
        return loss

    def label_loss(self, users: Tensor, batch: SequenceBatch) -> Tensor:
        """Mean cross-entropy of each query's first label."""
        return self._loss(users, self._known(_first_labels(batch)))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with its schedule."""
        return scheduled_optimizer(self, self.optim)

    def _known(self, items: Tensor) -> Tensor:
        """Items that are not in the fit vocabulary become the unknown id."""
        return items * (items < self.num_items)

    def _normalised(self, embeddings: Tensor) -> Tensor:
        return embeddings if self.config.scale is None else F.normalize(embeddings, dim=1)

    def _loss(self, queries: Tensor, targets: Tensor) -> Tensor:
        """Softmax over the catalogue; queries whose target is unknown have no part in it.

        Its mean over the ranks is the mean over the queries of all ranks.
        """
        weights = (targets > 0).to(queries.dtype)
        loss: Tensor = pool_softmax_loss(
            queries,
            self._normalised(self.items.weight),
            targets,
            scale=self.config.scale or 1.0,
            weights=weights,
        )
        return loss * relative_share(weights.sum()).to(loss.dtype)


def next_items(batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """What the states are to predict.

    Returns:
        The item after each event [E], the first label after the last; and the first item of each
        user [B], the first label where there is no history.
    """
    labels, num_events, num_users = _first_labels(batch), len(batch.item), len(batch.lengths)
    # every user's history followed by the first label
    users = torch.arange(num_users, device=labels.device)
    ends = torch.cumsum(batch.lengths, dim=0) + users
    starts = ends - batch.lengths
    events = torch.arange(num_events, device=labels.device)
    events = events + user_of_step(batch.lengths, num_events)
    items = batch.item.new_empty(num_events + num_users)
    items = items.index_copy(0, events, batch.item).index_copy(0, ends, labels)
    return items.index_select(0, events + 1), items.index_select(0, starts)


def _first_labels(batch: SequenceBatch) -> Tensor:
    """[B]."""
    starts = torch.cumsum(batch.label_lengths, dim=0) - batch.label_lengths
    return batch.label_item[starts]


def _encoder(config: SequenceRecommenderConfig) -> SequenceEncoder:
    sizes = (config.width, config.blocks, config.heads, config.dropout)
    if config.encoder == "sasrec":
        return SASRecEncoder(*sizes)
    return HSTUEncoder(*sizes, max_length=config.max_length, has_times=bool(config.has_times))
