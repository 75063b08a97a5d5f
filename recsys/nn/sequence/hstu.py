"""HSTU: hierarchical sequential transduction units (Zhai et al., ICML 2024, equations 1 to 3).

Legend: B users, U users of a tile, T steps, E steps of all users (jagged), D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.nn.dropout import FastDropout
from recsys.nn.kernels import has_triton
from recsys.nn.sequence.base import longest, to_padded
from recsys.nn.sequence.tiles import Tile, TiledAttention, TiledEncoder

if TYPE_CHECKING:
    from recsys.nn.kernels.hstu_triton import Sequences

#: Bias of steps in the future: SiLU and its derivative are zero there.
_NO_FUTURE = -1e4

#: Standard deviation of biases and input projection at the start, as in the authors' code.
_INITIAL_SPREAD = 0.02

#: Time differences are told apart by buckets, each e^0.301 = 1.35 times as far as the last.
TIME_BUCKETS, TIME_BUCKET_WIDTH = 129, 0.301


def time_buckets(
    timestamps: Tensor, bucket_width: float = TIME_BUCKET_WIDTH, num_buckets: int = TIME_BUCKETS
) -> Tensor:
    """Bucket of the time between every two steps of a user, [U, T] ms → [U, T, T] int64.

    A difference of Δ seconds is in bucket ⌊ln(max(1, Δ)) / 0.301⌋, as in the authors' code.
    """
    return time_bucket(timestamps.unsqueeze(2) - timestamps.unsqueeze(1), bucket_width, num_buckets)


def time_bucket(
    difference: Tensor, bucket_width: float = TIME_BUCKET_WIDTH, num_buckets: int = TIME_BUCKETS
) -> Tensor:
    """Bucket of time differences in ms, int64 of the same shape; see :func:`time_buckets`."""
    seconds = difference.abs().to(torch.float32) / 1000
    buckets = torch.log(seconds.clamp(min=1.0)) / bucket_width
    return buckets.to(torch.int64).clamp(max=num_buckets - 1)


class SiLUAttention(TiledAttention):
    """Attention whose weights are not normalised to one, but divided by a constant.

    Args:
        width: D.
        heads: attention heads; they divide ``width``.
        max_length: n.
    """

    def __init__(self, width: int, heads: int, max_length: int) -> None:
        super().__init__(width, heads)
        self.max_length = max_length

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """``SiLU(QKᵀ + bias) V / n``; shapes as in ``TiledAttention``."""
        scores = torch.baddbmm(bias, queries, keys.transpose(1, 2))
        return torch.bmm(F.silu(scores), values) / self.max_length


class RelativeBias(nn.Module):
    """rab: a learned number per distance in steps and, where times are known, per time bucket.

    Args:
        max_length: n.
        heads: attention heads; they share the biases.
        has_times: whether there is a bias of time differences.
    """

    def __init__(self, max_length: int, heads: int, has_times: bool) -> None:
        super().__init__()
        self.heads = heads
        self.no_future = _NO_FUTURE  # TorchScript sees no globals
        self.position = nn.Parameter(torch.randn(max_length) * _INITIAL_SPREAD)
        by_bucket = torch.randn(TIME_BUCKETS) * _INITIAL_SPREAD
        self.time = nn.Parameter(by_bucket) if has_times else None

    def between(self, distance: Tensor, bucket: Tensor) -> Tensor:
        """Bias of pairs of steps, by their distance and the bucket of the time between them.

        Raises:
            ValueError: there is no bias of times.
        """
        if self.time is None:
            raise ValueError("the bias was made for sequences without times")
        # index_select, whose backward is 20 times faster than that of an embedding of width 1
        by_time = self.time.index_select(0, bucket.reshape(-1)).view(bucket.shape)
        return self.position[distance] + by_time

    def forward(self, tiles: list[Tile], buckets: list[Tensor]) -> list[Tensor]:
        """Bias of every tile.

        Args:
            tiles: the longest first.
            buckets: [U, T, T] of every tile, see ``time_buckets``; empty without times.

        Returns:
            [T, T] without times, [U × heads, T, T] with them; the future is closed.
        """
        steps = torch.arange(tiles[0].length, device=self.position.device)
        distance = steps.unsqueeze(1) - steps.unsqueeze(0)  # [T, T], i - j
        by_position = self.position[distance.clamp(min=0)]
        by_position = by_position.masked_fill(distance < 0, self.no_future)
        biases = [by_position[: tile.length, : tile.length] for tile in tiles]
        time = self.time
        if time is None:
            return biases
        by_time: list[Tensor] = []
        for place, bucket in enumerate(buckets):
            time_bias = time.index_select(0, bucket.view(-1)).view(bucket.shape)  # [U, T, T]
            by_time.append((biases[place] + time_bias).repeat_interleave(self.heads, dim=0))
        return by_time


class HSTUBlock(nn.Module):
    """``x + Linear(dropout(U ⊙ Norm(SiLU(QKᵀ + rab) V / n)))``.

    ``U, V, Q, K`` are ``SiLU(Norm(x) W)`` cut in four; the norms have no affine part.

    Args:
        width: D.
        heads: attention heads.
        dropout: of the output layer's input.
        max_length: n.
        has_times: whether there is a bias of time differences.
    """

    def __init__(
        self, width: int, heads: int, dropout: float, max_length: int, has_times: bool
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.projection = nn.Linear(width, 4 * width, bias=False)
        self.bias = RelativeBias(max_length, heads, has_times)
        self.attention = SiLUAttention(width, heads, max_length)
        self.attended_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.dropout = FastDropout(dropout)
        self.output = nn.Linear(width, width)
        nn.init.normal_(self.projection.weight, std=_INITIAL_SPREAD)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(self, inputs: Tensor, tiles: list[Tile], buckets: list[Tensor]) -> Tensor:
        """[E, D] → [E, D], steps in the order of the tiles."""
        gate, values, queries, keys = self.projected(inputs)
        attended = self.attention(queries, keys, values, tiles, self.bias(tiles, buckets))
        return self.after(inputs, gate, attended)

    def forward_by_kernel(self, inputs: Tensor, sequences: Sequences) -> Tensor:
        """[E, D] → [E, D], the same of steps in the order of the users."""
        from recsys.nn.kernels.hstu_triton import silu_attention

        gate, values, queries, keys = self.projected(inputs)
        bias, heads = self.bias, self.attention.heads
        attended = silu_attention(queries, keys, values, bias.position, bias.time, sequences, heads)
        return self.after(inputs, gate, attended)

    def projected(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gate, values, queries and keys, each of the shape of the inputs [..., D]."""
        gate, values, queries, keys = F.silu(self.projection(self.norm(inputs))).chunk(4, dim=-1)
        return gate, values, queries, keys

    def after(self, inputs: Tensor, gate: Tensor, attended: Tensor) -> Tensor:
        """[..., D] the outputs, of what was attended to."""
        gated = gate * self.attended_norm(attended)
        outputs: Tensor = inputs + self.output(self.dropout(gated))
        return outputs


class HSTUEncoder(TiledEncoder):
    """Blocks of HSTU; everything but attention runs on real steps alone.

    Args:
        width: D.
        blocks: number of blocks.
        heads: attention heads of a block.
        dropout: inside the blocks.
        max_length: n, the longest sequence, by which the sums of attention are divided.
        has_times: whether the bias looks at time differences too.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        heads: int,
        dropout: float,
        max_length: int,
        has_times: bool,
    ) -> None:
        super().__init__(heads)
        self.max_length = max_length
        self.has_times = has_times
        self.blocks = nn.ModuleList(
            HSTUBlock(width, heads, dropout, max_length, has_times) for _ in range(blocks)
        )

    def encode(self, tokens: Tensor, tiles: list[Tile], timestamps: Tensor | None) -> Tensor:
        """[E, D] → [E, D].

        Raises:
            ValueError: a sequence is longer than ``max_length``, or there are no ``timestamps``
                though the encoder was made for them.
        """
        self._check_length(tiles[0].length)
        hidden = tokens
        buckets = self._buckets(tiles, timestamps)
        for block in self.blocks:
            hidden = block(hidden, tiles, buckets)
        return hidden

    def has_kernel(self, tokens: Tensor) -> bool:
        """Whether a Triton kernel attends: on CUDA, not float64, to heads that are not too wide."""
        if tokens.device.type != "cuda" or tokens.dtype == torch.float64 or not has_triton():
            return False
        from recsys.nn.kernels.hstu_triton import WIDEST_HEAD

        return tokens.shape[1] // self.heads <= WIDEST_HEAD

    def encode_by_kernel(
        self,
        tokens: Tensor,
        lengths: Tensor,
        timestamps: Tensor | None,
        host_lengths: Tensor | None,
    ) -> Tensor:
        """[E, D] → [E, D]; nothing of a score stays in memory for the backward."""
        from recsys.nn.kernels.hstu_triton import Sequences

        self._check_length(longest(lengths if host_lengths is None else host_lengths))
        timestamps = self._times(timestamps)
        sequences = Sequences.of(
            lengths,
            timestamps,
            self.max_length,
            TIME_BUCKET_WIDTH,
            tokens.shape[0],
            Sequences.block_size(tokens.shape[1] // self.heads, _type_of_products(tokens)),
        )
        hidden = tokens
        for block in cast("list[HSTUBlock]", list(self.blocks)):
            hidden = block.forward_by_kernel(hidden, sequences)
        return hidden

    def _check_length(self, length: int) -> None:
        if length > self.max_length:
            raise ValueError(
                f"a sequence has {length} steps, the encoder was made for at most {self.max_length}"
            )

    def _times(self, timestamps: Tensor | None) -> Tensor | None:
        """What the bias looks at."""
        if not self.has_times:
            return None
        if timestamps is None:
            raise ValueError("the encoder was made for sequences with times; give timestamps")
        return timestamps

    def _buckets(self, tiles: list[Tile], timestamps: Tensor | None) -> list[Tensor]:
        """[U, T, T] of every tile, or nothing for an encoder without times."""
        buckets: list[Tensor] = []
        timestamps = self._times(timestamps)
        if timestamps is None:
            return buckets
        times = timestamps.split([tile.num_steps for tile in tiles])
        for place, tile in enumerate(tiles):
            steps = times[place].unsqueeze(1)
            padded = to_padded(steps, tile.slots, tile.users, tile.length)  # [U, T, 1]
            buckets.append(time_buckets(padded.squeeze(2)))
        return buckets


def _type_of_products(tokens: Tensor) -> torch.dtype:
    """What autocast makes of the operands of a matrix product."""
    device = tokens.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tokens.dtype
