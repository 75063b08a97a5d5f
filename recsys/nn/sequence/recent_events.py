"""A user's most recent events as vectors beside the pooled slices (DV365 appendix C).

Legend: B requests, E events over all requests (jagged), D width, M vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec import EmbeddingBagConfig, KeyedJaggedTensor

from recsys.core.bounds import Few, Number, OneOf, Settings, ShareBelowOne
from recsys.nn.sequence.base import newest_steps, step_number, user_of_step
from recsys.nn.sequence.hstu import HSTUEncoder
from recsys.nn.sequence.pooling import LastPooling, SumPooling
from recsys.nn.tables.collection import IdSpread, bag_collection, hash_index

#: What is looked up of an event.
_IDS = ("item", "author", "topic")
#: Standard deviation at the start of what is added to the ids' rows.
_SMALL_SPREAD = 0.02


@dataclass(frozen=True)
class RecentEventsConfig(Settings):
    """What is made of the most recent events beside the slices.

    Attributes:
        kind: ``none``; ``position_weighted``: a mean with a learned weight per position; ``hstu``.
        events: newest ones of both timelines together.
        blocks: of ``hstu``.
        heads: of a block; they divide the width.
        dropout: inside the blocks.
    """

    kind: Annotated[str, OneOf(("none", "position_weighted", "hstu"))] = "none"
    events: Annotated[int, Number(at_least=1, at_most=70_000)] = 1000
    blocks: Few = 2
    heads: Few = 2
    dropout: ShareBelowOne = 0.1


class PositionWeightedPooling(nn.Module):
    """``Σ exp(w_p) x_p / Σ exp(w_p)`` over the chosen events of a user, p = 0 the newest event.

    It starts as their mean; a user without any has zeros. The paper's "positional weight for each
    item" may be any number, ours are above 0, so that no sum of weights vanishes.

    Args:
        max_length: number of positions.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(max_length))
        self.sum = SumPooling()

    def forward(self, tokens: Tensor, lengths: Tensor, chosen: Tensor) -> Tensor:
        """Pool.

        Args:
            tokens: [E, D], each user's oldest first.
            lengths: [B] int64, at most ``max_length``.
            chosen: [E] bool.

        Returns:
            [B, D].
        """
        steps = tokens.shape[0]
        length = torch.repeat_interleave(lengths, lengths, output_size=steps)
        from_newest = length - 1 - step_number(lengths, steps)
        weight = (self.weight.index_select(0, from_newest).exp() * chosen).unsqueeze(1)
        total = self.sum(weight, lengths)
        pooled: Tensor = self.sum(tokens * weight, lengths) / total.masked_fill(total == 0, 1.0)
        return pooled


class RecentStates(nn.Module):
    """The newest state of HSTU over a user's events; zeros for a user without any.

    Where nothing is trained on a CPU, users are encoded one by one: shapes, and with them the
    order in which a product adds, are then those of the user alone.

    Args:
        width: D.
        config: sizes.

    Raises:
        ConfigError: the heads do not divide the width.
    """

    def __init__(self, width: int, config: RecentEventsConfig) -> None:
        super().__init__()
        self.encoder = HSTUEncoder(
            width, config.blocks, config.heads, config.dropout, config.events, has_times=True
        )
        self.last = LastPooling()

    def forward(self, tokens: Tensor, lengths: Tensor, times: Tensor) -> Tensor:
        """[E, D], [B] and [E] ms → [B, D]."""
        if self.training or tokens.device.type != "cpu":
            states = self.encoder(tokens, lengths, times)
        else:
            states = self._one_by_one(tokens, lengths, times)
        newest: Tensor = self.last(states, lengths)
        return newest

    def _one_by_one(self, tokens: Tensor, lengths: Tensor, times: Tensor) -> Tensor:
        sizes: list[int] = lengths.tolist()
        of_times = times.split(sizes)
        states: list[Tensor] = [tokens[:0]]
        for user, of_user in enumerate(tokens.split(sizes)):
            # copied, for where a tensor lies in memory may matter too
            states.append(self.encoder(of_user.clone(), lengths[user : user + 1], of_times[user]))
        return torch.cat(states)


class RecentEvents(nn.Module):
    """The newest events of both timelines, in order of time, as M vectors of width D.

    An event is the sum of the rows of its item, author and topic, of what was done and of how long
    was looked, as the ranker's events are; its tables start with the rows of the slices' tables.
    ``position_weighted`` gives the mean of explicit and that of implicit events, each with weights
    of its own; ``hstu`` one state that has seen all.

    Args:
        config: which; not ``none``.
        table_rows: rows of the tables of ``item``, ``author`` and ``topic``.
        width: D.
        spread: of the tables' rows at the start.
        action_types: names of the codes of explicit events.

    Attributes:
        num_outputs: M.

    Raises:
        ConfigError: the heads do not divide the width.
    """

    def __init__(
        self,
        config: RecentEventsConfig,
        table_rows: Mapping[str, int],
        width: int,
        spread: IdSpread,
        action_types: Sequence[str],
    ) -> None:
        super().__init__()
        self.width = width
        self.max_events = config.events
        self.ids = list(_IDS)
        self.rows = [table_rows[name] for name in _IDS]
        self.tables = bag_collection(
            [
                EmbeddingBagConfig(
                    name=f"recent_{name}",
                    embedding_dim=width,
                    num_embeddings=table_rows[name],
                    feature_names=[name],
                    init_fn=spread.fill(name),
                )
                for name in _IDS
            ]
        )
        #: Row 0 is an impression, and an action that came to the log after the training.
        self.num_actions = len(action_types) + 1
        self.actions = nn.Embedding(self.num_actions, width)
        self.dwell = nn.Parameter(torch.randn(width) * _SMALL_SPREAD)
        nn.init.normal_(self.actions.weight, std=_SMALL_SPREAD)
        pools = config.kind == "position_weighted"
        self.of_explicit = PositionWeightedPooling(config.events) if pools else None
        self.of_implicit = PositionWeightedPooling(config.events) if pools else None
        self.states = RecentStates(width, config) if config.kind == "hstu" else None
        self.num_outputs = 2 if pools else 1

    def forward(self, explicit: dict[str, Tensor], implicit: dict[str, Tensor]) -> Tensor:
        """[B, M, D] of jagged timelines, see ``recsys.data.batches.requests``."""
        asked, events = self.lookups(explicit, implicit)
        return self.vectors(asked, events)

    def lookups(
        self, explicit: dict[str, Tensor], implicit: dict[str, Tensor]
    ) -> tuple[KeyedJaggedTensor, dict[str, Tensor]]:
        """What is looked up, and what else is known of the events; no weight matters here.

        Of two events at one moment the impression comes first. One row more than there are events
        is looked up, for lookups cannot tell the width of nothing.

        Returns:
            Lookups of [E + 1] events, and ``recent_lengths`` [B], ``recent_time`` [E] ms,
            ``recent_action`` [E] and ``recent_dwell`` [E].
        """
        lengths = torch.stack([implicit["lengths"], explicit["lengths"]])
        host_lengths = lengths.to("cpu")  # here alone a device is waited for
        parts = [
            self._columns(implicit, host_lengths[0], False),
            self._columns(explicit, host_lengths[1], True),
        ]
        user, time, action, dwell, ids = [
            torch.cat([parts[0][n], parts[1][n]]) for n in range(len(parts[0]))
        ]
        order = torch.argsort(time, stable=True)
        order = order.index_select(0, torch.argsort(user.index_select(0, order), stable=True))
        both = lengths.clamp(max=self.max_events).sum(dim=0)
        host_both = host_lengths.clamp(max=self.max_events).sum(dim=0)
        place, kept = newest_steps(both, self.max_events, host_both)
        order = order.index_select(0, place)
        ids = F.pad(ids.index_select(0, order), [0, 0, 0, 1])  # [E + 1, 3]
        asked = KeyedJaggedTensor(
            keys=self.ids,
            values=ids.t().flatten(),
            lengths=torch.ones(ids.numel(), dtype=torch.int32, device=ids.device),
        )
        known = {
            "recent_lengths": kept,
            "recent_time": time.index_select(0, order),
            "recent_action": action.index_select(0, order),
            "recent_dwell": dwell.index_select(0, order),
        }
        return asked, known

    def _columns(
        self, events: dict[str, Tensor], host_lengths: Tensor, is_explicit: bool
    ) -> list[Tensor]:
        """User, time, action, dwell time and ids [E, 3] of the newest events of a timeline."""
        place, kept = newest_steps(events["lengths"], self.max_events, host_lengths)
        steps = place.shape[0]
        action, dwell = torch.zeros_like(place), torch.zeros(steps, device=place.device)
        if is_explicit:
            action = events["action_type"].index_select(0, place).to(torch.int64) + 1
            action = action.masked_fill((action < 0) | (action >= self.num_actions), 0)
        else:
            seconds = events["dwell_time"].index_select(0, place)
            dwell = seconds.nan_to_num(0.0).clamp(min=0.0).log1p()
        ids: list[Tensor] = []
        for number, name in enumerate(self.ids):
            index = events[name].index_select(0, place).to(torch.int64)
            ids.append(hash_index(index, self.rows[number]))
        time = events["timestamp"].index_select(0, place)
        return [user_of_step(kept, steps), time, action, dwell, torch.stack(ids, dim=1)]

    def vectors(self, asked: KeyedJaggedTensor, events: dict[str, Tensor]) -> Tensor:
        """[B, M, D] of what :meth:`lookups` gave."""
        looked_up = self.tables(asked).values()[:-1]  # [E, 3 · D]
        action, lengths = events["recent_action"], events["recent_lengths"]
        tokens = looked_up.unflatten(1, [len(self.ids), self.width]).sum(dim=1) + self.actions(
            action
        )
        tokens = tokens + events["recent_dwell"].unsqueeze(1) * self.dwell
        vectors: list[Tensor] = []
        if self.of_explicit is not None and self.of_implicit is not None:
            vectors.append(self.of_explicit(tokens, lengths, action > 0))
            vectors.append(self.of_implicit(tokens, lengths, action == 0))
        if self.states is not None:
            vectors.append(self.states(tokens, lengths, events["recent_time"]))
        return torch.stack(vectors, dim=1)
