"""Causal attention over users of similar length, a few at a time.

Padding a batch to its longest sequence wastes most of its attention, for lengths differ; and the
[B, T, T] scores of a whole batch do not fit in a CPU's cache. Users are therefore sorted by length
and cut into tiles. A tile is padded to its own longest sequence, and holds so few users that its
scores stay in the cache from the first operation on them to the last.

Legend: B users, U users of a tile, T steps, E steps of all users (jagged), D width.
"""

# no `from __future__ import annotations`: TorchScript reads the types of Tile from the class

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.nn.sequence.base import SequenceEncoder, padded_slots, to_jagged, to_padded

#: Scores of a tile over all heads on a CPU: 1.25 MiB of float32, within a server core's own cache.
_TILE_SCORES = 8 * 200 * 200

#: Elsewhere a tile is larger by this factor, so that few kernels are launched.
_TILE_FACTOR = 64


class Tile(NamedTuple):
    """Users whose attention is computed together.

    Attributes:
        users: U.
        length: T, steps of its longest sequence.
        num_steps: E_t, real steps; they lie side by side in the jagged order of the tiles.
        slots: [E_t] where they lie in the padded [U × T], see ``padded_slots``.
    """

    users: int
    length: int
    num_steps: int
    slots: Tensor


def length_order(lengths: Tensor, num_steps: int) -> Tensor:
    """Jagged positions of the steps once users are sorted by length, longest first: [B] → [E].

    >>> length_order(torch.tensor([1, 0, 2]), 3)
    tensor([1, 2, 0])
    """
    users = torch.argsort(lengths, stable=True, descending=True)
    sizes = lengths[users]
    old_starts = (torch.cumsum(lengths, dim=0) - lengths)[users]
    new_starts = torch.cumsum(sizes, dim=0) - sizes
    shift = torch.repeat_interleave(old_starts - new_starts, sizes, output_size=num_steps)
    return torch.arange(num_steps, device=lengths.device) + shift


def cut_tiles(sorted_lengths: Tensor, sizes: list[int], max_scores: int) -> list[Tile]:
    """Cut users into tiles.

    Args:
        sorted_lengths: [B] int64, longest first; users without steps come into no tile.
        sizes: the same, on the host.
        max_scores: U · T² at most, but for a tile of one user.
    """
    tiles: list[Tile] = []
    first = 0
    while first < len(sizes) and sizes[first] > 0:
        length = sizes[first]
        last = min(first + max(1, max_scores // (length * length)), len(sizes))
        members = sorted_lengths[first:last]
        num_steps = sum(sizes[first:last])
        tiles.append(
            Tile(last - first, length, num_steps, padded_slots(members, num_steps, length))
        )
        first = last
    return tiles


class TiledAttention(nn.Module):
    """Attention computed tile by tile; subclasses say how, in ``attend``.

    Args:
        width: D.
        heads: attention heads; they divide ``width``.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(
                f"heads={heads} does not divide the width {width} of the sequence encoder; choose "
                f"one of {[h for h in range(1, width + 1) if width % h == 0]}."
            )
        self.heads = heads

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        tiles: list[Tile],
        biases: list[Tensor],
    ) -> Tensor:
        """Attend from every step to its user's steps up to it.

        Args:
            queries: [E, D], heads side by side.
            keys: [E, D].
            values: [E, D].
            tiles: cover all E steps.
            biases: of every tile, added to the scores of step i for step j: [T, T], or
                [U × heads, T, T].

        Returns:
            [E, D].
        """
        # split, not slices: the backward of a slice fills the whole of its source with zeros
        sizes = [tile.num_steps for tile in tiles]
        tile_queries, tile_keys = queries.split(sizes), keys.split(sizes)
        tile_values = values.split(sizes)
        attended: list[Tensor] = []
        for place, tile in enumerate(tiles):
            padded = self.attend(
                self._padded(tile_queries[place], tile),
                self._padded(tile_keys[place], tile),
                self._padded(tile_values[place], tile),
                biases[place],
            )  # [U × heads, T, D / heads]
            merged = padded.view(tile.users, self.heads, tile.length, -1).transpose(1, 2)
            attended.append(to_jagged(merged.flatten(2), tile.slots))
        return torch.cat(attended)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attention of a tile, three times [U × heads, T, D / heads] → the same."""
        raise NotImplementedError

    def _padded(self, steps: Tensor, tile: Tile) -> Tensor:
        """[E_t, D] → [U × heads, T, D / heads]."""
        padded = to_padded(steps, tile.slots, tile.users, tile.length)
        split = padded.view(tile.users, tile.length, self.heads, -1).transpose(1, 2)
        return split.reshape(tile.users * self.heads, tile.length, -1)


class TiledEncoder(SequenceEncoder):
    """A causal encoder whose attention runs in tiles; subclasses say how, in ``encode``.

    Args:
        heads: attention heads, each with scores of its own.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.max_scores = _TILE_SCORES // heads
        self.max_scores_elsewhere = self.max_scores * _TILE_FACTOR

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        timestamps: Tensor | None = None,
        host_lengths: Tensor | None = None,
    ) -> Tensor:
        """[E, D] → [E, D]; see ``SequenceEncoder``."""
        num_steps = tokens.shape[0]
        if num_steps == 0:
            # a step that nobody has, so that every weight has a gradient: other ranks wait for it
            tokens = F.pad(tokens, [0, 0, 0, 1])
            lengths = torch.ones([1], dtype=torch.int64, device=tokens.device)
            host_lengths = torch.ones([1], dtype=torch.int64)
            if timestamps is not None:
                timestamps = torch.zeros_like(lengths)
        if torch.jit.is_scripting():
            encoded = self._encode_in_tiles(tokens, lengths, timestamps, host_lengths)
        elif self.has_kernel(tokens):  # no branch from here on is compiled by TorchScript
            encoded = self.encode_by_kernel(tokens, lengths, timestamps, host_lengths)
        else:
            encoded = self._encode_in_tiles(tokens, lengths, timestamps, host_lengths)
        return encoded if num_steps > 0 else encoded[:0]

    def _encode_in_tiles(
        self,
        tokens: Tensor,
        lengths: Tensor,
        timestamps: Tensor | None,
        host_lengths: Tensor | None,
    ) -> Tensor:
        order = length_order(lengths, tokens.shape[0])
        sorted_lengths = torch.sort(lengths, descending=True)[0]
        known = lengths if host_lengths is None else host_lengths
        sizes: list[int] = torch.sort(known, descending=True)[0].tolist()
        on_cpu = tokens.device.type == "cpu"
        max_scores = self.max_scores if on_cpu else self.max_scores_elsewhere
        tiles = cut_tiles(sorted_lengths, sizes, max_scores)
        if timestamps is not None:
            timestamps = timestamps.index_select(0, order)
        encoded = self.encode(tokens.index_select(0, order), tiles, timestamps)
        return torch.empty_like(encoded).index_copy(0, order, encoded)

    def encode(self, tokens: Tensor, tiles: list[Tile], timestamps: Tensor | None) -> Tensor:
        """Encode steps in the order of the tiles, [E, D] → [E, D]."""
        raise NotImplementedError

    def has_kernel(self, tokens: Tensor) -> bool:
        """Whether a kernel attends to jagged sequences as they are, so that tiles are not cut."""
        return False

    def encode_by_kernel(
        self,
        tokens: Tensor,
        lengths: Tensor,
        timestamps: Tensor | None,
        host_lengths: Tensor | None,
    ) -> Tensor:
        """Encode steps in the order of the users, [E, D] → [E, D]; where ``has_kernel``."""
        raise NotImplementedError
