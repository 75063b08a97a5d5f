"""The Triton kernels of `pool_softmax_triton`: what runs on the GPU.

A row is a query and a column an item that may be a negative. Logits are kept in units of ln 2, so
that exponentials are powers of 2.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl

from recsys.nn.kernels.products import dot

LOG2_E = 1.4426950408889634
_LOG2_E = tl.constexpr(LOG2_E)
_LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _load_rows(pointer, row, num_rows, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr):
    """Rows of a [rows, WIDTH] matrix, zeros outside of it: [block, PADDED_WIDTH]."""
    inside = tl.arange(0, PADDED_WIDTH)
    place = row.to(tl.int64)[:, None] * WIDTH + inside[None, :]
    return tl.load(
        pointer + place, mask=(row < num_rows)[:, None] & (inside < WIDTH)[None, :], other=0.0
    )


@triton.jit
def _logits(
    left,
    right,
    row_target,
    row_owner,
    column,
    bias,
    tile_offsets,
    pair_owner,
    pair_column,
    tile,
    num_columns,
    scale,
    HAS_BIAS: tl.constexpr,
    HAS_OWNED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Logits of a tile in units of ln 2, -inf where excluded: [ROWS, COLUMNS]."""
    logits = dot(left, tl.trans(right), PRECISION) * scale
    if HAS_BIAS:
        offset = tl.load(bias + column, mask=column < num_columns, other=0.0)
        logits += offset[None, :] * _LOG2_E
    excluded = (column[None, :] == row_target[:, None]) | (column >= num_columns)[None, :]
    if HAS_OWNED:
        first = tl.load(tile_offsets + tile)
        last = tl.load(tile_offsets + tile + 1)
        for pair in range(first, last):
            of_owner = row_owner == tl.load(pair_owner + pair)
            excluded |= of_owner[:, None] & (column == tl.load(pair_column + pair))[None, :]
    return tl.where(excluded, -float("inf"), logits)


@triton.jit
def _part(num_blocks):
    """First and last + 1 of the blocks that a program walks over: a part of them."""
    share = tl.cdiv(num_blocks, tl.num_programs(1))
    first = tl.program_id(1) * share
    return first, tl.minimum(first + share, num_blocks)


@triton.jit
def _load_row_constants(
    target,
    row_owner,
    row,
    num_rows,
    HAS_OWNED: tl.constexpr,
):
    """Targets and owners of rows; -1 where there is none."""
    row_target = tl.load(target + row, mask=row < num_rows, other=-1)
    owner = row_target
    if HAS_OWNED:
        owner = tl.load(row_owner + row, mask=row < num_rows, other=-1)
    return row_target, owner


@triton.jit
def forward_kernel(
    queries,
    columns,
    bias,
    target,
    row_owner,
    tile_offsets,
    pair_owner,
    pair_column,
    num_rows,
    num_columns,
    scale,
    lse,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_OWNED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Log-sum-exp of a block of rows, with a running maximum and sum over a part of the columns."""
    block = tl.program_id(0)
    row = block * ROWS + tl.arange(0, ROWS)
    left = _load_rows(queries, row, num_rows, WIDTH, PADDED_WIDTH)
    row_target, owner = _load_row_constants(target, row_owner, row, num_rows, HAS_OWNED)
    column_blocks = tl.cdiv(num_columns, COLUMNS)
    first, last = _part(column_blocks)
    largest = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for column_block in range(first, last):
        column = column_block * COLUMNS + tl.arange(0, COLUMNS)
        right = _load_rows(columns, column, num_columns, WIDTH, PADDED_WIDTH)
        tile = block * column_blocks + column_block
        logits = _logits(
            left, right, row_target, owner, column, bias, tile_offsets, pair_owner, pair_column,
            tile, num_columns, scale, HAS_BIAS, HAS_OWNED, PRECISION,
        )  # fmt: skip
        now = tl.maximum(largest, tl.max(logits, 1))
        # all excluded so far: exp2 of (-inf) - 0 is 0, of (-inf) - (-inf) it would be NaN
        shift = tl.where(now == -float("inf"), 0.0, now)
        total = total * tl.exp2(largest - shift) + tl.sum(tl.exp2(logits - shift[:, None]), 1)
        largest = now
    place = tl.program_id(1) * num_rows + row
    tl.store(lse + place, (largest + tl.log2(total)) * _LN_2, mask=row < num_rows)


@triton.jit
def queries_kernel(
    queries,
    columns,
    bias,
    target,
    row_owner,
    tile_offsets,
    pair_owner,
    pair_column,
    num_rows,
    num_columns,
    scale,
    lse,
    by_lse,
    by_queries,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_OWNED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of rows by a part of the columns: by_lse · scale · (softmax @ columns)."""
    block = tl.program_id(0)
    row = block * ROWS + tl.arange(0, ROWS)
    left = _load_rows(queries, row, num_rows, WIDTH, PADDED_WIDTH)
    row_target, owner = _load_row_constants(target, row_owner, row, num_rows, HAS_OWNED)
    row_lse = _load_finite_lse(lse, row, num_rows)
    column_blocks = tl.cdiv(num_columns, COLUMNS)
    first, last = _part(column_blocks)
    pooled = tl.zeros([ROWS, PADDED_WIDTH], tl.float32)
    for column_block in range(first, last):
        column = column_block * COLUMNS + tl.arange(0, COLUMNS)
        right = _load_rows(columns, column, num_columns, WIDTH, PADDED_WIDTH)
        tile = block * column_blocks + column_block
        logits = _logits(
            left, right, row_target, owner, column, bias, tile_offsets, pair_owner, pair_column,
            tile, num_columns, scale, HAS_BIAS, HAS_OWNED, PRECISION,
        )  # fmt: skip
        softmax = tl.exp2(logits - row_lse[:, None])
        pooled += dot(softmax.to(right.dtype), right, PRECISION)
    outer = tl.load(by_lse + row, mask=row < num_rows, other=0.0) * (scale * _LN_2)
    by_queries += tl.program_id(1).to(tl.int64) * num_rows * WIDTH
    _store_rows(by_queries, row, num_rows, pooled * outer[:, None], WIDTH, PADDED_WIDTH)


@triton.jit
def columns_kernel(
    queries,
    columns,
    bias,
    target,
    row_owner,
    tile_offsets,
    pair_owner,
    pair_column,
    num_rows,
    num_columns,
    scale,
    lse,
    by_lse,
    by_columns,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_OWNED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of columns by a part of the rows: scale · (by_lse · softmax)ᵀ @ queries."""
    column_block = tl.program_id(0)
    column_blocks = tl.cdiv(num_columns, COLUMNS)
    column = column_block * COLUMNS + tl.arange(0, COLUMNS)
    right = _load_rows(columns, column, num_columns, WIDTH, PADDED_WIDTH)
    gathered = tl.zeros([COLUMNS, PADDED_WIDTH], tl.float32)
    first, last = _part(tl.cdiv(num_rows, ROWS))
    for block in range(first, last):
        row = block * ROWS + tl.arange(0, ROWS)
        left = _load_rows(queries, row, num_rows, WIDTH, PADDED_WIDTH)
        row_target, owner = _load_row_constants(target, row_owner, row, num_rows, HAS_OWNED)
        row_lse = _load_finite_lse(lse, row, num_rows)
        tile = block * column_blocks + column_block
        logits = _logits(
            left, right, row_target, owner, column, bias, tile_offsets, pair_owner, pair_column,
            tile, num_columns, scale, HAS_BIAS, HAS_OWNED, PRECISION,
        )  # fmt: skip
        outer = tl.load(by_lse + row, mask=row < num_rows, other=0.0)
        softmax = tl.exp2(logits - row_lse[:, None]) * outer[:, None]
        gathered += dot(tl.trans(softmax.to(left.dtype)), left, PRECISION)
    gathered *= scale * _LN_2
    by_columns += tl.program_id(1).to(tl.int64) * num_columns * WIDTH
    _store_rows(by_columns, column, num_columns, gathered, WIDTH, PADDED_WIDTH)


@triton.jit
def _load_finite_lse(lse, row, num_rows):
    """In units of ln 2; 0 for a row without negatives, whose logits are -inf; inf for no row."""
    row_lse = tl.load(lse + row, mask=row < num_rows, other=float("inf")) * _LOG2_E
    return tl.where(row_lse == -float("inf"), 0.0, row_lse)


@triton.jit
def _store_rows(
    pointer,
    row,
    num_rows,
    values,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
):
    """Write [block, PADDED_WIDTH] into the rows of a [rows, WIDTH] matrix."""
    inside = tl.arange(0, PADDED_WIDTH)
    place = row.to(tl.int64)[:, None] * WIDTH + inside[None, :]
    tl.store(
        pointer + place,
        values.to(pointer.dtype.element_ty),
        mask=(row < num_rows)[:, None] & (inside < WIDTH)[None, :],
    )
