"""Softmax cross-entropy of queries over a pool of items, at any size (NxtPost equation 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.nn.kernels import has_triton
from recsys.nn.softmax.exclusions import Exclusions, Owned
from recsys.nn.softmax.pool import sample_pool
from recsys.nn.softmax.tiled import tiled_loss

__all__ = ["Owned", "pool_softmax_loss", "sample_pool"]


def pool_softmax_loss(
    queries: Tensor,
    pool: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    owner: Tensor | None = None,
    owned: Owned | None = None,
    log_q: Tensor | None = None,
    weights: Tensor | None = None,
    negatives: Tensor | None = None,
) -> Tensor:
    """Weighted mean over queries of ``-log softmax`` of the target among it and its negatives.

    For query q with target t, ``x_qp = scale · queries_q · pool_p - log_q_p`` and N(q) the
    positions of ``negatives`` without t and without the items of q's owner::

        loss_q = -log( exp(x_qt) / (exp(x_qt) + Σ_{p in N(q)} exp(x_qp)) )
        loss   = Σ_q weights_q · loss_q / Σ_q weights_q

    Equation 6 of NxtPost has ``queries`` and ``pool`` normalised and ``scale`` between 15 and 20;
    the full softmax of SASRec has the catalogue as pool. The [Q, P] logits are never in memory
    together: it grows with (Q + P) · D, and with the number of own items. On CUDA a Triton kernel
    takes them tile by tile, once for the loss and anew for either gradient; elsewhere (and on
    CUDA without Triton, in float64, or beyond width 256) ``tiled_loss`` does. Both
    are exact.

    Computed in float32 (float64 where an input is), on CUDA also from float16 and bfloat16
    inputs with sums in float32. Under autocast on CUDA the inputs are cast as those of a matrix
    product would be. Float32 products on CUDA follow ``torch.set_float32_matmul_precision``: one
    TF32 product where it allows that, else three that add up to float32.

    Args:
        queries: [Q, D].
        pool: [P, D]. In a pool that holds an item more than once a copy of the target is its
            negative (an accidental hit) unless it is ``owned``.
        target: [Q] int64, positions in the pool.
        scale: of the dot products.
        owner: [Q] int64, whose query it is; together with ``owned``. Rows of one owner should lie
            together.
        owned: what belongs to each owner; the target counts as positive all the same.
        log_q: [P], logarithm of how probable the item is as a negative (logQ correction);
            subtracted from negatives and targets alike. A constant.
        weights: [Q], not negative; constants. A query of weight 0 counts nothing, whatever its
            values and its target. None weighs all alike.
        negatives: [N] int64 distinct positions of the pool (``sample_pool``); None for all.

    Returns:
        Scalar, differentiable in ``queries`` and ``pool``. 0, with gradients of 0, where there
        are no queries, or none of weight above 0. A query without a negative costs 0.

    Raises:
        ValueError: shapes that do not fit, or (not checked on CUDA) a target outside the pool.
    """
    _check_shapes(queries, pool, target, owner, owned)
    if weights is not None:
        idle = weights == 0  # nothing of theirs must count, no NaN either
        queries = queries.masked_fill(idle.unsqueeze(1), 0)
        target = target.masked_fill(idle, 0)
        owner = None if owner is None else owner.masked_fill(idle, 0)
        if not len(pool):  # then all are
            queries, target, weights = queries[:0], target[:0], weights[:0]
            owner = None if owner is None else owner[:0]
    _check_targets(target, len(pool))
    queries, pool = _common_type(queries, pool)
    exact = torch.promote_types(queries.dtype, torch.float32)
    coefficient = _shares(weights, len(queries), queries.device).to(exact)

    # In float32 before rows are picked, so that the gradient of a popular item adds up in float32.
    positive = (queries.to(exact) * pool.to(exact).index_select(0, target)).sum(dim=1) * scale
    if log_q is not None:
        log_q = log_q.detach().to(exact)
        positive = positive - log_q[target]
    columns, bias, exclusions = _columns(pool, log_q, target, owner, owned, negatives)
    if _has_kernel(queries):
        from recsys.nn.kernels.pool_softmax_triton import logsumexp_of_negatives

        lse = logsumexp_of_negatives(queries, columns, bias, exclusions, scale)
        cost = torch.logaddexp(lse - positive, torch.zeros_like(positive))
        return (coefficient * cost).sum()  # as a product of vectors autocast would round both
    if bias is None:
        bias = positive.new_zeros(len(columns))
    left = queries.to(exact) * scale
    return tiled_loss(left, columns.to(exact), bias, exclusions, positive, coefficient)


def _columns(
    pool: Tensor,
    log_q: Tensor | None,
    target: Tensor,
    owner: Tensor | None,
    owned: Owned | None,
    negatives: Tensor | None,
) -> tuple[Tensor, Tensor | None, Exclusions]:
    """The items that may be negatives [N, D], their -log q [N], and who excludes which of them."""
    bias = None if log_q is None else -log_q
    if negatives is None:
        return pool, bias, Exclusions(target, owner, owned)
    column = target.new_full((len(pool),), -1)
    column[negatives] = torch.arange(len(negatives), device=target.device)
    owned = None if owned is None else owned.among(column)
    bias = None if bias is None else bias[negatives]
    return pool.index_select(0, negatives), bias, Exclusions(column[target], owner, owned)


def _common_type(queries: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the type that their products are computed in."""
    common = torch.promote_types(queries.dtype, pool.dtype)
    if queries.device.type != "cuda":
        common = torch.promote_types(common, torch.float32)
    elif torch.is_autocast_enabled("cuda") and common != torch.float64:
        common = torch.get_autocast_dtype("cuda")
    return queries.to(common), pool.to(common)


def _has_kernel(queries: Tensor) -> bool:
    """Whether the Triton kernel takes these queries: on CUDA, not float64, of width 256 at most."""
    fits = queries.dtype != torch.float64 and queries.shape[1] <= 256
    return queries.device.type == "cuda" and fits and has_triton()


def _shares(weights: Tensor | None, num_queries: int, device: torch.device) -> Tensor:
    """What each query counts in the mean, [Q] float64; sums to 1, or to 0 if all weigh 0."""
    if weights is None:
        weights = torch.ones(num_queries, device=device)
    weights = weights.detach().double()
    total = weights.sum()
    return weights / torch.where(total > 0, total, 1.0)


def _check_shapes(
    queries: Tensor, pool: Tensor, target: Tensor, owner: Tensor | None, owned: Owned | None
) -> None:
    if queries.ndim != 2 or pool.ndim != 2 or queries.shape[1] != pool.shape[1]:
        raise ValueError(
            "queries [Q, D] and pool [P, D] must have the same width, not the shapes "
            f"{list(queries.shape)} and {list(pool.shape)}"
        )
    if target.shape != queries.shape[:1]:
        raise ValueError(
            f"target must have one position for each of {len(queries)} queries, not the shape "
            f"{list(target.shape)}"
        )
    if (owner is None) != (owned is None):
        raise ValueError("owner and owned belong together: give both or neither")


def _check_targets(target: Tensor, pool_size: int) -> None:
    if target.device.type != "cpu" or not len(target):
        return
    low, high = target.aminmax()
    if low < 0 or high >= pool_size:
        raise ValueError(
            f"targets are positions in the pool, 0 to {pool_size - 1}, not {low} to {high}"
        )
