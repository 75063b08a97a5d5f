"""The Triton kernels of `hstu_triton`: what runs on the GPU.

A row is a step that looks, a column a step that is looked at, of the same user and not later. Rows
and columns of a user are cut into blocks of one size; scores exist for a tile, BLOCK × BLOCK, at
a time. Steps of all users lie one after the other, heads side by side in a step.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl

from recsys.nn.kernels.products import dot


@triton.jit
def _load(
    pointer,
    first,
    step,
    length,
    stride,
    head,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
):
    """Steps of one head of a user, zeros outside: [BLOCK, PADDED_WIDTH]."""
    inside = tl.arange(0, PADDED_WIDTH)
    place = (first + step).to(tl.int64)[:, None] * stride + head * WIDTH + inside[None, :]
    return tl.load(
        pointer + place, mask=(step < length)[:, None] & (inside < WIDTH)[None, :], other=0.0
    )


@triton.jit
def _store(
    pointer,
    first,
    step,
    length,
    stride,
    head,
    values,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
):
    """Write [BLOCK, PADDED_WIDTH] where `_load` reads."""
    inside = tl.arange(0, PADDED_WIDTH)
    place = (first + step).to(tl.int64)[:, None] * stride + head * WIDTH + inside[None, :]
    tl.store(
        pointer + place,
        values.to(pointer.dtype.element_ty),
        mask=(step < length)[:, None] & (inside < WIDTH)[None, :],
    )


@triton.jit
def _bias(
    times,
    by_position,
    by_time,
    first,
    row,
    column,
    length,
    NUM_BUCKETS: tl.constexpr,
    BUCKET_WIDTH: tl.constexpr,
):
    """Of a tile: what is added to its scores, the time bucket of each, and which there are.

    Without times (NUM_BUCKETS = 0) all buckets are 0.
    """
    distance = row[:, None] - column[None, :]
    seen = (distance >= 0) & (row < length)[:, None]
    bias = tl.load(by_position + distance, mask=seen, other=0.0)
    bucket = distance * 0
    if NUM_BUCKETS > 0:
        later = tl.load(times + first + row, mask=row < length, other=0)
        earlier = tl.load(times + first + column, mask=column < length, other=0)
        # products, for an exact division takes many registers
        seconds = tl.abs(later[:, None] - earlier[None, :]).to(tl.float32) * 1e-3
        bucket = (tl.log(tl.maximum(seconds, 1.0)) * (1 / BUCKET_WIDTH)).to(tl.int32)
        bucket = tl.minimum(bucket, NUM_BUCKETS - 1)
        bias += tl.load(by_time + bucket, mask=seen, other=0.0)
    return bias, bucket, seen


@triton.jit
def _silu(scores):
    """SiLU and its derivative."""
    sigmoid = tl.sigmoid(scores)
    value = scores * sigmoid
    return value, sigmoid + value * (1 - sigmoid)


@triton.jit
def forward_kernel(
    queries,
    keys,
    values,
    times,
    by_position,
    by_time,
    starts,
    block_user,
    first_block,
    num_users,
    stride,
    out_stride,
    share,
    attended,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_BUCKETS: tl.constexpr,
    BUCKET_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A block of rows of a head: share · SiLU(QKᵀ + bias) V."""
    user = tl.load(block_user + tl.program_id(0))
    if user >= num_users:
        return
    head = tl.program_id(1)
    first = tl.load(starts + user)
    length = tl.load(starts + user + 1) - first
    block = tl.program_id(0) - tl.load(first_block + user)
    row = block * BLOCK + tl.arange(0, BLOCK)
    query = _load(queries, first, row, length, stride, head, WIDTH, PADDED_WIDTH)
    total = tl.zeros([BLOCK, PADDED_WIDTH], tl.float32)
    for other in range(0, block + 1):
        column = other * BLOCK + tl.arange(0, BLOCK)
        key = _load(keys, first, column, length, stride, head, WIDTH, PADDED_WIDTH)
        value = _load(values, first, column, length, stride, head, WIDTH, PADDED_WIDTH)
        bias, _bucket, seen = _bias(
            times, by_position, by_time, first, row, column, length, NUM_BUCKETS, BUCKET_WIDTH
        )
        weight, _slope = _silu(dot(query, tl.trans(key), PRECISION) + bias)
        weight = tl.where(seen, weight, 0.0)
        total += dot(weight.to(value.dtype), value, PRECISION)
    _store(attended, first, row, length, out_stride, head, total * share, WIDTH, PADDED_WIDTH)


@triton.jit
def queries_kernel(
    queries,
    keys,
    values,
    times,
    by_position,
    by_time,
    starts,
    block_user,
    first_block,
    num_users,
    stride,
    out_stride,
    share,
    outer,
    by_queries,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_BUCKETS: tl.constexpr,
    BUCKET_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of a block of rows: its scores' gradients times the keys."""
    user = tl.load(block_user + tl.program_id(0))
    if user >= num_users:
        return
    head = tl.program_id(1)
    first = tl.load(starts + user)
    length = tl.load(starts + user + 1) - first
    block = tl.program_id(0) - tl.load(first_block + user)
    row = block * BLOCK + tl.arange(0, BLOCK)
    query = _load(queries, first, row, length, stride, head, WIDTH, PADDED_WIDTH)
    by_row = _load(outer, first, row, length, out_stride, head, WIDTH, PADDED_WIDTH)
    total = tl.zeros([BLOCK, PADDED_WIDTH], tl.float32)
    for other in range(0, block + 1):
        column = other * BLOCK + tl.arange(0, BLOCK)
        key = _load(keys, first, column, length, stride, head, WIDTH, PADDED_WIDTH)
        value = _load(values, first, column, length, stride, head, WIDTH, PADDED_WIDTH)
        bias, _bucket, seen = _bias(
            times, by_position, by_time, first, row, column, length, NUM_BUCKETS, BUCKET_WIDTH
        )
        _weight, slope = _silu(dot(query, tl.trans(key), PRECISION) + bias)
        by_score = tl.where(seen, dot(by_row, tl.trans(value), PRECISION) * slope, 0.0)
        total += dot(by_score.to(key.dtype), key, PRECISION)
    _store(by_queries, first, row, length, out_stride, head, total * share, WIDTH, PADDED_WIDTH)


@triton.jit
def keys_kernel(
    queries,
    keys,
    values,
    times,
    by_position,
    by_time,
    starts,
    block_user,
    first_block,
    num_users,
    stride,
    out_stride,
    share,
    outer,
    by_keys,
    by_values,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_BUCKETS: tl.constexpr,
    BUCKET_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of a block of columns: of its keys and of its values."""
    user = tl.load(block_user + tl.program_id(0))
    if user >= num_users:
        return
    head = tl.program_id(1)
    first = tl.load(starts + user)
    length = tl.load(starts + user + 1) - first
    block = tl.program_id(0) - tl.load(first_block + user)
    column = block * BLOCK + tl.arange(0, BLOCK)
    key = _load(keys, first, column, length, stride, head, WIDTH, PADDED_WIDTH)
    value = _load(values, first, column, length, stride, head, WIDTH, PADDED_WIDTH)
    of_keys = tl.zeros([BLOCK, PADDED_WIDTH], tl.float32)
    of_values = tl.zeros([BLOCK, PADDED_WIDTH], tl.float32)
    for other in range(block, tl.cdiv(length, BLOCK)):
        row = other * BLOCK + tl.arange(0, BLOCK)
        query = _load(queries, first, row, length, stride, head, WIDTH, PADDED_WIDTH)
        by_row = _load(outer, first, row, length, out_stride, head, WIDTH, PADDED_WIDTH)
        bias, _bucket, seen = _bias(
            times, by_position, by_time, first, row, column, length, NUM_BUCKETS, BUCKET_WIDTH
        )
        weight, slope = _silu(dot(query, tl.trans(key), PRECISION) + bias)
        weight = tl.where(seen, weight, 0.0)
        of_values += dot(tl.trans(weight.to(by_row.dtype)), by_row, PRECISION)
        by_score = tl.where(seen, dot(by_row, tl.trans(value), PRECISION) * slope, 0.0)
        of_keys += dot(tl.trans(by_score.to(query.dtype)), query, PRECISION)
    _store(by_keys, first, column, length, out_stride, head, of_keys * share, WIDTH, PADDED_WIDTH)
    _store(
        by_values, first, column, length, out_stride, head, of_values * share, WIDTH, PADDED_WIDTH
    )


@triton.jit
def biases_kernel(
    queries,
    keys,
    values,
    times,
    by_position,
    by_time,
    starts,
    num_users,
    stride,
    out_stride,
    share,
    outer,
    of_distances,
    of_buckets,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_BUCKETS: tl.constexpr,
    BINS: tl.constexpr,
    BUCKET_WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of both biases by some users, from tiles that are `apart` blocks off the diagonal.

    Such a tile holds the distances from (apart - 1) · BLOCK + 1 to (apart + 1) · BLOCK - 1. Row i
    is turned so that column m holds distance m (below the tile's diagonal) or m - BLOCK (above
    it), each relative to apart · BLOCK; a sum over rows then is a sum over distances.
    """
    chunk, apart = tl.program_id(0), tl.program_id(1)
    inside = tl.arange(0, BLOCK)
    turned_from = (inside[:, None] - inside[None, :]) & (BLOCK - 1)
    is_below = inside[:, None] >= inside[None, :]
    below = tl.zeros([BLOCK], tl.float32)
    above = tl.zeros([BLOCK], tl.float32)
    bins = tl.arange(0, BINS)
    histogram = tl.zeros([BINS], tl.float32)
    for user in range(chunk, num_users, tl.num_programs(0)):
        first = tl.load(starts + user)
        length = tl.load(starts + user + 1) - first
        for block in range(apart, tl.cdiv(length, BLOCK)):
            row = block * BLOCK + inside
            column = (block - apart) * BLOCK + inside
            bias, bucket, seen = _bias(
                times, by_position, by_time, first, row, column, length, NUM_BUCKETS, BUCKET_WIDTH
            )
            total = tl.zeros([BLOCK, BLOCK], tl.float32)
            for head in range(0, HEADS):
                query = _load(queries, first, row, length, stride, head, WIDTH, PADDED_WIDTH)
                key = _load(keys, first, column, length, stride, head, WIDTH, PADDED_WIDTH)
                value = _load(values, first, column, length, stride, head, WIDTH, PADDED_WIDTH)
                by_row = _load(outer, first, row, length, out_stride, head, WIDTH, PADDED_WIDTH)
                _weight, slope = _silu(dot(query, tl.trans(key), PRECISION) + bias)
                total += dot(by_row, tl.trans(value), PRECISION) * slope
            total = tl.where(seen, total, 0.0)
            turned = tl.gather(total, turned_from, 1)
            below += tl.sum(tl.where(is_below, turned, 0.0), 0)
            above += tl.sum(tl.where(is_below, 0.0, turned), 0)
            if NUM_BUCKETS > 0:
                # few buckets lie in a tile away from the diagonal: they grow with the logarithm
                lowest = tl.min(tl.where(seen, bucket, NUM_BUCKETS))
                highest = tl.max(tl.where(seen, bucket, -1))
                for there in range(lowest, highest + 1):
                    in_bucket = tl.sum(tl.where(bucket == there, total, 0.0))
                    histogram += tl.where(bins == there, in_bucket, 0.0)
    place = chunk * tl.num_programs(1) + apart
    tl.store(of_distances + place * 2 * BLOCK + inside, below * share)
    tl.store(of_distances + place * 2 * BLOCK + BLOCK + inside, above * share)
    if NUM_BUCKETS > 0:
        tl.store(of_buckets + place * BINS + bins, histogram * share)
