"""The log-sum-exp of `pool_softmax` and its gradients by Triton kernels.

The logits [Q, N] are cut into tiles; a program owns a block of rows (or, for the gradient of the
columns, a block of columns) and walks over the tiles of it. The forward keeps a running maximum
and sum; the backward computes the logits anew from the log-sum-exp that was kept. Nobody writes
where another program writes, so results are deterministic.

Exclusions other than the target are a list of (owner, column), sorted by the tiles that they
touch, with one offset per tile: a tile compares its owners and columns with the few pairs of its
own. The list grows with the owners' items; the offsets are 4 bytes per tile of up to 8192 logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from recsys.nn.kernels.pool_softmax_kernels import (
    LOG2_E,
    columns_kernel,
    forward_kernel,
    queries_kernel,
)
from recsys.nn.softmax.exclusions import Exclusions, expand_ranges


def logsumexp_of_negatives(
    queries: Tensor,
    columns: Tensor,
    bias: Tensor | None,
    exclusions: Exclusions,
    scale: float,
) -> Tensor:
    """``log Σ_n exp(scale · queries_q · columns_n + bias_n)`` over the columns n not excluded.

    Sums are in float32. Gradients have the type of the inputs.

    Args:
        queries: [Q, D] float16, bfloat16 or float32; D at most 256.
        columns: [N, D], of the same type.
        bias: [N] float32 constants, or None.
        exclusions: of Q queries and N columns.
        scale: of the dot products.

    Returns:
        [Q] float32, -inf where all columns are excluded; differentiable (once) in ``queries`` and
        ``columns``.
    """
    return _LogSumExp.apply(queries, columns, bias, exclusions, scale)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        columns: Tensor,
        bias: Tensor | None,
        exclusions: Exclusions,
        scale: float,
    ) -> Tensor:
        queries, columns = queries.contiguous(), columns.contiguous()
        tiling = Tiling.of(queries, columns)
        ctx.pairs = ExcludedPairs.of(exclusions, tiling)
        ctx.tiling, ctx.bias, ctx.scale = tiling, bias, scale
        ctx.target = exclusions.target.to(torch.int32)
        lse = queries.new_empty(len(queries), dtype=torch.float32)
        if tiling.row_blocks:
            forward_kernel[(tiling.row_blocks,)](
                queries, columns, *_arguments(ctx), lse, **tiling.constants(ctx.bias, ctx.pairs)
            )
        ctx.save_for_backward(queries, columns, lse)
        return lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_lse: Tensor) -> tuple[Tensor | None, ...]:
        queries, columns, lse = ctx.saved_tensors
        by_lse = by_lse.float().contiguous()
        constants = ctx.tiling.constants(ctx.bias, ctx.pairs)
        by_queries = by_columns = None
        if ctx.needs_input_grad[0]:
            by_queries = torch.empty_like(queries)
            if ctx.tiling.row_blocks:
                queries_kernel[(ctx.tiling.row_blocks,)](
                    queries, columns, *_arguments(ctx), lse, by_lse, by_queries, **constants
                )
        if ctx.needs_input_grad[1]:
            by_columns = torch.empty_like(columns)
            if ctx.tiling.column_blocks:
                columns_kernel[(ctx.tiling.column_blocks,)](
                    queries, columns, *_arguments(ctx), lse, by_lse, by_columns, **constants
                )
        return by_queries, by_columns, None, None, None


def _arguments(ctx: Any) -> tuple[Any, ...]:
    """What all three kernels take after the queries and the columns."""
    pairs, tiling = ctx.pairs, ctx.tiling
    return (
        ctx.bias if ctx.bias is not None else ctx.target,  # not read without a bias
        ctx.target,
        pairs.row_owner,
        pairs.tile_offsets,
        pairs.owner,
        pairs.column,
        tiling.num_rows,
        tiling.num_columns,
        ctx.scale * LOG2_E,
    )


@dataclass(frozen=True)
class Tiling:
    """How [Q, N] logits are cut: what a tile keeps in shared memory stays below 96 KiB."""

    num_rows: int
    num_columns: int
    width: int
    bytes_per_number: int

    @classmethod
    def of(cls, queries: Tensor, columns: Tensor) -> Tiling:
        """Of queries [Q, D] and columns [N, D]."""
        return cls(len(queries), len(columns), queries.shape[1], queries.element_size())

    @property
    def padded_width(self) -> int:
        """A power of 2; the narrowest that a tensor core takes is 16."""
        return max(16, triton.next_power_of_2(self.width))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        bytes_per_row = self.padded_width * self.bytes_per_number
        if bytes_per_row <= 256:
            return (128, 64) if self.bytes_per_number == 2 else (64, 64)
        return (64, 32) if bytes_per_row == 512 else (32, 16)

    @property
    def row_blocks(self) -> int:
        """Blocks of rows."""
        return triton.cdiv(self.num_rows, self.shape[0])

    @property
    def column_blocks(self) -> int:
        """Blocks of columns."""
        return triton.cdiv(self.num_columns, self.shape[1])

    def constants(self, bias: Tensor | None, pairs: ExcludedPairs) -> dict[str, Any]:
        """Compile-time arguments of the kernels."""
        # float32 at full precision is the sum of three TF32 products on the tensor cores
        exact = torch.get_float32_matmul_precision() == "highest"
        rows, columns = self.shape
        return {
            "WIDTH": self.width,
            "ROWS": rows,
            "COLUMNS": columns,
            "PADDED_WIDTH": self.padded_width,
            "HAS_BIAS": bias is not None,
            "HAS_OWNED": len(pairs.owner) > 0,
            "PRECISION": "tf32x3" if exact else "tf32",
            "num_warps": 8 if rows * self.padded_width >= 2**14 else 4,
            "num_stages": 2,
        }


@dataclass(frozen=True)
class ExcludedPairs:
    """The pairs of ``Exclusions.owned`` in the order of the tiles that they touch.

    Attributes:
        row_owner: [Q] int32.
        tile_offsets: [row blocks · column blocks + 1] int32, tiles by row.
        owner: [X] int32.
        column: [X] int32.
    """

    row_owner: Tensor
    tile_offsets: Tensor
    owner: Tensor
    column: Tensor

    @classmethod
    def of(cls, exclusions: Exclusions, tiling: Tiling) -> ExcludedPairs:
        """For every tile, the pairs of an owner of its rows and a column of its own."""
        nothing = torch.zeros(0, dtype=torch.int32, device=exclusions.target.device)
        if exclusions.owner is None or exclusions.owned is None or not tiling.num_rows:
            return cls(nothing, nothing, nothing, nothing)
        offsets = exclusions.owned.offsets
        row = torch.arange(tiling.num_rows, device=nothing.device)
        owner = exclusions.owner
        # once for each block of rows, where those of one owner lie together in it
        is_first = (owner != owner.roll(1)) | (row % tiling.shape[0] == 0)
        counts = (offsets[owner + 1] - offsets[owner]) * is_first
        entry, position = expand_ranges(offsets[owner], counts, int(counts.sum()))
        column = exclusions.owned.items[position]
        tile = entry // tiling.shape[0] * tiling.column_blocks + column // tiling.shape[1]
        num_tiles = tiling.row_blocks * tiling.column_blocks
        tile = tile.masked_fill(column < 0, num_tiles)  # that of no item: after all others
        tile, order = tile.to(torch.int32).sort()
        tiles = torch.arange(num_tiles + 1, dtype=torch.int32, device=nothing.device)
        return cls(
            owner.to(torch.int32),
            torch.searchsorted(tile, tiles, out_int32=True),
            owner[entry][order].to(torch.int32),
            column[order].to(torch.int32),
        )
