"""The loss of `pool_softmax` in plain PyTorch: row blocks and column tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from recsys.nn.softmax.exclusions import Exclusions

#: Columns of a tile, and its logits per thread: 8 MiB of float32. Smaller tiles stay in a core's L2
#: cache, but are no faster on one thread, and end before a second one has begun.
TILE_COLUMNS = 4096
TILE_LOGITS_PER_THREAD = 2**21

#: Exponentials are taken relative to an upper bound of their row. A row whose sum stays below
#: exp(-SLACK) may have lost terms to underflow, so its block is done again with the true maxima.
SLACK = 50.0


def tiled_loss(
    queries: Tensor,
    columns: Tensor,
    bias: Tensor,
    exclusions: Exclusions,
    positive: Tensor,
    coefficient: Tensor,
) -> Tensor:
    """``Σ_q coefficient_q · log(1 + exp(lse_q - positive_q))``, lse over each query's negatives.

    ``lse_q = log Σ_n exp(queries_q · columns_n + bias_n)`` over the columns n not excluded.

    The gradients are computed with the loss, block by block of queries, while the exponentials
    are in the cache: a scalar's gradients only have to be scaled in the backward, and what is
    kept for it is of the inputs' size. Where the columns span several tiles, their gradient needs
    the whole row's sum first, and the tiles are computed anew.

    Args:
        queries: [Q, D] float32 or float64, with the scale multiplied in.
        columns: [N, D], the items that may be negatives.
        bias: [N], constants.
        exclusions: of Q queries and N columns.
        positive: [Q], logits of the targets.
        coefficient: [Q], constants.

    Returns:
        Scalar, differentiable (once) in ``queries``, ``columns`` and ``positive``.
    """
    exclusions = exclusions.without_others()
    return _TiledLoss.apply(
        queries, columns, positive, bias, exclusions, coefficient, torch.is_grad_enabled()
    )


class _TiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        columns: Tensor,
        positive: Tensor,
        bias: Tensor,
        exclusions: Exclusions,
        coefficient: Tensor,
        with_gradients: bool,
    ) -> Tensor:
        wanted = [with_gradients and needed for needed in ctx.needs_input_grad[:2]]
        with torch.autocast(queries.device.type, enabled=False):
            loss, *gradients = _loss_and_gradients(
                queries, columns, positive, bias, exclusions, coefficient, *wanted
            )
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [None if part is None else part * outer for part in ctx.saved_tensors]
        return (*gradients, None, None, None, None)


def _loss_and_gradients(
    queries: Tensor,
    columns: Tensor,
    positive: Tensor,
    bias: Tensor,
    exclusions: Exclusions,
    coefficient: Tensor,
    for_queries: bool,
    for_columns: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """The loss, and its gradients by ``queries`` [Q, D], ``columns`` [N, D], ``positive`` [Q]."""
    width = queries.shape[1]
    by_queries = torch.empty_like(queries) if for_queries else None
    by_columns = columns.new_zeros(width, len(columns)) if for_columns else None  # transposed
    share = torch.empty_like(positive)  # derivative of the loss by each query's lse
    loss = positive.new_zeros(())
    tiles = _Tiles(queries, columns, bias)
    for rows in tiles.row_blocks():
        block = _Block(tiles, rows, exclusions, positive[rows])
        total, pooled = block.sums(columns if for_queries else None)
        lse = total.log() + block.shift
        margin = lse - positive[rows]
        loss += coefficient[rows] @ torch.logaddexp(margin, torch.zeros_like(margin))
        share[rows] = coefficient[rows] * torch.sigmoid(margin)
        # exponential · factor = share · softmax over the negatives; no negatives, no gradient
        factor = torch.where(total > 0, share[rows] / total, 0).unsqueeze(1)
        if by_queries is not None and pooled is not None:
            torch.mul(pooled, factor, out=by_queries[rows])
        if by_columns is not None:
            weighted = (queries[rows] * factor).T.contiguous()  # [D, rows]
            for tile, exponentials in block.exponentials_again():
                by_columns[:, tile].addmm_(weighted, exponentials)
    by_columns = None if by_columns is None else by_columns.T
    return loss, by_queries, by_columns, -share


class _Tiles:
    """Cuts the logits [Q, N] into blocks of rows and tiles of columns; holds a tile's memory.

    ``queries · columns + bias - shift`` is one matrix product of width D + 2:
    ``[queries, 1, -shift] @ [columns, bias, 1]ᵀ``.
    """

    def __init__(self, queries: Tensor, columns: Tensor, bias: Tensor) -> None:
        num_rows, num_columns = len(queries), len(columns)
        self.queries = queries
        ones = torch.ones_like(bias)
        self.right = torch.cat([columns.T, bias[None], ones[None]])  # [D + 2, N]
        width = min(num_columns, TILE_COLUMNS)
        self.columns = [
            slice(start, min(start + width, num_columns))
            for start in range(0, num_columns, max(width, 1))
        ]
        logits = TILE_LOGITS_PER_THREAD * torch.get_num_threads()
        self.num_rows = max(1, min(num_rows, logits // max(width, 1)))
        self.memory = queries.new_empty(self.num_rows * width)
        # Cauchy-Schwarz: no logit of a row exceeds the product of the norms plus the bias.
        if num_columns:
            self.bound = queries.norm(dim=1) * columns.norm(dim=1).max() + bias.max()
        else:
            self.bound = queries.new_full((num_rows,), -torch.inf)

    def row_blocks(self) -> Iterator[slice]:
        """Slices of the queries."""
        for start in range(0, len(self.queries), self.num_rows):
            yield slice(start, min(start + self.num_rows, len(self.queries)))


class _Block:
    """The logits of a block of queries, one tile at a time.

    Attributes:
        shift: [rows], what the exponents are relative to: at least any logit, the target's too.
    """

    def __init__(
        self, tiles: _Tiles, rows: slice, exclusions: Exclusions, positive: Tensor
    ) -> None:
        self.tiles = tiles
        self.positive = positive
        self.shift = torch.maximum(tiles.bound[rows], positive)
        queries = tiles.queries[rows]
        self.left = torch.cat([queries, queries.new_ones(len(queries), 2)], dim=1)  # [rows, D + 2]
        row, column = exclusions.pairs(rows)
        self.excluded = [self._within(tile, row, column) for tile in tiles.columns]

    def sums(self, columns: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Sums of the exponentials [rows], and of the columns that they weigh [rows, D]."""
        total, pooled = self._sums(columns)
        if (total + torch.exp(self.positive - self.shift)).log().min() < -SLACK:
            self.shift = torch.maximum(self._largest(), self.positive)
            total, pooled = self._sums(columns)
        return total, pooled

    def exponentials_again(self) -> Iterator[tuple[slice, Tensor]]:
        """The tiles after ``sums``: a single one is still there."""
        if len(self.tiles.columns) == 1:
            yield self.tiles.columns[0], self._tile_memory(self.tiles.columns[0])
        else:
            yield from self._exponentials()

    def _sums(self, columns: Tensor | None) -> tuple[Tensor, Tensor | None]:
        total = torch.zeros_like(self.shift)
        pooled = None if columns is None else columns.new_zeros(len(total), columns.shape[1])
        for tile, exponentials in self._exponentials():
            total += exponentials.sum(dim=1)
            if columns is not None and pooled is not None:
                pooled.addmm_(exponentials, columns[tile])
        return total, pooled

    def _exponentials(self) -> Iterator[tuple[slice, Tensor]]:
        self.left[:, -1] = -self.shift
        for tile, logits, excluded in self._logits():
            logits.exp_().view(-1).index_fill_(0, excluded, 0)
            yield tile, logits

    def _largest(self) -> Tensor:
        """The largest logit that is not excluded, [rows]."""
        self.left[:, -1] = 0
        largest = torch.full_like(self.shift, -torch.inf)
        for _, logits, excluded in self._logits():
            logits.view(-1).index_fill_(0, excluded, -torch.inf)
            largest = torch.maximum(largest, logits.amax(dim=1))
        return largest

    def _logits(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Column slice, relative logits [rows, tile], and the places in them that are excluded."""
        for tile, excluded in zip(self.tiles.columns, self.excluded, strict=True):
            memory = self._tile_memory(tile)
            yield tile, torch.mm(self.left, self.tiles.right[:, tile], out=memory), excluded

    def _tile_memory(self, tile: slice) -> Tensor:
        shape = (len(self.shift), tile.stop - tile.start)
        return self.tiles.memory[: shape[0] * shape[1]].view(shape)

    def _within(self, tile: slice, row: Tensor, column: Tensor) -> Tensor:
        width = tile.stop - tile.start
        if len(self.tiles.columns) == 1:
            return row * width + column
        here = (column >= tile.start) & (column < tile.stop)
        return row[here] * width + (column[here] - tile.start)
