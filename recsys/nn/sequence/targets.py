"""HSTU with candidates as targets, which see the history and themselves but not each other.

The history is encoded once per request, whatever is ranked after it: targets use the keys and
values of each block (M-FALCON; Zhai et al., ICML 2024, §3.3). Legend: B requests, T steps of the
longest history, R rows (targets), N blocks of rows, H heads, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.nn.sequence.hstu import HSTUBlock, time_bucket

#: Events of a history attend so many at a time, to those up to the last of them: of what comes
#: after it no score is computed, and what is computed is small enough for the caches.
_QUERIES_AT_A_TIME = 128

#: Targets of a request are computed in blocks of so many, so that what is computed of one does not
#: depend on how many there are.
_ROWS_PER_BLOCK = 16


class RowBlocks:
    """The rows of requests in blocks of 16, each of one request, the last of each filled up.

    There are R // 16 + B blocks, as many as there can be, of which the last may hold nothing: how
    many it takes only the device knows.

    Args:
        rows_per_request: [B] int64, sums to R.
        num_rows: R.
    """

    def __init__(self, rows_per_request: Tensor, num_rows: int) -> None:
        blocks = (rows_per_request + _ROWS_PER_BLOCK - 1) // _ROWS_PER_BLOCK  # [B]
        requests, device = len(rows_per_request), rows_per_request.device
        self.num_blocks = num_rows // _ROWS_PER_BLOCK + requests
        number = torch.arange(self.num_blocks, device=device)
        of_block = torch.searchsorted(blocks.cumsum(0), number, right=True)
        #: [N] the request of each block.
        self.request = of_block.clamp(max=max(requests - 1, 0))
        first_row = rows_per_request.cumsum(0) - rows_per_request
        first_slot = (blocks.cumsum(0) - blocks) * _ROWS_PER_BLOCK
        shift = torch.repeat_interleave(
            first_slot - first_row, rows_per_request, output_size=num_rows
        )
        #: [R] the place of each row among the N · 16.
        self.slot = torch.arange(num_rows, device=device) + shift

    def fill(self, rows: Tensor) -> Tensor:
        """[R, D] → [N, 16, D], zeros where there is no row."""
        filled = rows.new_zeros(self.num_blocks * _ROWS_PER_BLOCK, rows.shape[1])
        return filled.index_copy(0, self.slot, rows).unflatten(0, (-1, _ROWS_PER_BLOCK))

    def rows(self, blocks: Tensor) -> Tensor:
        """[N, 16, D] → [R, D]."""
        return blocks.flatten(0, 1).index_select(0, self.slot)


class OneRequestHSTU(nn.Module):
    """Blocks of HSTU over recent events, and over the candidates of one request.

    It has no ``forward``, so that TorchScript compiles no more of it than is called.

    Args:
        blocks: of :class:`HSTUBlock`.
        heads: H.
        max_length: the longest history.
    """

    def __init__(self, blocks: nn.ModuleList, heads: int, max_length: int) -> None:
        super().__init__()
        self.heads = heads
        self.max_length = max_length
        self.queries_at_a_time = _QUERIES_AT_A_TIME  # TorchScript sees no globals
        self.blocks: Any = blocks  # whose methods TorchScript finds without a cast

    def encode(
        self, history: Tensor, lengths: Tensor, history_time: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """Keys and values [B, T, D] of each block: all that targets need of a history."""
        steps = history.shape[1]
        place = torch.arange(steps, device=history.device)
        is_real = place >= steps - lengths.unsqueeze(1)  # [B, T]
        remembered: list[tuple[Tensor, Tensor]] = []
        hidden = history
        for block in self.blocks:
            gate, values, queries, keys = block.projected(hidden)
            remembered.append((keys, values))
            if len(remembered) < len(self.blocks):  # nothing is asked of the history after the last
                parts = [queries[:, :0]]
                for first in range(0, steps, self.queries_at_a_time):
                    last = min(first + self.queries_at_a_time, steps)
                    distance = place[first:last].unsqueeze(1) - place[:last]
                    seen = (distance >= 0) & is_real[:, :last].unsqueeze(1)
                    times = history_time[:, first:last].unsqueeze(2), history_time[:, :last]
                    bucket = time_bucket(times[0] - times[1].unsqueeze(1))
                    bias = block.bias.between(distance.clamp(min=0), bucket)
                    parts.append(
                        self._attended(
                            queries[:, first:last], keys[:, :last], values[:, :last], bias, seen
                        )
                    )
                hidden = block.after(hidden, gate, torch.cat(parts, dim=1))
        return remembered

    def target_biases(
        self, lengths: Tensor, history_time: Tensor, target_time: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """What targets see of their history: [B, T] biases of each block, and [B, T] which events.

        Args:
            lengths: [B] int64.
            history_time: [B, T] int64, ms.
            target_time: [B] int64, ms.
        """
        steps = history_time.shape[1]
        place = torch.arange(steps, device=history_time.device)
        is_real = place >= steps - lengths.unsqueeze(1)
        bucket = time_bucket(target_time.unsqueeze(1) - history_time)
        biases: list[Tensor] = []
        for block in self.blocks:
            bias = block.bias.between(steps - place, bucket)
            biases.append(bias)
        return biases, is_real

    def remembered_of_one(
        self, history: Tensor, lengths: Tensor, history_time: Tensor, target_time: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`after_one` takes of the history of one request; arguments with B = 1.

        Returns:
            keys [L, H, D / H, T] of the L blocks; values [L, H, T, D / H], divided as sums of
            attention are, with zeros for what is not seen; biases [L, 1, T].
        """
        biases, is_real = self.target_biases(lengths, history_time, target_time)
        share = is_real.reshape(-1, 1) / (self.max_length + 1)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for key, value in self.encode(history, lengths, history_time):
            keys.append(self._by_head(key)[0].transpose(1, 2))
            values.append(self._by_head(value)[0] * share)
        return torch.stack(keys), torch.stack(values), torch.stack(biases)

    def after_one(self, keys: Tensor, values: Tensor, biases: Tensor, target: Tensor) -> Tensor:
        """The targets [R, D] of one request after its history, as ``TargetHSTU.after``.

        Args:
            keys: of :meth:`remembered_of_one`, as the next two.
            values: what is summed.
            biases: of the time and place of each event.
            target: [R, D].
        """
        nothing = torch.zeros([1], dtype=torch.int64, device=target.device)
        hidden = target
        for number, block in enumerate(self.blocks):
            gate, own_values, queries, own_keys = block.projected(hidden)
            by_head = self._by_head(queries.unsqueeze(0))[0]
            weights = F.silu(torch.baddbmm(biases[number], by_head, keys[number]))
            attended = torch.bmm(weights, values[number]).transpose(0, 1).flatten(1)
            own_bias = block.bias.between(nothing, nothing)
            own = self._own(queries, own_keys, own_values, own_bias)
            hidden = block.after(hidden, gate, attended + own)
        return hidden

    def _attended(
        self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, seen: Tensor
    ) -> Tensor:
        """``SiLU(QKᵀ + bias) V / n`` over what is seen: [n, q, D] and [n, T, D] → [n, q, D]."""
        scores = torch.matmul(self._by_head(queries), self._by_head(keys).transpose(2, 3))
        scores = scores + bias.unsqueeze(1)
        weights = F.silu(scores) * seen.unsqueeze(1)  # [n, H, q, T]
        attended = torch.matmul(weights, self._by_head(values)) / (self.max_length + 1)
        return attended.transpose(1, 2).flatten(2)

    def _own(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """What each target sees of itself, [R, D]."""
        split = [self.heads, -1]
        score = (queries.unflatten(1, split) * keys.unflatten(1, split)).sum(dim=2) + bias
        weight = F.silu(score).unsqueeze(2) / (self.max_length + 1)
        return (weight * values.unflatten(1, split)).flatten(1)

    def _by_head(self, states: Tensor) -> Tensor:
        """[n, t, D] → [n, H, t, D / H]."""
        return states.unflatten(2, [self.heads, -1]).transpose(1, 2)


class TargetHSTU(OneRequestHSTU):
    """Blocks of HSTU over recent events and candidates.

    Args:
        width: D.
        blocks: number of blocks.
        heads: H; they divide ``width``.
        dropout: inside the blocks.
        max_length: the longest history.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.
    """

    def __init__(
        self, width: int, blocks: int, heads: int, dropout: float, max_length: int
    ) -> None:
        made = nn.ModuleList(
            HSTUBlock(width, heads, dropout, max_length + 1, has_times=True) for _ in range(blocks)
        )
        super().__init__(made, heads, max_length)

    def forward(
        self,
        history: Tensor,
        lengths: Tensor,
        history_time: Tensor,
        target: Tensor,
        target_time: Tensor,
        rows: RowBlocks,
    ) -> Tensor:
        """The targets after their history.

        Args:
            history: [B, T, D] tokens, the newest at the end of T, zeros before the oldest.
            lengths: [B] int64, events of each.
            history_time: [B, T] int64, ms.
            target: [R, D] tokens of the candidates.
            target_time: [B] int64, ms, when they would be shown.
            rows: which rows are whose.

        Returns:
            [R, D].
        """
        remembered = self.encode(history, lengths, history_time)
        return self.after(remembered, lengths, history_time, target, target_time, rows)

    def after(
        self,
        remembered: list[tuple[Tensor, Tensor]],
        lengths: Tensor,
        history_time: Tensor,
        target: Tensor,
        target_time: Tensor,
        rows: RowBlocks,
    ) -> Tensor:
        """[R, D] the targets after histories that :meth:`encode` has encoded."""
        biases, is_real = self.target_biases(lengths, history_time, target_time)
        hidden = target  # [R, D]: only attention, whose products have one shape, sees blocks
        for block, (keys, values), bias in zip(self._blocks(), remembered, biases, strict=True):
            gate, own_values, queries, own_keys = block.projected(hidden)
            attended = self._attended(
                rows.fill(queries),
                keys.index_select(0, rows.request),
                values.index_select(0, rows.request),
                bias.index_select(0, rows.request).unsqueeze(1),
                is_real.index_select(0, rows.request).unsqueeze(1),
            )
            own = self._own(queries, own_keys, own_values, self._own_bias(block))
            hidden = block.after(hidden, gate, rows.rows(attended) + own)
        return hidden

    def _own_bias(self, block: HSTUBlock) -> Tensor:
        """[1] between a target and itself."""
        nothing = torch.zeros([1], dtype=torch.int64, device=block.bias.position.device)
        return block.bias.between(nothing, nothing)

    def _blocks(self) -> list[HSTUBlock]:
        return [block for block in self.blocks if isinstance(block, HSTUBlock)]
