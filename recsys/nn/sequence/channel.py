"""One channel of engagements, from its events to the states of its steps (NxtPost §3.2.1).

Legend: B users, E events (jagged), S steps (the events, and a [CLS] per user where there is one),
D width, W width of an item embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.nn.dropout import FastDropout
from recsys.nn.sequence.base import SequenceEncoder, step_number, user_of_step
from recsys.nn.sequence.pooling import build_pooling
from recsys.nn.sequence.relative_time import PreviousGap, RequestGap

#: Standard deviation at the start of what is added to the item's projection, small beside it.
EMBEDDING_SPREAD = 0.02

#: Width of the embedded gap that stands beside the item embedding.
GAP_WIDTH = 16


class EventTokens(nn.Module):
    """``Linear(√W · item ∥ gap to the previous event) + position + action + surface``.

    Coordinates of an L2-normalised item embedding are of the size of 1/√W; times √W they are of
    the size of 1, which the linear layer's initialisation expects.

    A causal encoder counts positions from the oldest event of the window: a state then is the same
    whatever comes after it, which training on every prefix needs. Counted from the newest, an
    inner state would know how many events follow, and the newest position, the only one a user
    representation is read at, would never be trained by the short-term loss. With a window that
    slides over a long history, positions are places in the window, not in the user's life. A
    bidirectional encoder sees the end anyway and counts from the newest event, so that position 0
    is the most recent whatever the length: recent items tell most about the next (figure 5).

    Args:
        item_width: W.
        width: D.
        num_actions: number of action types.
        num_surfaces: number of surfaces.
        max_length: number of positions.
        from_oldest: where positions are counted from.
        relative_time: whether the gaps are looked at.
    """

    def __init__(
        self,
        item_width: int,
        width: int,
        num_actions: int,
        num_surfaces: int,
        max_length: int,
        from_oldest: bool,
        relative_time: bool,
    ) -> None:
        super().__init__()
        self.from_oldest = from_oldest
        self.item_scale = item_width**0.5
        self.gap = PreviousGap(GAP_WIDTH) if relative_time else None
        self.content = nn.Linear(item_width + (GAP_WIDTH if relative_time else 0), width)
        self.position = nn.Embedding(max_length, width)
        self.action = nn.Embedding(num_actions, width)
        self.surface = nn.Embedding(num_surfaces, width)
        for table in (self.position, self.action, self.surface):
            nn.init.normal_(table.weight, std=EMBEDDING_SPREAD)

    def forward(
        self,
        post_embedding: Tensor,
        action_type: Tensor,
        surface: Tensor,
        timestamp: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """Tokens of the events, [E, D]; arguments of :meth:`SequenceChannel.forward`."""
        content = post_embedding * self.item_scale
        if self.gap is not None:
            content = torch.cat([content, self.gap(timestamp, lengths)], dim=1)
        position = step_number(lengths, post_embedding.shape[0])
        if not self.from_oldest:
            newest = torch.repeat_interleave(lengths - 1, lengths, output_size=position.shape[0])
            position = newest - position
        tokens: Tensor = (
            self.content(content)
            + self.position(position)
            + self.action(action_type)
            + self.surface(surface)
        )
        return tokens


class SequenceChannel(nn.Module):
    """A sequence of engagements, encoded: tokens, [CLS], encoder.

    Args:
        tokens: events → tokens [E, D].
        encoder: tokens → states.
        width: D.
        cls: whether a learned [CLS] token starts every sequence, so that a user without events
            has a state.
        dropout: of the tokens.
        timed: whether the encoder looks at times; [CLS] has that of the first event.
    """

    def __init__(
        self,
        tokens: EventTokens,
        encoder: SequenceEncoder,
        width: int,
        cls: bool,
        dropout: float,
        timed: bool = False,
    ) -> None:
        super().__init__()
        self.timed = timed
        self.tokens = tokens
        self.encoder = encoder
        self.start = nn.Parameter(torch.randn(width) * EMBEDDING_SPREAD) if cls else None
        self.dropout = FastDropout(dropout)

    def forward(
        self,
        post_embedding: Tensor,
        action_type: Tensor,
        surface: Tensor,
        timestamp: Tensor,
        lengths: Tensor,
        host_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode the channel's events.

        Args:
            post_embedding: [E, W].
            action_type: [E] int64.
            surface: [E] int64.
            timestamp: [E] int64, ms, each user's events oldest first.
            lengths: [B] int64, at most ``max_length`` each.
            host_lengths: [B], ``lengths`` on the host; without them a device is waited for.

        Returns:
            States [S, D] and steps per user [B]: the events, after the [CLS] where there is one.
        """
        tokens = self.tokens(post_embedding, action_type, surface, timestamp, lengths)
        times: Tensor | None = timestamp if self.timed else None
        if self.start is not None:
            place = _places_behind_first(lengths, tokens.shape[0])
            start = self.start.to(tokens.dtype).expand(lengths.shape[0], -1)
            tokens = _reordered(torch.cat([start, tokens]), place)
            if times is not None:
                times = _reordered(torch.cat([_first_times(times, lengths), times]), place)
            lengths = lengths + 1
            if host_lengths is not None:
                host_lengths = host_lengths + 1
        states = self.encoder(self.dropout(tokens), lengths, times, host_lengths)
        return states, lengths


class ChannelSummary(nn.Module):
    """A channel's part of the user representation: its states pooled, and the gap to the request.

    Args:
        width: D.
        pooling: how the states become one vector, see ``recsys.nn.sequence.pooling``.
        relative_time: whether the gap to the request changes that vector.
    """

    def __init__(self, width: int, pooling: str, relative_time: bool) -> None:
        super().__init__()
        self.pooling = build_pooling(pooling, width)
        self.request_gap = RequestGap(width) if relative_time else None

    def forward(
        self,
        states: Tensor,
        steps: Tensor,
        timestamp: Tensor,
        lengths: Tensor,
        request_time: Tensor,
    ) -> Tensor:
        """Summarise.

        Args:
            states: [S, D].
            steps: [B] int64, states per user.
            timestamp: [E] int64, ms, of the channel's events.
            lengths: [B] int64, events per user.
            request_time: [B] int64, ms.

        Returns:
            [B, D].
        """
        summary: Tensor = self.pooling(states, steps)
        if self.request_gap is not None:
            summary = self.request_gap(summary, timestamp, lengths, request_time)
        return summary


def _places_behind_first(lengths: Tensor, num_steps: int) -> Tensor:
    """[B + E] where a first step of every user, and then his steps, come to lie."""
    users = torch.arange(lengths.shape[0], device=lengths.device)
    moved = torch.arange(num_steps, device=lengths.device)
    moved = moved + user_of_step(lengths, num_steps) + 1
    starts = torch.cumsum(lengths, dim=0) - lengths + users
    return torch.cat([starts, moved])


def _reordered(rows: Tensor, place: Tensor) -> Tensor:
    """Rows [n, …] at their places [n]."""
    return torch.empty_like(rows).index_copy(0, place, rows)


def _first_times(timestamp: Tensor, lengths: Tensor) -> Tensor:
    """[B] the time of every user's first step; 0 of users without one."""
    first = torch.cumsum(lengths, dim=0) - lengths
    first = first.masked_fill(lengths == 0, timestamp.shape[0])
    return torch.cat([timestamp, timestamp.new_zeros([1])]).index_select(0, first)
