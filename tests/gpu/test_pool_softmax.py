"""The Triton kernels on the GPU against the materialised loss and against the tiled one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.nn.softmax.exclusions import Owned
from recsys.nn.softmax.pool import sample_pool
from recsys.nn.softmax.pool_softmax import _has_kernel, pool_softmax_loss
from recsys.nn.softmax.reference import materialised_loss

pytestmark = pytest.mark.gpu


def make_case(
    num_queries: int, pool_size: int, width: int, num_owners: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """Normalised float64 embeddings on the GPU, with owners, logQ and weights."""
    generator = torch.Generator().manual_seed(seed)
    queries = F.normalize(torch.randn(num_queries, width, generator=generator).double())
    pool = F.normalize(torch.randn(pool_size, width, generator=generator).double())
    target = torch.randint(pool_size, (num_queries,), generator=generator)
    options: dict[str, Any] = {
        "scale": 18.0,
        "log_q": -9 * torch.rand(pool_size, generator=generator).double(),
        "weights": torch.randint(3, (num_queries,), generator=generator).double(),
    }
    if num_owners:
        owner = torch.randint(num_owners, (num_queries,), generator=generator).sort().values
        users = torch.randint(num_owners, (2 * pool_size,), generator=generator)
        items = torch.randint(pool_size, (2 * pool_size,), generator=generator)
        owned = Owned.from_pairs(torch.cat([users, owner]), torch.cat([items, target]), num_owners)
        options["owner"] = owner.cuda()
        options["owned"] = Owned(owned.offsets.cuda(), owned.items.cuda())
    options["log_q"], options["weights"] = options["log_q"].cuda(), options["weights"].cuda()
    return queries.cuda(), pool.cuda(), target.cuda(), options


def value_and_gradients(loss, queries, pool, target, options) -> tuple[Tensor, Tensor, Tensor]:
    queries, pool = (part.detach().clone().requires_grad_() for part in (queries, pool))
    value = loss(queries, pool, target, **options)
    return value.detach(), *torch.autograd.grad(value, [queries, pool])


def relative_error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2), (torch.float64, 1e-10)]
)
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("num_owners", [0, 1, 40])
@pytest.mark.parametrize("sizes", [(1000, 700, 64), (333, 4100, 50), (130, 70, 200)])
def test_equals_the_materialised_loss(
    sizes: tuple[int, int, int],
    num_owners: int,
    sampled: bool,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """Against float64 at the inputs as the type rounds them, so that only the loss is compared."""
    queries, pool, target, options = make_case(*sizes, num_owners)
    if sampled:
        options["negatives"] = sample_pool(len(pool), len(pool) // 3, "cuda")
    queries, pool = queries.to(dtype), pool.to(dtype)
    assert _has_kernel(queries) == (dtype != torch.float64)
    value, *gradients = value_and_gradients(pool_softmax_loss, queries, pool, target, options)
    exact, *exact_gradients = value_and_gradients(
        materialised_loss, queries.double(), pool.double(), target, options
    )
    assert abs(float(value - exact)) <= tolerance * float(exact)
    for ours, expected in zip(gradients, exact_gradients, strict=True):
        assert ours.dtype == dtype
        assert relative_error(ours, expected) <= tolerance


def test_tf32_is_a_choice_of_the_user() -> None:
    case = make_case(512, 512, 64, 0)
    exact = value_and_gradients(materialised_loss, *case)[0]
    single = (case[0].float(), case[1].float(), *case[2:])
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        rounded = value_and_gradients(pool_softmax_loss, *single)[0]
    finally:
        torch.set_float32_matmul_precision(before)
    assert abs(float(rounded - exact)) <= 2e-3 * float(exact)


def test_autocast_casts_as_a_matrix_product_would() -> None:
    queries, pool, target, options = make_case(200, 300, 64, 5)
    single = (queries.float(), pool.float())
    with torch.autocast("cuda", torch.bfloat16):
        ours = value_and_gradients(pool_softmax_loss, *single, target, options)
    cast = (queries.bfloat16(), pool.bfloat16())
    expected = value_and_gradients(pool_softmax_loss, *cast, target, options)
    torch.testing.assert_close(ours[0], expected[0])
    for mine, reference in zip(ours[1:], expected[1:], strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, reference.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edges(dtype: torch.dtype) -> None:
    """One user alone has no negatives; no queries, no pool, weights of 0: a loss of 0."""
    queries, pool, target, _ = make_case(6, 5, 16, 0)
    queries, pool = queries.to(dtype), pool.to(dtype)
    alone = {
        "owner": torch.zeros_like(target),
        "owned": Owned(torch.tensor([0, 5]).cuda(), torch.arange(5).cuda()),
    }
    nothing = {"weights": torch.zeros(6).cuda()}
    cases = [
        (queries, pool, target, alone),
        (queries[:0], pool, target[:0], {}),
        (queries, pool[:0], target, nothing),
        (queries, pool, target - 100, nothing),
    ]
    for case in cases:
        for part in value_and_gradients(pool_softmax_loss, *case):
            assert not part.any()


def test_memory_grows_linearly_to_the_size_of_the_paper() -> None:
    """1024 users of 100 steps at width 64; the logits in float32 would be 42 GB."""
    peaks = []
    for users in (256, 1024):
        size = 100 * users
        queries = F.normalize(torch.randn(size, 64, device="cuda")).bfloat16().requires_grad_()
        pool = F.normalize(torch.randn(size, 64, device="cuda")).bfloat16().requires_grad_()
        own = torch.arange(size, device="cuda")
        owned = Owned(torch.arange(0, size + 1, 100, device="cuda"), own)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss = pool_softmax_loss(queries, pool, own, scale=20.0, owner=own // 100, owned=owned)
        loss.backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        assert torch.isfinite(loss)
    assert peaks[1] < 2**30
    assert peaks[1] < 4.5 * peaks[0]


def test_random_masks_agree_with_the_tiled_loss() -> None:
    """Sizes around the edges of tiles, against the tiled loss on the CPU."""
    for seed, (num_queries, pool_size) in enumerate([(1, 1), (63, 65), (64, 64), (129, 257)]):
        queries, pool, target, options = make_case(num_queries, pool_size, 24, 3, seed)
        options["weights"] = torch.ones(num_queries, device="cuda")
        single = (queries.float(), pool.float(), target)
        ours = value_and_gradients(pool_softmax_loss, *single, options)
        moved = {key: _to_cpu(value) for key, value in options.items()}
        plain = value_and_gradients(pool_softmax_loss, *(part.cpu() for part in single), moved)
        for mine, reference in zip(ours, plain, strict=True):
            torch.testing.assert_close(mine.cpu(), reference, rtol=1e-4, atol=1e-6)


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Owned):
        return Owned(value.offsets.cpu(), value.items.cpu())
    return value.cpu() if isinstance(value, Tensor) else value
